#!/usr/bin/env bash
# notes.sh TAG prints what CHANGELOG.md says of a version. Fails where the tag is not the workspace's version, or the changelog
# has no section for it.
set -euo pipefail
cd "$(dirname "$0")/.."

tag=$1
version=$(sed -n '/^\[workspace\.package\]/,/^$/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
if [ "$tag" != "v$version" ]; then
  echo "the tag is $tag, the version in Cargo.toml $version: one of them has to change" >&2
  exit 1
fi
# `## 0.1.0` or `## [0.1.0]`, with a date behind it or none.
section=$(awk -v version="$version" '
  /^## / { name = $2; gsub(/[][]/, "", name); inside = name == version; next }
  inside' CHANGELOG.md)
if [ -z "${section//[[:space:]]/}" ]; then
  echo "CHANGELOG.md has no section \"## $version\", or nothing stands in it" >&2
  exit 1
fi
printf '%s\n' "$section"
