"""Records of /dev/mps_guard → GuardRecord. kernel_module/uapi/mps_guard.h is the format's specification.

A read gives whole records of 128 bytes, in the machine's byte order. What does not follow the format raises WireError:
another length, another version, a kind that is not known. A `why` that this version does not know is UNKNOWN, since a
newer module may have more reasons to let a fault pass.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from resilience.model.errors import WireError

SIZE = 128
VERSION = 1
_LAYOUT = struct.Struct("=II6Q Q IIII iIIII I 16s 8x")
_TICK_NS = 10_000_000
"""Nanoseconds of a clock tick in /proc (USER_HZ is 100 on every kernel of these machines)."""
_REASONS = {1: "invalid address", 2: "invalid permissions"}


class GuardEvent(IntEnum):
    HELD = 1
    PASSED = 2
    SUNK = 3
    KILLED = 4
    RELEASED = 5


class Why(IntEnum):
    """Why a fault passed, as the driver would have treated it anyway."""

    HELD = 0
    OFF = 1
    OBSERVE = 2
    REASON = 3
    DEADLINE = 4
    HOLDS = 5
    WINDOWS = 6
    GIVEN_UP = 7
    NO_SLOT = 8
    NULL_PAGE = 9
    REPEATS = 10
    RATE = 11
    NO_OWNER = 12
    SCOPE = 13
    NO_ROOM = 14
    ASLEEP = 15
    UNKNOWN = 255


WORDS = {
    Why.HELD: "held",
    Why.OFF: "the guard is off",
    Why.OBSERVE: "the guard only observes",
    Why.REASON: "no mapping cures this kind of fault",
    Why.DEADLINE: "the deadline has passed",
    Why.HOLDS: "too many replays",
    Why.WINDOWS: "too many windows",
    Why.GIVEN_UP: "given up before",
    Why.NO_SLOT: "the guard's table is full",
    Why.NULL_PAGE: "in the null page, which is not guarded",
    Why.REPEATS: "the mapping did not help",
    Why.RATE: "too many incidents of this user in a minute",
    Why.NO_OWNER: "no process holds the address space",
    Why.SCOPE: "not a process that is guarded",
    Why.NO_ROOM: "the driver made no mapping",
    Why.ASLEEP: "the GPUs were going to sleep",
    Why.UNKNOWN: "a reason that this version does not know",
}
"""`why` in a few words for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardRecord:
    sequence: int
    time_ns: int
    """CLOCK_MONOTONIC."""
    incident: int
    address: int
    start_ns: int
    """When `pid` started, since boot."""
    cgroup: int
    dropped: int
    """Records that this reader has missed so far."""
    kind: GuardEvent
    why: Why
    gpu: int
    """The driver's own number, neither a minor number nor an index."""
    reason: int
    pid: int
    """The client's process; 0 when it is not known (yet)."""
    uid: int
    windows: int
    holds: int
    holders: int
    comm: str

    @property
    def starttime(self) -> int:
        """Field 22 of /proc/<pid>/stat."""
        return self.start_ns // _TICK_NS

    def words(self) -> str:
        """What happened, for a log."""
        who = f"process {self.pid} ({self.comm})" if self.pid else "a process"
        what = _REASONS.get(self.reason, f"reason {self.reason}")
        where = f"{what} 0x{self.address:x}"
        match self.kind:
            case GuardEvent.SUNK:
                return f"{who}: {where}: isolated after {self.holds} replays"
            case GuardEvent.PASSED:
                return f"{who}: {where}: not isolated: {WORDS[self.why]}"
            case GuardEvent.KILLED:
                return f"{who}: ended by the guard"
            case GuardEvent.RELEASED:
                return f"{who}: its address space is let go"
            case _:
                return f"{who}: {where}: held"


def _why(number: int) -> Why:
    try:
        return Why(number)
    except ValueError:
        return Why.UNKNOWN


def parse_records(data: bytes) -> tuple[GuardRecord, ...]:
    """The records of one read. Raises WireError when the bytes do not follow the format."""
    if len(data) % SIZE:
        raise WireError("guard", f"not whole records of {SIZE} bytes", f"{len(data)} bytes")
    return tuple(_record(data[at : at + SIZE]) for at in range(0, len(data), SIZE))


def _record(data: bytes) -> GuardRecord:
    (
        version,
        size,
        sequence,
        time_ns,
        incident,
        address,
        start_ns,
        cgroup,
        dropped,
        kind,
        why,
        gpu,
        reason,
        pid,
        uid,
        windows,
        holds,
        holders,
        _reserved,
        comm,
    ) = _LAYOUT.unpack(data)
    if version != VERSION or size != SIZE:
        raise WireError(
            "guard",
            "another version of the module's records",
            f"version {version}, {size} bytes",
            hint="mps_guard.ko and mpsr come from one release: build the module again",
        )
    if kind not in iter(GuardEvent):
        raise WireError("guard", "unknown kind of record", kind)
    if pid < 0:
        raise WireError("guard", "bad process id", pid)
    return GuardRecord(
        sequence=sequence,
        time_ns=time_ns,
        incident=incident,
        address=address,
        start_ns=start_ns,
        cgroup=cgroup,
        dropped=dropped,
        kind=GuardEvent(kind),
        why=_why(why),
        gpu=gpu,
        reason=reason,
        pid=pid,
        uid=uid,
        windows=windows,
        holds=holds,
        holders=holders,
        comm=comm.split(b"\0", 1)[0].decode("utf-8", "replace"),
    )
