#!/usr/bin/env bash
# PyTorch's CPU build into .venv, for the tests of resilience.torch: 200 MB, fetched once. A CPU build has `+cpu` in its version, which
# PyPI does not have: there the same number is a build for CUDA with gigabytes of libraries. So pip is asked for `+cpu` where it
# looks by itself (a site's index or directory of wheels), and PyTorch's own index only if that fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
wheel=torch==2.13.0+cpu
index=https://download.pytorch.org/whl/cpu

if .venv/bin/python -c 'import importlib.metadata, sys; sys.exit("torch==" + importlib.metadata.version("torch") != sys.argv[1])' $wheel 2>/dev/null; then
    exit 0
fi
install() { .venv/bin/python -m pip install -q --disable-pip-version-check --no-input "$@" $wheel; }

printf 'torch: pip install %s\n' "$wheel"
install 2>/dev/null || install --retries 5 --extra-index-url $index
