"""pyslurm in a process of its own: what it does to itself there is told in words, and never done to us.

A module of the name pyslurm is put on the path: the stand-in of fake_pyslurm.py, or one that goes wrong.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

from resilience.adapters.slurm import slurm_commands
from resilience.adapters.slurm.pyslurm_process import Processes
from resilience.model.errors import ConfigError, SlurmAway, SlurmError
from resilience.model.settings import Settings, SlurmSettings

GOOD = """
from tests.unit.fake_pyslurm import Controller, module
controller = Controller()
controller.add(1)
api = module(controller)
Job, Node, RPCError, JobSubmitDescription, slurmctld = api.Job, api.Node, api.RPCError, api.JobSubmitDescription, api.slurmctld
__version__ = api.__version__
"""
AWAY = GOOD + "controller.reachable = False\n"
HANGS = GOOD + "import signal\nJob.load = lambda job: signal.pause()\n"
ENDS = GOOD + "import os\nJob.load = lambda job: os._exit(3)\n"
OTHER = GOOD + "slurmctld.Config.version = '22.05.8'\n"
FATAL = "import os, sys\nprint('fatal: Could not establish a configuration source', file=sys.stderr, flush=True)\nos._exit(1)\n"
NOISY = "print('a line of libslurm')\n" + GOOD
OLD = "__version__ = '18.8.0'\n"
REPO = str(Path(__file__).resolve().parents[2])


@pytest.fixture
def pyslurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that is pyslurm, for this process and those that it starts."""
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{REPO}")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "pyslurm.py"


def settings(adapter: str = "auto", timeout: float = 30) -> Settings:
    return replace(Settings(), slurm=SlurmSettings(adapter=adapter, timeout=timeout))


@pytest.fixture(autouse=True)
def others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children of this process that are not of the test at hand."""
    monkeypatch.setattr(sys.modules[__name__], "OTHERS", frozenset(_children()))


OTHERS: frozenset[str] = frozenset()


def _children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def children() -> list[str]:
    return [child for child in _children() if child not in OTHERS]


@pytest.mark.parametrize("text", [GOOD, NOISY])
def test_it_is_taken_where_it_reaches_slurmctld(text: str, pyslurm: Path) -> None:
    pyslurm.write_text(text)
    picked = slurm_commands.pick(settings())
    try:
        assert (picked.name, picked.why) == ("pyslurm", "reaches slurmctld and has its release")
    finally:
        picked.close()
    assert children() == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (OTHER, "pyslurm 25.11.2 is for another release than slurmctld's 22.05.8"),
        (FATAL, "fatal: Could not establish a configuration source"),
        (OLD, "pyslurm 18.8.0 has no Job: 25.11 or later is needed"),
        ("import nothing_of_that_name\n", "No module named 'nothing_of_that_name'"),
    ],
)
def test_what_does_not_fit_is_not_taken_and_ends_nobody(text: str, why: str, pyslurm: Path) -> None:
    pyslurm.write_text(text)
    assert slurm_commands.pick(settings()).why == f"no pyslurm: {why}"
    with pytest.raises(ConfigError, match=r"slurm\.adapter: pyslurm cannot be used"):
        slurm_commands.pick(settings("pyslurm"))
    assert children() == []


def test_it_is_taken_unseen_only_where_it_is_named(pyslurm: Path) -> None:
    pyslurm.write_text(AWAY)
    assert "Unable to contact slurm controller" in slurm_commands.pick(settings()).why
    assert slurm_commands.pick(settings("pyslurm")).name == "pyslurm"


def test_scontrol_is_taken_where_there_is_no_pyslurm() -> None:
    assert slurm_commands.pick(settings()).why == "no pyslurm: not installed"
    assert slurm_commands.pick(settings("scontrol")).why == "set in slurm.adapter"


def test_a_call_that_hangs_holds_up_nobody_else(pyslurm: Path) -> None:
    """pyslurm keeps Python's lock in a call: in this process it would stop every thread."""
    pyslurm.write_text(HANGS)
    processes = Processes(timeout=8)
    caught: list[Exception] = []

    def ask() -> None:
        try:
            processes.ask("load", job=1)
        except SlurmAway as error:
            caught.append(error)

    thread = Thread(target=ask)
    thread.start()
    assert processes.ask("node", name="x") == {"refused": "Node 'x' does not exist"}
    thread.join()
    processes.close()
    assert [str(error) for error in caught] == ["pyslurm: gave no answer within 8 s: load"]
    assert children() == []


def test_a_process_that_ends_is_replaced(pyslurm: Path) -> None:
    pyslurm.write_text(ENDS)
    processes = Processes(timeout=30)
    for _ in range(2):
        with pytest.raises(SlurmError, match="pyslurm: ended its process: exit status 3"):
            processes.ask("load", job=1)
    assert processes.ask("node", name="x") == {"refused": "Node 'x' does not exist"}
    processes.close()
    assert children() == []
