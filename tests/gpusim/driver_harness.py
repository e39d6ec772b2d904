"""What the tests of the simulated driver share: the built libraries, programs to command, an own count of the memory.

`Program` is a process that calls the driver as told, so that a test can write down what several programs do, kill them
at any point and look at what is left. `counted` is a second, independent implementation of the accounting rule: a test
compares it with what the driver says.

Guarantees: every wait has a bound; a `Program` is gone when its `with` block ends.
"""

from __future__ import annotations

import fcntl
import functools
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.gpusim import host
from tests.gpusim.host import BUILD, HERE, SimHost

ROOT = HERE.parent.parent
HEAT = ROOT / "docs" / "tutorial" / "heat2d" / "heat.ptx"
FAULTS = ROOT / "resilience" / "drill" / "faults.ptx"
SUMS = ROOT / "resilience" / "state" / "sums.ptx"
MIB = 1 << 20
GRANULE = 2 * MIB
MEMORY = 64 * MIB
"""Bytes of a GPU of the fixture `sim`."""
LIMIT = 20.0
"""Seconds that any answer may take; the machine may be busy."""
PINNED, DEVICE, POSIX_FD, READ, READ_WRITE = 1, 1, 1, 1, 3


@functools.cache
def built() -> Path:
    """The folder with the libraries and executables, brought up to date once a session."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # sessions side by side
        made = subprocess.run(
            ["make", "-s", "-j2", "-C", str(HERE), "all", f"OUT={BUILD}"], capture_output=True, text=True, check=False
        )
        assert made.returncode == 0, made.stderr
        host.install(BUILD)
    return BUILD


def counted(sim: SimHost, minor: int = 0) -> int:
    """Bytes of a GPU's memory that somebody holds: files whose lock cannot be had, less their last page."""
    total = 0
    for file in (sim.path / "mem" / str(minor)).iterdir():
        if file.name.startswith("."):
            continue
        with file.open("rb") as opened:
            try:
                fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                total += file.stat().st_size - 4096
    return total


def xids(sim: SimHost) -> list[str]:
    """The lines of the kernel log."""
    return (sim.path / "kmsg").read_text().splitlines()


def out(kind: str) -> tuple[str, str]:
    return ("out", kind)


def room(size: int) -> tuple[str, int]:
    return ("room", size)


def prop(device: int = 0, handle: int = POSIX_FD) -> tuple[str, bytes]:
    """A CUmemAllocationProp."""
    return ("bytes", struct.pack("=iiiiQ8x", PINNED, handle, DEVICE, device, 0))


def access(flags: int, device: int = 0) -> tuple[str, bytes]:
    """A CUmemAccessDesc."""
    return ("bytes", struct.pack("=iii", DEVICE, device, flags))


class CudaError(Exception):
    """A driver call that returned `code`."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"{name}: {code}")
        self.code = code


Argument = int | bytes | tuple[str, Any]


def _encode(arguments: Sequence[Argument]) -> list[tuple[str, Any]]:
    encoded: list[tuple[str, Any]] = []
    for one in arguments:
        if isinstance(one, tuple):
            encoded.append(one)
        else:
            encoded.append(("u64", one) if isinstance(one, int) else ("bytes", one))
    return encoded


class Program:
    """A process that uses the driver on a simulated host. `env` is added to its environment; `start=False` leaves
    cuInit and the context to the test."""

    def __init__(self, sim: SimHost, *, start: bool = True, user: int | None = None, **env: str) -> None:
        near, far = socket.socketpair()
        with far:
            self.process = subprocess.Popen(
                [sys.executable, "-S", str(HERE / "driver_child.py"), str(far.fileno())],
                env=sim.env(**env),
                pass_fds=[far.fileno()],
                stderr=subprocess.PIPE,
                text=True,
                user=user,
            )
        self.socket = near
        self.wire = Connection(os.dup(near.fileno()))
        self.pid = self.process.pid
        if start:
            self.cu("cuInit", 0)
            self.context = self.cu("cuCtxCreate_v2", out("u64"), 0, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def order(self, name: str, *arguments: Any) -> None:
        """Give an order; `answer` has to follow."""
        self.wire.send((name, arguments))

    def answer(self, limit: float = LIMIT) -> Any:
        """The answer to the last order."""
        assert self.wire.poll(limit), f"program {self.pid} gave no answer for {limit} s"
        return self.wire.recv()

    def do(self, name: str, *arguments: Any) -> Any:
        """An order and its answer."""
        self.order(name, *arguments)
        return self.answer()

    def code(self, name: str, *arguments: Argument) -> int:
        """The code that a driver call returns."""
        code, _ = self.do("cu", name, _encode(arguments))
        return int(code)

    def cu(self, name: str, *arguments: Argument) -> Any:
        """A driver call that must succeed: its results, or the one result. Raises CudaError."""
        code, results = self.do("cu", name, _encode(arguments))
        if code != 0:
            raise CudaError(name, code)
        return results[0] if len(results) == 1 else results

    def begin(self, name: str, *arguments: Argument) -> None:
        """Start a driver call that may block; `ended` has its code."""
        self.order("cu", name, _encode(arguments))

    def ended(self) -> int:
        """The code of the call that was begun."""
        code, _ = self.answer()
        return int(code)

    # -- memory ---

    def create(self, size: int = GRANULE, device: int = 0, handle: int = POSIX_FD) -> int:
        return int(self.cu("cuMemCreate", out("u64"), size, prop(device, handle), 0))

    def map(self, handle: int, size: int = GRANULE, flags: int = READ_WRITE, wish: int = 0, device: int = 0) -> int:
        """Reserve, map, allow: the address."""
        address = int(self.cu("cuMemAddressReserve", out("u64"), size, 0, wish, 0))
        self.cu("cuMemMap", address, size, 0, handle, 0)
        self.cu("cuMemSetAccess", address, size, access(flags, device), 1)
        return address

    def export(self, handle: int) -> int:
        """A descriptor of the memory, in this (the test's) process."""
        number = self.cu("cuMemExportToShareableHandle", out("i32"), handle, POSIX_FD, 0)
        self.do("give", number)
        _, descriptors, _, _ = socket.recv_fds(self.socket, 1, 1)
        self.do("close", number)
        return descriptors[0]

    def import_(self, descriptor: int) -> int:
        """Hand a descriptor over and import it: the handle."""
        self.order("take")
        socket.send_fds(self.socket, [b"+"], [descriptor])
        number = self.answer()
        try:
            return int(self.cu("cuMemImportFromShareableHandle", out("u64"), number, POSIX_FD))
        finally:
            self.do("close", number)

    def write(self, address: int, data: bytes) -> None:
        """The bytes are there when this returns; a copy from pageable memory alone does not wait for its last part."""
        self.cu("cuMemcpyHtoD_v2", address, data, len(data))
        self.cu("cuCtxSynchronize")

    def read(self, address: int, size: int) -> bytes:
        data = self.cu("cuMemcpyDtoH_v2", room(size), address, size)
        assert isinstance(data, bytes)
        return data

    # -- kernels ---

    def module(self, ptx: Path) -> int:
        return int(self.cu("cuModuleLoadData", out("u64"), ptx.read_bytes() + b"\0"))

    def function(self, module: int, name: str) -> int:
        return int(self.cu("cuModuleGetFunction", out("u64"), module, name.encode() + b"\0"))

    def launch(self, function: int, threads: int, *arguments: tuple[str, Any], stream: int = 0) -> int:
        """The code of the launch; arguments are `("u64", …)`, `("i32", …)` or `("f64", …)`."""
        return int(self.do("launch", function, threads, stream, list(arguments)))

    def stream(self, flags: int = 1) -> int:
        return int(self.cu("cuStreamCreate", out("u64"), flags))

    # -- the end ---

    def kill(self) -> int:
        """SIGKILL if it still lives, and reap: its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(LIMIT)
        self.wire.close()
        self.socket.close()
        if self.process.stderr is not None:
            self.process.stderr.close()
        return self.process.returncode

    def finish(self) -> str:
        """Let it end by itself; what it said on stderr."""
        self.wire.close()
        self.socket.close()
        _, said = self.process.communicate(timeout=LIMIT)
        return said
