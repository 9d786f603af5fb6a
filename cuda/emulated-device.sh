#!/usr/bin/env bash
# usage: emulated-device.sh DIR    an emulated GPU for programs built with the feature `cuda`: run them with LD_LIBRARY_PATH=DIR
set -euo pipefail
here=$(dirname "$(realpath "$0")")
mkdir -p "$1"
"${CXX:-c++}" -std=c++17 -O2 -fno-strict-aliasing -ffp-contract=off -fPIC -shared -pthread -w -I "$here/emulate" -x c++ \
  "$here"/kernels/*.cu "$here/emulate/driver.cpp" -o "$1/libcuda.so.1"
for library in libcublas.so.13 libcurand.so.10; do ln -sf libcuda.so.1 "$1/$library"; done
