#!/usr/bin/env bash
# pack.sh TAG TARGET [VARIANT] puts what was built for TARGET (with --profile dist) into packed/: an archive for each program, with
# its licences, the README, and of nat-infer the manual page and the completions. install.sh and the [package.metadata.binstall]
# tables know the names. A variant packs nat-infer alone, under another name, so that nobody gets it by chance.
set -euo pipefail
cd "$(dirname "$0")/.."

tag=$1 target=$2 variant=${3:-}
built=target/$target/dist
suffix=
case $target in *-windows-*) suffix=.exe ;; esac
mkdir -p packed

pack() {
  local name=$1 readme=$2
  local folder=$name$variant-$tag-$target
  rm -rf "packed/$folder"
  mkdir "packed/$folder"
  cp "$built/$name$suffix" LICENSE-APACHE LICENSE-MIT CHANGELOG.md "packed/$folder/"
  cp "$readme" "packed/$folder/README.md"
  if [ "$name" = nat-infer ]; then
    "$built/$name$suffix" man > "packed/$folder/nat-infer.1"
    mkdir "packed/$folder/completions"
    for shell in bash elvish fish powershell zsh; do
      "$built/$name$suffix" completions "$shell" > "packed/$folder/completions/nat-infer.$shell"
    done
  fi
  (
    cd packed
    if [ -n "$suffix" ]; then
      7z a -bd -tzip "$folder.zip" "$folder" > /dev/null
    else
      tar -czf "$folder.tar.gz" "$folder"
    fi
    rm -rf "$folder"
  )
}

pack nat-infer README.md
if [ -z "$variant" ]; then
  readme=convert/README.md
  [ -f "$readme" ] || readme=README.md
  pack nat-convert "$readme"
fi
