"""Supervisors' words to events of the machine (docs/reference/protocols.md §5). Anything else raises WireError."""

import re
from dataclasses import dataclass

from resilience.model import event as ev
from resilience.model.errors import ConfigError, WireError
from resilience.model.ids import Color, GpuMinor, IncidentId, JobId, StepId, TaskId, TaskRef
from resilience.model.options import JobOptions
from resilience.parse import options

PROTOCOL = 1
_MAX = 1 << 53
_DIGEST = re.compile(r"[0-9a-f]{16}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class HelloWords:
    """A hello, before it is checked against the lease."""

    ref: TaskRef
    gpu: GpuMinor
    options: JobOptions
    mpi: bool
    resumed: bool
    retries: int
    retried: float
    active: int
    color: Color
    session: bool
    program: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultWords:
    """A program's fault report."""

    role: ev.Role
    pid: int
    cuda: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperWords:
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KillWords:
    """SIGTERM came some time ago: is SIGKILL to follow, and when?"""


Message = (
    ev.Started
    | ev.SessionOpened
    | ev.Ready
    | ev.RanksKnown
    | ev.Exited
    | ev.Stepped
    | ev.RungFailed
    | ev.Spilled
    | ev.Ending
    | FaultWords
    | KeeperWords
    | KillWords
)


def hello(verb: str, words: dict[str, str]) -> HelloWords:
    """The first packet of a supervisor."""
    if verb != "hello":
        raise WireError("agent socket", "the first message is not hello", verb)
    if _number(words, "v") != PROTOCOL:
        raise WireError(
            "agent socket", f"protocol is not {PROTOCOL}", words["v"], hint="restart mpsr agent and the job"
        )
    try:
        chosen = options.parse(words.get("options", ""))
    except ConfigError as error:
        raise WireError("agent socket", "bad options", error) from error
    color = words.get("color", "")
    return HelloWords(
        ref=TaskRef(
            job=JobId(_number(words, "job")), step=StepId(_number(words, "step")), task=TaskId(_number(words, "task"))
        ),
        gpu=GpuMinor(_number(words, "gpu")),
        options=chosen,
        mpi=_flag(words, "mpi"),
        resumed=_flag(words, "resumed"),
        retries=_number(words, "retries_used", 0),
        retried=_number(words, "retried_ms", 0) / 1000,
        active=_number(words, "active_pid", 0),
        color=_color(color) if color else Color(""),
        session=_flag(words, "session"),
        program=_digest(words.get("program", "")),
    )


def message(ref: TaskRef, verb: str, words: dict[str, str]) -> Message:
    """Any later packet."""
    match verb:
        case "started":
            color = _color(_text(words, "color"))
            return ev.Started(ref=ref, role=_role(words), pid=_number(words, "pid"), color=color)
        case "session":
            return ev.SessionOpened(ref=ref, role=_role(words), pid=_number(words, "pid"))
        case "ready":
            return ev.Ready(ref=ref, pid=_number(words, "pid"))
        case "ranks":
            return ev.RanksKnown(ref=ref, mpi=_flag(words, "mpi"))
        case "fault":
            text = f"{words.get('call', '')}: CUDA {words.get('cuda', '')} {words.get('text', '')}".strip()
            return FaultWords(role=_role(words), pid=_number(words, "pid"), cuda=_code(words), text=text[:500])
        case "exit":
            status, told = _number(words, "status"), _flag(words, "told")
            pid, ours = _number(words, "pid"), _flag(words, "ours")
            return ev.Exited(ref=ref, role=_role(words), pid=pid, status=status, told=told, ours=ours)
        case "stepped":
            incident, ms, at = IncidentId(_text(words, "incident")), _decimal(words, "ms"), _decimal(words, "at")
            return ev.Stepped(ref=ref, incident=incident, seq=_number(words, "seq", -1, least=-1), ms=ms, at=at)
        case "rung_failed":
            return ev.RungFailed(
                ref=ref,
                incident=IncidentId(_text(words, "incident")),
                rung=words.get("rung", ""),
                reason=words.get("reason", "")[:200],
            )
        case "spilled":
            return ev.Spilled(ref=ref, seq=_number(words, "seq", -1, least=-1))
        case "end":
            number, color = _number(words, "n"), _color(_text(words, "color"))
            pids, alone = _pids(_text(words, "pids")), _flag(words, "alone")
            return ev.Ending(ref=ref, number=number, pids=pids, color=color, alone=alone)
        case "kill_when":
            return KillWords()
        case "keeper":
            return KeeperWords(state=words.get("state", "")[:40])
        case _:
            raise WireError("agent socket", "unknown verb", verb[:40])


def _text(words: dict[str, str], key: str) -> str:
    if key not in words:
        raise WireError("agent socket", "key missing", key)
    return words[key]


def _number(words: dict[str, str], key: str, default: int | None = None, *, least: int = 0) -> int:
    text = words.get(key, "")
    if text == "" and default is not None:
        return default
    digits = text[1:] if text.startswith("-") else text
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 15):
        raise WireError("agent socket", f"{key} is not a number", text[:40] or "empty")
    if int(text) < least:
        raise WireError("agent socket", f"{key} is below {least}", text)
    return int(text)


def _pids(text: str) -> tuple[int, ...]:
    """Process ids with commas between them."""
    return tuple(_number({"pids": word}, "pids") for word in text.split(","))


def _code(words: dict[str, str]) -> int:
    """A CUDA error's number. It is the program's word: what is no number is an error that nobody knows."""
    text = words.get("cuda", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 6 else 0


def _decimal(words: dict[str, str], key: str) -> float:
    try:
        value = float(words.get(key, "") or 0)
    except ValueError:
        raise WireError("agent socket", f"{key} is not a number", words[key][:40]) from None
    if not 0 <= value < _MAX:
        raise WireError("agent socket", f"{key} is out of range", words[key][:40])
    return value


def _digest(text: str) -> str:
    if text and not _DIGEST.match(text):
        raise WireError("agent socket", "program is not a digest", text[:40])
    return text


def _flag(words: dict[str, str], key: str) -> bool:
    text = words.get(key, "0") or "0"
    if text not in ("0", "1"):
        raise WireError("agent socket", f"{key} is not 0 or 1", text[:40])
    return text == "1"


def _role(words: dict[str, str]) -> ev.Role:
    text = words.get("role", "active")
    if text not in (ev.Role.ACTIVE, ev.Role.STANDBY):
        raise WireError("agent socket", "role is not active or standby", text[:40])
    return ev.Role(text)


def _color(text: str) -> Color:
    good = text in ("a", "b") or (text[:1] == "q" and text[1:].isascii() and text[1:].isdigit() and len(text) <= 6)
    if not good:
        raise WireError("agent socket", "color is not a, b or q<n>", text[:40])
    return Color(text)
