"""Whose state it is: the job, a name, and the task.

The name is the program's own choice (`session(name=…)`), or made of the command that the supervisor was given and of
the process's own arguments; never the number of a step, which moves when a requeued job's script skips what is done.
The same command may be started more than once in a job, and nothing tells whose state is whose after a requeue but the
order: the second launch of a command has the name with `+2`. Two that live at once have no order that is the same in
the next run: then no state of that command is gone on from disk (`twin`). A name that a program chose may have one owner
at a time.

Relies on the job's directory on the node: each claim is a line of its file `sessions` (appended whole, so the lines
have an order), written when the session has its keeper, and a claim lives as long as that answers. Programs of one name on several nodes
are told apart where they meet, at the file of their state (resilience/state/spillfile.py). Where the directory cannot
be written, nothing is counted; where it has grown beyond all measure, no command's state is gone on from disk.
"""

import contextlib
import hashlib
import json
import os
import re
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace

from resilience.model.errors import StateError
from resilience.state.names import KEEPER, PROGRAM, TOKEN

SESSIONS = "sessions"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z", re.ASCII)
_MAX_BYTES = 1 << 20
"""Of the file: some ten thousand sessions of one job on one node."""
_BEGIN, _END = "begin", "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """`runs`: digests of the tokens of those in this run of the job whose state this one may take."""

    name: str
    runs: frozenset[str]
    twin: bool = False


@dataclass(frozen=True, slots=True)
class _Row:
    verb: str
    name: str
    task: str
    restart: int
    run: str
    keeper: str


def base_name(environ: Mapping[str, str], name: str) -> str:
    """The name that a program chose, checked, or the one made of its command. Raises StateError."""
    if not name:
        program = environ.get(PROGRAM, "")
        words = [program, *sys.orig_argv] if program else []
        return f"@{hashlib.sha256(os.fsencode(chr(0).join(words))).hexdigest()[:16]}"
    if not isinstance(name, str) or not _NAME.match(name):
        hint = "1 to 64 of A-Z a-z 0-9 . _ -, a letter or digit first"
        raise StateError("session", "not a name", repr(name)[:80], hint=hint)
    return name


def run_of(environ: Mapping[str, str]) -> str:
    """A digest of the supervisor's token: the same for every process of one supervisor."""
    return hashlib.sha256(environ.get(TOKEN, "").encode()).hexdigest()[:16]


def restart_of(environ: Mapping[str, str]) -> int:
    text = environ.get("SLURM_RESTART_COUNT", "")
    return int(text) if text.isascii() and text.isdigit() else 0


def task_of(environ: Mapping[str, str]) -> str:
    return environ.get("SLURM_PROCID", "0")


def claim(environ: Mapping[str, str], name: str) -> Claim:
    """The identity of an active process. Raises StateError when a living program has the name that this one chose."""
    ledger = _Ledger(environ)
    mine = ledger.row(_BEGIN, base_name(environ, name))
    if _open_claim(ledger.rows(mine.name), mine.run) is None:
        ledger.append(mine)
    rows = ledger.rows(mine.name)
    found = _claim(mine.name, rows, mine.run)
    ended = {(row.run, row.keeper) for row in rows if row.verb == _END}
    earlier = rows[: _open_claim(rows, mine.run) or 0]
    rivals = {row.keeper for row in earlier if row.run != mine.run and (row.run, row.keeper) not in ended}
    living = sorted(keeper for keeper in rivals - {mine.keeper} if ledger.answers(keeper))
    if living and name:
        ledger.append(ledger.row(_END, mine.name))
        raise StateError(
            "session",
            "another program of this job is open under this name",
            f"{name}, {living[0]}",
            hint="programs that run at once need names of their own: session(name=…)",
        )
    return replace(found, twin=bool(living) or (ledger.full and not name))


def claimed(environ: Mapping[str, str]) -> Claim | None:
    """That of this supervisor's program, for the spiller; None when it has opened no session."""
    ledger = _Ledger(environ)
    run = run_of(environ)
    mine = [row.name for row in ledger.rows() if row.run == run]
    return _claim(mine[-1], ledger.rows(mine[-1]), run) if mine else None


def end(environ: Mapping[str, str], name: str) -> None:
    """The program has ended well: the next one of this name begins anew."""
    ledger = _Ledger(environ)
    ledger.append(ledger.row(_END, base_name(environ, name)))


def _claim(name: str, rows: list[_Row], run: str) -> Claim:
    """The claim of a run among all of one name: a chosen name is taken on, a command is counted."""
    earlier = [row for row in rows[: _open_claim(rows, run) or 0] if row.verb == _BEGIN]
    if not name.startswith("@"):
        return Claim(name=name, runs=frozenset({run, *(row.run for row in earlier)}))
    return Claim(name=f"{name}+{len(earlier) + 1}" if earlier else name, runs=frozenset({run}))


def _open_claim(rows: list[_Row], run: str) -> int | None:
    """Where the claim of this run stands, if it has one that has not ended."""
    at = None
    for index, row in enumerate(rows):
        if row.run == run:
            at = index if row.verb == _BEGIN else None
    return at


class _Ledger:
    """The file of claims; without a keeper, or where it cannot be read, an empty one."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._directory, self._keeper = os.path.split(environ.get(KEEPER, ""))
        self._task, self._restart, self._run = task_of(environ), restart_of(environ), run_of(environ)
        self.full = False
        """Longer than is read: nothing can be counted any more."""

    def row(self, verb: str, name: str) -> _Row:
        return _Row(verb, name, self._task, self._restart, self._run, self._keeper)

    def append(self, row: _Row) -> None:
        line = json.dumps([row.verb, row.name, row.task, row.restart, row.run, row.keeper]).encode() + b"\n"
        with contextlib.suppress(OSError):
            fd = self._open(os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            try:
                os.write(fd, line)
            finally:
                os.close(fd)

    def rows(self, name: str = "") -> list[_Row]:
        """Those of this task in this run of the job; of one name only. What is no row is passed over."""
        try:
            fd = self._open(os.O_RDONLY)
        except OSError:
            return []
        try:
            text = os.pread(fd, _MAX_BYTES, 0)
        finally:
            os.close(fd)
        self.full = len(text) == _MAX_BYTES
        found = [row for line in text.splitlines() if (row := _parse(line))]
        mine = (self._task, self._restart)
        return [row for row in found if (row.task, row.restart) == mine and row.name == (name or row.name)]

    def answers(self, keeper: str) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
            probe.settimeout(1.0)
            with contextlib.suppress(OSError):
                probe.connect(os.path.join(self._directory, keeper))
                return True
        return False

    def _open(self, flags: int) -> int:
        if not self._directory:
            raise FileNotFoundError(SESSIONS)
        return os.open(os.path.join(self._directory, SESSIONS), flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _parse(line: bytes) -> _Row | None:
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        verb, name, task, restart, run, keeper = json.loads(line)
        if all(isinstance(text, str) for text in (verb, name, task, run, keeper)) and isinstance(restart, int):
            return _Row(verb, name, task, restart, run, keeper) if "/" not in keeper else None
    return None
