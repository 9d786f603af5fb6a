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
  cargo test --release --features cuda --no-run --message-format json --lib --test networks --test openmmlab |
    grep -o '"executable":"[^"]*"' | cut -d '"' -f 4 | while read -r binary; do
      cp "$binary" "$target/tests/$(basename "$binary" | sed 's/-[0-9a-f]*$//')"
    done
  cp -r tests/golden cuda/device-check.sh "$target/"
  exit
fi

cd "$here"
exec > >(tee report.txt) 2>&1
date -u
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader

echo '== conformance: operator with its gradient, networks, detectors, segmenters'
export NAT_INFER_GOLDEN=$here/golden
tests/nat_infer attention::tests::gpu::golden --nocapture
tests/networks gpu --nocapture
tests/openmmlab --nocapture

echo '== compute-sanitizer'
if command -v compute-sanitizer > /dev/null; then
  for tool in memcheck racecheck; do
    compute-sanitizer --tool "$tool" --error-exitcode 1 ./nat-infer bench --op --arch nat-tiny --resolution 64 --device cuda --runs 1
  done
else
  echo 'compute-sanitizer is not on PATH: skipped'
fi

echo '== operator, f16, batch 64'
./nat-infer bench --op --arch nat-tiny --device cuda --dtype f16 --batch-size 64
./nat-infer bench --op --arch nat-tiny --device cuda --dtype f32 --batch-size 64
echo '== NAT-Tiny'
for batch in 1 128; do ./nat-infer bench --arch nat-tiny --device cuda --dtype f16 --batch-size "$batch" --runs 50; done
for model in nat-mini nat-base dinat-tiny; do ./nat-infer bench --arch "$model" --device cuda --dtype f16 --batch-size 64; done
for batch in 1 32; do ./nat-infer bench --arch nat-tiny --device cuda --dtype f16 --batch-size "$batch" --gradients; done
for model in mask-rcnn-nat-tiny upernet-nat-tiny; do ./nat-infer bench --arch "$model" --device cuda --dtype f16; done
