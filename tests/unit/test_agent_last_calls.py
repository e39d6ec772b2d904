"""The agent's word on Slurm's SIGKILL: how long after SIGTERM it comes is asked once, whether it comes for each that asks."""

import time
from pathlib import Path

from resilience.model.errors import SlurmAway
from tests.unit.agent_kit import Site, until
from tests.unit.machine_kit import lease


def asked(site: Site) -> list[object]:
    return [call for call in site.slurm.calls if call[0] in ("kill_wait", "ended_at")]


def test_each_task_hears_how_long_slurm_waits_and_slurm_is_asked_once(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        site.slurm.waits = 45.0
        for number in (1, 2):
            assert site.task(lease(number)).hear("kill_wait")["ms"] == "45000"
        assert asked(site) == [("kill_wait",)]


def test_a_job_that_slurm_ends_is_told_how_long_it_has(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        task = site.task(lease(1))
        task.hear("place")
        until(lambda: asked(site), "the question")
        for ended, least, most in ((time.time() - 28, 0, 2000), (0.0, 0, 0), (time.time() + 3600, 30000, 30000)):
            site.slurm.ended = ended
            task.say("kill_when")
            assert least <= int(task.hear("kill_in")["ms"]) <= most


def test_a_job_that_slurm_lets_run_is_told_so(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        task = site.task(lease(1))
        task.hear("place")
        task.say("kill_when")
        assert task.hear("kill_in")["ms"] == ""


def test_a_slurm_that_does_not_answer_ends_nothing(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        task = site.task(lease(1))
        task.hear("place")
        site.slurm.ended = SlurmAway("slurmctld", "cannot be asked")
        task.say("kill_when")
        until(lambda: ("ended_at", 1) in asked(site), "the question")
        site.slurm.ended = None
        task.say("kill_when")
        assert task.hear("kill_in")["ms"] == ""
