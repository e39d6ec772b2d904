#!/usr/bin/env bash
# Bare systems of Debian releases, and commands in them:
#     system.sh make SUITE ROOT         once: half a minute, 0.3 GB; later only the host's names and certificates
#     system.sh run ROOT COMMAND...     in pid, mount and ipc namespaces of their own
# Nothing is mounted or left running when a command ends. Needs root on Debian; what debootstrap says is in ROOT.log.
set -euo pipefail

die() {
    printf 'mpsr: system: %s\n' "$1" >&2
    exit 1
}

make_system() {
    local suite=$1 root=$2
    if [ ! -d "$root" ]; then
        command -v debootstrap >/dev/null || apt-get install -y -q --no-install-recommends debootstrap >/dev/null
        rm -rf "$root.new"
        mkdir -p "$root.new"
        debootstrap --variant=minbase --include=ca-certificates,make "$suite" "$root.new" >"$root.log" ||
            die "no system made: see $root.log"
        # a mirror may serve a copy of sid that is older than it says it is good for
        echo 'Acquire::Check-Valid-Until "false";' >"$root.new/etc/apt/apt.conf.d/90mpsr"
        mv "$root.new" "$root"
    fi
    # the names and certificates that this host goes by
    cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
    cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
}

run_inside() {
    local root=$1 name
    local keep=(HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
        PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_ROOT_USER_ACTION=ignore)
    for name in http_proxy https_proxy no_proxy PIP_INDEX_URL CI; do
        if [ -n "${!name:-}" ]; then keep+=("$name=${!name}"); fi
    done
    # shellcheck disable=SC2016  # expanded inside
    exec unshare --mount --pid --ipc --fork --kill-child bash -euc '
        mount --make-rprivate /
        mount --bind "$1" "$1"
        mount -t proc proc "$1/proc"
        mount --rbind /sys "$1/sys"
        mount --rbind /dev "$1/dev"
        cd "$1"
        shift
        pivot_root . . # and not chroot alone, in which the kernel makes no user namespaces
        umount -l .
        exec chroot . "$@"' inside "$root" env -i "${keep[@]}" "${@:2}"
}

[ "$(id -u)" = 0 ] || die "not root: debootstrap and namespaces need it"
case ${1:-} in
make) make_system "$2" "$3" ;;
run) run_inside "${@:2}" ;;
*) die "neither make nor run: ${1:-}" ;;
esac
