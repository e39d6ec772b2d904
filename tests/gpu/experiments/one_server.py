"""What an innocent client of the faulted server sees, how long newcomers are refused, what is logged (E1, E3, E5, H5–H8)."""

import threading
import time
from typing import Any

from tests.gpu.faults import KINDS, MIB, commit, heard, region
from tests.gpu.findings import Findings
from tests.gpu.stage import Server, Stage

MOST_LINES = 80
"""Of server.log, for one fault: the driver's own words in order (E3)."""


class Poll(threading.Thread):
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
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        newcomer = stage.puppet("newcomer", server)
        began = time.monotonic()
        answer = heard(newcomer, "start")
        newcomer.kill()
        tries.append({"at": began, "took": time.monotonic() - began, "code": answer.get("code", answer.get("gone"))})
        if answer.get("code") == 0:
            break
    return tries


def run(stage: Stage, found: Findings) -> None:
    if not stage.mps:
        found["skipped"] = "no nvidia-cuda-mps-control on this machine"
        return
    server = stage.server("s")
    logged = len(server.log_lines("server.log"))
    for kind in KINDS:
        culprit, innocent = stage.puppet("culprit", server), stage.puppet("innocent", server)
        heard(culprit, "start"), heard(innocent, "start")
        mine = region(innocent, 2 * MIB)
        poll = Poll(server)
        poll.start()
        fault = commit(kind, culprit)
        told, first = time.monotonic(), None
        while time.monotonic() - told < 3.0 and not first:
            answer = heard(innocent, "fill", address=mine["address"], size=2 * MIB, seed=1)
            first = (
                {"after": time.monotonic() - fault.get("ended", told), "answer": answer} if answer.get("code") else None
            )
        row: dict[str, Any] = {"fault": fault, "innocent_first_error": first,
                               "innocent_calls": heard(innocent, "each_call", address=mine["address"], size=2 * MIB),
                               "culprit_pid": culprit.process.pid, "innocent_pid": innocent.process.pid}  # fmt: skip
        refused = stage.puppet("early", server)
        answer = heard(refused, "start")
        row["newcomer_while_both_live"] = answer.get("code")
        row["newcomer_refused_by"] = next((name for name, call in answer.get("calls", {}).items() if call["code"]), "")
        culprit.kill()
        innocent.kill()
        row["clients_gone_at"] = time.monotonic()
        row["newcomers"] = until_accepted(stage, server)
        row["refused_tries_cuInit_again"] = heard(refused, "init").get("code")
        refused.kill()
        poll.stop.set()
        poll.join(5)
        row["state_changes"] = poll.changes
        lines = server.log_lines("server.log")
        row["logged"], logged = lines[logged : logged + MOST_LINES], len(lines)
        found[kind] = row
