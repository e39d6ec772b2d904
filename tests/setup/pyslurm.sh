#!/usr/bin/env bash
# Build pyslurm 25.11 for a Slurm 26.05, into .venv. No release of pyslurm fits a Slurm that Debian has: its core is built
# with six calls adapted (pyslurm/slurm_26_05.h), without its old interface (deprecated.pyx), which we do not call and
# which calls what 26.05 has not. So this is pyslurm's own code on a real slurmctld, not a combination that its authors
# support. Needs root on Debian for the compiler and Slurm's headers.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
version=25.11.2 work=$PWD/build/pyslurm python=$PWD/.venv/bin/python
sum=6e0e4bc639ea3177591b102b77c1dd8df55a9e411ac42ef339a4adb3908cca34
header=$PWD/tests/setup/pyslurm/slurm_26_05.h

die() {
    printf 'mpsr: pyslurm: %s\n' "$1" >&2
    exit 1
}

release=$(sed -n 's/^#define SLURM_VERSION_NUMBER 0x1a05.*/26.05/p' /usr/include/slurm/slurm_version.h)
[ "$release" = 26.05 ] || die "this Slurm is not 26.05; make releases RELEASES=sid has one"
DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends python3-dev gcc libc6-dev >/dev/null </dev/null
rm -rf "$work"
mkdir -p "$work"
"$python" -m pip download -q --no-deps --no-binary :all: -d "$work" "pyslurm==$version"
sha256sum -c --quiet <<<"$sum  $work/pyslurm-$version.tar.gz"
tar xzf "$work/pyslurm-$version.tar.gz" -C "$work"
cd "$work/pyslurm-$version"
sed -i '/^from pyslurm.deprecated import/d' pyslurm/__init__.py
rm pyslurm/deprecated.pyx
sed -i 's/^__version__ = .*/__version__ = "26.5.0"/' pyslurm/version.py # setup.py compares it with Slurm's
"$python" -m pip install -q cython setuptools wheel packaging
SLURM_LIB_DIR=/usr/lib/$(gcc -print-multiarch) PYSLURM_BUILD_JOBS=$(nproc) CFLAGS="-O0 -w -include $header" \
    "$python" -m pip install -q --no-build-isolation .
PYSLURM_DISABLE_AUTO_INIT=1 "$python" -P -c 'import pyslurm' || die "built, but cannot be imported"
printf 'pyslurm: %s on Slurm %s\n' "$version" "$release"
