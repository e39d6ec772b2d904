"""A program kept beside its keeper: started again when it ends, ended with the keeper, also a killed one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from resilience.adapters.linux import kept_process
from resilience.adapters.linux.kept_process import KeptProcess
from tests.cluster.sandbox import wait_for

SECONDS = 15.0
CAT = "echo $$ >>{file}; exec cat"
KEEPER = """
import sys, time
from resilience.adapters.linux.kept_process import KeptProcess
KeptProcess("cat", ["sh", "-c", sys.argv[1]], print)
time.sleep(600)
"""


def pids(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().splitlines()] if file.exists() else []


def started(file: Path, count: int) -> int:
    """The pid of the count-th start."""
    wait_for(lambda: len(pids(file)) == count, SECONDS)
    return pids(file)[-1]


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_it_is_started_again_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_process, "_PAUSE_FIRST", 0.01)
    said: list[str] = []
    kept = KeptProcess("cat", ["sh", "-c", CAT.format(file=tmp_path / "pids")], said.append)
    try:
        for count in (1, 2, 3):
            os.kill(started(tmp_path / "pids", count), signal.SIGKILL)
        started(tmp_path / "pids", 4)
    finally:
        kept.close()
    assert [line for line in said if "cat: ended with status -9; it is started again in 0.0" in line] == said[:3]
    assert not alive(pids(tmp_path / "pids")[-1])


def test_it_ends_with_its_keeper(tmp_path: Path) -> None:
    said: list[str] = []
    kept = KeptProcess("cat", ["sh", "-c", CAT.format(file=tmp_path / "pids")], said.append)
    (pid,) = wait_for(lambda: pids(tmp_path / "pids"), SECONDS)
    kept.close()
    assert not alive(pid)
    assert said == []


def test_one_that_does_not_end_by_itself_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_process, "_PATIENCE", 0.2)
    kept = KeptProcess("sleep", ["sh", "-c", f"echo $$ >{tmp_path}/pids; exec sleep 600"], print)
    (pid,) = wait_for(lambda: pids(tmp_path / "pids"), SECONDS)
    kept.close()
    wait_for(lambda: not alive(pid), SECONDS)


def test_a_killed_keeper_takes_it_along(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KEEPER, CAT.format(file=tmp_path / "pids")]
    keeper = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])})
    (pid,) = wait_for(lambda: pids(tmp_path / "pids"), SECONDS)
    keeper.kill()
    keeper.wait()
    wait_for(lambda: not alive(pid), SECONDS)


def test_a_program_that_is_not_there_is_told_ever_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_process, "_PAUSE_FIRST", 0.01)
    said: list[str] = []
    kept = KeptProcess("none", ["/nonexistent/program"], said.append)
    wait_for(lambda: len(said) == 3, SECONDS)
    kept.close()
    assert "none: cannot be started: " in said[0]
    assert [line.rsplit(" in ", 1)[1] for line in said[:3]] == ["0.01 s", "0.02 s", "0.04 s"]
