"""What do the kernel log and NVML's events tell of a fault, how late, and whose process id do they name (E5, E18, H8)?

NVML through ctypes: nothing but the driver is needed. Times are milliseconds after the culprit heard its error.
"""

import ctypes as c
import os
import re
import threading
import time
from typing import Any

from tests.gpu.faults import KINDS, commit, heard
from tests.gpu.findings import Findings
from tests.gpu.stage import Server, Stage

XID_EVENT = 0x8
WAIT_MS = 100
PATIENCE_SECONDS = 1.0


class EventData(c.Structure):
    """nvmlEventData_t of nvml.h 11 and later."""

    _fields_ = (
        ("device", c.c_void_p),
        ("kind", c.c_ulonglong),
        ("data", c.c_ulonglong),
        ("gpu_instance", c.c_uint),
        ("compute_instance", c.c_uint),
    )


class Events(threading.Thread):
    """Xid events of the first GPU; `trouble` says why there are none."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen, self.trouble, self.stop = list[tuple[float, int]](), "", threading.Event()
        self.set = c.c_void_p()
        try:
            self.nvml = c.CDLL("libnvidia-ml.so.1")
        except OSError as error:
            self.trouble = str(error)
            return
        device = c.c_void_p()
        steps = (
            ("nvmlInit_v2", ()),
            ("nvmlDeviceGetHandleByIndex_v2", (c.c_uint(0), c.byref(device))),
            ("nvmlEventSetCreate", (c.byref(self.set),)),
            ("nvmlDeviceRegisterEvents", (device, c.c_ulonglong(XID_EVENT), self.set)),
        )
        for name, arguments in steps:
            if not self.trouble and (code := getattr(self.nvml, name)(*arguments)):
                self.trouble = f"{name}: {code}"

    def run(self) -> None:
        data = EventData()
        while not self.trouble and not self.stop.is_set():
            if self.nvml.nvmlEventSetWait_v2(self.set, c.byref(data), c.c_uint(WAIT_MS)) == 0:
                self.seen.append((time.monotonic(), int(data.data)))


class KernelLog(threading.Thread):
    """Xid lines of the kernel log from now on; of the simulated host's where there is one."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        simulated = os.environ.get("SIMGPU_DIR")
        self.path = f"{simulated}/kmsg" if simulated else "/dev/kmsg"
        self.seen, self.trouble, self.stop = list[tuple[float, str]](), "", threading.Event()
        try:
            self.fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
            os.lseek(self.fd, 0, os.SEEK_END)
        except OSError as error:
            self.trouble = str(error)

    def run(self) -> None:
        while not self.trouble and not self.stop.is_set():
            try:
                text = os.read(self.fd, 8192).decode(errors="replace")
            except OSError:  # nothing new, or a record that was overwritten
                text = ""
            for line in text.splitlines():
                if "Xid" in line:
                    self.seen.append((time.monotonic(), line))
            if not text:
                self.stop.wait(0.002)


def watch(stage: Stage, server: Server | None, kind: str) -> dict[str, Any]:
    """One fault and everything that was seen of it."""
    culprit, bystander = stage.puppet("culprit", server), stage.puppet("bystander", server)
    for each in (culprit, bystander):
        heard(each, "start")
    events, log = Events(), KernelLog()
    events.start()
    log.start()
    fault = commit(kind, culprit)
    told = fault.get("ended", time.monotonic())
    end = time.monotonic() + PATIENCE_SECONDS
    while not (stage.small and events.seen and log.seen) and time.monotonic() < end:
        time.sleep(0.01)
    pids = {"culprit": culprit.process.pid, "bystander": bystander.process.pid, "server": server.pid() if server else 0}
    for each in (culprit, bystander):
        each.kill()
    for watcher in (events, log):
        watcher.stop.set()
        watcher.join(2)
    names = {str(pid): name for name, pid in pids.items() if pid}
    return {
        "fault": fault,
        "events": {"trouble": events.trouble, "seen": [{"xid": xid, "ms": (at - told) * 1000} for at, xid in events.seen]},
        "kernel_log": {"path": log.path, "trouble": log.trouble,
                       "seen": [{"line": line, "ms": (at - told) * 1000, "pid_of": _whose(line, names)} for at, line in log.seen]},
    }  # fmt: skip


def _whose(line: str, names: dict[str, str]) -> str:
    named = re.search(r"pid='?([0-9]+)", line)
    return names.get(named[1], named[1]) if named else "none"


def run(stage: Stage, found: Findings) -> None:
    server = stage.server("s") if stage.mps else None
    for kind in KINDS:
        for where, on in {"outside": None, "mps": server}.items():
            if where == "mps" and server is None:
                continue
            found[f"{where}/{kind}"] = watch(stage, on, kind)
            if on is not None:
                on.wait("ACTIVE", 10)
