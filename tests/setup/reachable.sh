#!/usr/bin/env bash
# Run a command in the clone, at a path that every user can reach. A clone below a home that is closed to others, such as
# /root, is shown at /media/mpsr, in a mount namespace that only this command and its children are in. Needs root for that;
# without it the command runs where the clone is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

reachable() {
    local directory=$PWD
    while [ "$directory" != / ]; do
        case $(stat -c %A "$directory") in *[xt]) ;; *) return 1 ;; esac
        directory=$(dirname "$directory")
    done
}

if [ "$(id -u)" != 0 ] || reachable; then PYTHONPATH=$PWD exec "$@"; fi
printf 'tests: the clone is closed to other users; it is shown to the tests at /media/mpsr\n' >&2
# shellcheck disable=SC2016  # expanded inside
exec unshare --mount bash -euc '
    mount --make-rprivate /
    here=$1
    shift
    mount -t tmpfs -o mode=755 tmpfs /media
    mkdir /media/mpsr
    mount --bind "$here" /media/mpsr
    cd /media/mpsr
    PYTHONPATH=/media/mpsr exec "$@"
' reachable "$PWD" "$@"
