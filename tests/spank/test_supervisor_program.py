"""Whose state a task keeps: the digest of its program, and the number of a supervisor that is not the task's only one."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.spank.node import launch
from tests.spank.slurm import wait_for
from tests.spank.supervisor_kit import Node, shell

ECHO = "echo $MPSR_PROGRAM"


def digest(node: Node, *command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    supervised = launch(node.lease, *command, env=env or {}, cwd=cwd or node.jobs.parent)
    node.agent.accept().place()
    status, out, errors = supervised.end()
    assert status == 0, errors
    return out.strip()


def test_the_digest_is_of_directory_program_and_arguments(node: Node, tmp_path: Path) -> None:
    first = digest(node, *shell(ECHO))
    same = [
        digest(node, "-c", ECHO, env={"MPSR_ARGV0": "sh"}),  # as the plugin starts it
        digest(node, *shell(ECHO), env={"SLURM_STEP_ID": "9", "SLURM_RESTART_COUNT": "1", "SLURM_NODELIST": "n7"}),
        digest(node, *shell(ECHO), env={"MASTER_ADDR": "n7", "TMPDIR": "/tmp/7"}),
    ]
    assert same == [first] * 3
    elsewhere = tmp_path / "case2"
    elsewhere.mkdir()
    others = [
        digest(node, *shell(f"{ECHO} ")),
        digest(node, "sh", "-c", ECHO, ""),
        digest(node, "bash", "-c", ECHO),
        digest(node, *shell(ECHO), cwd=elsewhere),
    ]
    assert len({first, *others}) == 5


def test_one_file_with_two_names_is_two_programs(node: Node, tmp_path: Path) -> None:
    program = tmp_path / "all"
    program.write_text(f"#!/bin/sh\n{ECHO}\n")
    program.chmod(0o755)
    names = [tmp_path / "prepare", tmp_path / "solve"]
    for name in names:
        name.symlink_to(program)
    assert digest(node, str(names[0])) != digest(node, str(names[1]))
    by_path = digest(node, "solve", env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert by_path == digest(node, str(names[1]))


def test_a_program_that_srun_has_copied_is_known_by_its_content(node: Node, tmp_path: Path) -> None:
    """--bcast names the copy by job, step and node."""
    copies = [tmp_path / name for name in ("slurm_bcast_7.0_n0", "slurm_bcast_7.3_n1", "slurm_bcast_7.1_n0")]
    for copy, more in zip(copies, ("", "", "# another\n"), strict=True):
        copy.write_text(f"#!/bin/sh\n{ECHO}\n{more}")
        copy.chmod(0o755)
    one, moved, other = (digest(node, str(copy)) for copy in copies)
    assert one == moved != other


def test_a_program_that_is_not_there_ends_as_ever(node: Node) -> None:
    supervised = node.start("no-such-program")
    node.agent.accept().place()
    assert supervised.end()[0] == 127


@pytest.mark.parametrize("tasks", [1, 4])
def test_supervisors_of_one_task_at_once_have_numbers_and_keepers_of_their_own(node: Node, tasks: int) -> None:
    """`mpsr-launch a & mpsr-launch b & wait` in a batch script, or one inside another."""
    environ = {"SLURM_STEP_NUM_TASKS": str(tasks)}
    supervised, hellos = [], []
    for _ in range(3):
        supervised.append(node.start(*shell("echo $MPSR_KEEPER; read x"), env=environ))
        hellos.append(node.agent.accept().place())
    assert [int(hello["task"]) for hello in hellos] == [5, 5 + tasks, 5 + 2 * tasks]
    ends = [each.end(stdin="\n") for each in supervised]
    assert [status for status, _, _ in ends] == [0, 0, 0]
    assert len({out for _, out, _ in ends}) == 3
    again = node.start(*shell("true"), env=environ)
    assert node.agent.accept().place()["task"] == "5", "a number is free when its supervisor has gone"
    assert again.end()[0] == 0


def test_without_a_job_directory_the_task_runs_all_the_same(node: Node) -> None:
    shutil.rmtree(node.jobs / "7")
    supervised = node.start(sys.executable, "-c", "print('ran')")
    node.agent.accept().place()
    assert supervised.end()[:2] == (0, "ran\n")
    wait_for(lambda: not (node.jobs / "7").exists(), "nothing made in its place")
