r"""Kernel log lines of the NVIDIA driver → XidLine or GpuLine; any other line → None. Never raises.

The form is `NVRM: Xid (PCI:<dddd:bb:dd>[ GPU-I:nn[ GPU-CI:nn]]): <n>, pid=<p>, name=<s>, <text>[ caused by previous Xid
<m>]` (open-gpu-kernel-modules, kernel_rc.c). pid and name are missing when there is neither a channel nor a calling
process; older drivers print `pid='<unknown>'`. Under MPS the pid may be the server's. The line may be a raw record of
/dev/kmsg (`prio,seq,usec,flags;message`), the text alone, or a line of rsyslog, which with $RepeatedMsgReduction writes
`message repeated <n> times: [ <text>]` for the second and later ones.
"""

import re
from dataclasses import dataclass

_XID = re.compile(
    r"NVRM: Xid \(PCI:(?P<bus>[0-9A-Fa-f]{1,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}(?:\.[0-9A-Fa-f])?)"
    r"(?: GPU-I:(?P<gi>\d{1,4}))?(?: GPU-CI:(?P<ci>\d{1,4}))?\): (?P<xid>\d{1,5})(?:, (?P<rest>.*))?$",
    re.S,
)
_GPU = re.compile(
    r"NVRM: GPU at PCI:(?P<bus>[0-9A-Fa-f]{1,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}(?:\.\d)?): (?P<uuid>GPU-[0-9a-f-]{8,40})"
)
_PID = re.compile(r"pid=(?:(?P<pid>\d{1,9})|'?<unknown>'?)(?:, |$)")
_NAME = re.compile(r"name=(?P<name>.*?)(?:, |$)", re.S)
_CAUSED = re.compile(r" ?caused by previous Xid (?P<xid>\d{1,5})$")
_ACTION = re.compile(r"recovery action changed from 0x[0-9a-fA-F]+ \([^)]*\) to 0x(?P<to>[0-9a-fA-F]{1,4})")
_FAULTED = re.compile(r"faulted @ 0x(?P<high>[0-9a-fA-F]{1,8})_(?P<low>[0-9a-fA-F]{8})")
_REPEATED = re.compile(r"message repeated \d+ times: \[ ?(?:\[ *\d+\.\d+\] ?)?\Z", re.ASCII)
"""What stands before the driver's text in rsyslog's line for repeated ones; the bracket is closed at the line's end."""
_MAX = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Bus:
    """Where a GPU sits; comparable across the spellings of the kernel log and NVML."""

    domain: int
    bus: int
    device: int


@dataclass(frozen=True, slots=True, kw_only=True)
class XidLine:
    bus: Bus
    xid: int
    pid: int | None
    name: str
    text: str
    gpu_instance: int | None
    compute_instance: int | None
    previous: int | None
    """The Xid that this one follows from, when the driver says so (45 only)."""
    recovery: int | None
    """The recovery action that Xid 154 announces."""
    address: int | None = None
    """Where the GPU was when it faulted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuLine:
    bus: Bus
    uuid: str


def parse_bus(text: str) -> Bus | None:
    """`0000:06:00`, `00000000:06:00.0` → Bus; None for anything else."""
    parts = text.split(".", 1)[0].split(":")
    try:
        domain, bus, device = (int(part, 16) for part in parts)
    except ValueError:
        return None
    return Bus(domain=domain, bus=bus, device=device)


def _optional(text: str | None) -> int | None:
    return None if text is None else int(text)


def parse_line(line: str) -> XidLine | GpuLine | None:
    """What one kernel log line says of a GPU; None when it says nothing."""
    before, found_it, _ = (line := line.rstrip("\r\n")).partition("NVRM")
    if not found_it:
        return None
    if _REPEATED.search(before):
        line = line.removesuffix("]")
    line = line[:_MAX]
    if match := _GPU.search(line):
        bus = parse_bus(match["bus"])
        return GpuLine(bus=bus, uuid=match["uuid"]) if bus else None
    match = _XID.search(line.split("\n", 1)[0])
    bus = parse_bus(match["bus"]) if match else None
    if match is None or bus is None:
        return None
    rest = match["rest"] or ""
    pid, name, previous = None, "", None
    if found := _PID.match(rest):
        pid = _optional(found["pid"])
        rest = rest[found.end() :]
    if found := _NAME.match(rest):
        name = found["name"].strip("'<>")
        rest = rest[found.end() :]
    if found := _CAUSED.search(rest):
        previous = int(found["xid"])
        rest = rest[: found.start()]
    action, faulted = _ACTION.search(rest), _FAULTED.search(rest)
    return XidLine(
        bus=bus,
        xid=int(match["xid"]),
        pid=pid,
        name="" if name == "unknown" else name,
        text=rest.strip(" ,"),
        gpu_instance=_optional(match["gi"]),
        compute_instance=_optional(match["ci"]),
        previous=previous,
        recovery=int(action["to"], 16) if action else None,
        address=int(faulted["high"] + faulted["low"], 16) if faulted else None,
    )
