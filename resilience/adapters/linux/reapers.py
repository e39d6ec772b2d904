"""The lesser way, for nodes without cgroups: what root has started as a user is found by its descent from a reaper.

A reaper is an mpsr-enter of root's with a label (spank_plugin/enter/enter.c). Whatever the program becomes and however its
children hide (another session, two forks, another name or environment), they stay below it, and it ends with the last
of them. What gets away: a process whose parent has moved into another PID namespace of the user's before it ended.

Guarantees: a reaper counts as ours when all of its user ids are root's, which no user's process has; only what is below
it is signalled. Its process groups are ended as one, so that no fork escapes; a group of theirs has nobody else in it,
since a process can join a group of its own session only (setpgid(2)). A process that leaves for a new session with each
fork, faster than it can be found, is told as left.
"""

import os
import signal
import time
from contextlib import suppress

from resilience.adapters.linux.cgroups import end_listed
from resilience.adapters.linux.processes import look, parent

_PROGRAM = "mpsr-enter"
_PAUSE = 0.002
_ROOTS_ALONE = ["0"] * 4


def reapers(label: str) -> set[int]:
    """Those of one label that live, each with at least one process below it."""
    return {pid for pid in _all() if _is_reaper(pid, label)}


def members(label: str) -> set[int]:
    """All processes below the reapers of one label."""
    above = reapers(label)
    if not above:
        return set()
    children: dict[int, list[int]] = {}
    for pid in _all():
        if (its := parent(pid)) is not None:
            children.setdefault(its, []).append(pid)
    found: set[int] = set()
    left = list(above)
    while left:
        for child in children.get(left.pop(), ()):
            if child not in found:
                found.add(child)
                left.append(child)
    return found


def end(label: str, seconds: float) -> set[int]:
    """End all of them; those that are left after `seconds`."""
    deadline = time.monotonic() + seconds
    while reapers(label):
        for group in _groups(label):
            with suppress(OSError):
                os.killpg(group, signal.SIGKILL)  # numbers are given out in turn: it is not another's so soon
        end_listed(lambda: members(label), signal.SIGKILL)
        if time.monotonic() >= deadline:
            return members(label)
        time.sleep(_PAUSE)
    return set()


def _groups(label: str) -> set[int]:
    """Process groups of the members, none of which is a reaper's."""
    found = set()
    for pid in members(label):
        with suppress(OSError):
            found.add(os.getpgid(pid))
    return found - {os.getpgrp(), *(os.getpgid(one) for one in reapers(label))}


def _is_reaper(pid: int, label: str) -> bool:
    with suppress(OSError):
        if os.stat(f"/proc/{pid}").st_uid != 0:
            return False
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            if file.read().rstrip("\n") != _PROGRAM:
                return False
        seen = look(pid)
        if seen is None or ("-r", label) != seen.command[1:3]:
            return False
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            return any(line.startswith("Uid:") and line.split()[1:] == _ROOTS_ALONE for line in file)
    return False


def _all() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
