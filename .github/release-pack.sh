#!/usr/bin/env bash
# release-pack.sh VERSION TARGET BUILT [SUFFIX]: tries the programs in the folder BUILT and packs them for TARGET, with what
# belongs to them, into archives/. THIRD-PARTY-LICENCES.txt is what release-licences.sh printed. Runs on Linux, on macOS and in
# Git's bash on Windows.
set -euo pipefail
cd "$(dirname "$0")/.."

usage='usage: release-pack.sh VERSION TARGET BUILT [SUFFIX]'
version=${1:?$usage} target=${2:?$usage} built=${3:?$usage} suffix=${4:-}
name=nat-infer-v$version-$target$suffix
case $target in
  *-windows-*) exe=.exe ;;
  *) exe='' ;;
esac
program=$built/nat-infer$exe

# The model is built in: nothing is fetched. `--device auto` finds no GPU.
answer=$("$program" classify assets/nine.png --model demo-digits --format json)
printf '%s\n' "$answer"
case $answer in
  *'"top":[{"index":9,"label":"9",'*) ;;
  *) echo "$program sees no nine in assets/nine.png" >&2; exit 1 ;;
esac
"$program" --version
"$built/nat-convert$exe" --version

rm -rf "archives/$name"
mkdir -p "archives/$name/man" "archives/$name/completions"
cp "$program" "$built/nat-convert$exe" "archives/$name"
cp LICENSE-APACHE LICENSE-MIT THIRD-PARTY-LICENCES.txt README.md CHANGELOG.md "archives/$name"
"$program" man > "archives/$name/man/nat-infer.1"
for command in classify detect segment saliency features bench models; do
  "$program" man "$command" > "archives/$name/man/nat-infer-$command.1"
done
# Named as each shell looks for them.
"$program" completions bash > "archives/$name/completions/nat-infer.bash"
"$program" completions zsh > "archives/$name/completions/_nat-infer"
"$program" completions fish > "archives/$name/completions/nat-infer.fish"
"$program" completions powershell > "archives/$name/completions/_nat-infer.ps1"

cd archives
if [ -n "$exe" ]; then
  # Git's bash has no zip.
  python -m zipfile -c "$name.zip" "$name"
else
  tar -czf "$name.tar.gz" "$name"
fi
rm -rf "$name"
