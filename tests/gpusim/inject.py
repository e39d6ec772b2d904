"""Make a simulated host misbehave, from a test or by hand. The page for users: docs/how-to/inject-faults.md.

    python -m tests.gpusim.inject DIR fail cuMemCreate 3 2      # the 3rd cuMemCreate of each process returns 2
    python -m tests.gpusim.inject DIR set rebuild_ms 1100       # any number of the profile
    python -m tests.gpusim.inject DIR xid 0 79                  # an Xid without a fault
    python -m tests.gpusim.inject DIR xid 0 31 --only event     # the one sighting without the other
    python -m tests.gpusim.inject DIR kill PID                  # SIGKILL for a server, a daemon, a client
    python -m tests.gpusim.inject DIR hang PID                  # SIGSTOP until standard input ends
    python -m tests.gpusim.inject DIR fill 0 --leave-mib 16     # take GPU memory until standard input ends
    python -m tests.gpusim.inject DIR clear

Relies on: the host directory of host.py. Rules are lines of `inject`, which the C library and the MPS processes read
again when they need a number or 10 ms have passed; a rule holds until `clear`.

Guarantees: whatever is taken or stopped is given back at the end of its `with` block, or with the process that took it.

On failure: ValueError for a rule nobody would understand, ProcessLookupError for a process that has gone.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import fcntl
import os
import re
import signal
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.gpusim import profile

MIB = 1 << 20
TRAILER = struct.Struct("=16sQi")
TRAILER_BYTES = 4096
"""The last page of a memory file says what it is: 16 bytes of magic, its size, its GPU (see pool.c)."""
BUILT_IN = ("capability_error", "context_mib", "mig", "mig_error", "recovery_action")
"""Numbers that the profile has no key for."""


def numbers() -> list[str]:
    """What `set` can override."""
    return sorted({one.key for one in profile.load().values() if one.key} | set(BUILT_IN))


class Injector:
    """Faults for the simulated host in directory `host`."""

    def __init__(self, host: Path) -> None:
        self.host = host

    # -- rules ---

    def fail(self, function: str, call: int, code: int) -> None:
        """The `call`-th call (from 1, per process) of the driver function `function` returns CUDA error `code`."""
        if not re.fullmatch(r"cu[A-Z]\w+", function) or call < 1 or code < 1:
            raise ValueError(
                f"gpusim: inject: not a function, a call from 1 and an error code: {function} {call} {code}"
            )
        self._rule(f"fail {function} {call} {code}")

    def set(self, key: str, value: int) -> None:
        """Override a number of the profile, such as `rebuild_ms`, `server_init_ms`, `client_limit` or `guard`."""
        if key not in numbers():
            near = difflib.get_close_matches(key, numbers(), 1) or numbers()
            raise ValueError(f"gpusim: inject: not a number of the profile: {key}\n  hint: {', '.join(near)}")
        self._rule(f"set {key} {value}")

    def clear(self) -> None:
        """Forget every rule."""
        os.truncate(self.host / "inject", 0)

    def _rule(self, line: str) -> None:
        self._append("inject", line)

    def _append(self, name: str, line: str) -> None:
        descriptor = os.open(self.host / name, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, line.encode() + b"\n")
        finally:
            os.close(descriptor)

    # -- sightings ---

    def xid(
        self, minor: int, number: int, *, pid: int = 0, text: str = "", kmsg: bool = True, event: bool = True
    ) -> None:
        """An Xid that no program caused: a line of the kernel log and an NVML event, or one of the two.

        Two calls, one with `kmsg=False` and one with `event=False`, make the sightings come in the order and at the
        distance that a test wants.
        """
        if kmsg:
            who = f"pid={pid}, name={_comm(pid)}, " if pid else "pid='<unknown>', name=<unknown>, "
            bus = self._bus(minor).rpartition(".")[0]
            self._append("kmsg", f"NVRM: Xid (PCI:{bus}): {number}, {who}{text or 'injected'}")
        if event:
            now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            self._append("events", f"{now} {minor} {number} {pid}")

    def _gpu(self, minor: int) -> dict[str, str]:
        for line in (self.host / "host.conf").read_text(encoding="utf-8").splitlines():
            words = dict(word.split("=", 1) for word in line.split())
            if words.get("gpu") == str(minor):
                return words
        raise ValueError(f"gpusim: inject: no such GPU: {minor}")

    def _bus(self, minor: int) -> str:
        return self._gpu(minor)["bus"]

    # -- processes ---

    def kill(self, pid: int) -> None:
        """SIGKILL: an MPS server (its clients get 806), a control daemon (they run on), a client."""
        os.kill(pid, signal.SIGKILL)

    @contextlib.contextmanager
    def hang(self, pid: int) -> Iterator[None]:
        """SIGSTOP for the time of the block: a server or control daemon that answers nobody."""
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    # -- memory ---

    @contextlib.contextmanager
    def fill(self, minor: int, leave: int = 0) -> Iterator[int]:
        """Take all free memory of a GPU but `leave` MiB for the time of the block; gives the MiB taken.

        Costs no host memory: the file is a hole.
        """
        pool = self.host / "mem" / str(minor)
        lock = os.open(pool / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            free = int(self._gpu(minor)["memory"]) * MIB - self._used(pool)
            size = max(0, free // MIB - leave) * MIB
            name = f"{os.getpid()}.fill.{time.clock_gettime_ns(time.CLOCK_MONOTONIC):x}"
            held = os.open(pool / name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            fcntl.flock(held, fcntl.LOCK_EX)
            os.ftruncate(held, size + TRAILER_BYTES)
            os.pwrite(held, TRAILER.pack(b"simgpu memory 1", size, minor), size)
        finally:
            os.close(lock)
        try:
            yield size // MIB
        finally:
            os.close(held)

    def _used(self, pool: Path) -> int:
        used = 0
        for entry in pool.iterdir():
            if entry.name.startswith("."):
                continue
            descriptor = os.open(entry, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                used += os.fstat(descriptor).st_size - TRAILER_BYTES
            finally:
                os.close(descriptor)
        return used


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return "<unknown>"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.gpusim.inject", description="Make a simulated host misbehave."
    )
    parser.add_argument("dir", type=Path)
    verbs = parser.add_subparsers(dest="verb", required=True)
    fail = verbs.add_parser("fail", help="the n-th call of a driver function returns a code")
    fail.add_argument("function")
    fail.add_argument("call", type=int)
    fail.add_argument("code", type=int)
    number = verbs.add_parser("set", help="override a number of the profile")
    number.add_argument("key")
    number.add_argument("value", type=int)
    xid = verbs.add_parser("xid", help="an Xid without a fault")
    xid.add_argument("minor", type=int)
    xid.add_argument("number", type=int)
    xid.add_argument("--pid", type=int, default=0)
    xid.add_argument("--text", default="")
    xid.add_argument("--only", choices=["kmsg", "event"], help="one of the two sightings")
    for verb, what in (("kill", "SIGKILL a process"), ("hang", "SIGSTOP a process until standard input ends")):
        verbs.add_parser(verb, help=what).add_argument("pid", type=int)
    fill = verbs.add_parser("fill", help="take GPU memory until standard input ends")
    fill.add_argument("minor", type=int)
    fill.add_argument("--leave-mib", type=int, default=0)
    verbs.add_parser("clear", help="forget every rule")
    words = parser.parse_args()
    if not (words.dir / "host.conf").is_file():
        raise SystemExit(f"gpusim: directory: holds no simulated host: {words.dir}")
    injector = Injector(words.dir)
    try:
        if words.verb == "fail":
            injector.fail(words.function, words.call, words.code)
        elif words.verb == "set":
            injector.set(words.key, words.value)
        elif words.verb == "xid":
            injector.xid(words.minor, words.number, pid=words.pid, text=words.text,
                         kmsg=words.only != "event", event=words.only != "kmsg")  # fmt: skip
        elif words.verb == "kill":
            injector.kill(words.pid)
        elif words.verb == "hang":
            with injector.hang(words.pid):
                print("stopped", flush=True)
                sys.stdin.read()
        elif words.verb == "clear":
            injector.clear()
        else:
            with injector.fill(words.minor, words.leave_mib) as taken:
                print(f"{taken} MiB taken", flush=True)
                sys.stdin.read()
    except ValueError as wrong:
        raise SystemExit(str(wrong)) from None
    except ProcessLookupError:
        raise SystemExit(f"gpusim: inject: no such process: {words.pid}") from None


if __name__ == "__main__":
    main()
