"""A CUDA program that does what its parent tells it: the far end of driver_harness.Program.

Job: take pickled orders from the socket whose number is the first argument, carry them out with ctypes on the
`libcuda.so.1` that the loader finds, send back results. Started as a script and in need of the standard library only,
so that it starts in a few tens of milliseconds. Its orders come from the test that started it and from nobody else.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from multiprocessing.connection import Connection
from typing import Any

NUMBERS: dict[str, Any] = {"u64": ctypes.c_uint64, "i32": ctypes.c_int, "u32": ctypes.c_uint, "f32": ctypes.c_float}
KERNEL_NUMBERS: dict[str, Any] = {"u64": ctypes.c_uint64, "i32": ctypes.c_int, "f64": ctypes.c_double}


class Far:
    """The orders, one method each. Handles and addresses travel as numbers."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.lib = ctypes.CDLL("libcuda.so.1")
        self.kept: list[Any] = []

    def cu(self, name: str, arguments: list[tuple[str, Any]]) -> tuple[int, list[Any]]:
        """Call a driver function. `("out", kind)` is a place for a result, `("room", n)` one of n bytes."""
        values: list[Any] = []
        places: list[Any] = []
        for kind, value in arguments:
            if kind == "out":
                place = NUMBERS[value]()
            elif kind == "room":
                place = ctypes.create_string_buffer(value)
            else:
                values.append(value if kind == "bytes" else NUMBERS[kind](value))
                continue
            places.append(place)
            values.append(ctypes.byref(place))
        code = self.lib[name](*values)
        return code, [place.raw if hasattr(place, "raw") else place.value for place in places]

    def cooperative(self, function: int, blocks: int, stream: int, arguments: list[tuple[str, Any]]) -> int:
        """A cooperative launch of that many blocks of one thread."""
        values = [KERNEL_NUMBERS[kind](value) for kind, value in arguments]
        pointers = (ctypes.c_void_p * len(values))(*[ctypes.addressof(value) for value in values])
        shape = (blocks, 1, 1, 1, 1, 1, 0)
        return int(
            self.lib.cuLaunchCooperativeKernel(ctypes.c_uint64(function), *shape, ctypes.c_uint64(stream), pointers)
        )

    def launch(self, function: int, threads: int, stream: int, arguments: list[tuple[str, Any]]) -> int:
        """Launch at least `threads` threads in blocks of 64 (of `threads` below that)."""
        block = min(threads, 64)
        values = [KERNEL_NUMBERS[kind](value) for kind, value in arguments]
        pointers = (ctypes.c_void_p * len(values))(*[ctypes.addressof(value) for value in values])
        shape = ((threads + block - 1) // block, 1, 1, block, 1, 1, 0)
        code = self.lib.cuLaunchKernel(
            ctypes.c_uint64(function), *shape, ctypes.c_uint64(stream), pointers, ctypes.c_void_p()
        )
        return int(code)

    def exports(self, names: list[str]) -> list[str]:
        """Those of the names that the library exports."""
        return [name for name in names if hasattr(self.lib, name)]

    def call_address(self, address: int) -> int:
        """Call a function without arguments at an address (what cuGetProcAddress gave)."""
        return int(ctypes.CFUNCTYPE(ctypes.c_int)(address)())

    def pinned(self, size: int) -> int:
        """Page-locked host memory through cuMemAllocHost."""
        place = ctypes.c_uint64()
        code = self.lib.cuMemAllocHost_v2(ctypes.byref(place), ctypes.c_size_t(size))
        assert code == 0, code
        return place.value

    def peek(self, address: int, size: int) -> bytes:
        """Read host memory; for a device address the end of this process."""
        return ctypes.string_at(address, size)

    def poke(self, address: int, data: bytes) -> None:
        """Write host memory."""
        ctypes.memmove(address, data, len(data))

    def give(self, descriptor: int) -> None:
        """Send a descriptor to the parent, right behind the answer."""
        self.kept.append(descriptor)

    def take(self) -> int:
        """Receive a descriptor from the parent."""
        _, descriptors, _, _ = socket.recv_fds(self.control, 1, 1)
        return descriptors[0]

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def forked(self, name: str, arguments: list[tuple[str, Any]]) -> int:
        """The code of a driver call in a forked child."""
        child = os.fork()
        if child == 0:
            code, _ = self.cu(name, arguments)
            os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def fork_sleeper(self) -> int:
        """Fork a child that waits for a signal; its pid."""
        child = os.fork()
        if child == 0:
            self.control.close()
            signal.pause()
            os._exit(0)
        return child


def main() -> None:
    """Obey until the parent hangs up."""
    number = int(sys.argv[1])
    control = socket.socket(fileno=number)
    wire = Connection(os.dup(number))
    far = Far(control)
    while True:
        try:
            name, arguments = wire.recv()
        except EOFError:
            return
        answer = getattr(far, name)(*arguments)
        wire.send(answer)
        while far.kept:
            socket.send_fds(control, [b"+"], [far.kept.pop()])


if __name__ == "__main__":
    main()
