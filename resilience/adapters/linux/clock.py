"""The machine's clocks. Nothing here can fail but a missing /proc, which leaves the boot id empty."""

import time
from functools import cache
from pathlib import Path


class SystemClock:
    """Clock port on the real clocks."""

    def wall(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def worked(self) -> float:
        return time.thread_time()

    def boot_id(self) -> str:
        return _boot_id()


@cache
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
