#!/usr/bin/env bash
# Builds the kernel that looks for mistakes in the guard (debug.config: lockdep, KASAN and others) from Debian's source.
#
# usage: debug_kernel.sh [SERIES]     (6.1 unless said; one that Debian 12 lacks is looked for in trixie-backports)
# It lies in build/guard/kernels/<version>-debug: `headers` and `image` are set beside `source` when it is whole, as for
# Debian's own. Built anew when debug.config changes. Takes about five minutes on two cores and 2 GB.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/guard/fetch.sh
source tests/guard/fetch.sh

series=${1:-6.1}
config=$PWD/tests/guard/debug.config
made="$series $(sha256sum <"$config")"
for place in "$kernels/$series".*-debug; do
    if [ -e "$place/image" ] && [ "$(<"$place/image")" = "$made" ]; then exit 0; fi
    rm -rf "$place"
done

tree=$kernels/partial-$series/source
rm -rf "${tree%/source}"
mkdir -p "$tree"
say "fetching the source of Linux $series"
# What this configuration never compiles is left out: GPUs' drivers and other machines' device trees are a third of it.
left_out=(--exclude='*/drivers/gpu/*.[ch]' --exclude='*/boot/dts/*')
if [ -n "$(apt-cache search --names-only "^linux-source-${series//./\\.}$")" ]; then
    source_tree "$series" "$tree" "${left_out[@]}"
else
    (only_suite debian trixie-backports && source_tree "$series" "$tree" "${left_out[@]}")
fi

cd "$tree"
unset MAKEFLAGS
make -s KCONFIG_ALLCONFIG="$config" allnoconfig >build.log 2>&1 || die "cannot be configured: Linux $series" "see $tree/build.log"
while read -r line; do
    grep -qxF "$line" .config || die "Linux $series does not take a line of debug.config" "$line"
done < <(grep ^CONFIG_ "$config")
release=$(make -s kernelrelease)
say "building Linux $release (some minutes)"
nice -n 10 make -s -j"$(nproc)" bzImage modules_prepare >>build.log 2>&1 || die "cannot be built: Linux $release" "see $tree/build.log"
cp vmlinux.symvers Module.symvers # of the kernel alone: there are no modules of its own

place=$kernels/$release
rm -rf "$place"
mv "${tree%/source}" "$place"
touch "$place/headers"
printf '%s' "$made" >"$place/image"
say "built $release in $SECONDS s"
