#!/usr/bin/env bash
# RPMs into build/rpm/elN, for systems like RHEL N: `build.sh [N...]`, by default the release of this host; on Debian 8, 9 and 10,
# to try them (they are for the C library of the host that builds them). pip fetches the wheels that requirements/runtime.txt names, with
# their hashes, for N's Python; rpmbuild itself needs no network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=$PWD/build/rpm version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

die() {
    printf 'mpsr: rpm: %s\n' "$1" >&2
    if [ $# -gt 1 ]; then printf '  %s\n' "$2" >&2; fi
    exit 1
}

# EL's number of this host, nothing elsewhere
# shellcheck source=/dev/null
host() { (. /etc/os-release; [[ " $ID ${ID_LIKE:-} " != *" rhel "* ]] || printf '%s\n' "${VERSION_ID%%.*}"); }

# Slurm's release from the header that the plugin is compiled with: 0x160508 is 22.05.8
slurm() {
    local number
    number=$(echo SLURM_VERSION_NUMBER | gcc -E -P -include slurm/slurm_version.h -) || die "no headers of Slurm" "install slurm-devel"
    printf '%02d.%02d\n' $((number >> 16)) $(((number >> 8 & 255) + $1))
}

# The project and what it needs of Python, as they lie in the environment of the package
python() {
    local el=$1 into=$2 minor=12
    if [ "$el" -lt 10 ]; then minor=11; fi
    "$pip" -m pip install -q --disable-pip-version-check --no-input --no-compile --no-deps --require-hashes --target "$into" \
        --python-version "3.$minor" --implementation cp --platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 \
        --only-binary :all: -r requirements/runtime.txt
    "$pip" -m pip wheel -q --disable-pip-version-check --no-input --no-deps --no-build-isolation -w "$into/wheel" "$tree"
    "$pip" -m zipfile -e "$into"/wheel/*.whl "$into"
    rm -rf "${into:?}"/{wheel,bin}
}

build() {
    local el=$1 top=$out/el$1
    rm -rf "$top"
    mkdir -p "$top"/{SOURCES,python}
    python "$el" "$top/python"
    tar -czf "$top/SOURCES/python.tar.gz" -C "$top/python" .
    tar -czf "$top/SOURCES/mpsr-$version.tar.gz" -C "$out" "mpsr-$version"
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME="$top" LANG=C.UTF-8 rpmbuild -bb "${foreign[@]}" \
        --define "_topdir $top" --define "el $el" --define "dist .el$el" --define "version_ $version" \
        --define "next_ ${version%.*}.$((${version##*.} + 1))" --define "release_ $release" --define "after_ $after" \
        --define "guard_ $guard" --define "bundled_ $bundled" \
        rpm/mpsr.spec >"$top/log" 2>&1 || die "el$el: not built" "see $top/log"
    mv "$top"/RPMS/*/*.rpm "$top"
    rm -rf "$top"/{BUILD,BUILDROOT,RPMS,SOURCES,SRPMS,SPECS,python}
    printf 'rpm: %s\n' "$top"/*.rpm
}

command -v rpmbuild >/dev/null || die "no rpmbuild" "dnf install rpm-build; on Debian: apt-get install rpm"
if [ $# = 0 ]; then mapfile -t systems < <(host); else systems=("$@"); fi
foreign=()
if [ -z "$(host)" ]; then
    foreign=(--nodeps --define "_usrsrc /usr/src" --define "_docdir /usr/share/doc")
    if [ ${#systems[@]} = 0 ]; then systems=(8 9 10); fi
fi
for system in "${systems[@]}"; do [[ "$system" =~ ^(8|9|10)$ ]] || die "not 8, 9 or 10: $system"; done
release=$(slurm 0) after=$(slurm 1) tree=$out/mpsr-$version pip=$out/pip/bin/python3
guard=$(sed -n 's/^PACKAGE_VERSION="\(.*\)"$/\1/p' kernel_module/dkms.conf)
bundled=$(sed -n 's/^\([a-z0-9-]*\)==\([0-9.]*\).*/bundled(python3dist(\1)) = \2/p' requirements/runtime.txt | paste -sd ,)
mkdir -p "$out"
rm -rf "$tree"
bash tests/setup/copy.sh "$tree"
for interpreter in /usr/bin/python3.1{1,2,3,4} ""; do if [ -x "$interpreter" ]; then break; fi; done
[ -n "$interpreter" ] || die "no Python 3.11 or later" "dnf install python3.11"
[ -x "$pip" ] || "$interpreter" -m venv "$out/pip"
"$pip" -m pip install -q --disable-pip-version-check --no-input --require-hashes -r requirements/build.txt
for system in "${systems[@]}"; do build "$system"; done
rm -rf "$tree"
