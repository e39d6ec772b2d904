#!/usr/bin/env bash
# NVIDIA's public headers (cuda.h, nvml.h), nvcc and ptxas from PyPI into build/toolkit, for the tests that hold our prototypes,
# layouts, numbers and PTX against them (tests/gpusim: test_toolkit.py, test_driver_kernels.py). They are of CUDA 13.0, as
# driver 580 is. Nothing of them is committed, and nothing else needs them. 100 MB, fetched once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
wheels=(nvidia-cuda-runtime==13.0.96 nvidia-nvml-dev==13.0.87 nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88)
target=build/toolkit

if [ "$(cat "$target/stamp" 2>/dev/null)" = "${wheels[*]}" ]; then exit 0; fi
rm -rf "$target"
mkdir -p "$target"
printf 'toolkit: pip download %s\n' "${wheels[*]}"
.venv/bin/python -m pip download -q --disable-pip-version-check --no-input --retries 5 --no-deps -d "$target/wheels" "${wheels[@]}"
for wheel in "$target"/wheels/*.whl; do .venv/bin/python -m zipfile -e "$wheel" "$target"; done
rm -r "$target/wheels"
chmod +x "$target"/nvidia/cu13/bin/* "$target"/nvidia/cu13/nvvm/bin/*
printf '%s\n' "${wheels[*]}" >"$target/stamp"
