"""The victim: how long a neighbour of another user waits for its recovery while others attack the agent in every way at once.

Both runs have the same load: the attackers of the first write where nobody reads, and knock where nobody listens. So what
is compared is what the agent does for the attackers, not what the kernel does.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import mean, median

from resilience.model.ids import DomainKey
from resilience.model.lease import Lease
from tests.chaos import attacker
from tests.unit.agent_kit import BOUND, Site, Supervisor, until
from tests.unit.machine_kit import lease, ref

ATTACKS = ("newlines", "known", "clients", "words", "hellos")
FAULTS = 15
MOST = 20.0
"""Times the agent's work without an attack. That is a two-hundredth of a whole recovery, so this is far from twice the whole."""


def _of(user: int, job: int) -> Lease:
    return replace(lease(job), uid=user, gid=user, domain=DomainKey(f"u{user}"))


def _logs(site: Site, user: int) -> Path:
    made = site.root / "log" / f"u{user}" / "g0" / "a"
    made.mkdir(parents=True, exist_ok=True)
    return made


@contextmanager
def attacked(site: Site, elsewhere: Path | None) -> Iterator[None]:
    """Five users, each with a job, own servers and a way of its own; one has stopped the own daemons too."""
    with ExitStack() as stack:
        for number, how in enumerate(ATTACKS):
            user, job = 3000 + number, 300 + number
            place: Path = _logs(site, user) if elsewhere is None else elsewhere / how
            if elsewhere is None:
                site.task(_of(user, job)).hear("place")
                if how == "hellos":
                    site.mps.stopped[DomainKey(f"u{user}")] = stopped = threading.Event()
                    stack.callback(stopped.set)
            else:
                place.mkdir(parents=True)
            if how in ("words", "hellos"):
                place = Path(site.socket) if elsewhere is None else place / "nobody"
            running = subprocess.Popen(
                [sys.executable, attacker.__file__, how, str(place), str(job)],
                stdin=subprocess.PIPE,
                user=user if how in ("words", "hellos") else None,
            )
            stack.callback(running.wait, BOUND)
            assert running.stdin is not None
            stack.callback(running.stdin.close)
        yield


def running(site: Site, user: int) -> tuple[Supervisor, Supervisor]:
    """One who will make a fault, and the bystander."""
    guilty, other = site.task(_of(user, 2 * user)).run(), site.task(_of(user, 2 * user + 1)).run()
    until(lambda: all(_ready(site, one) for one in (guilty, other)), "the victims are there")
    return guilty, other


def recovery(site: Site, user: int, guilty: Supervisor, other: Supervisor) -> float:
    """Seconds that the agent works from the line of the log to the bystander's verdict, for whomever: however busy the machine
    is, that is what the victim waits for."""
    began = _worked(site)
    with (_logs(site, user) / "server.log").open("a") as file:
        file.write(
            f"[2026-03-02 08:12:00.001 Server 4428] Client {{PID: {guilty.pid}, Context: 1}} encountered a fatal GPU error.\n"
        )
    verdict = other.hear("verdict")
    took = _worked(site) - began
    assert (verdict["action"], verdict["part"]) == ("promote", "bystander")
    assert guilty.hear("verdict")["part"] == "culprit"
    return took


def _worked(site: Site) -> float:
    """CPU time of the agent's loop."""
    assert site._thread.ident is not None
    return time.clock_gettime(time.pthread_getcpuclockid(site._thread.ident))


def _ready(site: Site, one: Supervisor) -> bool:
    task = site.agent.state.tasks.get(ref(one.job))
    return task is not None and task.ready


def _measured(site: Site, first: int, elsewhere: Path | None) -> list[float]:
    victims = {user: running(site, user) for user in range(first, first + FAULTS)}
    with attacked(site, elsewhere):
        return [recovery(site, user, *pair) for user, pair in victims.items()]


def test_a_neighbour_of_attackers_recovers_as_fast_as_without_them(shared_path: Path) -> None:
    with Site(shared_path / "site") as site:
        os.chmod(shared_path / "site", 0o755)
        quiet = _measured(site, 4000, shared_path / "elsewhere")
        loud = _measured(site, 5000, None)
        print(
            f"alone {[round(1000 * one, 1) for one in quiet]} ms, attacked {[round(1000 * one, 1) for one in loud]} ms"
        )
        named = {row["culprit"] for row in site.journal("incident.attributed") if row["confidence"] == "certain"}
        assert named >= {f"job {2 * user} step 0 task 0" for user in range(5000, 5000 + FAULTS)}, "each by name"
        assert median(loud) <= MOST * mean(quiet)
