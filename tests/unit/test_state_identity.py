"""Whose state it is: by name or command, the same in the job's next run; two at once never share one."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience.model.errors import StateError
from resilience.state import identity, spillfile
from resilience.state.spills import Spills

COMMAND, OTHER = "0123456789abcdef", "fedcba9876543210"


class Job:
    """A run of a job on a node: its directory, and supervisors whose keepers answer or do not."""

    def __init__(self, directory: Path, restart: int = 0) -> None:
        self.directory = directory / f"run{restart}"
        self.directory.mkdir(mode=0o700)
        self.spill = directory / "spill"
        self.restart = restart
        self.listeners: list[socket.socket] = []

    def supervisor(self, step: int, program: str = COMMAND, task: int = 0, *, lives: bool = True) -> dict[str, str]:
        keeper = self.directory / f"k{step}.{task}"
        if lives:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            listener.bind(str(keeper))
            listener.listen()
            self.listeners.append(listener)
        return {
            "MPSR_KEEPER": str(keeper),
            "MPSR_TOKEN": f"run {self.restart} step {step}",
            "MPSR_PROGRAM": program,
            "MPSR_SPILL": str(self.spill),
            "SLURM_JOB_ID": "12",
            "SLURM_STEP_ID": str(step),
            "SLURM_PROCID": str(task),
            "SLURM_RESTART_COUNT": str(self.restart),
        }

    def end(self) -> None:
        for listener in self.listeners:
            listener.close()


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    made = Job(tmp_path)
    yield made
    made.end()


def name(environ: dict[str, str], given: str = "") -> str:
    return identity.claim(environ, given).name


def test_a_command_has_its_name_whatever_the_steps_number(job: Job, tmp_path: Path) -> None:
    first, second = name(job.supervisor(0, OTHER)), name(job.supervisor(1))
    assert first != second
    again = Job(tmp_path, restart=1)
    assert name(again.supervisor(0)) == second, "the first program was done, and its step is not there any more"
    assert name(again.supervisor(1), "solver") == "solver"


def test_the_processes_of_one_supervisor_have_one_claim(job: Job) -> None:
    """The program, the one that is started after it, the promoted standby, the spiller."""
    environ = job.supervisor(3)
    claim = identity.claim(environ, "")
    assert claim == identity.claim(environ, "") == identity.claimed(environ)
    assert not claim.twin


def test_a_command_that_is_started_again_begins_anew(job: Job, tmp_path: Path) -> None:
    """In a loop of one job: the second is not the first, in this run and in the next."""
    first = job.supervisor(0)
    names = [name(first)]
    identity.end(first, "")
    (job.directory / "k0.0").unlink()
    names += [name(job.supervisor(step, lives=False)) for step in (1, 2)]
    assert names == [names[0], f"{names[0]}+2", f"{names[0]}+3"]
    again = Job(tmp_path, restart=1)
    assert [name(again.supervisor(step, lives=False)) for step in (0, 1, 2)] == names
    environ = again.supervisor(9, OTHER, lives=False)
    inner = name(environ)
    identity.end(environ, "")
    assert name(environ) == f"{inner}+2", "twice below one supervisor: a shell with a loop"


def test_two_at_once_are_told_and_neither_is_gone_on_from(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sessions = [Spills(job.supervisor(step), 0.0) for step in (0, 1)]
    for spills in sessions:
        spills.begin()
    told = capsys.readouterr().err
    assert told.count("mpsr: session: another one of the same command runs in this job: @") == 1
    assert "session(name=…)" in told
    place = spillfile.place(job.supervisor(7, OTHER, lives=False), name(job.supervisor(8, lives=False)).split("+")[0])
    assert place is not None
    assert spillfile.marked(place)
    again = Job(tmp_path, restart=1)
    later = Spills(again.supervisor(0, lives=False), 0.0)
    later.begin()
    assert later.found() is None


def test_a_name_has_one_owner_at_a_time(job: Job) -> None:
    first, second = job.supervisor(0), job.supervisor(1, OTHER)
    assert name(first, "solver") == "solver"
    with pytest.raises(
        StateError, match=r"another program of this job is open under this name: solver, k0\.0"
    ) as refused:
        identity.claim(second, "solver")
    assert "session(name=" in refused.value.hint
    assert name(first, "solver") == "solver", "a process that is started again is no rival of its own"
    assert name(second, "other") == "other"
    job.listeners[0].close()
    (job.directory / "k0.0").unlink()
    claim = identity.claim(second, "solver")
    assert {identity.run_of(first), identity.run_of(second)} == claim.runs, "a chosen name is gone on from"


def test_tasks_are_apart(job: Job) -> None:
    assert name(job.supervisor(0, task=0)) == name(job.supervisor(0, task=1))
    identity.claim(job.supervisor(1, task=2), "solver")
    identity.claim(job.supervisor(1, task=3), "solver")


@pytest.mark.parametrize("bad", ["/x", ".x", "a b", "a/b", "@x", "x" * 65, "ä", "a\n", 7])
def test_bad_names(bad: str) -> None:
    with pytest.raises(StateError, match="session: not a name"):
        identity.base_name({}, bad)


def test_without_a_job_directory_nothing_is_counted(tmp_path: Path) -> None:
    environ = {"MPSR_KEEPER": str(tmp_path / "gone/k0.0"), "MPSR_PROGRAM": COMMAND}
    assert name(environ) == name(environ) == identity.base_name(environ, "")
    assert identity.claimed(environ) is None
    identity.end(environ, "")


@settings(max_examples=60)
@given(st.binary(max_size=300))
def test_any_file_of_claims_is_read(tmp_path: Path, content: bytes) -> None:
    """It is the user's own, and lies where only he writes; what is no claim is passed over."""
    (tmp_path / identity.SESSIONS).write_bytes(content + b"\n")
    environ = {"MPSR_KEEPER": str(tmp_path / "k0.0"), "MPSR_PROGRAM": COMMAND, "MPSR_TOKEN": os.urandom(4).hex()}
    assert name(environ) == identity.base_name(environ, "")


def test_a_file_of_claims_beyond_measure_counts_for_nothing(job: Job) -> None:
    environ = job.supervisor(0)
    (job.directory / identity.SESSIONS).write_bytes(b"x" * (1 << 20))
    assert identity.claim(environ, "").twin, "a later launch cannot be told from the first"
    assert not identity.claim(environ, "solver").twin


def test_no_link_is_followed(tmp_path: Path) -> None:
    target = tmp_path / "mine"
    (tmp_path / identity.SESSIONS).symlink_to(target)
    name({"MPSR_KEEPER": str(tmp_path / "k0.0"), "MPSR_PROGRAM": COMMAND})
    assert not target.exists()
