#!/usr/bin/env bash
# release-check.sh TAG: fails unless the tag is `v` and the workspace's version, and CHANGELOG.md has a section for it. Prints
# that section.
set -euo pipefail
cd "$(dirname "$0")/.."

tag=${1:?usage: release-check.sh TAG}
# The first `version` after the heading is the workspace's.
version=$(sed -n '/^\[workspace\.package\]/,/^\[[^w]/ s/^version = "\(.*\)"$/\1/p' Cargo.toml)
[ "$tag" = "v$version" ] || { echo "the tag is $tag, and Cargo.toml's version is $version" >&2; exit 1; }
# `## 0.1.0`, `## [0.1.0]`, either with a date behind it.
notes=$(awk -v version="$version" '
  /^## / { name = $2; gsub(/[][]/, "", name); wanted = name == version; next }
  wanted' CHANGELOG.md)
[ -n "${notes//[[:space:]]/}" ] || { echo "CHANGELOG.md has no section \"## $version\", or nothing stands in it" >&2; exit 1; }
printf '%s\n' "$notes"
