#!/usr/bin/env bash
# What the guard's tests need beyond `make setup`: an emulator, sparse, dkms, and Debian's kernels.
#
# usage: setup.sh [--all]
# The kernels are not installed: their packages (image, headers, kbuild) are fetched with apt and unpacked below
# build/guard/kernels/<release>. 6.1 with its image is always fetched; of 6.12, where apt offers it, the headers, and with
# --all the image too (100 MB), so that the virtual machine is also run with that. Idempotent: 0.1 s when nothing is missing.
# Changes the host only by installing Debian packages, for which it needs root; the kernels need apt and the network alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

tools=(qemu-system-x86 busybox-static sparse dkms kmod gcc make libc6-dev libelf1 xz-utils)
kernels=$PWD/build/guard/kernels
updated=

say() { printf 'guard setup: %s\n' "$*"; }
die() {
    printf 'mpsr: guard setup: %s\n' "$1" >&2
    if [ $# -gt 1 ]; then printf '  %s\n' "$2" >&2; fi
    exit 1
}

update() {
    if [ -n "$updated" ]; then return; fi
    updated=yes
    if [ "$(id -u)" = 0 ]; then
        say "apt-get update"
        apt-get update -q -o Acquire::Retries=3 >/dev/null || die "apt-get update failed" "is the network there?"
    fi
}

install_tools() {
    local tool absent=()
    for tool in "${tools[@]}"; do
        [ "$(dpkg-query -W -f '${Status}' "$tool" 2>/dev/null)" = "install ok installed" ] || absent+=("$tool")
    done
    if [ ${#absent[@]} = 0 ]; then return; fi
    [ "$(id -u)" = 0 ] || die "not root, so these packages cannot be installed: ${absent[*]}"
    update
    say "apt-get install ${absent[*]}"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends -o Acquire::Retries=3 \
        -o Dpkg::Use-Pty=0 "${absent[@]}" </dev/null >/dev/null
}

# The newest release of a series that apt offers for ordinary machines, such as 6.1.0-56-amd64; empty when it has none.
newest() {
    apt-cache search --names-only "^linux-headers-${1//./\\.}\.[0-9][0-9.+a-z-]*-amd64$" |
        sed -n 's/^linux-headers-\([^ ]*\) .*/\1/p' | grep -Ev 'cloud|rt|common' | sort -V | tail -n 1 || true
}

unpack() {
    local package into=$1 scratch
    shift
    scratch=$(mktemp -d "$kernels/fetch.XXXXXX")
    (cd "$scratch" && apt-get download -q -o Acquire::Retries=3 -o APT::Sandbox::User=root "$@" >/dev/null) ||
        die "apt-get download failed: $*" "is the network there?"
    for package in "$scratch"/*.deb; do dpkg-deb -x "$package" "$into"; done
    rm -rf "$scratch"
}

headers() {
    local release=$1 into=$kernels/$1 packages
    mapfile -t packages < <(apt-cache depends "linux-headers-$release" |
        sed -nE 's/^ *Depends: (linux-(headers|kbuild)-.*)/\1/p')
    say "fetching headers of $release"
    unpack "$into" "linux-headers-$release" "${packages[@]}"
    # Debian's tree names its other half by an absolute path.
    sed -i "s,include /usr/src/,include $into/usr/src/," "$into/usr/src/linux-headers-$release/Makefile"
    touch "$into/headers"
}

image() {
    say "fetching the image of $1"
    unpack "$kernels/$1" "linux-image-$1"
    rm -rf "$kernels/$1"/lib/modules # hundreds of megabytes that nothing loads
    touch "$kernels/$1/image"
}

# $1: series, $2: yes when its image is wanted
series() {
    local release
    # Nothing is asked of apt when what is wanted has been unpacked before.
    for release in "$kernels/$1".*; do
        if [ -e "$release/headers" ] && { [ "$2" = no ] || [ -e "$release/image" ]; }; then return; fi
    done
    release=$(newest "$1")
    if [ -z "$release" ]; then
        update
        release=$(newest "$1")
    fi
    if [ -z "$release" ]; then
        say "apt offers no kernel $1: left out"
        return
    fi
    [ -e "$kernels/$release/headers" ] || headers "$release"
    [ "$2" = no ] || [ -e "$kernels/$release/image" ] || image "$release"
}

case "${1-}" in
"") all=no ;;
--all) all=yes ;;
*) die "unknown word: $1" "usage: setup.sh [--all]" ;;
esac
command -v apt-get >/dev/null || die "this is not Debian: no apt-get"
[ "$(uname -m)" = x86_64 ] || die "the guard is for x86-64: $(uname -m)"
install_tools
mkdir -p "$kernels"
series 6.1 yes
series 6.12 "$all"
