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

# What git knows or would add, in place of the last copy; .venv and build of that system stay.
copy_clone() {
    local there=$root/srv/mpsr
    mkdir -p "$there"
    find "$there" -mindepth 1 -maxdepth 1 ! -name .venv ! -name build -exec rm -rf {} +
    bash tests/setup/copy.sh "$there"
}

inside() { bash tests/setup/system.sh run "$root" env --chdir=/srv/mpsr "$@"; }

bash tests/setup/system.sh make "$suite" "$root"
copy_clone
inside make build >"$log" 2>&1 || die "not built: see $log"
slurm=$(inside slurmctld -V) tests=passed demo="not run"
case $slurm in *" 26.05."*) inside bash tests/setup/pyslurm.sh ;; esac
printf 'release: %s: %s\n' "$suite" "$slurm"
chosen=("$@")
if [ $# = 0 ]; then chosen=(tests/spank tests/cluster); fi
inside .venv/bin/python -m pytest -q -n auto --dist loadfile "${chosen[@]}" 2>&1 | tee -a "$log" || tests=FAILED
if [ $# = 0 ]; then
    demo=held
    inside make demo DEMO=--short 2>&1 | tee -a "$log" || demo=BROKEN
fi
count=$(grep -aE '[0-9]+ (passed|failed|error).* in [0-9.]+s' "$log" | tail -n 1 | tr -d =)
printf 'release: %s: %s: tests %s (%s), demo %s\n' "$suite" "$slurm" "$tests" "${count//  /}" "$demo"
[ "$tests" = passed ] && [ "$demo" != BROKEN ]
