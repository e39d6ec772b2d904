"""A keeper as a process, and deposits with memfds in place of device memory."""

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from resilience.state import table
from resilience.state.link import KeeperLink
from resilience.state.record import HELD, Commit, CommitRecord

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a-secret"
STANDBY_TOKEN = "a-standbys"
MIB = 1 << 20
TABLE = b"what lies where: the keeper does not read it"


def eventually(true: Callable[[], Any], seconds: float = 10.0) -> Any:
    """The first true value of a condition, waited for with a bound."""
    end = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < end, "the condition did not come true"
        select.select([], [], [], 0.005)
    return value


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        return probe.connect_ex(str(path)) == 0


class Running:
    """A keeper process and its standard error."""

    def __init__(self, path: Path, *extra: str, uid: int | None = None, token: str = TOKEN) -> None:
        self.path = path
        self.log = path.with_suffix(".log")
        command = [sys.executable, "-E", "-m", "resilience.state.keeper", "--socket", str(path), *extra]
        environ = {"MPSR_TOKEN": token, "MPSR_STANDBY_TOKEN": STANDBY_TOKEN, "HOME": "/"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environ, stderr=log, user=uid, group=uid)
        eventually(lambda: connects(path) or self.process.poll() is not None)

    def link(self, role: str = "active", *, token: str | None = None, timeout: float = 5.0) -> KeeperLink:
        own = STANDBY_TOKEN if role == "standby" else TOKEN
        return KeeperLink(str(self.path), own if token is None else token, role, timeout=timeout)

    def end(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def said(self) -> str:
        return self.log.read_text()


def deposit(text: bytes = b"state") -> tuple[dict[str, Any], list[int], CommitRecord]:
    """A layout with one array: its table, a record that holds a commit, and the two memfds of its memory."""
    record = CommitRecord.create()
    record.write(Commit(0, HELD, 41, {"r": 0.5}))
    fds = [table.make(TABLE), record.fd]
    for _ in range(2):
        fd = os.memfd_create("region")
        os.write(fd, text)
        fds.append(fd)
    return {"name": "u", "regions": [2 * MIB, 2 * MIB]}, fds, record
