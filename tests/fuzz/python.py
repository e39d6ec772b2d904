"""One Python target under atheris: `python -m tests.fuzz.python NAME CORPUS... [-libfuzzer_option=...]`."""

import sys

import atheris  # fetched by tests/setup/fuzz.sh

with atheris.instrument_imports(include=["resilience"]):
    from tests.fuzz.targets import PYTHON

name, *rest = sys.argv[1:]
atheris.Setup([sys.argv[0], *rest], PYTHON[name])
atheris.Fuzz()
