#!/usr/bin/env bash
# Record a real MPS control daemon again and compare with the committed transcript: rerecord.sh BRANCH DIRECTORY
#
# Fetches the packages of driver branch BRANCH (535, 550: Debian non-free; 580, 595: Ubuntu restricted) with apt into
# DIRECTORY, which must lie outside the repository: the packages are proprietary, and only what they print is committed.
# apt's lists and cache lie there, too; nothing is installed. Needs root, a network that reaches the archive, and for
# Ubuntu the package ubuntu-keyring. Status 1 when the recordings differ; the new one is DIRECTORY/BRANCH.json.
# Tried with both of Debian's branches; Ubuntu's archive was out of reach, so that part of it has not been run.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

die() {
    printf 'mpsr: rerecord: %s\n' "$1" >&2
    exit 2
}

[ $# = 2 ] || die "usage: rerecord.sh 535|550|580|595 DIRECTORY"
branch=$1
mkdir -p "$2"
place=$(cd "$2" && pwd)
case "$place/" in "$root"/*) die "the packages must not lie in the repository: $place" ;; esac
case $branch in
535) source="debian bookworm non-free" packages="nvidia-cuda-mps libcuda1" ;;
550) source="debian trixie non-free" packages="nvidia-cuda-mps libcuda1" ;;
580) source="ubuntu questing-updates restricted" packages="nvidia-compute-utils-580-server libnvidia-compute-580-server" ;;
595) source="ubuntu noble-updates restricted" packages="nvidia-compute-utils-595 libnvidia-compute-595" ;;
*) die "no such branch: $branch" ;;
esac
read -r family suite component <<<"$source"
# shellcheck disable=SC2016  # expanded by apt
archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m 1 -E "/$family/?$" || true)
[ -n "$archive" ] || [ "$family" = debian ] || archive=http://archive.ubuntu.com/ubuntu
[ -n "$archive" ] || die "apt has no source of Debian: a line such as: deb MIRROR/debian bookworm main"
keyring=/usr/share/keyrings/$family-archive-keyring.gpg
[ -e "$keyring" ] || die "the archive's keys are missing: $keyring (package $family-archive-keyring, or ubuntu-keyring)"

mkdir -p "$place/lists/partial" "$place/cache/archives/partial" "$place/tree"
printf 'deb [signed-by=%s] %s %s %s\n' "$keyring" "$archive" "$suite" "$component" >"$place/sources.list"
apt=(apt-get -q -o Dir::Etc::sourcelist="$place/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$place/lists"
    -o Dir::Cache="$place/cache" -o Acquire::Retries=3 -o APT::Update::Error-Mode=any -o APT::Sandbox::User=root)
"${apt[@]}" update >/dev/null || die "the archive cannot be reached: $archive $suite"
# shellcheck disable=SC2086 # the packages are words
(cd "$place" && rm -f ./*.deb && "${apt[@]}" download $packages >/dev/null) || die "no such packages there: $packages"
for package in "$place"/*.deb; do dpkg -x "$package" "$place/tree"; done

library=$(find "$place/tree" -name libcuda.so.1 -printf '%h\n' -quit)
provenance="${family^} $suite $component, $(cd "$place" && for one in *.deb; do printf '%s ' "${one%_*.deb}"; done)"
cd "$root"
for try in 1 2 3; do # a real daemon's first log lines are lost now and then, which ends a recording
    PYTHONPATH=. TZ=UTC python3 -m tests.gpusim.record "$place/tree/usr/bin/nvidia-cuda-mps-control" --dialect "$branch" \
        --library "$library" --provenance "${provenance% }" -o "$place/$branch.json" && break
    [ "$try" != 3 ] || die "three recordings failed"
done
PYTHONPATH=. python3 -m tests.gpusim.transcript_diff "tests/gpusim/transcripts/$branch.json" "$place/$branch.json"
