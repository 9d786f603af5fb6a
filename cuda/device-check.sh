#!/usr/bin/env bash
# Checks and times everything on a machine with a GPU. Needs nothing there but the driver, CUDA's runtime libraries (on
# LD_LIBRARY_PATH) and what `pack` put into a folder:
#   cuda/device-check.sh pack DIR    builds with --features cuda; DIR gets the binaries, the golden data and this script
#   DIR/device-check.sh              runs there; figures go to stdout, and to DIR/report.txt
set -euo pipefail
here=$(dirname "$(realpath "$0")")

if [ "${1:-}" = pack ]; then
  root=$(dirname "$here") target=$(realpath -m "${2:?pack takes the folder to fill}")
  mkdir -p "$target/tests"
  cd "$root"
  cargo build --release --features cuda
  cp target/release/nat-infer "$target/"
  cargo test --release --features cuda --no-run --message-format json --lib --test networks --test gpu --test openmmlab |
    grep -o '"executable":"[^"]*"' | cut -d '"' -f 4 | while read -r binary; do
      cp "$binary" "$target/tests/$(basename "$binary" | sed 's/-[0-9a-f]*$//')"
    done
  cp -r tests/golden cuda/device-check.sh "$target/"
  exit
fi

cd "$here"
exec > >(tee report.txt) 2>&1
# What fails is told at the end: a machine with a GPU is asked once.
failed=()
step() { "$@" || failed+=("$*"); }
date -u
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader

echo '== conformance: the self-test, the operator with its gradient, networks, threads, detectors, segmenters'
step ./nat-infer doctor --device cuda
export NAT_INFER_GOLDEN=$here/golden NAT_INFER_CARD_ONLY=1
step tests/nat_infer attention::tests::gpu --nocapture
step tests/networks gpu --nocapture
step tests/gpu --nocapture
step tests/openmmlab --nocapture

echo '== compute-sanitizer'
if command -v compute-sanitizer > /dev/null; then
  for tool in memcheck racecheck; do
    step compute-sanitizer --tool "$tool" --error-exitcode 1 ./nat-infer bench --op --arch nat-tiny --resolution 64 --device cuda --runs 1
  done
else
  echo 'compute-sanitizer is not on PATH: skipped'
fi

bench() { step ./nat-infer bench --device cuda --runs 20 "$@"; }
echo '== operator, batch 64'
for dtype in f16 f32; do bench --op --arch nat-tiny --dtype $dtype --batch-size 64; done
echo '== networks'
# Recorded up to 32 images, launched one by one beyond.
for batch in 1 8 32 33 128; do bench --arch nat-tiny --dtype f16 --batch-size $batch; done
bench --arch nat-tiny --dtype f32 --batch-size 128
for model in nat-mini nat-base dinat-tiny; do bench --arch $model --dtype f16 --batch-size 64; done
for batch in 1 32; do bench --arch nat-tiny --dtype f16 --batch-size $batch --gradients; done
for model in mask-rcnn-nat-tiny upernet-nat-tiny; do bench --arch $model --dtype f16; done

printf 'failed: %s\n' "${failed[@]:-nothing}"
exit "$((${#failed[@]} > 0))"
