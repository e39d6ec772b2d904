"""The MPS programs are found wherever they may lie, and one that cannot be run is passed over."""

import sys
from pathlib import Path

import pytest

from tests.gpu.programs import CONTROL, SERVER, find

GOOD = "#!/bin/sh\nexit 1\n"
FOREIGN = Path(sys.executable).read_bytes()[:18] + b"\xff\xff" + bytes(44)
"""An ELF file for no machine that there is."""


def put(folder: Path, *names: str, content: bytes = GOOD.encode()) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o755)
    return folder


def found(tmp_path: Path, path: str = "/usr/bin", brought: Path | None = None) -> list[str]:
    """The first folders of the PATH."""
    words, _ = find({"PATH": path}, brought, (str(tmp_path / "known"),), (str(tmp_path / "roots"),))
    return words.split(":")


@pytest.mark.parametrize("place", ["brought", "path", "known", "roots/deep/below"])
def test_they_are_found(tmp_path: Path, place: str) -> None:
    there = put(tmp_path / place, CONTROL, SERVER)
    brought = tmp_path / "brought" if place == "brought" else None
    assert found(tmp_path, f"{tmp_path}/path:/usr/bin", brought)[0] == str(there)


def test_control_and_server_may_lie_apart(tmp_path: Path) -> None:
    put(tmp_path / "known", CONTROL)
    put(tmp_path / "roots/x", SERVER)
    assert found(tmp_path)[:2] == [str(tmp_path / "known"), str(tmp_path / "roots/x")]


@pytest.mark.parametrize("name", [CONTROL, SERVER])
@pytest.mark.parametrize("content", [b"garbage", b"", FOREIGN], ids=["garbage", "empty", "foreign"])
def test_what_cannot_be_run_is_passed_over(tmp_path: Path, name: str, content: bytes) -> None:
    bad, good = put(tmp_path / "path", name, content=content), put(tmp_path / "known", CONTROL, SERVER)
    words, tried = find({"PATH": str(bad)}, None, (str(good),), ())
    assert words.split(":")[0] == str(good)
    assert tried[str(bad / name)] == "is no program of this machine"


def test_where_there_are_none_the_path_stays(tmp_path: Path) -> None:
    assert find({"PATH": "/a:/b"}, None, (), (str(tmp_path),)) == ("/a:/b", {})
