"""The CUDA driver API as it is: every call returns its code and its time, nothing raises.

A probe wants to see what a call answers after a fault, so the product's binding, which raises, is no use here. Struct layouts
are those of cuda.h 12 and 13 (CUmemAllocationProp, CUmemAccessDesc). Relies on `libcuda.so.1` of the loader's search path.
"""

import ctypes as c
import time
from dataclasses import dataclass
from typing import Any

POSIX_FD = 1
READ, READ_WRITE = 1, 3
MPS_ENABLED = 133
"""CU_DEVICE_ATTRIBUTE_MPS_ENABLED."""


class Location(c.Structure):
    _fields_ = (("type", c.c_int), ("id", c.c_int))


class AllocationProp(c.Structure):
    _fields_ = (
        ("type", c.c_int),
        ("handle_types", c.c_int),
        ("location", Location),
        ("win32", c.c_void_p),
        ("flags", c.c_ubyte * 8),
    )


class AccessDesc(c.Structure):
    _fields_ = (("location", Location), ("flags", c.c_int))


@dataclass(frozen=True, slots=True)
class Answer:
    code: int
    us: float
    value: int = 0


class Driver:
    """One process's view of one GPU (ordinal 0 of what it may see)."""

    def __init__(self) -> None:
        self.lib = c.CDLL("libcuda.so.1")
        self.context = c.c_void_p()
        self.stream = c.c_void_p()
        self.module = c.c_void_p()

    def call(self, name: str, *args: object) -> Answer:
        """Call a driver function by its exported name; code -1 where the library lacks it."""
        function = getattr(self.lib, name, None)
        if function is None:
            return Answer(-1, 0.0)
        begin = time.perf_counter_ns()
        code = function(*args)
        return Answer(code, (time.perf_counter_ns() - begin) / 1000)

    def out(self, name: str, kind: type, *args: object) -> Answer:
        """As call, for functions whose first argument is where the result goes."""
        place = kind()
        answer = self.call(name, c.byref(place), *args)
        return Answer(answer.code, answer.us, place.value or 0)

    def attribute(self, number: int) -> Answer:
        return self.out("cuDeviceGetAttribute", c.c_int, number, 0)

    def uuid(self) -> bytes:
        """The GPU's 16 bytes, all zero where the driver does not say."""
        place = (c.c_ubyte * 16)()
        self.call("cuDeviceGetUuid_v2", place, 0)
        return bytes(place)

    def start(self) -> dict[str, Answer]:
        """cuInit, the primary context and a stream."""
        answers = {"cuInit": self.call("cuInit", 0)}
        if answers["cuInit"].code:
            return answers
        retained = self.out("cuDevicePrimaryCtxRetain", c.c_void_p, 0)
        answers["cuDevicePrimaryCtxRetain"] = retained
        if retained.code == 0:
            self.context = c.c_void_p(retained.value)
            answers["cuCtxSetCurrent"] = self.call("cuCtxSetCurrent", self.context)
            answers["cuStreamCreate"] = self.call("cuStreamCreate", c.byref(self.stream), 1)
        return answers

    def load(self, ptx: bytes) -> Answer:
        return self.call("cuModuleLoadData", c.byref(self.module), c.c_char_p(ptx))

    def launch(self, kernel: str, blocks: int, threads: int, *values: Any, cooperative: bool = False) -> Answer:
        """Of the loaded module, into the stream; `cooperative`: all blocks run at the same time, or none does."""
        function = c.c_void_p()
        found = self.call("cuModuleGetFunction", c.byref(function), self.module, kernel.encode())
        if found.code:
            return found
        pointers = (c.c_void_p * len(values))(*(c.addressof(value) for value in values))
        grid = (c.c_uint(blocks), c.c_uint(1), c.c_uint(1), c.c_uint(threads), c.c_uint(1), c.c_uint(1))
        if cooperative:
            return self.call("cuLaunchCooperativeKernel", function, *grid, c.c_uint(0), self.stream, pointers)
        return self.call("cuLaunchKernel", function, *grid, c.c_uint(0), self.stream, pointers, None)

    def sync(self) -> Answer:
        return self.call("cuStreamSynchronize", self.stream)

    @staticmethod
    def prop() -> AllocationProp:
        return AllocationProp(1, POSIX_FD, Location(1, 0), None)

    def granularity(self) -> int:
        prop = self.prop()
        return self.out("cuMemGetAllocationGranularity", c.c_size_t, c.byref(prop), 0).value

    def create(self, size: int) -> Answer:
        prop = self.prop()
        return self.out("cuMemCreate", c.c_ulonglong, c.c_size_t(size), c.byref(prop), c.c_ulonglong(0))

    def alloc(self, size: int) -> Answer:
        """Memory as most programs take it; its address."""
        return self.out("cuMemAlloc_v2", c.c_ulonglong, c.c_size_t(size))

    def export(self, handle: int) -> Answer:
        return self.out("cuMemExportToShareableHandle", c.c_int, c.c_ulonglong(handle), POSIX_FD, c.c_ulonglong(0))

    def import_fd(self, fd: int) -> Answer:
        return self.out("cuMemImportFromShareableHandle", c.c_ulonglong, c.c_void_p(fd), POSIX_FD)

    def reserve(self, size: int, hint: int = 0) -> Answer:
        """Addresses without memory, at `hint` where the driver agrees."""
        return self.out(
            "cuMemAddressReserve", c.c_ulonglong, c.c_size_t(size), c.c_size_t(0), c.c_ulonglong(hint), c.c_ulonglong(0)
        )

    def map(self, handle: int, size: int, hint: int = 0, access: int = READ_WRITE) -> dict[str, Answer]:
        """Reserve (at `hint` where the driver agrees), map, open for access. `reserve.value` is the address."""
        reserve = self.reserve(size, hint)
        answers = {"reserve": reserve}
        if reserve.code == 0:
            answers |= self.map_at(reserve.value, handle, size, access)
        return answers

    def map_at(self, address: int, handle: int, size: int, access: int = READ_WRITE) -> dict[str, Answer]:
        """Map at a reserved address and open for access."""
        return {"map": self.place(address, handle, size), "access": self.open(address, size, access)}

    def place(self, address: int, handle: int, size: int) -> Answer:
        """Map at a reserved address; nobody may use it before `open`."""
        return self.call(
            "cuMemMap", c.c_ulonglong(address), c.c_size_t(size), c.c_size_t(0), c.c_ulonglong(handle), c.c_ulonglong(0)
        )

    def open(self, address: int, size: int, access: int = READ_WRITE) -> Answer:
        """Let this device in; the range may hold several mappings."""
        desc = AccessDesc(Location(1, 0), access)
        return self.call("cuMemSetAccess", c.c_ulonglong(address), c.c_size_t(size), c.byref(desc), c.c_size_t(1))

    def unmap(self, address: int, size: int) -> Answer:
        return self.call("cuMemUnmap", c.c_ulonglong(address), c.c_size_t(size))

    def release(self, handle: int) -> Answer:
        return self.call("cuMemRelease", c.c_ulonglong(handle))

    def copy(self, target: int, source: int, size: int) -> Answer:
        return self.call("cuMemcpyDtoD_v2", c.c_ulonglong(target), c.c_ulonglong(source), c.c_size_t(size))

    def read(self, address: int, size: int) -> tuple[Answer, bytes]:
        buffer = c.create_string_buffer(size)
        answer = self.call("cuMemcpyDtoH_v2", buffer, c.c_ulonglong(address), c.c_size_t(size))
        return answer, buffer.raw if answer.code == 0 else b""
