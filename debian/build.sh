#!/usr/bin/env bash
# Build the packages into build/deb, from a copy of the clone so that nothing is written beside the sources.
# As root it installs what debian/control needs to build; otherwise it says what is missing. No network while it builds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=$PWD/build/deb
source=$out/source log=$out/log

die() {
    printf 'mpsr: deb: %s\n' "$1" >&2
    if [ $# -gt 1 ]; then printf '  %s\n' "$2" >&2; fi
    exit 1
}

# Who answers for the packages: the site that builds them. Without its word it is an address of this host.
name=${DEBFULLNAME:-mpsr maintainers} mail=${DEBEMAIL:-mpsr@$(hostname -f)} unknown=()
if [ -z "${DEBEMAIL:-}" ]; then
    printf 'deb: maintainer: %s <%s>: set DEBFULLNAME and DEBEMAIL\n' "$name" "$mail"
    unknown=(--suppress-tags "bogus-mail-host,bogus-mail-host-in-debian-changelog")
fi
[[ "$name <$mail>" =~ ^[^\<\>|\&\\]+\ \<[A-Za-z0-9._+-]+@[A-Za-z0-9.-]+\>$ ]] || die "not a maintainer: $name <$mail>" "set DEBFULLNAME and DEBEMAIL"

command -v dpkg-checkbuilddeps >/dev/null || die "no dpkg-checkbuilddeps" "apt-get install dpkg-dev, on Debian 12 or later"
rm -rf "$out"
bash tests/setup/copy.sh "$source"
cd "$source"
sed -i "s|^Maintainer: .*|Maintainer: $name <$mail>|" debian/control
sed -i "s|^ -- .* <.*>  | -- $name <$mail>  |" debian/changelog
if ! missing=$(dpkg-checkbuilddeps 2>&1); then
    [ "$(id -u)" = 0 ] || die "cannot build: ${missing##*error: }" "as root: apt-get build-dep ."
    DEBIAN_FRONTEND=noninteractive apt-get build-dep -y -q --no-install-recommends . </dev/null >"$log" 2>&1 ||
        die "what the build needs cannot be installed: ${missing##*error: }" "see $log"
fi
# Debian's own Python and tools, and nothing of the caller's environment. -b: binary packages only; -us -uc: a site signs
# its repository, not each package
env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME="$out" LANG=C.UTF-8 DEB_BUILD_OPTIONS="${DEB_BUILD_OPTIONS:-}" dpkg-buildpackage -b -us -uc >"$log" 2>&1 || die "not built" "see $log"
cd "$out"
rm -rf "$source"
if command -v lintian >/dev/null; then
    lintian --allow-root --fail-on error,warning --tag-display-limit 0 "${unknown[@]}" ./*.deb || die "lintian complains" "see above; debian/*.lintian-overrides say why a tag is wrong"
else
    printf 'deb: no lintian: not checked (apt-get install lintian)\n'
fi
printf 'deb: %s\n' "$out"/*.deb
