"""The agent's part in the end of a process: its clients are ended, of its own user alone, and the supervisor is told."""

import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from resilience.model.ids import Color, DomainKey
from tests.unit.agent_kit import Site, until
from tests.unit.machine_kit import lease, server


def ended(site: Site) -> list[tuple[object, ...]]:
    return [call for call in site.mps.calls if call[0] == "end"]


def records(site: Site) -> list[Any]:
    return site.journal("client.ended")


def test_a_process_and_what_it_has_started_are_ended_on_its_server_and_the_supervisor_hears(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        task = site.task(lease(1))
        task.hear("place")
        site.procfs.parents |= {7001: os.getpid(), 7002: 7001, 7003: os.getpid()}
        site.procfs.uids |= dict.fromkeys((7001, 7002, 7003), os.getuid())
        site.mps.joined[server("b")] = (7001, 7002, 7003)
        task.say("end", n=5, color="b", pids="7001,7009")
        assert task.hear("ended")["n"] == "5"
        assert ended(site) == [("end", server("b"), (7001, 7002))]
        until(lambda: [one["pids"] for one in records(site)] == [[7001, 7002]], "the record")


def test_what_a_dying_process_has_started_lives_on(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        task = site.task(lease(1))
        task.hear("place")
        site.procfs.parents |= {7001: os.getpid(), 7002: 7001}
        site.procfs.uids |= dict.fromkeys((7001, 7002), os.getuid())
        site.mps.joined[server("a")] = (7001, 7002)
        task.say("end", n=5, color="a", alone=1, pids="7001")
        task.hear("ended")
        assert ended(site) == [("end", server("a"), (7001,))]


def test_another_users_process_is_not_ended(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        task = site.task(lease(1))
        task.hear("place")
        site.procfs.uids |= {7001: os.getuid() + 1, 7002: os.getuid()}
        site.mps.joined[server("a")] = (7001, 7002)
        task.say("end", n=1, color="a", pids="7001,7002")
        task.hear("ended")
        assert ended(site) == [("end", server("a"), (7002,))]


@pytest.mark.parametrize("words", [{"pids": ""}, {"pids": "1,x"}, {"pids": "7", "color": "z"}, {"pids": "7", "n": ""}])
def test_a_question_that_is_none_is_refused(tmp_path: Path, words: dict[str, str]) -> None:
    with Site(tmp_path) as site:
        task = site.task(lease(1))
        task.hear("place")
        task.say("end", **({"n": "1", "color": "a"} | words))
        task.hear("refuse")
        assert ended(site) == []


def test_a_daemon_that_cannot_end_a_client_is_told_and_new_tasks_go_elsewhere(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        task = site.task(lease(1))
        task.hear("place")
        site.mps.broken = True
        task.say("end", n=1, color="a", pids=str(os.getpid()))
        assert task.hear("ended")["n"] == "1"
        until(lambda: site.leases.actives == [server("b")], "the swap")
        assert "no answer" in records(site)[0]["wrong"]


def test_a_daemon_that_hangs_keeps_nobody_of_another_domain(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        task, other = site.task(lease(1)), site.task(replace(lease(2), domain=DomainKey("u2")))
        task.hear("place")
        other.hear("place")
        stuck = site.mps.stopped[server("a").domain] = threading.Event()
        task.say("end", n=1, color="a", pids="7")
        other.say("end", n=2, color=Color("a"), pids="7")
        assert other.hear("ended")["n"] == "2"
        stuck.set()
        assert task.hear("ended")["n"] == "1"
