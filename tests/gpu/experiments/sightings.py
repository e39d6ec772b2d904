"""What do the kernel log and NVML tell of a fault, how late, whose process id do they name, is a reset asked for (E5, E17, E18, H8)?

Times are milliseconds after the culprit heard its error.
"""

import os
import re
import threading
import time
from typing import Any

from tests.gpu.faults import KINDS, MIB, commit, drop, heard, region
from tests.gpu.findings import ExperimentFindings
from tests.gpu.nvml import Events, Nvml
from tests.gpu.rows import row
from tests.gpu.servers import Server
from tests.gpu.stage import Stage

PATIENCE_SECONDS = 1.0
SETTLE_SECONDS = 0.3
"""After the first sighting of both kinds: one fault may give several lines."""


class RecordedKernelLog(threading.Thread):
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


def watch(stage: Stage, entry: dict[str, Any], server: Server | None, kind: str) -> None:
    """One fault and everything that was seen of it."""
    cast = stage.cast(culprit=server, bystander=server)
    entry["proof"], culprit, bystander = cast.proof, cast["culprit"], cast["bystander"]
    mine, nvml = region(bystander, 2 * MIB), Nvml()
    drop(mine)
    before = nvml.recovery_action()
    events, log = Events(), RecordedKernelLog()
    events.start()
    log.start()
    fault = entry["fault"] = commit(kind, culprit)
    told = fault.get("ended", time.monotonic())
    end = time.monotonic() + PATIENCE_SECONDS * min(stage.patience, 3)
    while time.monotonic() < end:
        time.sleep(0.01)
        if events.seen and log.seen:
            end = min(end, max(events.seen[0][0], log.seen[0][0]) + (0.05 if stage.small else SETTLE_SECONDS))
    pids = {"culprit": culprit.process.pid, "bystander": bystander.process.pid, "server": server.pid() if server else 0}
    told_bystander = heard(bystander, "fill", address=mine["address"], size=2 * MIB, seed=1)
    after = nvml.recovery_action()
    cast.kill()
    for watcher in (events, log):
        watcher.stop.set()
        watcher.join(2)
    names = {str(pid): name for name, pid in pids.items() if pid}
    entry |= {
        "bystander_heard": told_bystander.get("code", told_bystander.get("gone")),
        "recovery_action": {"before": before, "after": after},
        "events": {"trouble": events.trouble, "seen": [{"xid": xid, "ms": (at - told) * 1000} for at, xid in events.seen]},
        "kernel_log": {"path": log.path, "trouble": log.trouble,
                       "seen": [{"line": line, "ms": (at - told) * 1000, "pid_of": _whose(line, names)} for at, line in log.seen]},
    }  # fmt: skip


def _whose(line: str, names: dict[str, str]) -> str:
    named = re.search(r"pid='?([0-9]+)", line)
    return names.get(named[1], named[1]) if named else "none"


def run(stage: Stage, found: ExperimentFindings) -> None:
    for kind in stage.kinds(KINDS):
        with row(stage, found, f"outside/{kind}") as entry:
            watch(stage, entry, None, kind)
    if not stage.mps:
        return
    server = stage.server("s")
    for kind in stage.kinds(KINDS):
        server = stage.usable(server)
        with row(stage, found, f"mps/{kind}") as entry:
            watch(stage, entry, server, kind)
        server.wait_ready()
