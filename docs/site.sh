#!/usr/bin/env bash
# The site of the docs into build/site: `make site`. With arguments, mike's: `make site SITE="deploy --update-aliases 0.2 latest"`
# commits the pages of this tree as a version to the branch gh-pages, which any web server can show; `SITE=serve` shows that here.
# What it needs is in a virtual environment of its own, build/site-venv, made anew when docs/requirements.txt changes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=build/site-venv
export NO_MKDOCS_2_WARNING=1

if ! cmp -s docs/requirements.txt "$venv/requirements.txt"; then
    printf 'site: mkdocs-material and mike into %s\n' "$venv"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check -r docs/requirements.txt
    cp docs/requirements.txt "$venv/requirements.txt"
fi
python3 docs/stage.py build
if [ $# = 0 ]; then
    "$venv/bin/mkdocs" build -q --strict -f build/mkdocs.yml
    printf 'site: build/site; for the search: python3 -m http.server -d build/site\n'
else
    PATH=$PWD/$venv/bin:$PATH mike "$1" -F build/mkdocs.yml "${@:2}"
fi
