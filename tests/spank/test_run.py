"""`mpsr run`: a program of a batch script under a supervisor of its own, with the program's arguments, streams and status."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.spank.node import LAUNCHER, ROOT, Supervised, launch
from tests.spank.supervisor_kit import Node

MPSR = ("-m", "resilience.cli.main", "run")
BATCH = {"SLURM_STEP_ID": "", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "PYTHONPATH": str(ROOT)}


@pytest.fixture
def node(built: Path) -> Iterator[Node]:
    """In a short path: mpsr.yaml takes no other for paths.run."""
    with tempfile.TemporaryDirectory(prefix="mpsr-run-") as name:
        it = Node(Path(name))
        yield it
        it.agent.close()


def run(node: Node, *words: str, **environ: str) -> Supervised:
    """As a batch script has it: no step, and the supervisor where mpsr.yaml says."""
    config = node.jobs.parent / "mpsr.yaml"
    config.write_text(f"paths: {{launcher: {LAUNCHER}, run: {node.lease.run}}}\n")
    environ = {"MPSR_CONFIG": str(config)} | BATCH | environ
    return launch(node.lease, *MPSR, *words, env=environ, cwd=node.jobs.parent, launcher=Path(sys.executable))


@pytest.mark.parametrize("dashes", [(), ("--",)])
def test_arguments_streams_and_status_are_the_programs(node: Node, dashes: tuple[str, ...]) -> None:
    supervised = run(node, *dashes, "sh", "-c", 'cat; echo "$@" $MPSR_ROLE; exit 7', "-", "--config", "-v")
    agent = node.agent.accept()
    agent.place()
    assert supervised.process.stdin
    supervised.process.stdin.write("in\n")
    supervised.process.stdin.close()
    supervised.process.stdin = None
    agent.expect("exit")
    agent.verdict("none")
    status, out, _ = supervised.end()
    assert (status, out) == (7, "in\n--config -v active\n")


def test_each_start_is_a_task_of_its_own(node: Node) -> None:
    """One after the other, then two at once."""
    names = []
    for _ in range(2):
        first = run(node, "true")
        names.append(node.agent.accept().place()["task"])
        assert first.end()[0] == 0
    both = []
    for _ in range(2):
        both.append(run(node, "sh", "-c", "read x"))
        names.append(node.agent.accept().place()["task"])
    assert [each.end(stdin="\n")[0] for each in both] == [0, 0]
    assert names == ["0", "1", "2", "3"]


def test_the_lease_is_found_without_the_plugins_variables(node: Node) -> None:
    supervised = run(node, "true", MPSR_LEASE="")
    assert node.agent.accept().place()["job"] == str(node.lease.job)
    assert supervised.end()[0] == 0


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"SLURM_JOB_ID": ""}, "mpsr: run: not in a Slurm job: no SLURM_JOB_ID"),
        ({"SLURM_JOB_ID": "8"}, "mpsr: run: this job did not ask for MPS: no "),
    ],
)
def test_outside_of_such_a_job_nothing_is_started(node: Node, environ: dict[str, str], words: str) -> None:
    status, out, errors = run(node, "echo", "ran", MPSR_LEASE="", **environ).end()
    assert (status, out) == (1, "")
    assert errors.startswith(words)
    assert "sbatch --mps" in errors


def test_a_program_must_be_given(node: Node) -> None:
    status, _, errors = run(node).end()
    assert (status, errors.splitlines()[0]) == (2, "mpsr: run: no program given")


def test_a_supervisor_that_is_not_there_is_told(node: Node) -> None:
    config = node.jobs.parent / "other.yaml"
    config.write_text("paths: {launcher: /nowhere/mpsr-launch}\n")
    status, _, errors = run(node, "true", MPSR_CONFIG=os.fspath(config)).end()
    assert status == 1
    assert errors.startswith("mpsr: /nowhere/mpsr-launch: cannot be run: No such file or directory")
