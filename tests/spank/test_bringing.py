"""A session in a batch script brings its program under a supervisor: once, with the same command, or says why not."""

import sys
from pathlib import Path

import pytest

from tests.spank.node import LAUNCHER, ROOT, Supervised, launch
from tests.spank.supervisor_kit import Node

BATCH = {
    "SLURM_STEP_ID": "",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "PYTHONPATH": str(ROOT),
    "MPSR_LAUNCHER": str(LAUNCHER),
    "MPSR_OPTIONS": "mps=on;domain=user;threads=;memory=;state=;standby=off;recover=relaunch;retries=3;"
    "on-culprit=fail;require=mps",
}
PROGRAM = """
import multiprocessing, os, sys, threading
from resilience.state.bringing import bring
def session(): bring(os.environ); print(os.environ.get("MPSR_ROLE", "alone"), *sys.argv[2:], flush=True)
def forked():
    if os.fork() == 0:
        session()
        os._exit(0)
    os.wait()
def worker():
    child = multiprocessing.get_context("fork").Process(target=session)
    child.start()
    child.join()
def thread():
    one = threading.Thread(target=session)
    one.start()
    one.join()
globals()[sys.argv[1]]()
"""


def start(node: Node, *words: str, **environ: str) -> Supervised:
    (node.jobs.parent / "program.py").write_text(PROGRAM)
    return launch(node.lease, *words, env=BATCH | environ, cwd=node.jobs.parent, launcher=Path(sys.executable))


@pytest.mark.parametrize("command", [("program.py",), ("-u", "./program.py"), ("-m", "program"), ("-c", PROGRAM)])
def test_the_same_command_starts_again_under_a_supervisor(node: Node, command: tuple[str, ...]) -> None:
    environ = {"PYTHONPATH": f"{ROOT}:{node.jobs.parent}"}
    supervised = start(node, *command, "session", "a b", "-x", **environ)
    node.agent.accept().place()
    status, out, errors = supervised.end()
    assert (status, out) == (0, "active a b -x\n")
    assert "no supervisor" not in errors


@pytest.mark.parametrize(
    ("how", "environ", "why"),
    [
        ("forked", {}, "it is a child of the program"),
        ("worker", {}, "it is a child of the program"),
        ("thread", {}, "it is opened in a thread"),
        ("session", {"PMIX_RANK": "0"}, "it is an MPI rank (PMIX_RANK)"),
        ("session", {"MPSR_LAUNCHER": "/nowhere/mpsr-launch"}, "/nowhere/mpsr-launch: No such file or directory"),
    ],
)
def test_where_it_would_not_start_again_it_goes_on_and_says_so(
    node: Node, how: str, environ: dict[str, str], why: str
) -> None:
    status, out, errors = start(node, "program.py", how, **environ).end()
    assert (status, out) == (0, "alone\n")
    assert (
        errors
        == f"mpsr: session: no supervisor, so it is not recovered: {why}\n  start the program with srun or mpsr run\n"
    )


def test_a_program_from_standard_input_goes_on(node: Node) -> None:
    status, out, errors = start(node, "-", "session").end(stdin=PROGRAM)
    assert (status, out) == (0, "alone\n")
    assert "the command cannot be told from here" in errors


@pytest.mark.parametrize(
    "environ",
    [{"MPSR_OPTIONS": ""}, {"MPSR_OPTIONS": "mps=off"}, {"MPSR_LEASE": ""}, {"MPSR_LAUNCHER": ""}, {"MPSR_FD": "9"}],
    ids=str,
)
def test_who_has_a_supervisor_or_did_not_ask_is_left_alone(node: Node, environ: dict[str, str]) -> None:
    assert start(node, "program.py", "session", **environ).end() == (0, "alone\n", "")


def test_never_twice(node: Node) -> None:
    """Whatever was started in the supervisor's place."""
    assert start(node, "program.py", "session", MPSR_LAUNCHER="/usr/bin/env").end() == (0, "alone\n", "")
