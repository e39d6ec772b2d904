"""`mpsr drill` as a user runs it, on a real Slurm: what holds is said to hold, what does not is said, too."""

import json
from collections.abc import Iterator

import pytest

from resilience.contract import exit_code
from tests.cluster.plan import REPO, USERS
from tests.cluster.sandbox import CommandDone, Sandbox, wait_for
from tests.demo.stage import NODE, Stage

pytestmark = [pytest.mark.cluster, pytest.mark.sim]
HOME = "/home/alice"


@pytest.fixture
def drilled(cluster: Sandbox) -> Iterator[Sandbox]:
    yield cluster
    Stage(cluster).clear()


def drill(sandbox: Sandbox, *words: str, sbatch: tuple[str, ...] = (f"-w{NODE}",)) -> CommandDone:
    argv = ["mpsr", "drill", "--dir", HOME, *words, "--", *sbatch]
    return sandbox.run(argv, user="alice", timeout=100)


def left(sandbox: Sandbox) -> list[str]:
    return [entry.name for entry in sandbox.path(HOME).glob("mpsr-drill-*")]


def test_both_bystanders_survive_and_it_says_how(drilled: Sandbox) -> None:
    done = drill(drilled, "--yes", "--json", f"{HOME}/drill.json")
    assert done.status == exit_code("ok"), done.out + done.err
    result = json.loads(drilled.read(f"{HOME}/drill.json"))
    assert (result["held"], result["fault"]) == (True, "illegal-address")
    said = {row["what"]: row["seen"] for row in result["rows"]}
    assert said["fault"].endswith("isolation: domains")
    assert said["culprit"].startswith("named")
    assert "recovered on standby in" in said["bystander that keeps state"]
    assert "relaunched in" in said["bystander that does not"]
    assert said["the job"] == "COMPLETED, 0 restarts"
    assert left(drilled) == []
    assert not drilled.residue()


def test_what_did_not_hold_is_said(drilled: Sandbox) -> None:
    done = drill(drilled, "--yes", "--keep", sbatch=(f"-w{NODE}", "--mps-retries=0", "--mps-recover=standby"))
    assert done.status == exit_code("failed"), done.out + done.err
    rows = {
        line[:28].strip(): line[28:].split(None, 1)
        for line in done.out.splitlines()
        if "  held" in line or "FAILED" in line
    }
    assert rows["bystander that keeps state"][0] == "FAILED"
    assert "ended with status" in rows["bystander that keeps state"][1]
    assert rows["culprit"][0] == "held"
    (kept,) = left(drilled)
    drilled.good(["rm", "-r", f"{HOME}/{kept}"])


def test_nobody_elses_process_on_the_gpu_is_hit(drilled: Sandbox) -> None:
    """One that Slurm knows nothing of."""
    plain = [drilled.plan.python, f"{REPO}/tests/programs/plain.py", "1000000", "--pace", "5"]
    with drilled.popen(plain, user="bob", node=NODE) as bob:
        try:
            wait_for(lambda: drilled.on_gpu(NODE), 20)
            done = drill(drilled, "--yes")
            assert bob.poll() is None
        finally:
            drilled.run(["pkill", "-u", "bob", "-f", "plain.py"])
    assert done.status == exit_code("failed")
    assert "made no fault: drill: process" in done.out
    assert f"of uid {USERS['bob']} is on GPU-" in done.out


def test_the_guard_is_not_tested_where_it_is_not_loaded(drilled: Sandbox) -> None:
    """No fault is made; the module itself, and what its hooks count, are tested in a virtual machine (tests/guard)."""
    argv = ["mpsr", "guard", "test", "--yes", "--keep", "--dir", HOME, "--", f"-w{NODE}"]
    done = drilled.run(argv, user="alice", timeout=100)
    assert done.status == exit_code("failed"), done.out + done.err
    assert "module  FAILED  drill: the guard module is not loaded, so no fault is made" in done.out
    (kept,) = left(drilled)
    steps = {entry.name for entry in drilled.path(f"{HOME}/{kept}").glob("*.status")}
    drilled.good(["rm", "-r", f"{HOME}/{kept}"])
    assert steps == {"before.status", "look.status"}
    assert not drilled.residue()


@pytest.mark.parametrize(
    ("words", "sbatch", "status", "says"),
    [
        ((), (), "usage", "asks first, and there is no terminal"),
        (("--yes", "--gres", "shard:1"), (), "usage", "a drill takes a whole GPU"),
        (("--yes",), ("--partition=nosuch",), "failed", "nosuch"),
        (("--yes", "--dir", "/nowhere"), (), "failed", "/nowhere: cannot be written"),
        (("--yes", "--wait", "1", "--gres", "gpu:1"), ("--begin=now+1hour",), "failed", "is not done after 1 s"),
    ],
)
def test_what_cannot_be_drilled_is_said(
    drilled: Sandbox, words: tuple[str, ...], sbatch: tuple[str, ...], status: str, says: str
) -> None:
    done = drill(drilled, *words, sbatch=sbatch)
    assert done.status == exit_code(status), done.out + done.err
    assert says in done.err
    assert left(drilled) == []
    assert not drilled.good(["squeue", "-h", "-u", "alice"]).strip()
