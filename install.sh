#!/bin/sh
# Installs the programs nat-infer and nat-convert from the project's releases:
#
#     curl -fsSL https://github.com/nat-infer/nat-infer/releases/latest/download/install.sh | sh
#     curl -fsSL https://github.com/nat-infer/nat-infer/releases/latest/download/install.sh | sh -s -- --to ~/bin
#
# Takes sh, tar, curl or wget, and one of sha256sum, shasum, openssl. Never asks for root, and writes nothing but the two
# programs, into one folder, once they are compared with the release's checksums and have said their versions.
set -eu

usage() {
    cat << 'END'
Installs nat-infer and nat-convert.

usage: install.sh [--to DIR] [--version VERSION]

  --to DIR           where to (NAT_INFER_INSTALL_DIR; else ~/.local/bin)
  --version VERSION  which release, such as 0.1.0 (NAT_INFER_VERSION; else the latest)
  --help             this

NAT_INFER_RELEASES names another address with the same files: a mirror's, a fork's.
END
}

# The whole reason in one line, and the end.
fail() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

# Is there such a program?
have() {
    command -v "$1" > /dev/null 2>&1
}

# Prints the platform as the releases name it.
platform() {
    system=$(uname -s) || fail "can't tell this system: uname -s failed"
    machine=$(uname -m) || fail "can't tell this processor: uname -m failed"
    # A shell that macOS translates says x86_64 on an arm64 machine.
    if [ "$system $machine" = 'Darwin x86_64' ] && [ "$(sysctl -n hw.optional.arm64 2> /dev/null || true)" = 1 ]; then
        machine=arm64
    fi
    case $system/$machine in
        Linux/x86_64 | Linux/amd64) echo x86_64-unknown-linux-musl ;;
        Linux/aarch64 | Linux/arm64) echo aarch64-unknown-linux-musl ;;
        Darwin/arm64 | Darwin/aarch64) echo aarch64-apple-darwin ;;
        MINGW*/* | MSYS*/* | CYGWIN*/*)
            fail "this is for Linux and macOS; on Windows unpack the .zip from $releases/latest"
            ;;
        *) fail "no release is built for $system on $machine; with Rust and a C compiler: cargo install nat-infer nat-convert" ;;
    esac
}

# fetch ADDRESS FILE: all of it, or a line that says why not.
fetch() {
    said=''
    if have curl; then
        # What begins encrypted stays so, wherever it is sent on to.
        case $1 in
            https://*) protocols='=https' ;;
            *) protocols='=http,https' ;;
        esac
        said=$(curl --proto "$protocols" --proto-redir "$protocols" --fail --silent --show-error --location \
            --connect-timeout 30 --retry 3 --output "$2" "$1" 2>&1) && return
    elif have wget; then
        # No limit of time: the option for it crashes the wget of some BusyBoxes.
        said=$(wget -O "$2" "$1" 2>&1) && return
    else
        fail "neither curl nor wget is here: install one of them"
    fi
    said=$(printf '%s' "$said" | grep . | tail -n 1)
    fail "can't fetch $1${said:+: $said}"
}

# Prints the SHA-256 of a file.
sha256() {
    if have sha256sum; then
        sum=$(sha256sum < "$1")
    elif have shasum; then
        sum=$(shasum -a 256 < "$1")
    elif have openssl; then
        sum=$(openssl dgst -sha256 -r < "$1")
    else
        fail "none of sha256sum, shasum and openssl is here: install one, the download has to be checked"
    fi
    printf '%s\n' "${sum%% *}"
}

# Looks for the archive of $target in the list of checksums; of the latest release the version is told by its name.
# Sets $archive, $version and $expected.
choose() {
    archive=''
    while read -r sum name; do
        name=${name#\*}
        name=${name#./}
        case $name in
            nat-infer-v*-"$target.tar.gz") ;;
            *) continue ;;
        esac
        found=${name#nat-infer-v}
        found=${found%-"$target.tar.gz"}
        if [ -z "$version" ]; then
            # Not a variant, whose name says more than a version.
            case $found in
                *[!0-9.]*) continue ;;
            esac
        elif [ "$found" != "$version" ]; then
            continue
        fi
        archive=$name expected=$sum version=$found
        return
    done < "$1"
}

# Leaves nothing behind, whatever ended this.
clean() {
    [ -z "$scratch" ] || rm -rf "$scratch"
    [ -z "$staged" ] || rm -rf "$staged"
}

install_programs() {
    releases=${NAT_INFER_RELEASES:-https://github.com/nat-infer/nat-infer/releases}
    releases=${releases%/}
    version=${NAT_INFER_VERSION:-}
    to=${NAT_INFER_INSTALL_DIR:-}
    while [ $# -gt 0 ]; do
        case $1 in
            --to | --version)
                [ -n "${2:-}" ] || fail "$1 needs a value; --help says more"
                if [ "$1" = --to ]; then to=$2; else version=$2; fi
                shift 2
                ;;
            --to=?*) to=${1#*=} && shift ;;
            --version=?*) version=${1#*=} && shift ;;
            -h | --help) usage && return ;;
            *) fail "unknown argument $1; --help lists them" ;;
        esac
    done
    version=${version#v}
    case $version in
        *[!0-9A-Za-z.+-]*) fail "$version is no version; one looks like 0.1.0" ;;
    esac
    if [ -z "$to" ]; then
        [ -n "${HOME:-}" ] || fail "HOME is not set: say where to with --to DIR"
        to=$HOME/.local/bin
    fi
    have tar || fail "tar is not here: install it"
    target=$(platform)

    scratch='' staged=''
    trap clean EXIT
    trap 'exit 1' HUP INT TERM
    # Asked for first, so that nothing is fetched in vain.
    mkdir -p "$to" 2> /dev/null || fail "can't make the folder $to: choose another with --to DIR"
    to=$(cd "$to" && pwd) || fail "can't enter the folder $to: choose another with --to DIR"
    # Beside the programs that they replace, so that each changes its place at once.
    staged=$(mktemp -d "$to/.nat-infer.XXXXXX" 2> /dev/null) || fail "can't write to $to: choose another with --to DIR"
    scratch=$(mktemp -d 2> /dev/null) || fail "can't make a temporary folder: set TMPDIR to one that can be written to"

    if [ -n "$version" ]; then from=$releases/download/v$version; else from=$releases/latest/download; fi
    fetch "$from/SHA256SUMS" "$scratch/SHA256SUMS"
    choose "$scratch/SHA256SUMS"
    [ -n "$archive" ] || fail "$from/SHA256SUMS lists no archive for $target: see $releases for what there is"
    # By the version, so that a release that appears meanwhile changes nothing.
    from=$releases/download/v$version/$archive
    fetch "$from" "$scratch/$archive"
    got=$(sha256 "$scratch/$archive")
    [ "$got" = "$expected" ] || fail "$from is damaged: its SHA-256 is $got, SHA256SUMS says $expected; try again"

    folder=${archive%.tar.gz}
    tar -xzf "$scratch/$archive" -C "$scratch" 2> /dev/null || fail "can't unpack $archive: is there room in $scratch?"
    for program in nat-infer nat-convert; do
        [ -f "$scratch/$folder/$program" ] || fail "$archive has no $folder/$program: please report it"
        cp "$scratch/$folder/$program" "$staged/$program" 2> /dev/null || fail "can't write to $to: is there room?"
        chmod 755 "$staged/$program"
        said=$("$staged/$program" --version 2>&1) || fail "$program of $archive does not run in $to: $said"
        # A folder would take the program in, under its name.
        [ ! -d "$to/$program" ] || fail "$to/$program is a folder: choose another place with --to DIR"
    done
    for program in nat-infer nat-convert; do
        mv -f "$staged/$program" "$to/$program" 2> /dev/null || fail "can't replace $to/$program: remove it first"
    done
    echo "nat-infer and nat-convert $version are in $to"
    case :$PATH: in
        *":$to:"*) ;;
        *) echo "That folder is not in PATH yet; for this shell: export PATH=\"$to:\$PATH\"" ;;
    esac
}

# At the end, so that a script that arrived in part does nothing.
install_programs "$@"
