#!/usr/bin/env bash
# release-licences.sh: prints the licences of everything that is linked into the programs, on any system: which crates, and each
# text once. Takes cargo and jq.
set -euo pipefail
cd "$(dirname "$0")/.."

linked=$(cargo tree --locked -p nat-infer -p nat-convert -p nat-infer-python --features nat-infer/cuda -e normal --target all --prefix none --format '{p}' |
  cut -d' ' -f1,2 | sed 's/ v/ /' | sort -u)
packages=$(cargo metadata --locked --format-version 1 |
  jq -r '.packages[] | select(.source != null) | [.name + " " + .version, .license // "see its text", .manifest_path] | @tsv')

declare -A texts names
echo 'nat-infer, nat-convert and the wheel contain these crates:'
echo
while IFS=$'\t' read -r name licence manifest; do
  grep -qxF "$name" <<< "$linked" || continue
  printf '%s: %s\n' "$name" "$licence"
  # Not further down than the C code that some bring in a folder of its own.
  while IFS= read -r file; do
    hash=$(tr -d '\r' < "$file" | sha256sum)
    texts[$hash]=$file
    names[$hash]+="  $name"$'\n'
  done < <(find "$(dirname "$manifest")" -maxdepth 2 -type f \( -iname 'licen[cs]e*' -o -iname 'copying*' -o -iname 'notice*' \) \
    ! -name '*.rs' | sort)
done <<< "$packages"
for hash in "${!texts[@]}"; do
  printf '\n%s\nOf:\n%s\n' "$(printf '=%.0s' {1..100})" "$(sort -u <<< "${names[$hash]%$'\n'}")"
  echo
  tr -d '\r' < "${texts[$hash]}"
done
