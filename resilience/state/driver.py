"""The CUDA driver API as far as kept state needs it, through ctypes: libcuda.so.1 and nothing else.

cuda-bindings would do, at 60 ms and 14 MiB a process where this costs 2 ms: a standby or a restored program pays it on
the way back. The functions are those of cuda.h 12 and 13 under their exported names; the layouts of the two
structures were taken from cuda.h 13.0.

A call that fails raises GpuError, or GpuFault when the code is one after which the header says that the process (or at
least its context) is lost. A missing library or function raises GpuError too, naming it.
"""

import contextlib
import ctypes
import os
import time
from collections.abc import Iterator, Sequence
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_ulonglong, c_void_p
from typing import Any

from resilience.model.errors import GpuError

STICKY = frozenset({214, 220, 226, 700, 702, 709, 710, *range(714, 720), 721, 806, 810, 911, 999})
"""Codes that end a context for good (cuda.h 13: "must be terminated and relaunched"; 806 and 810 are MPS's own)."""
MPS_SERVER_NOT_READY = 807
MPS_CONNECTION_FAILED = 805
_CONNECT_SECONDS = 3.0
"""How long 805 is taken for a daemon or server that is being replaced: a new cuInit connects anew (tried with real drivers)."""
ATTRIBUTE_MPS_ENABLED = 133
_POSIX_FD = 1
_NO_LIBRARY = -1
_NO_FUNCTION = -2
NO_GPU = frozenset({_NO_LIBRARY, 34, 100})
"""Codes of a machine without an NVIDIA GPU: no library, CUDA's stub library, no device."""

_PTR = POINTER(c_uint64)
_FUNCTIONS: dict[str, list[Any]] = {
    "cuInit": [c_uint],
    "cuDriverGetVersion": [POINTER(c_int)],
    "cuGetErrorName": [c_int, POINTER(c_char_p)],
    "cuDeviceGetCount": [POINTER(c_int)],
    "cuDeviceGet": [POINTER(c_int), c_int],
    "cuDeviceGetName": [c_char_p, c_int, c_int],
    "cuDeviceGetAttribute": [POINTER(c_int), c_int, c_int],
    "cuDevicePrimaryCtxRetain": [POINTER(c_void_p), c_int],
    "cuCtxSetCurrent": [c_void_p],
    "cuCtxPushCurrent_v2": [c_void_p],
    "cuCtxPopCurrent_v2": [POINTER(c_void_p)],
    "cuCtxSynchronize": [],
    "cuStreamCreate": [POINTER(c_void_p), c_uint],
    "cuStreamSynchronize": [c_void_p],
    "cuStreamQuery": [c_void_p],
    "cuModuleLoadData": [POINTER(c_void_p), c_char_p],
    "cuModuleGetFunction": [POINTER(c_void_p), c_void_p, c_char_p],
    "cuFuncLoad": [c_void_p],
    "cuLaunchKernel": [c_void_p, *[c_uint] * 7, c_void_p, POINTER(c_void_p), POINTER(c_void_p)],
    "cuMemGetInfo_v2": [POINTER(c_size_t), POINTER(c_size_t)],
    "cuMemAlloc_v2": [_PTR, c_size_t],
    "cuMemFree_v2": [c_uint64],
    "cuMemcpyHtoDAsync_v2": [c_uint64, c_void_p, c_size_t, c_void_p],
    "cuMemcpyDtoHAsync_v2": [c_void_p, c_uint64, c_size_t, c_void_p],
    "cuMemcpyDtoDAsync_v2": [c_uint64, c_uint64, c_size_t, c_void_p],
    "cuMemsetD8Async": [c_uint64, ctypes.c_ubyte, c_size_t, c_void_p],
    "cuMemGetAllocationGranularity": [POINTER(c_size_t), c_void_p, c_int],
    "cuMemAddressReserve": [_PTR, c_size_t, c_size_t, c_uint64, c_ulonglong],
    "cuMemAddressFree": [c_uint64, c_size_t],
    "cuMemCreate": [POINTER(c_ulonglong), c_size_t, c_void_p, c_ulonglong],
    "cuMemRelease": [c_ulonglong],
    "cuMemMap": [c_uint64, c_size_t, c_size_t, c_ulonglong, c_ulonglong],
    "cuMemUnmap": [c_uint64, c_size_t],
    "cuMemSetAccess": [c_uint64, c_size_t, c_void_p, c_size_t],
    "cuMemExportToShareableHandle": [POINTER(c_int), c_ulonglong, c_int, c_ulonglong],
    "cuMemImportFromShareableHandle": [POINTER(c_ulonglong), c_void_p, c_int],
}


class GpuFault(GpuError):
    """The context is lost, by this process's fault or a neighbour's: nothing on the GPU works for it any more."""


class _Location(ctypes.Structure):
    _fields_ = [("type", c_int), ("id", c_int)]


class _Properties(ctypes.Structure):
    """CUmemAllocationProp."""

    _fields_ = [
        ("type", c_int),
        ("handle_types", c_int),
        ("location", _Location),
        ("win32", c_void_p),
        ("flags", ctypes.c_ubyte * 8),
    ]


class _Access(ctypes.Structure):
    """CUmemAccessDesc."""

    _fields_ = [("location", _Location), ("flags", c_int)]


class Driver:
    """libcuda.so.1, one callable per function: `driver("cuInit", 0)` raises when the result is not 0."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise GpuError("libcuda.so.1", _NO_LIBRARY, str(error), hint="no NVIDIA driver on this machine") from None
        self._calls: dict[str, Any] = {}

    def result(self, name: str, *arguments: Any) -> int:
        """The bare CUresult of a call. Raises GpuError when the library lacks the function."""
        call = self._calls.get(name)
        if call is None:
            try:
                call = getattr(self._library, name)
            except AttributeError:
                hint = "the driver is older than CUDA 12"
                raise GpuError(name, _NO_FUNCTION, "not in libcuda.so.1", hint=hint) from None
            call.argtypes = _FUNCTIONS[name]
            call.restype = c_int
            self._calls[name] = call
        return int(call(*arguments))

    def __call__(self, name: str, *arguments: Any) -> None:
        if code := self.result(name, *arguments):
            raise self.error(name, code)

    def error(self, call: str, code: int) -> GpuError:
        """The exception for a result."""
        kind = GpuFault if code in STICKY else GpuError
        return kind(call, code, self.error_name(code))

    def error_name(self, code: int) -> str:
        """CUDA_ERROR_…; empty when the driver does not know the code."""
        text = c_char_p()
        self.result("cuGetErrorName", code, byref(text))
        return (text.value or b"").decode("ascii", "replace")


class CudaModule:
    """Loaded PTX or cubin; functions are looked up once, and loaded then: left to itself CUDA does that at the first launch
    (CUDA_MODULE_LOADING=LAZY), which for a standby is its first step after the promotion."""

    def __init__(self, driver: Driver, image: bytes) -> None:
        self._driver = driver
        self._handle = c_void_p()
        self._functions: dict[str, c_void_p] = {}
        driver("cuModuleLoadData", byref(self._handle), image + b"\0")

    def function(self, name: str) -> c_void_p:
        if name not in self._functions:
            handle = c_void_p()
            self._driver("cuModuleGetFunction", byref(handle), self._handle, name.encode())
            with contextlib.suppress(GpuError):  # drivers before 12.4 have no such function
                self._driver.result("cuFuncLoad", handle)
            self._functions[name] = handle
        return self._functions[name]


class CudaGpu:
    """One device with its primary context (which cupy and torch use too) current in this thread, and a stream of
    ours."""

    def __init__(self, ordinal: int = 0, *, wait_for_server: float = 0.0) -> None:
        """Waits at most `wait_for_server` seconds while the MPS server is not ready (807), fewer while nobody answers at its
        socket (805). Raises GpuError."""
        self.driver = Driver()
        self.ordinal = ordinal
        self._retry("cuInit", wait_for_server, 0)
        device, context, stream = c_int(), c_void_p(), c_void_p()
        self.driver("cuDeviceGet", byref(device), ordinal)
        self._device = device.value
        self._retry("cuDevicePrimaryCtxRetain", wait_for_server, byref(context), self._device)
        self._context = context
        self.use()
        self.driver("cuStreamCreate", byref(stream), 0)
        self.stream = int(stream.value or 0)
        self._properties = _Properties(1, _POSIX_FD, _Location(1, ordinal))
        granularity = c_size_t()
        self.driver("cuMemGetAllocationGranularity", byref(granularity), byref(self._properties), 0)
        self.granularity = granularity.value

    def _retry(self, call: str, seconds: float, *arguments: Any) -> None:
        now = time.monotonic()
        until = {MPS_SERVER_NOT_READY: now + seconds, MPS_CONNECTION_FAILED: now + min(seconds, _CONNECT_SECONDS)}
        pause = 0.002
        while time.monotonic() < until.get(code := self.driver.result(call, *arguments), 0.0):
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        if code:
            raise self.driver.error(call, code)

    def use(self) -> None:
        """Make the context current in the calling thread."""
        self.driver("cuCtxSetCurrent", self._context)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """The context is current in the calling thread for the time of the block, whichever was before."""
        self.driver("cuCtxPushCurrent_v2", self._context)
        try:
            yield
        finally:
            self.driver.result("cuCtxPopCurrent_v2", byref(c_void_p()))

    @property
    def name(self) -> str:
        text = ctypes.create_string_buffer(128)
        self.driver("cuDeviceGetName", text, len(text), self._device)
        return text.value.decode("utf-8", "replace")

    def attribute(self, number: int) -> int:
        value = c_int()
        self.driver("cuDeviceGetAttribute", byref(value), number, self._device)
        return value.value

    @property
    def under_mps(self) -> bool:
        """This process's context is a client of an MPS server."""
        return bool(self.attribute(ATTRIBUTE_MPS_ENABLED))

    def fault(self) -> GpuFault | None:
        """The fault that has ended this context, asked without waiting for work in flight; None when it lives."""
        code = self.driver.result("cuStreamQuery", self.stream)
        error = self.driver.error("cuStreamQuery", code) if code in STICKY else None
        return error if isinstance(error, GpuFault) else None

    def synchronize(self) -> None:
        """Wait for all work of the context, on every stream."""
        self.driver("cuCtxSynchronize")

    def synchronize_stream(self) -> None:
        self.driver("cuStreamSynchronize", self.stream)

    # ------------------------------------------------------------ kernels
    def load(self, image: bytes) -> CudaModule:
        """PTX or cubin as bytes."""
        return CudaModule(self.driver, image)

    def launch(self, function: c_void_p, grid: int, block: int, arguments: Sequence[Any]) -> None:
        """Start a kernel on our stream, one dimension. Arguments are ctypes values of the kernel's own types."""
        pointers = (c_void_p * len(arguments))(*(ctypes.addressof(argument) for argument in arguments))
        self.driver("cuLaunchKernel", function, grid, 1, 1, block, 1, 1, 0, self.stream, pointers, None)

    # ------------------------------------------------------------ memory
    @property
    def total(self) -> int:
        """Bytes of memory that the device has."""
        free, total = c_size_t(), c_size_t()
        self.driver("cuMemGetInfo_v2", byref(free), byref(total))
        return total.value

    def allocate(self, size: int) -> int:
        """Plain device memory; the address."""
        address = c_uint64()
        self.driver("cuMemAlloc_v2", byref(address), size)
        return address.value

    def free(self, address: int) -> None:
        self.driver("cuMemFree_v2", address)

    def zero(self, address: int, size: int) -> None:
        self.driver("cuMemsetD8Async", address, 0, size, self.stream)

    def copy(self, target: int, source: int, size: int) -> None:
        """Device to device, on our stream; does not wait."""
        self.driver("cuMemcpyDtoDAsync_v2", target, source, size, self.stream)

    def upload(self, target: int, source: int, size: int) -> None:
        """`source` is a host address. On our stream, and done when this returns: cuMemcpyHtoD itself returns when the
        bytes are staged, and only the legacy stream's order would make others wait for them."""
        self.driver("cuMemcpyHtoDAsync_v2", target, source, size, self.stream)
        self.synchronize_stream()

    def download(self, target: int, source: int, size: int) -> None:
        """`target` is a host address. On our stream, and done when this returns."""
        self.driver("cuMemcpyDtoHAsync_v2", target, source, size, self.stream)
        self.synchronize_stream()

    # ------------------------------------------------------------ memory that outlives the process
    def rounded(self, size: int) -> int:
        """`size` as cuMemCreate takes it."""
        return max(1, -(-size // self.granularity)) * self.granularity

    def create(self, size: int) -> tuple[int, int]:
        """Exportable physical memory: its handle and a descriptor that keeps it alive."""
        handle, fd = c_ulonglong(), c_int(-1)
        self.driver("cuMemCreate", byref(handle), size, byref(self._properties), 0)
        try:
            self.driver("cuMemExportToShareableHandle", byref(fd), handle, _POSIX_FD, 0)
        except GpuError:
            self.release(handle.value)
            raise
        os.set_inheritable(fd.value, False)
        return handle.value, fd.value

    def take_in(self, fd: int) -> int:
        """The handle of memory that another process exported. The descriptor stays open."""
        handle = c_ulonglong()
        self.driver("cuMemImportFromShareableHandle", byref(handle), c_void_p(fd), _POSIX_FD)
        return handle.value

    def release(self, handle: int) -> None:
        self.driver("cuMemRelease", handle)

    def reserve(self, size: int, *, at: int = 0) -> int:
        """Addresses with nothing behind them, at `at` when the driver can give that."""
        address = c_uint64()
        self.driver("cuMemAddressReserve", byref(address), size, 0, at, 0)
        return address.value

    def place(self, handle: int, address: int, size: int) -> None:
        """Put a whole handle at reserved addresses. One handle may be at several at once (cuMemMap, "virtual aliasing")."""
        self.driver("cuMemMap", address, size, 0, handle, 0)

    def open(self, address: int, size: int, *, write: bool = True) -> None:
        """Let this device read and write there, or only read; the range may hold several mappings, and no hole."""
        access = _Access(_Location(1, self.ordinal), 3 if write else 1)
        self.driver("cuMemSetAccess", address, size, byref(access), 1)

    def clear(self, address: int, size: int) -> None:
        """Take away all mappings of the range; the addresses stay reserved. Work that uses them must be done."""
        self.driver("cuMemUnmap", address, size)

    def map(self, handle: int, size: int, *, at: int = 0) -> int:
        """Map a whole handle for reading and writing; the address, `at` when the driver can give it."""
        address = self.reserve(size, at=at)
        try:
            self.place(handle, address, size)
        except GpuError:
            self.driver.result("cuMemAddressFree", address, size)
            raise
        self.open(address, size)
        return address

    def unmap(self, address: int, size: int) -> None:
        self.driver("cuMemUnmap", address, size)
        self.driver("cuMemAddressFree", address, size)
