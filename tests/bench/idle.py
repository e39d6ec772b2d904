"""What our resident processes cost while nothing happens: resident memory and processor time, from /proc."""

from typing import Any

from tests.cluster.sandbox import Sandbox, wait_for


def pids(sandbox: Sandbox, *words: str) -> list[int]:
    """Processes inside whose command line has all of the words."""
    return [pid for pid, command in sandbox.processes().items() if all(word in command for word in words)]


def cpu_seconds(sandbox: Sandbox, pid: int) -> float:
    """Of all threads, to the nanosecond (schedstat): a tick of /proc/<pid>/stat is 0.1 % of ten seconds."""
    threads = sandbox.good(["sh", "-c", f"cat /proc/{pid}/task/*/schedstat"]).splitlines()
    return sum(int(thread.split()[0]) for thread in threads) / 1e9


def resident_kib(sandbox: Sandbox, pid: int) -> dict[str, int]:
    """Resident memory, and its part that nobody shares."""
    rows = (line.split() for line in sandbox.read(f"/proc/{pid}/smaps_rollup").splitlines()[1:])
    values = {row[0].rstrip(":"): int(row[1]) for row in rows}
    return {"rss_kib": values["Rss"], "private_kib": values["Private_Clean"] + values["Private_Dirty"]}


def idle(sandbox: Sandbox, pid: int, seconds: float) -> dict[str, Any]:
    """Memory now and processor time over the next `seconds`, as percent of one core."""
    before = (cpu_seconds(sandbox, pid), uptime(sandbox))
    memory = resident_kib(sandbox, pid)
    wait_for(lambda: uptime(sandbox) - before[1] >= seconds, seconds + 10)
    used = cpu_seconds(sandbox, pid) - before[0]
    return {
        "rss_mib": round(memory["rss_kib"] / 1024, 2),
        "private_mib": round(memory["private_kib"] / 1024, 2),
        "cpu_percent": round(100 * used / (uptime(sandbox) - before[1]), 3),
        "seconds": round(seconds, 1),
    }


def uptime(sandbox: Sandbox) -> float:
    return float(sandbox.read("/proc/uptime").split()[0])
