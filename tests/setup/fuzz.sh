#!/usr/bin/env bash
# What `make fuzz` needs: clang with libFuzzer from Debian, atheris from PyPI into build/fuzz/atheris.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
target=build/fuzz/atheris

die() {
    printf 'mpsr: fuzz: %s\n  %s\n' "$1" "$2" >&2
    exit 1
}

if ! compgen -c clang | grep -qxE 'clang(-[0-9]+)?'; then
    [ "$(id -u)" = 0 ] || die "no clang" "apt-get install clang"
    printf 'fuzz: apt-get install clang\n'
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends clang </dev/null >/dev/null
fi
if ! cmp -s requirements/fuzz.txt "$target/locked"; then
    rm -rf "$target"
    printf 'fuzz: pip install atheris\n'
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-input --retries 5 --no-deps --require-hashes \
        --target "$target" -r requirements/fuzz.txt
    cp requirements/fuzz.txt "$target/locked"
fi
