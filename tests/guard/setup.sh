#!/usr/bin/env bash
# What the guard's tests need beyond `make setup`: an emulator, sparse, dkms, and kernels.
#
# usage: setup.sh [--all | --debug[=SERIES]]
#   (nothing)  Debian's 6.1 with its image, the headers of 6.12 where apt offers it
#   --all      300 MB more: the image of 6.12, 5.10 of Debian 11, and the kernel's checkpatch.pl, which comes only with
#              the whole source
#   --debug    a kernel with lockdep and KASAN, built once from Debian's source (debug_kernel.sh); SERIES: 6.1 unless said
# The kernels are not installed but unpacked below build/guard (fetch.sh). Idempotent: 0.1 s when nothing is missing.
# Changes the host only by installing Debian packages, for which it needs root; the kernels need apt and the network alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/guard/fetch.sh
source tests/guard/fetch.sh

tools=(qemu-system-x86 busybox-static sparse dkms kmod gcc make libc6-dev libelf1 openssl pahole perl xz-utils)

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

case "${1-}" in
"" | --all) ;;
--debug | --debug=[0-9]*) tools+=(bc bison flex libelf-dev) ;;
*) die "unknown word: $1" "usage: setup.sh [--all | --debug[=SERIES]]" ;;
esac
command -v apt-get >/dev/null || die "this is not Debian: no apt-get"
[ "$(uname -m)" = x86_64 ] || die "the guard is for x86-64: $(uname -m)"
install_tools
mkdir -p "$kernels"
emulator
case "${1-}" in
--debug*)
    wanted=${1#--debug}
    bash tests/guard/debug_kernel.sh "${wanted#=}"
    ;;
--all)
    series 6.1 yes
    series 6.12 yes
    series_of_bullseye 5.10
    checkpatch 6.1
    ;;
*)
    series 6.1 yes
    series 6.12 no
    ;;
esac
