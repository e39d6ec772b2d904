"""Slurm's own time limit under the supervisor: TERM, KILL and --signal as without us; nobody recovers what is over.

slurmctld looks at limits every 30 seconds, so all jobs run at once, each with --mps and without, and every test looks at
the same run. `--time=0:10` is a minute (Slurm rounds up); where a job is to reach its limit at once, root moves its end.
"""

import re
import subprocess
from dataclasses import dataclass, field

import pytest

from tests.cluster.sandbox import Sandbox, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.sim, pytest.mark.slow]

_LOOP = "touch up.$SLURM_JOB_ID; while :; do sleep 0.1; done"
_STEP = 'trap "echo step has USR1; exit 5" USR1; '
SCRIPTS: dict[str, tuple[list[str], str]] = {
    # whichever of step and script hears of it first
    "ends on TERM": (
        [],
        f"trap 'exit 9' TERM; srun bash -c 'trap \"echo step has TERM; exit 3\" TERM; {_LOOP}'; {_LOOP}",
    ),
    "ignores TERM": ([], f"srun bash -c 'trap \"\" TERM; {_LOOP}'"),
    "signal": (["--signal=USR1@10"], f"trap '' USR1; srun bash -c '{_STEP}{_LOOP}'; exit $?"),
    "signal for the script": (
        ["--signal=B:USR1@10"],
        f"trap 'echo script has USR1; scancel --signal=KILL $SLURM_JOB_ID.0; wait; exit 6' USR1; "
        f"srun bash -c '{_STEP}{_LOOP}' & wait",
    ),
}
MOVED = ("ends on TERM", "ignores TERM", "srun")
"""Jobs whose end is moved."""
EXPECTED = {
    "ends on TERM": ("TIMEOUT", "9:0"),
    "ignores TERM": ("TIMEOUT", "0:15"),
    "signal": ("FAILED", "5:0"),
    "signal for the script": ("FAILED", "6:0"),
}


@dataclass(slots=True)
class Run:
    """What the jobs were and said, by name and by whether they asked for MPS."""

    jobs: dict[tuple[str, bool], int] = field(default_factory=dict)
    fields: dict[tuple[str, bool], dict[str, str]] = field(default_factory=dict)
    said: dict[tuple[str, bool], set[str]] = field(default_factory=dict)
    statuses: dict[bool, int] = field(default_factory=dict)


@pytest.fixture(scope="module")
def run(cluster: Sandbox) -> Run:
    it = Run()
    sruns: dict[bool, subprocess.Popen[str]] = {}
    for mps in (False, True):
        ask = ["-wn0", "--time=0:10", *(["--mps", "--gres=shard:1"] if mps else [])]
        for name, (options, script) in SCRIPTS.items():
            it.jobs[name, mps] = cluster.sbatch(*ask, *options, script=script)
        sruns[mps] = cluster.popen(
            ["srun", "-Q", *ask, "bash", "-c", f"trap 'exit 4' TERM; echo $SLURM_JOB_ID; {_LOOP}"], user="alice"
        )
        stdout = sruns[mps].stdout
        assert stdout is not None
        it.jobs["srun", mps] = int(stdout.readline())
    for job in it.jobs.values():
        wait_for(cluster.path(f"/home/alice/up.{job}").exists, 20, lambda: f"a step of each of {it.jobs}")
    for (name, _), job in it.jobs.items():
        if name in MOVED:
            cluster.good(["scontrol", "update", f"JobId={job}", "EndTime=now+1seconds"])
    for mps, process in sruns.items():
        process.communicate(timeout=60)
        it.statuses[mps] = process.returncode
    for key, job in it.jobs.items():
        it.fields[key] = cluster.wait(job, timeout=60)
        lines = cluster.output(job).splitlines()
        # not what bash and srun say of their ends, which is more or less from one run to the next
        it.said[key] = {line for line in lines if line.startswith(("step ", "script "))}
    return it


@pytest.mark.parametrize("name", SCRIPTS)
def test_state_exit_code_and_words_are_those_without_us(run: Run, name: str) -> None:
    plain, ours = run.fields[name, False], run.fields[name, True]
    assert (ours["JobState"], ours["ExitCode"]) == (plain["JobState"], plain["ExitCode"]) == EXPECTED[name]
    assert (ours["Restarts"], plain["Restarts"]) == ("0", "0")
    assert run.said[name, True] == run.said[name, False]


def test_the_step_had_its_signals(run: Run) -> None:
    assert "step has TERM" in run.said["ends on TERM", True]
    assert "step has USR1" in run.said["signal", True]
    assert "script has USR1" in run.said["signal for the script", True]
    assert "step has USR1" not in run.said["signal for the script", True]


def test_srun_ends_as_without_us(run: Run) -> None:
    assert run.fields["srun", True]["JobState"] == run.fields["srun", False]["JobState"] == "TIMEOUT"
    assert run.statuses[True] == run.statuses[False] != 0


def test_nobody_recovers_or_requeues_and_nothing_is_left(cluster: Sandbox, run: Run) -> None:
    jobs = set(run.jobs.values())
    wait_for(lambda: not cluster.residue(), 20, lambda: str(cluster.residue()))
    events = cluster.journal()
    closed = [event for event in events if event["event"] == "job.closed" and event["job"] in jobs]
    assert {event["job"] for event in closed} == {job for (_, mps), job in run.jobs.items() if mps}
    assert [event["residue"] for event in closed] == [[]] * len(closed)
    for event in events:
        task = re.match(r"(\d+)\.", str(event.get("task")))
        if event.get("job") in jobs or (task and int(task[1]) in jobs):
            assert event["event"] not in ("slurm.intent", "incident.opened"), event
            assert event["event"] != "verdict" or event["action"] == "none", event
    assert cluster.good(["sinfo", "-h", "-N", "-o", "%T"]).split() == ["idle", "idle"]
