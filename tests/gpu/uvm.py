"""Two public requests of the stock UVM driver, made on a process's own open file: a range of addresses, and a sparse mapping under it.

A sparse mapping has no page behind it: reads should give 0, writes should vanish, nothing should fault. The guard module
(kernel_module/sink.c) stands on that, and only hardware can tell whether it is so. The argument layouts are the requests' published
sizes and offsets in our own words, with room behind them in case a driver's are longer. On Linux the request numbers are bare.
"""

import ctypes
import os
import time
from pathlib import Path
from typing import Any

DEVICE = "/dev/nvidia-uvm"
CREATE_RANGE, MAP_SPARSE = 73, 74
SYS_KCMP, KCMP_FILE = 312, 0
"""x86-64."""
ROOM = ctypes.c_ubyte * 64


class CreateRange(ctypes.Structure):
    _fields_ = (("base", ctypes.c_uint64), ("length", ctypes.c_uint64), ("status", ctypes.c_uint32), ("room", ROOM))


class MapSparse(ctypes.Structure):
    _fields_ = (
        ("base", ctypes.c_uint64),
        ("length", ctypes.c_uint64),
        ("gpu", ctypes.c_ubyte * 16),
        ("status", ctypes.c_uint32),
        ("room", ROOM),
    )


def descriptors(pid: int | str = "self") -> list[int]:
    """A process's descriptors of the UVM driver; empty where it has none, or we may not look."""
    found = []
    try:
        entries = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return []
    for entry in entries:
        try:
            if os.readlink(entry) == DEVICE:
                found.append(int(entry.name))
        except OSError:
            continue
    return sorted(found)


def request(fd: int, number: int, arguments: ctypes.Structure) -> dict[str, Any]:
    """errno of the ioctl, the driver's status (0: done) and the time it took."""
    libc = ctypes.CDLL(None, use_errno=True)
    begin = time.perf_counter_ns()
    failed = libc.ioctl(ctypes.c_int(fd), ctypes.c_ulong(number), ctypes.byref(arguments)) != 0
    us = (time.perf_counter_ns() - begin) / 1000
    return {"errno": ctypes.get_errno() if failed else 0, "status": arguments.status, "us": us}


def sparse(base: int, length: int, gpu: bytes) -> dict[str, Any]:
    """Try each of our descriptors until one takes both requests; `code` 0 when one did, -1 without any descriptor."""
    tries = []
    for fd in descriptors():
        create, mapping = CreateRange(base, length), MapSparse(base, length, (ctypes.c_ubyte * 16)(*gpu))
        made: dict[str, Any] = {"fd": fd, "create": request(fd, CREATE_RANGE, create)}
        tries.append(made)
        if made["create"]["errno"] or made["create"]["status"]:
            continue
        made["map"] = request(fd, MAP_SPARSE, mapping)
        if not (made["map"]["errno"] or made["map"]["status"]):
            return {"code": 0, "tries": tries}
    return {"code": 1 if tries else -1, "tries": tries}


def same_file(first: tuple[int, int], second: tuple[int, int]) -> bool | str:
    """Do two descriptors, each (pid, fd), stand for one open file (kcmp)? A word where the kernel does not say."""
    libc = ctypes.CDLL(None, use_errno=True)
    order = libc.syscall(SYS_KCMP, first[0], second[0], KCMP_FILE, ctypes.c_ulong(first[1]), ctypes.c_ulong(second[1]))
    return order == 0 if order >= 0 else os.strerror(ctypes.get_errno())
