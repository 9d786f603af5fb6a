#!/bin/sh
# Installs nat-infer and nat-convert from a release, for the user who runs it:
#
#   curl -fsSL https://github.com/nat-infer/nat-infer/releases/latest/download/install.sh | sh
#
# sh install.sh --help says what can be chosen. What was downloaded is compared with the release's SHA256SUMS before anything is
# installed.

# Where releases are; a release's own copy names the repository that made it.
REPOSITORY=nat-infer/nat-infer

set -eu

usage() {
  cat << END
usage: install.sh [--to DIR] [--version VERSION] [--cuda]

  --to DIR           where the programs go [NAT_INFER_INSTALL_DIR, else ~/.local/bin]
  --version VERSION  a release such as 0.1.0 [the newest]
  --cuda             nat-infer for NVIDIA GPUs (x86-64 Linux)

NAT_INFER_RELEASES is another address than https://github.com/$REPOSITORY/releases.
END
}

fail() {
  echo "install.sh: $*" >&2
  exit 1
}

# The whole script is read before any of it runs: a download that breaks off does nothing.
main() {
  to=${NAT_INFER_INSTALL_DIR:-}
  version=
  variant=
  while [ $# -gt 0 ]; do
    case $1 in
      --to | --version)
        if [ $# -lt 2 ] || [ -z "$2" ]; then fail "$1 needs a value"; fi
        if [ "$1" = --to ]; then to=$2; else version=${2#v}; fi
        shift 2
        ;;
      --cuda) variant=-cuda && shift ;;
      --help | -h) usage && exit 0 ;;
      *) fail "there is no option '$1'; --help lists them" ;;
    esac
  done
  if [ -z "$to" ]; then
    [ -n "${HOME:-}" ] || fail "HOME is not set: say where to install with --to DIR"
    to=$HOME/.local/bin
  fi
  releases=${NAT_INFER_RELEASES:-https://github.com/$REPOSITORY/releases}

  for tool in uname mktemp tar gzip sed awk; do
    command -v "$tool" > /dev/null || fail "$tool is missing: install it and try again"
  done
  if command -v curl > /dev/null; then
    get=with_curl
  elif command -v wget > /dev/null; then
    get=with_wget
  else
    fail "curl or wget is missing: install one and try again"
  fi
  if command -v sha256sum > /dev/null; then
    sum=sha256sum
  elif command -v shasum > /dev/null; then
    sum="shasum -a 256"
  else
    fail "sha256sum or shasum is missing: install one and try again"
  fi

  target=$(platform)
  programs="nat-infer nat-convert"
  if [ -n "$variant" ]; then
    [ "$target" = x86_64-unknown-linux-musl ] || fail "--cuda is for x86-64 Linux, this is $target"
    target=x86_64-unknown-linux-gnu
    programs=nat-infer
  fi

  work=$(mktemp -d) || fail "can't make a folder for the download: is the disk full?"
  staged=
  # shellcheck disable=SC2154 # `one` is set by the loop
  trap 'rm -rf "$work"; for one in $staged; do rm -f "$to/$one"; done' EXIT
  trap 'exit 1' HUP INT TERM

  if [ -n "$version" ]; then
    files=$releases/download/v$version
  else
    files=$releases/latest/download
  fi
  $get "$files/SHA256SUMS" "$work/SHA256SUMS" ||
    fail "can't download $files/SHA256SUMS: is there such a release, and a network?"

  for program in $programs; do
    # The version of the newest release is read off the names.
    archive=$(awk -v start="$program$variant-v$version" -v end="-$target.tar.gz" '
      { name = $2; sub(/^\*/, "", name) }
      index(name, start) == 1 && substr(name, length(name) - length(end) + 1) == end && name !~ /\// { print name; exit }
    ' "$work/SHA256SUMS")
    [ -n "$archive" ] || fail "this release has no $program$variant for $target: build it with cargo install"
    $get "$files/$archive" "$work/$archive" || fail "can't download $files/$archive: try again later"
    expected=$(awk -v file="$archive" '{ name = $2; sub(/^\*/, "", name) } name == file { print $1; exit }' "$work/SHA256SUMS")
    found=$($sum "$work/$archive" | awk '{ print $1 }')
    [ "$expected" = "$found" ] ||
      fail "$archive is not what the release says (SHA-256 $found, expected $expected): nothing was installed"
    (cd "$work" && gzip -dc "$archive" | tar -xf - "${archive%.tar.gz}/$program") 2> "$work/reason" ||
      fail "can't unpack $archive: $(sed -n 1p "$work/reason")"
    [ -f "$work/${archive%.tar.gz}/$program" ] || fail "$archive has no $program in it: please report it"
    mv "$work/${archive%.tar.gz}/$program" "$work/$program"
  done

  mkdir -p "$to" 2> "$work/reason" || fail "can't make $to: $(sed -n 1p "$work/reason")"
  # Everything is beside its place before anything is put there: a program that runs is replaced whole.
  for program in $programs; do
    staged="$staged .$program.$$"
    { cp "$work/$program" "$to/.$program.$$" && chmod 755 "$to/.$program.$$"; } 2> "$work/reason" ||
      fail "can't write to $to ($(sed -n 1p "$work/reason")): choose another folder with --to DIR"
  done
  for program in $programs; do
    mv -f "$to/.$program.$$" "$to/$program" 2> "$work/reason" ||
      fail "can't replace $to/$program: $(sed -n 1p "$work/reason")"
    echo "installed $to/$program"
  done
  case :${PATH:-}: in
    *:"$to":*) ;;
    *) echo "$to is not on your PATH: add it there" ;;
  esac
}

# The target whose binary runs here.
platform() {
  system=$(uname -s)
  machine=$(uname -m)
  case $system in
    Linux) system=unknown-linux-musl ;;
    Darwin)
      system=apple-darwin
      # A shell under Rosetta says x86_64.
      if [ "$machine" = x86_64 ] && [ "$(sysctl -n sysctl.proc_translated 2> /dev/null)" = 1 ]; then machine=arm64; fi
      ;;
    MINGW* | MSYS* | CYGWIN*) fail "on Windows use cargo binstall nat-infer, or the zip of the release" ;;
    *) fail "there is no release for $system: build it with cargo install" ;;
  esac
  case $machine in
    x86_64 | amd64) machine=x86_64 ;;
    aarch64 | arm64) machine=aarch64 ;;
    *) fail "there is no release for $machine: build it with cargo install" ;;
  esac
  echo "$machine-$system"
}

with_curl() {
  curl -fsSL --retry 3 -o "$2" "$1" 2> /dev/null
}

with_wget() {
  wget -q -O "$2" "$1" 2> /dev/null
}

main "$@"
