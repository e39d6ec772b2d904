"""What an innocent client of the faulted server sees, how long newcomers are refused, what is logged (E1, E3, E5, H5–H8)."""

import threading
import time
from typing import Any

from tests.gpu.faults import KINDS, MIB, commit, drop, heard, region
from tests.gpu.findings import ExperimentFindings
from tests.gpu.rows import row, without_mps
from tests.gpu.servers import Server
from tests.gpu.stage import Stage

MOST_LINES = 80
"""Of server.log, for one fault: the driver's own words in order (E3)."""


class StatePoll(threading.Thread):
    """The server's state, again and again; each change with its time."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.server, self.changes, self.stop = server, list[tuple[float, str]](), threading.Event()

    def run(self) -> None:
        while not self.stop.is_set():
            seen = self.server.state()
            if not self.changes or self.changes[-1][1] != seen:
                self.changes.append((time.monotonic(), seen))


def until_accepted(stage: Stage, server: Server, seconds: float = 20.0) -> list[dict[str, Any]]:
    """Codes that newcomers get, one new process after another, until one is let in."""
    tries: list[dict[str, Any]] = []
    end = time.monotonic() + min(seconds, stage.recovery_seconds) * stage.patience
    while not tries or time.monotonic() < end:
        began = time.monotonic()
        answer = stage.begun("newcomer", server)
        code, took = answer.get("code", answer.get("gone")), time.monotonic() - began
        tries.append({"at": began, "took": took, "code": code, "mps": answer.get("mps")})
        if answer.get("code") == 0:
            return tries
    stage.give_up()
    return tries


HEARS_SECONDS = 3.0


def one_row(stage: Stage, entry: dict[str, Any], server: Server, kind: str, poll: StatePoll) -> None:
    cast = stage.cast(culprit=server, innocent=server)
    entry["proof"], culprit, innocent = cast.proof, cast["culprit"], cast["innocent"]
    mine = region(innocent, 2 * MIB)
    drop(mine)
    poll.start()
    fault = entry["fault"] = commit(kind, culprit)
    told, first = time.monotonic(), None
    while time.monotonic() - told < HEARS_SECONDS and not first:
        answer = heard(innocent, "fill", address=mine["address"], size=2 * MIB, seed=1)
        if answer.get("code", -1):
            first = {"after": time.monotonic() - fault.get("ended", told), "answer": answer}
    entry["innocent_first_error"] = first
    entry["innocent_calls"] = heard(innocent, "each_call", address=mine["address"], size=2 * MIB)
    entry |= {"culprit_pid": culprit.process.pid, "innocent_pid": innocent.process.pid}
    refused = stage.puppet("early", server)
    answer = heard(refused, "start")
    entry["newcomer_while_both_live"] = answer.get("code", answer.get("gone"))
    entry["newcomer_refused_by"] = next((name for name, call in answer.get("calls", {}).items() if call["code"]), "")
    culprit.kill()
    innocent.kill()
    entry["clients_gone_at"] = time.monotonic()
    entry["newcomers"] = until_accepted(stage, server)
    entry["refused_tries_cuInit_again"] = heard(refused, "init").get("code")


def run(stage: Stage, found: ExperimentFindings) -> None:
    if without_mps(stage, found):
        return
    server = stage.server("s")
    logged = len(server.log_lines("server.log"))
    for kind in stage.kinds(KINDS):
        poll = StatePoll(server)
        with row(stage, found, kind) as entry:
            try:
                one_row(stage, entry, server, kind, poll)
            finally:
                poll.stop.set()
                if poll.is_alive():
                    poll.join(5)
                entry["state_changes"] = poll.changes
                lines = server.log_lines("server.log")
                entry["logged"], logged = lines[logged : logged + MOST_LINES], len(lines)
        if server is not (server := stage.usable(server)):
            logged = len(server.log_lines("server.log"))
