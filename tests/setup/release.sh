#!/usr/bin/env bash
# Run the tests of plugin, supervisor and cluster, and the short demo, on the Slurm of another Debian release:
#     release.sh SUITE [PYTEST ARGUMENT…]
# SUITE is trixie, sid, … A bare system of that release is made in build/releases/SUITE (half a minute, 0.8 GB) and used
# again; the clone is copied into it, and set up there as on any machine. Everything runs in namespaces of its own, so
# nothing is mounted or left running when this ends. Needs root on Debian. The last line says what ran on what.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
suite=${1:?usage: release.sh SUITE [PYTEST ARGUMENT...]}
shift
root=$PWD/build/releases/$suite log=$PWD/build/releases/$suite.log

die() {
    printf 'mpsr: release: %s\n' "$1" >&2
    exit 1
}

make_system() {
    command -v debootstrap >/dev/null || apt-get install -y -q --no-install-recommends debootstrap >/dev/null
    rm -rf "$root.new"
    mkdir -p "$root.new"
    debootstrap --variant=minbase --include=ca-certificates,make "$suite" "$root.new" >"$log" ||
        die "no system made: see $log"
    # a mirror may serve a copy of sid that is older than it says it is good for
    echo 'Acquire::Check-Valid-Until "false";' >"$root.new/etc/apt/apt.conf.d/90mpsr"
    mv "$root.new" "$root"
}

# What git knows or would add, in place of the last copy; .venv and build of that system stay.
copy_clone() {
    local there=$root/srv/mpsr
    mkdir -p "$there"
    find "$there" -mindepth 1 -maxdepth 1 ! -name .venv ! -name build -exec rm -rf {} +
    git -c safe.directory='*' ls-files -z --cached --others --exclude-standard |
        while IFS= read -r -d '' file; do [ -f "$file" ] && printf '%s\0' "$file"; done |
        tar --null -T - -cf - | tar --no-same-owner -xf - -C "$there"
    # the names and certificates that this host goes by
    cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
    cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
}

# Run a command in the system, in pid, mount and ipc namespaces that go with it.
inside() {
    local keep=(HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
        PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_ROOT_USER_ACTION=ignore) name
    for name in http_proxy https_proxy no_proxy PIP_INDEX_URL CI; do
        if [ -n "${!name:-}" ]; then keep+=("$name=${!name}"); fi
    done
    # shellcheck disable=SC2016  # expanded inside
    unshare --mount --pid --ipc --fork --kill-child bash -euc '
        mount --make-rprivate /
        mount --bind "$1" "$1"
        mount -t proc proc "$1/proc"
        mount --rbind /sys "$1/sys"
        mount --rbind /dev "$1/dev"
        cd "$1"
        shift
        pivot_root . . # and not chroot alone, in which the kernel makes no user namespaces
        umount -l .
        exec chroot . "$@"' inside "$root" env -i --chdir=/srv/mpsr "${keep[@]}" "$@"
}

[ "$(id -u)" = 0 ] || die "not root: debootstrap and namespaces need it"
[ -d "$root" ] || make_system
copy_clone
inside make build >"$log" 2>&1 || die "not built: see $log"
slurm=$(inside slurmctld -V) tests=passed demo="not run"
printf 'release: %s: %s\n' "$suite" "$slurm"
chosen=("$@")
if [ $# = 0 ]; then chosen=(tests/spank tests/cluster); fi
inside .venv/bin/python -m pytest -q "${chosen[@]}" 2>&1 | tee -a "$log" || tests=FAILED
if [ $# = 0 ]; then
    demo=held
    inside make demo DEMO=--short 2>&1 | tee -a "$log" || demo=BROKEN
fi
count=$(grep -aE '[0-9]+ (passed|failed|error).* in [0-9.]+s' "$log" | tail -n 1 | tr -d =)
printf 'release: %s: %s: tests %s (%s), demo %s\n' "$suite" "$slurm" "$tests" "${count//  /}" "$demo"
[ "$tests" = passed ] && [ "$demo" != BROKEN ]
