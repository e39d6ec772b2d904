#!/usr/bin/env bash
# mpi4py into .venv, as requirements/mpi.txt locks it, for the tests whose programs are MPI ranks.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if cmp -s requirements/mpi.txt .venv/locked-mpi; then exit 0; fi
printf 'mpi: pip install mpi4py\n'
.venv/bin/python -m pip install -q --disable-pip-version-check --no-input --retries 5 --no-deps --require-hashes -r requirements/mpi.txt
cp requirements/mpi.txt .venv/locked-mpi
