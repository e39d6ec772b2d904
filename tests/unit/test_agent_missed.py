"""A fault that came and went while no agent was there, told by the server's log alone."""

import json
import time
from pathlib import Path

from resilience.model.ids import JobId
from tests.unit.agent_kit import Site, Supervisor, until
from tests.unit.machine_kit import lease

BYSTANDER, CULPRIT, LATE = 1, 2, 3
NAMED = "Client process {} encountered a fatal GPU error."
WORDS = NAMED.format(1000 * CULPRIT)
HANDLING = "Server is handling a fatal GPU error."


def _back(site: Site, job: int) -> Supervisor:
    """A supervisor whose unmodified program has ended before this agent came."""
    one = site.task(lease(job), resumed=1, color="a")
    one.hear("place")
    return one


def _fails(one: Supervisor) -> dict[str, str]:
    one.say("exit", role="active", pid=one.pid, status=1 << 8)
    return one.hear("verdict")


def _before(root: Path, *lines: str, ago: float = 2.0) -> Site:
    site = Site(root, leases=tuple(lease(job) for job in (BYSTANDER, CULPRIT, LATE)))
    for line in lines:
        site.log("a", line, wall=time.time() - ago)
    return site


def test_bystanders_come_back_and_the_culprit_is_named(tmp_path: Path) -> None:
    with _before(tmp_path, WORDS, HANDLING) as site:
        first, guilty = _back(site, BYSTANDER), _back(site, CULPRIT)
        for one in (first, guilty):
            one.say("exit", role="active", pid=one.pid, status=1 << 8)
        assert (first.hear("verdict")["action"], guilty.hear("verdict")["part"]) == ("relaunch", "culprit")
        (told,) = site.journal("incident.attributed")
        assert (told["culprit"], told["confidence"]) == ("job 2 step 0 task 0", "certain")


def test_a_supervisor_that_comes_last_is_named_all_the_same(tmp_path: Path) -> None:
    """Whose the named process is, is not known when the first bystander fails."""
    with _before(tmp_path, WORDS, HANDLING) as site:
        first = _back(site, BYSTANDER)
        first.say("exit", role="active", pid=first.pid, status=1 << 8)
        until(lambda: site.journal("incident.opened"), "the incident")
        guilty = _back(site, CULPRIT)
        assert _fails(guilty)["part"] == "culprit"
        assert first.hear("verdict")["action"] == "relaunch"


def test_a_culprit_that_nobody_knows_by_its_process(tmp_path: Path) -> None:
    """The log names it, and the agent before knew whose it was: only the task's own end tells now."""
    with _before(tmp_path, WORDS, HANDLING) as site:
        assert _fails(_back(site, BYSTANDER))["action"] == "relaunch"
        assert _fails(_back(site, CULPRIT))["part"] == "culprit"
        first, second = site.journal("incident.attributed")
        assert (first["confidence"], second["culprit"]) == ("none", "job 2 step 0 task 0")


def test_a_culprit_whose_process_lives_is_named_at_once(tmp_path: Path) -> None:
    with _before(tmp_path, WORDS, HANDLING) as site:
        guilty = site.task(lease(CULPRIT), resumed=1, active_pid=1000 * CULPRIT, color="a")
        guilty.hear("place")
        assert _fails(_back(site, BYSTANDER))["part"] == "bystander"
        assert _fails(guilty)["part"] == "culprit"
        assert len(site.journal("incident.attributed")) == 1


def test_who_fails_later_comes_back_as_well(tmp_path: Path) -> None:
    with _before(tmp_path, WORDS, HANDLING) as site:
        first, guilty, late = _back(site, BYSTANDER), _back(site, CULPRIT), _back(site, LATE)
        assert _fails(guilty)["part"] == "culprit"
        assert _fails(first)["action"] == "relaunch"
        assert not [row for row in site.journal("verdict") if row["task"].startswith(f"{LATE}.")]
        assert _fails(late)["action"] == "relaunch"
        assert len(site.journal("incident.opened")) == 1


def test_a_newcomer_that_fails_by_itself_fails(tmp_path: Path) -> None:
    with _before(tmp_path, WORDS, HANDLING) as site:
        assert _fails(_back(site, BYSTANDER))["action"] == "relaunch"
        fresh = site.task(lease(LATE)).run(standby="")
        assert _fails(fresh)["reason"] == "no fault known"


def test_what_the_last_agent_has_seen_is_no_news(tmp_path: Path) -> None:
    seen = {"event": "observation", "source": "server_log", "server": "u1001/g0/a", "at": time.time() - 1.5}
    rows = [seen | {"wall": seen["at"], "text": text, "what": "culprit"} for text in (WORDS, HANDLING)]
    (tmp_path / "journal.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with _before(tmp_path, WORDS, HANDLING) as site:
        assert _fails(_back(site, BYSTANDER))["reason"] == "no fault known"


def test_the_same_words_later_are_news(tmp_path: Path) -> None:
    seen = {"event": "observation", "source": "server_log", "server": "u1001/g0/a", "at": time.time() - 1.5}
    (tmp_path / "journal.jsonl").write_text(json.dumps(seen | {"wall": seen["at"], "text": HANDLING}) + "\n")
    with _before(tmp_path, HANDLING, ago=0.5) as site:
        assert _fails(_back(site, BYSTANDER))["action"] == "relaunch"


def test_an_old_fault_is_no_news(tmp_path: Path) -> None:
    with _before(tmp_path, WORDS, HANDLING, ago=90) as site:
        assert _fails(_back(site, BYSTANDER))["reason"] == "no fault known"


def test_a_log_may_hold_anything(tmp_path: Path) -> None:
    """It lies in its owner's hands: whom it names must have used the server, and dates need not exist."""
    with _before(tmp_path, *[NAMED.format(pid) for pid in (0, 1, 999999999)] * 50) as site:
        with (site.root / "log/u1001/g0/a/server.log").open("a") as file:
            file.write("[9999-99-99 99:99:99.999 Server  1] " + HANDLING + "\n")
            file.write("[0001-01-01 00:00:00.000 Server  1] " + HANDLING + "\n")
        assert _fails(_back(site, BYSTANDER))["action"] == "relaunch"
        (told,) = site.journal("incident.attributed")
        assert "culprit" not in told
    assert JobId(BYSTANDER) in site.leases.leases
