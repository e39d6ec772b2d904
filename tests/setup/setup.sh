#!/usr/bin/env bash
# Make this machine able to build, test and demonstrate mpsr: Debian's packages with apt, the Python ones in .venv.
#
# Idempotent and quick (0.1 s) when everything is there. Changes the machine only by installing Debian packages; no
# service of theirs is started: where no policy-rc.d stands, one that says no lies there while apt runs.
# Needs root and Debian only for what is missing; without them it says what is missing and which targets still work.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

say() { printf 'setup: %s\n' "$*"; }
PIP=(--disable-pip-version-check --no-input --retries 5 --require-hashes)

die() {
    printf 'mpsr: setup: %s\n' "$1" >&2
    if [ $# -gt 1 ]; then printf '  %s\n' "$2" >&2; fi
    exit 1
}

# The first group builds and lints; the second is the private Slurm cluster (Debian 12's srun --mpi=pmix looks for
# libpmix.so, which only the -dev package has); bubblewrap makes containers in its tests. The third are other ways to
# submit a job and to start its processes, and to reach nodes; none of them changes what builds here (no MPI's headers come along).
build=(git gcc g++ libc6-dev make python3 python3-venv clang-format shellcheck libslurm-dev)
cluster=(slurmd slurmctld slurm-client slurm-wlm-basic-plugins munge iproute2 util-linux procps mount libpmix-dev bubblewrap)
ways=(slurmrestd curl mpich openmpi-bin openssh-server)

missing() {
    local package
    for package in "$@"; do
        case "$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null)" in
        "install ok installed") ;;
        *) printf '%s\n' "$package" ;;
        esac
    done
}

install() {
    local policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        # shellcheck disable=SC2064  # the path is meant to be fixed now
        trap "rm -f '$policy'" EXIT
    fi
    local try
    for try in 1 2 3; do
        say "apt-get update"
        apt-get update -q -o Acquire::Retries=3 >/dev/null && break
        [ "$try" = 3 ] && die "apt-get update failed three times" "is the network there?"
        sleep 5
    done
    say "apt-get install $*"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends -o Acquire::Retries=3 \
        -o Dpkg::Use-Pty=0 "$@" </dev/null | sed -u -n 's/^Setting up/setup:   installed/p'
    if [ -n "$(trap -p EXIT)" ]; then
        rm -f "$policy"
        trap - EXIT
    fi
}

packages() {
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        say "this is not Debian: no packages are installed; needed: ${build[*]} ${cluster[*]} ${ways[*]}"
        say "without Slurm and root 'make lint' and the unit tier of 'make test' still run"
        return
    fi
    local absent
    mapfile -t absent < <(missing "${build[@]}" "${cluster[@]}" "${ways[@]}")
    [ ${#absent[@]} -eq 0 ] && return
    if [ "$(id -u)" != 0 ]; then
        say "not root, so these packages stay missing: ${absent[*]}"
        say "without them 'make lint' and 'make test' run what they can and say what they leave out"
        return
    fi
    install "${absent[@]}"
}

venv() {
    # Debian's own interpreter: one below somebody's home could not be run by the cluster's ordinary users.
    local python=/usr/bin/python3 wanted
    [ -x "$python" ] || die "no Python: $python" "apt-get install python3 python3-venv"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "Python is older than 3.11: $("$python" -V)" "Debian 12 or later has it"
    wanted=$(cat requirements/build.txt requirements/dev.txt; "$python" -V)
    if [ -x .venv/bin/python ] && [ "$(cat .venv/locked 2>/dev/null)" = "$wanted" ]; then return; fi
    say "making .venv from requirements/build.txt and dev.txt"
    fresh || "$python" -m venv --clear .venv
    # built with what is locked, too, where there is no wheel
    .venv/bin/python -m pip install -q "${PIP[@]}" -r requirements/build.txt
    .venv/bin/python -m pip install -q "${PIP[@]}" --no-build-isolation -r requirements/dev.txt
    printf '%s\n' "$wanted" >.venv/locked
}

# Is there a .venv of this interpreter with nothing in it but what is locked, of whatever version?
fresh() {
    [ -x .venv/bin/python ] && [ "$(.venv/bin/python -V)" = "$("$python" -V)" ] || return 1
    local there
    there=$(.venv/bin/python -m pip freeze -q | sed 's/[=@ ].*//' | tr 'A-Z_.' 'a-z\-\-') || return 1
    ! grep -vxF -f <(sed -n 's/^\([a-z0-9-]*\)==.*/\1/p' requirements/dev.txt) <<<"$there" | grep -q .
}

packages
venv
