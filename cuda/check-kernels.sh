#!/usr/bin/env bash
# Compiles every kernel for the architectures that are promised, prints what each takes, and fails if one spills registers.
# nvcc is that of $NVCC or of PATH; without either it is fetched from PyPI into target/nvcc. Needs no GPU.
set -euo pipefail
here=$(dirname "$(realpath "$0")")

nvcc=${NVCC:-$(command -v nvcc || true)}
if [ -z "$nvcc" ]; then
  folder=$here/../target/nvcc
  if ! nvcc=$(ls "$folder"/lib/python3*/site-packages/nvidia/cu13/bin/nvcc 2>/dev/null); then
    python3 -m venv "$folder" 2>/dev/null || {
      apt-get install -qq -y python3-venv >/dev/null
      python3 -m venv "$folder"
    }
    "$folder/bin/pip" install -q --disable-pip-version-check 'nvidia-cuda-nvcc==13.0.*' 'nvidia-cuda-runtime==13.0.*' \
      'nvidia-cuda-crt==13.0.*' 'nvidia-nvvm==13.0.*' 'nvidia-cuda-cccl==13.0.*'
    nvcc=$(ls "$folder"/lib/python3*/site-packages/nvidia/cu13/bin/nvcc)
  fi
fi

cubin=$(mktemp)
trap 'rm -f "$cubin"' EXIT
printf '%-32s %s\n' kernel 'registers on sm_75, sm_80, sm_90'
for architecture in 75 80 90; do
  for source in "$here"/kernels/*.cu; do
    # The matrix units' instructions begin with compute capability 8.0.
    [ "$architecture" = 75 ] && [ "$(basename "$source")" = attention_mma.cu ] && continue
    "$nvcc" -std=c++17 -O3 -arch=sm_"$architecture" -cubin -Xptxas -v -o "$cubin" "$source" 2>&1 ||
      { echo "nvcc failed on $source for sm_$architecture" >&2; exit 1; }
  done | sed "s/^/$architecture /"
done | awk '
  /Compiling entry function/ { split($0, quoted, "\x27"); name = quoted[2]; names[name] }
  /bytes spill stores/ { if ($0 !~ / 0 bytes spill stores, 0 bytes spill loads/) { print "spills: " name " on sm_" $0; failed = 1 } }
  /Used [0-9]+ registers/ { match($0, /Used [0-9]+/); registers[name, $1] = substr($0, RSTART + 5, RLENGTH - 5) }
  /error|failed/ { print; failed = 1 }
  END {
    for (name in names)
      printf "%-32s %5s %5s %5s\n", name, registers[name, 75] + 0 ? registers[name, 75] : "-", registers[name, 80], registers[name, 90] | "sort"
    close("sort")
    if (failed || length(names) == 0) exit 1
  }'
