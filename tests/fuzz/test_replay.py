"""Seeds and former finds go through their targets; the C ones as gcc builds them, under AddressSanitizer and UBSan."""

import subprocess
from pathlib import Path

import pytest

from tests.fuzz import build
from tests.fuzz.targets import CORPUS, FOUND, PYTHON, inputs


@pytest.mark.parametrize("name", PYTHON)
def test_python(name: str) -> None:
    assert inputs(name), f"{name} has no seed below {CORPUS}"
    for path in inputs(name):
        PYTHON[name](path.read_bytes())


@pytest.mark.parametrize("name", build.TARGETS)
def test_c(name: str, tmp_path: Path) -> None:
    assert inputs(name), f"{name} has no seed below {CORPUS}"
    done = subprocess.run(
        [build.replayer(name, tmp_path), *inputs(name)], capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_each_input_has_a_target() -> None:
    folders = {path.name for folder in (CORPUS, FOUND) if folder.is_dir() for path in folder.iterdir()}
    assert folders == {*PYTHON, *build.TARGETS}


def test_each_source_has_a_target() -> None:
    assert set(build.TARGETS) == {path.stem for path in (build.HERE / "c").glob("c_*.c")}


def test_no_input_is_large() -> None:
    for path in (path for name in (*PYTHON, *build.TARGETS) for path in inputs(name)):
        assert path.stat().st_size <= 16384, f"{path}: minimise it: -minimize_crash=1"
