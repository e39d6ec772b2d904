"""What the MPS control daemon prints and logs, turned into values. Pure.

Five drivers (535, 550, 555, 580, 595) print almost the same; where they differ each form is accepted. What they share
and what this parser relies on, all seen on real daemons: the exit status says nothing, stdout is all there is; while
another client talks to the daemon a script gets an *empty* answer with status 0. A script therefore ends with
`get_default_active_thread_percentage`, whose answer (`100.0`) proves that the whole script was run; without that line
the answer is None and the script is to be sent again.

The daemon runs as the job's user, so each text here is outside input: nothing is trusted beyond its form.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from resilience.parse.mpslog import message

SENTINEL = "get_default_active_thread_percentage"
"""Its answer always has a decimal point; terminate_client's answer, also a number, never has one."""
MAX_LINE = 1024
"""Bytes. A line of about 4090 bytes kills the control daemon of 580 and 595; ours are below 60."""
MAX_PIDS = 4096
"""More clients than any server takes (60 contexts a device); bounds what a broken daemon can make us read."""

STATES = ("INITIALIZING", "ACTIVE", "FAULT")

_NUMBER = re.compile(r"\d{1,3}\.\d+\Z")
_PID = re.compile(r"[1-9]\d{0,9}\Z")
_WORDS = re.compile(r"[A-Za-z_0-9. /+=-]+\Z")
_COUNT = re.compile(r"\d{1,5}\Z")
_PARTITION = re.compile(r"[A-Za-z0-9+/=_-]{1,200}\Z")
_NO_DAEMON = "cannot find mps control daemon process"
_BUSY_SERVER = re.compile(r"Server \d+ is <busy>", re.IGNORECASE)
"""In the programs' strings of 550; when a daemon says it has not been seen. It is no answer, so the question is asked again."""


class Talk(StrEnum):
    """How a conversation with the daemon ended."""

    ANSWERED = "answered"
    BUSY = "busy"
    NO_DAEMON = "no daemon"


def script(*commands: str) -> bytes:
    """Standard input for some commands. Raises ValueError for what a daemon must never be sent."""
    for command in commands:
        if not _WORDS.match(command) or len(command) > MAX_LINE:
            raise ValueError(f"not a control command: {command[:80]!r}")
    return "\n".join([*commands, SENTINEL, ""]).encode("ascii")


def answer(stdout: str, stderr: str) -> tuple[Talk, tuple[str, ...]]:
    """The lines that a script printed, without the sentinel's."""
    lines = tuple(line.strip() for line in stdout.splitlines() if line.strip())
    if any(_BUSY_SERVER.match(line) for line in lines):
        return Talk.BUSY, ()
    if lines and _NUMBER.match(lines[-1]):
        return Talk.ANSWERED, lines[:-1]
    if _NO_DAEMON in (stdout + stderr).lower():
        return Talk.NO_DAEMON, ()
    return Talk.BUSY, ()


def pids(lines: tuple[str, ...]) -> tuple[int, ...]:
    """Answer of get_server_list and get_client_list. `Server 7 not found` and other words are no process ids."""
    found = (int(line) for line in lines[:MAX_PIDS] if _PID.match(line))
    return tuple(dict.fromkeys(found))


def status(lines: tuple[str, ...]) -> str | None:
    """Answer of get_server_status: a word of STATES, ABSENT when there is no such server; None when this driver does
    not know the command (535)."""
    for line in lines:
        if line.lower().startswith("unknown command"):
            return None
        if line.upper() in STATES:
            return line.upper()
    return "ABSENT"


def complaint(lines: tuple[str, ...]) -> str:
    """What is neither a process id nor a state in an answer to start_server: why it was refused; mostly empty."""
    words = (line for line in lines if not _PID.match(line) and line.upper() not in STATES)
    return next((printable(line) for line in words if not line.lower().startswith(("unknown command", "server "))), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionTable:
    """What lspart says of the one GPU that a daemon of ours sees: chunks in all, and each partition's by its id."""

    chunks: int
    partitions: Mapping[str, int]


def partition_table(lines: tuple[str, ...]) -> PartitionTable | None:
    """Answer of lspart; None when it is no table: the daemon does not know it or is not in static partitioning mode.

    A row has the GPU's shortened UUID first; the GPU's own has free and used chunks and SMs, a partition's its id, its
    chunks, its SMs and whether it has clients. Columns that do not apply hold a dash or are blank (both are documented
    or seen in public scripts), so dashes are left out and what is left is counted.
    """
    total: int | None = None
    partitions: dict[str, int] = {}
    for line in lines[:MAX_PIDS]:
        words = [word for word in line.split() if word != "-"]
        if not words or not words[0].startswith("GPU-"):
            continue
        if len(words) == 5 and all(_COUNT.match(word) for word in words[1:]):
            total = int(words[1]) + int(words[2])
        elif len(words) in (4, 5) and _PARTITION.match(words[1]) and all(_COUNT.match(word) for word in words[2:4]):
            partitions[words[1]] = int(words[2])
    return None if total is None else PartitionTable(chunks=total, partitions=partitions)


def partitions_made(lines: tuple[str, ...], uuid: str) -> tuple[str, ...]:
    """Answers of `sm_partition add`: the ids of the new partitions. Each comes as `<uuid>/<id>`, alone or as
    `Partition <uuid>/<id> created`; the id is base64 and may have slashes of its own."""
    made: list[str] = []
    for line in lines:
        words = line.split()
        if words[:1] == ["Partition"] and words[-1:] == ["created"]:
            words = words[1:-1]
        gpu, _, name = words[0].partition("/") if len(words) == 1 else ("", "", "")
        if gpu == uuid and _PARTITION.match(name):
            made.append(name)
    return tuple(dict.fromkeys(made))


def terminated(lines: tuple[str, ...], asked: int = 1) -> bool:
    """Answers to so many terminate_client: a 0 each, or a CUDA error number, or words."""
    return lines == ("0",) * asked


def state_in_logs(control_log: str, server_log: str, server: int) -> str:
    """The server's state by its logs, a word of STATES, for drivers that do not know get_server_status."""
    state = "INITIALIZING"
    ready = f"new server {server}: ready"
    if any(ready in line.lower() for line in control_log.splitlines()):
        state = "ACTIVE"
    for raw in server_log.splitlines():
        line = message(raw)
        if line is None or line.writer != server:
            continue
        text = line.text.lower()
        if "server is handling a fatal gpu error" in text or "teardown sequence" in text:
            state = "FAULT"
        elif text.startswith("server has started") or (text.startswith("creating server context") and state == "FAULT"):
            state = "ACTIVE"
    return state


def ready(control_log: str) -> tuple[int, ...]:
    """Servers that have reported in, by control.log, in that order."""
    return tuple(int(pid) for pid in re.findall(r"\] ?NEW SERVER +([1-9]\d{0,9}): Ready", control_log))


def deaths(control_log: str) -> int:
    """How many servers ended, by control.log."""
    return len(re.findall(r"\] ?Server +\d+ exited with status", control_log))


def quit_status(control_log: str) -> int | None:
    """Status of the last `Exit with status N`, which is to be believed where quit's own exit status is not."""
    found = re.findall(r"Exit with status (-?\d{1,5})", control_log)
    return int(found[-1]) if found else None


def quits(control_log: str) -> int:
    """How often a quit was taken note of."""
    return len(re.findall(r"quit command issued|Cmd: ?quit", control_log))


def reason(server_log: str) -> str:
    """Why the last server could not start, in the driver's words; empty when the log does not say."""
    for raw in reversed(server_log.splitlines()):
        line = message(raw)
        if line and re.search(r"fail|mismatch|denied|not supported|error", line.text, re.IGNORECASE):
            return printable(line.text)
    return ""


def printable(text: str) -> str:
    """Foreign text as it may be shown: no control characters, not endless."""
    return "".join(char if char.isprintable() else "?" for char in text)[:200]


def unknown_option(output: str) -> bool:
    """The control program did not know an option: from 580 on it says so and has started nothing, with status 0."""
    return output.lower().startswith("unrecognized option")


def start_hint(status: int, output: str) -> str:
    """What a control program that would not start is telling, by its exit status (580 and 595 print nothing)."""
    if _NO_DAEMON in output.lower() or unknown_option(output):
        return (
            "this driver's control program does not know one of these options: a multi-user server needs 550 or newer, "
            "static SM partitions need 590 or newer"
        )
    if "Cannot access CUDA_MPS_PIPE_DIRECTORY" in output:
        return "the directory must be on a local file system and writable for the owner of the domain"
    return {
        100: "the driver finds no GPU (CUDA error 100): see nvidia-smi -L",
        244: "libcuda.so.1 is not found: install the driver's user-space part on this node",
        126: "the MPS control program may not be executed by the owner of the domain",
        127: "no MPS control program: install it with the driver or set paths.mps_control in mpsr.yaml",
    }.get(status, "")
