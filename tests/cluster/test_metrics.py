"""The real agent's metrics file on a real Slurm: turned on as an admin does, through a fault and a rotation of the journal."""

import time
from collections.abc import Iterator

import pytest

from resilience.metrics import Fold
from tests.cluster.sandbox import Sandbox, wait_for
from tests.demo.faults import SHARD
from tests.demo.stage import NODE, Stage
from tests.unit.metrics_kit import parsed, value

pytestmark = [pytest.mark.cluster, pytest.mark.sim]
DIRECTORY = "/var/log/metrics"
FILE = f"{DIRECTORY}/mpsr-{NODE}.prom"
CONFIG = f"/etc/slurm/mpsr-{NODE}.yaml"
JOURNAL = f"/var/log/mpsr/{NODE}/journal.jsonl"
ROTATED = "/var/log/rotated"


def reload(sandbox: Sandbox, metrics: str) -> None:
    """Change paths.metrics and let the agent read it."""
    sandbox.good(["sed", "-i", f's,^  metrics: .*,  metrics: "{metrics}",', CONFIG])
    (agent,) = (pid for pid, command in sandbox.processes().items() if f"main agent --node {NODE}" in command)
    sandbox.good(["kill", "-HUP", str(agent)])


@pytest.fixture
def measured(cluster: Sandbox) -> Iterator[tuple[Stage, int]]:
    """With the journal's lines before this agent's. Its first ones end what the agent before it left open."""
    cluster.good(["install", "-d", "-m", "755", DIRECTORY])
    before = len(cluster.read(JOURNAL).splitlines())
    reload(cluster, DIRECTORY)
    made = Stage(cluster)
    yield made, before
    made.clear()
    reload(cluster, "")
    wait_for(lambda: not cluster.path(FILE).exists(), 20, lambda: f"{FILE} outlives its setting")


def figures(sandbox: Sandbox, before: int) -> str:
    """What the agent's file must say: every line after the first `before`, in the rotated journal and in the new one."""
    made = Fold()
    for line in (sandbox.read(ROTATED) + sandbox.read(JOURNAL)).splitlines()[before:]:
        made.line(line)
    return made.text()


def test_a_fault_is_counted_once_whoever_writes_of_it_and_wherever(measured: tuple[Stage, int]) -> None:
    stage, before = measured
    sandbox = stage.sandbox

    def read() -> str:
        return sandbox.read(FILE)

    wait_for(
        lambda: "mpsr_agent_start_time_seconds 1" in read(), 30, lambda: sandbox.read("/var/log/slurm/agent.n0.log")
    )
    job = stage.solver(*SHARD.ask())
    stage.under_way([job])
    sandbox.good(["mv", JOURNAL, ROTATED])  # as logrotate does with our template
    since = time.monotonic()
    culprit = stage.culprit("illegal-address", *SHARD.ask())
    assert stage.end(culprit)["JobState"] == "FAILED"
    assert stage.end(job)["JobState"] == "COMPLETED"
    assert stage.clean([job.number, culprit.number], since) == []
    wait_for(lambda: read() == figures(sandbox, before), 30, lambda: f"{read()}\nnot:\n{figures(sandbox, before)}")
    text = read()
    known = {sample.labels["gpu"] for sample in parsed(text)["mpsr_gpu_faults_total"].samples}
    (gpu,) = (name for name in known if name.startswith("GPU-"))  # others: of incidents that an agent before left open
    for count, name, labels in (
        (1, "mpsr_faults_total", {"class": "mmu", "attribution": "certain"}),
        (1, "mpsr_gpu_faults_total", {"gpu": gpu, "xid": "31"}),
        (1, "mpsr_task_outcomes_total", {"part": "culprit", "outcome": "failed"}),
        (1, "mpsr_task_outcomes_total", {"part": "bystander", "outcome": "recovered"}),
        (1, "mpsr_recovery_duration_seconds_count", {"rung": "standby"}),
        (2, "mpsr_jobs_opened_total", {"isolation": "domains"}),
        (2, "mpsr_jobs_closed_total", {"outcome": "clean"}),
        (2, "mpsr_prolog_duration_seconds_count", {}),
        (2, "mpsr_epilog_duration_seconds_count", {}),
        (0, "mpsr_incidents_open", {}),
        (0, "mpsr_servers_unavailable", {"state": "faulted"}),
    ):
        assert value(text, name, **labels) == count, name
    took = value(text, "mpsr_recovery_duration_seconds_sum", rung="standby")
    (recovered,) = stage.journal(since, "recovered")
    assert took == recovered["ms"] / 1000
    assert sandbox.path(FILE).stat().st_mode & 0o777 == 0o644
    assert sandbox.good(["mpsr", "metrics", "--journal", JOURNAL]).startswith("# HELP mpsr_agent_start_time_seconds ")
