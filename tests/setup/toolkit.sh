#!/usr/bin/env bash
# NVIDIA's public headers (cuda.h, nvml.h), nvcc and ptxas from PyPI into build/toolkit, for the tests that hold our prototypes,
# layouts, numbers and PTX against them (tests/gpusim: test_toolkit.py, test_driver_kernels.py). They are of CUDA 13.0, as
# driver 580 is. Nothing of them is committed, and nothing else needs them. 100 MB, fetched once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
target=build/toolkit

if cmp -s requirements/toolkit.txt "$target/locked"; then exit 0; fi
rm -rf "$target"
mkdir -p "$target"
printf 'toolkit: pip download %s\n' "$(grep -o '^[^ ]*==[^ ]*' requirements/toolkit.txt | tr '\n' ' ')"
.venv/bin/python -m pip download -q --disable-pip-version-check --no-input --retries 5 --no-deps --require-hashes -d "$target/wheels" \
    -r requirements/toolkit.txt
for wheel in "$target"/wheels/*.whl; do .venv/bin/python -m zipfile -e "$wheel" "$target"; done
rm -r "$target/wheels"
chmod +x "$target"/nvidia/cu13/bin/* "$target"/nvidia/cu13/nvvm/bin/*
cp requirements/toolkit.txt "$target/locked"
