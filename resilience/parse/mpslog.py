r"""Lines of control.log and server.log → LogLine; a line that says nothing to us → None. Never raises.

A line is `[YYYY-MM-DD HH:MM:SS.mmm ROLE PID] message`, the pid padded with blanks; the messages of three dialects stand
in catalog/mps_log.toml. One combined expression finds the row, so that a line costs a few microseconds.
"""

import re
from dataclasses import dataclass
from functools import cache

from resilience.catalog import messages
from resilience.model.mpslog import LogKind, LogLine

_HEAD = re.compile(
    r"\[(?P<stamp>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{1,6}) [A-Za-z ]{1,20}? +(?P<writer>\d{1,10})\] ?(?P<text>.*)"
)
_CLIENT = r"\{(?:PID: *)?(?P<pid>\d{1,9}), *(?:Context(?: ID)?: *)?(?P<context>\d{1,9})\}"
_VOLTA = "volta mps: "
_MAX = 512
"""Characters of a message that are looked at: the longest of ours has 120."""


@cache
def _rows() -> tuple[tuple[LogKind, re.Pattern[str]], ...]:
    return tuple(
        (
            row.kind,
            re.compile(
                row.pattern.replace("<client>", _CLIENT).replace(r"(?P<pid>\d+)", r"(?P<pid>\d{1,9})"), re.I | re.A
            ),
        )
        for row in messages()
    )


def _number(groups: dict[str, str | None], *names: str, default: int) -> int:
    for name in names:
        if (text := groups.get(name)) is not None and len(text) <= 10:
            return int(text)
    return default


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A line without its bracketed head. `writer` is the pid of the daemon or server that wrote it."""

    stamp: str
    writer: int
    text: str


def message(line: str) -> Message | None:
    """A line of a log, None when it has not their form."""
    head = _HEAD.match(line.rstrip("\r\n")[: _MAX * 2])
    if head is None:
        return None
    text = head["text"].strip()[:_MAX]
    if text.lower().startswith(_VOLTA):
        text = text[len(_VOLTA) :]
    return Message(stamp=head["stamp"], writer=int(head["writer"]), text=text)


def parse_line(line: str) -> LogLine | None:
    """The event behind one line, None when the line is not one that we know."""
    said = message(line)
    if said is None:
        return None
    text = said.text
    for kind, pattern in _rows():
        if match := pattern.fullmatch(text):
            groups = match.groupdict()
            return LogLine(
                kind=kind,
                text=text,
                stamp=said.stamp,
                writer=said.writer,
                pid=_number(groups, "process", "pid", "server", default=0),
                context=_number(groups, "context", default=-1),
                device=_number(groups, "device", default=-1),
                uid=_number(groups, "uid", default=-1),
                number=_number(groups, "number", default=-1),
                active=(groups.get("status") or "").upper() == "ACTIVE",
            )
    return None
