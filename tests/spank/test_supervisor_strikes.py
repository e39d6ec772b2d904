"""What the agent is told to count a program's faults by: the tasks of an array are one program, a changed file is another."""

import os
import shutil
from pathlib import Path

from tests.spank.node import launch
from tests.spank.supervisor_kit import Node


def program(node: Node, *command: str, cwd: Path, env: dict[str, str] | None = None) -> str:
    supervised = launch(node.lease, *command, env=env or {}, cwd=cwd)
    told = node.agent.accept().place()["program"]
    assert supervised.end()[0] == 0
    return told


def test_the_tasks_of_an_array_are_one_program(node: Node, tmp_path: Path) -> None:
    shutil.copy("/bin/true", tmp_path / "solver")
    for number in (17, 118):
        (tmp_path / f"run_{number}").mkdir()
        (tmp_path / f"run_{number}/solver").hardlink_to(tmp_path / "solver")
    here, there = tmp_path / "run_17", tmp_path / "run_118"
    one = program(node, "./solver", "--seed", "17", "alpha", cwd=here)
    assert one == program(node, "./solver", "--seed", "4", "beta", cwd=there, env={"SLURM_PROCID": "3"})
    by_path = program(node, str(here / "solver"), cwd=tmp_path)
    assert by_path == program(node, str(there / "solver"), "x", cwd=there)
    script = tmp_path / "task.sh"
    script.write_text("exit 0\n")
    assert len({program(node, "sh", str(script), word, cwd=tmp_path) for word in ("alpha", "beta")}) == 1


def test_other_programs_are_others(node: Node, tmp_path: Path) -> None:
    for name in ("one.sh", "two.sh"):
        (tmp_path / name).write_text("exit 0\n")
    commands = (
        ("true",), ("sh", "one.sh"), ("sh", "-e", "one.sh"), ("sh", "two.sh"), ("sh", "-c", "exit 0"), ("sh", "-c", "true"),
        ("env", "sh", "one.sh"), ("env", "sh", "two.sh"),
    )  # fmt: skip
    assert len({program(node, *command, cwd=tmp_path) for command in commands}) == len(commands)


def test_a_changed_file_begins_anew(node: Node, tmp_path: Path) -> None:
    script = tmp_path / "task.sh"
    script.write_text("exit 0\n")
    before = program(node, "sh", "task.sh", cwd=tmp_path)
    assert before == program(node, "sh", "task.sh", cwd=tmp_path)
    os.utime(script, ns=(1, 1))
    assert program(node, "sh", "task.sh", cwd=tmp_path) != before
