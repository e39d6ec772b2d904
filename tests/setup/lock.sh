#!/usr/bin/env bash
# Render requirements/*.txt from pyproject.toml: each package that pip may install, with its version and the hashes of its files
# on PyPI, for every Python from 3.11 on. A version that is locked stays unless UPGRADE=1, or pyproject.toml asks for another.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
tool=build/lock
# of the tool, whose output is committed
uv=0.13.9

if [ "$("$tool/bin/uv" --version 2>/dev/null | cut -d' ' -f2)" != "$uv" ]; then
    /usr/bin/python3 -m venv "$tool"
    "$tool/bin/pip" install -q --disable-pip-version-check --no-input --retries 5 "uv==$uv"
fi

# What stands in the file is what uv keeps to.
lock() {
    local file=requirements/$1.txt new=$tool/$1.txt
    rm -f "$new"
    if [ -f "$file" ] && [ -z "${UPGRADE:-}" ]; then cp "$file" "$new"; fi
    "$tool/bin/uv" pip compile -q --no-config --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
        --default-index https://pypi.org/simple "${@:3}" -o "$new" "$2"
    { printf '# Rendered from pyproject.toml: make lock\n'; cat "$new"; } >"$file"
    printf 'lock: %s\n' "$file"
}

for part in runtime dev build fuzz mpi toolkit; do .venv/bin/python tests/setup/requirements.py "$part" >"$tool/$part.in"; done
lock dev "$tool/dev.in"
lock runtime "$tool/runtime.in" -c requirements/dev.txt
lock build "$tool/build.in" -c requirements/dev.txt
lock fuzz "$tool/fuzz.in"
lock mpi "$tool/mpi.in"
lock toolkit "$tool/toolkit.in"
