#!/usr/bin/env bash
# Compiles every kernel for the architectures that are promised, prints the registers and instructions that each takes, and fails
# if one spills registers or exceeds its budget (budgets.txt). Needs no GPU.
#
# nvcc is that of $NVCC or of PATH, and nvdisasm, which shows the instructions, the one beside it or on PATH; what is not there
# is fetched from PyPI into target/nvcc.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
folder=$here/../target/nvcc

# fetch PROGRAM PACKAGE...: where the program of these packages lies
fetch() {
  local program=$1
  shift
  if ! ls "$folder"/lib/python3*/site-packages/nvidia/cu13/bin/"$program" 2>/dev/null; then
    [ -e "$folder/bin/python3" ] || python3 -m venv "$folder" 2>/dev/null || {
      apt-get install -qq -y python3-venv >/dev/null
      python3 -m venv "$folder"
    }
    "$folder/bin/python3" -m pip install -q --disable-pip-version-check "$@" >&2
    ls "$folder"/lib/python3*/site-packages/nvidia/cu13/bin/"$program"
  fi
}

nvcc=${NVCC:-$(command -v nvcc || fetch nvcc 'nvidia-cuda-nvcc==13.0.*' 'nvidia-cuda-runtime==13.0.*' \
  'nvidia-cuda-crt==13.0.*' 'nvidia-nvvm==13.0.*' 'nvidia-cuda-cccl==13.0.*')}
nvdisasm=$(dirname "$(realpath "$nvcc")")/nvdisasm
[ -x "$nvdisasm" ] || nvdisasm=$(command -v nvdisasm || fetch nvdisasm 'nvidia-cuda-nvdisasm==13.2.*') || {
  echo 'there is no nvdisasm, and PyPI has none: instructions are not counted' >&2
  nvdisasm=
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# compile SOURCE ARCHITECTURE: lines `registers ARCHITECTURE KERNEL COUNT`, `instructions ...` and `spills ...`
compile() {
  local name cubin
  name=$(basename "$1" .cu)
  cubin=$work/$name.$2
  if ! "$nvcc" -std=c++17 -O3 -arch=sm_"$2" -cubin -Xptxas -v -o "$cubin" "$1" >"$cubin.log" 2>&1; then
    sed 's/^/failed /' "$cubin.log"
    echo "failed nvcc on $1 for sm_$2"
    return
  fi
  awk -v architecture="$2" '
    /Compiling entry function/ { split($0, quoted, "\x27"); name = quoted[2] }
    /bytes spill stores/ && !/ 0 bytes spill stores, 0 bytes spill loads/ { print "spills", architecture, name, 1 }
    /Used [0-9]+ registers/ { match($0, /Used [0-9]+/); print "registers", architecture, name, substr($0, RSTART + 5, RLENGTH - 5) }
  ' "$cubin.log"
  if [ -n "$nvdisasm" ]; then
    # Behind its last instruction a kernel is filled up with NOPs.
    "$nvdisasm" -c "$cubin" | awk -v architecture="$2" '
      /^[ \t]*\.section[ \t]+\.text\./ { name = $2; sub(/^\.text\./, "", name); sub(/,.*/, "", name) }
      /^[ \t]+\/\*[0-9a-f]+\*\// && !/ NOP/ { count[name]++ }
      END { for (name in count) print "instructions", architecture, name, count[name] }' || echo "failed nvdisasm on $1 for sm_$2"
  fi
}
export -f compile
export nvcc nvdisasm work

for architecture in 90 80 75; do
  for source in "$here"/kernels/*.cu; do
    # The matrix units' instructions begin with compute capability 8.0.
    [ "$architecture" = 75 ] && [ "$(basename "$source")" = attention_mma.cu ] && continue
    printf '%s\0%s\0' "$source" "$architecture"
  done
done | xargs -0 -n 2 -P "$(nproc)" bash -c 'compile "$0" "$1" >"$(mktemp -p "$work" found.XXXXXX)"'

cat "$work"/found.* | awk '
  FILENAME != "-" && /^[^#]/ { registers_allowed[$1] = $2; instructions_allowed[$1] = $3 }
  FILENAME != "-" { next }
  $1 == "registers" { registers[$3, $2] = $4; names[$3] }
  $1 == "instructions" { instructions[$3, $2] = $4 }
  $1 == "spills" { problems[++count] = $3 " spills registers on sm_" $2 }
  $1 == "failed" { sub(/^failed /, ""); problems[++count] = $0 }
  function shown(table, name, architecture) { return (name, architecture) in table ? table[name, architecture] : "-" }
  function check(table, allowed, name, architecture, what) {
    if (name in allowed && (name, architecture) in table && table[name, architecture] + 0 > allowed[name] + 0)
      problems[++count] = name " takes " table[name, architecture] " " what " on sm_" architecture ", more than the " allowed[name] " of budgets.txt"
  }
  END {
    printf "%-32s %-23s %s\n%-32s %7s %7s %7s %7s %7s\n", "", "registers", "instructions", "kernel", "sm_75", "sm_80", "sm_90", "sm_80", "sm_90"
    for (name in names) {
      printf "%-32s %7s %7s %7s %7s %7s\n", name, shown(registers, name, 75), shown(registers, name, 80), shown(registers, name, 90),
        shown(instructions, name, 80), shown(instructions, name, 90) | "sort"
      split("75 80 90", architectures, " ")
      for (i in architectures) {
        check(registers, registers_allowed, name, architectures[i], "registers")
        if (architectures[i] != 75) check(instructions, instructions_allowed, name, architectures[i], "instructions")
      }
    }
    close("sort")
    for (name in registers_allowed) if (!(name in names)) problems[++count] = "budgets.txt has a kernel that there is not: " name
    if (length(names) == 0) problems[++count] = "there are no kernels"
    for (i = 1; i <= count; i++) print problems[i]
    exit count > 0
  }' "$here"/budgets.txt -
