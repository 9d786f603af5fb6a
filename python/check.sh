#!/usr/bin/env bash
# Builds the wheel, installs it where nothing is but what its tests take, and tests it there.
# usage: python/check.sh [OPTIONS OF PYTEST]
#   PROFILE=dist          how it is built; without it as tests are
#   NAT_INFER_ENGINES=1   with Ray, Spark, Dask and FiftyOne, a gigabyte of packages; Spark takes a Java
#   NAT_INFER_PROGRAMS=/…/target/debug  where the programs are, if they are built already
#   PYTHON=python3.13     which Python; it needs venv
# PyTorch is Debian's, which is for CPUs; where that can't be had, PyTorch's own for CPUs.
set -euo pipefail
cd "$(dirname "$0")"
python=${PYTHON:-/usr/bin/python3}
venv=$PWD/../target/python
quietly() { "$@" > "$venv.log" 2>&1 || { tail -n 40 "$venv.log" >&2; return 1; }; }

mkdir -p ../target
if ! "$python" -c 'import torch, venv, ensurepip' 2> "$venv.log" && command -v apt-get > /dev/null; then
    # Where there is no such package, the next step is another way.
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -qq -y python3-torch python3-venv; } > "$venv.log" 2>&1 || true
fi
"$python" -m venv --system-site-packages "$venv"
export PATH=$venv/bin:$PATH
python -c 'import torch' 2> "$venv.log" || quietly pip install torch --index-url https://download.pytorch.org/whl/cpu
quietly pip install -r requirements.txt
python -c 'import torch, transformers'
scripts=(. ../examples/*.py ../benches/engines.py)
ruff check --quiet --config pyproject.toml "${scripts[@]}"
ruff format --quiet --check --config pyproject.toml "${scripts[@]}"

rm -rf "$venv/wheels"
maturin build --locked --profile "${PROFILE:-dev}" --out "$venv/wheels"
NAT_INFER_WHEEL=$(ls "$venv"/wheels/*.whl)
export NAT_INFER_WHEEL
quietly pip install --force-reinstall --no-deps "$NAT_INFER_WHEEL"
# From a folder without the sources, so that the package is the one that was installed.
tests=$PWD/tests here=$PWD
cd "$venv"
tested() {
    # Where tests are chosen by name, there may be none of it in one place.
    python -m pytest -q -p no:cacheprovider "$@" || { [ $? -eq 5 ] && [[ " $* " == *" -k "* ]]; }
}
tested --ignore "$tests/readers" "$tests" "$@"

# What reads datasets, and the engines of examples/, have packages that do not go with PyTorch's: environments of their own.
beside() { # NAME TESTS...
    "$python" -m venv "$venv-$1"
    quietly "$venv-$1/bin/pip" install -r "$here/$1.txt"
    quietly "$venv-$1/bin/pip" install --force-reinstall --no-deps "$NAT_INFER_WHEEL"
    PATH=$venv-$1/bin:$PATH tested "${@:2}"
}
# labelme has a window, which it does not open here.
export QT_QPA_PLATFORM=offscreen LOGURU_LEVEL=WARNING
if ! ldconfig -p | grep -q libGL.so.1 && command -v apt-get > /dev/null; then
    apt-get install -qq -y libgl1 libegl1 libglib2.0-0 > "$venv.log" 2>&1 || true
fi
beside readers "$tests/readers/test_readers.py" "$@"
if [ "${NAT_INFER_ENGINES:-}" = 1 ]; then
    beside engines "$tests/test_engines.py" "$tests/readers/test_fiftyone.py" "$@"
fi
