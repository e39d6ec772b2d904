"""How long Slurm waits from SIGTERM to SIGKILL, and when it began to end a job: what slurmctld says of it, in our words."""

from datetime import datetime

import pytest

from resilience.adapters.slurm import scontrol
from resilience.adapters.slurm.scontrol import Scontrol
from resilience.model.errors import SlurmError
from resilience.model.ids import JobId
from tests.unit.squeue_kit import Cluster

JOB = JobId(2)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    monkeypatch.setattr(scontrol, "run", made.run)
    return made


@pytest.fixture
def slurm(cluster: Cluster) -> Scontrol:
    return Scontrol(program="scontrol", timeout=5, requeue_timeout=30)


@pytest.mark.parametrize(("shown", "seconds"), [("30 sec", 30), ("300 sec", 300), ("2 sec", 5), ("0 sec", 5)])
def test_kill_wait_is_what_slurmd_makes_of_it(cluster: Cluster, slurm: Scontrol, shown: str, seconds: float) -> None:
    cluster.config = f"JobRequeue              = 1\nKillWait                = {shown}\nLaunchType  = x\n"
    assert slurm.kill_wait() == seconds


@pytest.mark.parametrize("line", ["", "KillWait                = soon\n", "KillWait                = -1 sec\n"])
def test_a_slurm_that_shows_none_is_an_error_with_a_name(cluster: Cluster, slurm: Scontrol, line: str) -> None:
    cluster.config = line
    with pytest.raises(SlurmError, match="shows no KillWait"):
        slurm.kill_wait()


def test_a_job_that_slurm_ends_has_the_time_of_its_end(cluster: Cluster, slurm: Scontrol) -> None:
    cluster.jobs = {2: {"State": "COMPLETING", "EndTime": "2026-12-01T03:40:12"}}
    assert slurm.ended_at(JOB) == datetime(2026, 12, 1, 3, 40, 12).timestamp()


@pytest.mark.parametrize("state", ["RUNNING", "SUSPENDED", "STOPPED", "SIGNALING"])
def test_a_job_that_goes_on_has_none(cluster: Cluster, slurm: Scontrol, state: str) -> None:
    """A preemption with GraceTime leaves it RUNNING, with an EndTime that is to come."""
    cluster.jobs = {2: {"State": state, "EndTime": "2026-12-01T03:40:12"}}
    assert slurm.ended_at(JOB) is None


@pytest.mark.parametrize(
    "shown",
    [
        ("COMPLETING", "NONE"),
        ("COMPLETING", "N/A"),
        ("CANCELLED", "2026-12-01T03:40:12"),
        ("PENDING", "2027-12-01T03:40:12"),
    ],
)
def test_a_requeue_has_no_end_and_the_others_have_long_ended(
    cluster: Cluster, slurm: Scontrol, shown: tuple[str, str]
) -> None:
    cluster.jobs = {2: {"State": shown[0], "EndTime": shown[1]}}
    assert slurm.ended_at(JOB) == 0.0


def test_a_job_that_slurm_has_forgotten_has_ended(slurm: Scontrol) -> None:
    assert slurm.ended_at(JOB) == 0.0
