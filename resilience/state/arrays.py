"""Arrays as a program sees them: plain device buffers, and the same memory as cupy arrays where cupy works.

A DeviceArray offers `__cuda_array_interface__` (version 3, numba's specification) and DLPack (dmlc/dlpack, the
unversioned capsule, which every consumer takes), so cupy, torch, numba and cuda.core can use it without a copy. It
never owns memory: the session does, to the end of the process.
"""

import ctypes
import math
from collections.abc import Iterator
from ctypes import c_char_p, c_int, c_int32, c_int64, c_uint8, c_uint16, c_uint64, c_void_p
from typing import Any

from resilience.model.errors import StateError
from resilience.state import dtypes
from resilience.state.driver import CudaGpu
from resilience.state.layout import ArraySpec

_DLPACK_CUDA = 2


class DeviceArray:
    """A C-contiguous array in device memory. `ptr` is its device address, `dtype` the name of its type."""

    def __init__(self, gpu: CudaGpu, spec: ArraySpec, address: int) -> None:
        self._gpu = gpu
        self.name = spec.name
        self.shape = spec.shape
        self.dtype = spec.dtype
        self.ptr = address
        self.nbytes = spec.nbytes
        self.size = math.prod(spec.shape)
        self.ndim = len(spec.shape)
        self.readonly = False
        """The array is constant and whole: its own methods write it no more."""

    def __repr__(self) -> str:
        return f"<{self.name} {self.dtype}{list(self.shape)} at {self.ptr:#x} on GPU {self._gpu.ordinal}>"

    @property
    def argument(self) -> c_uint64:
        """The address as a kernel argument."""
        return c_uint64(self.ptr)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        item = dtypes.TYPES[self.dtype]
        if not item.kind:  # hasattr() is false then, and consumers take the array by DLPack
            raise AttributeError(f"array {self.name}: the CUDA array interface has no {self.dtype}: use DLPack")
        return {
            "shape": self.shape,
            "typestr": f"{'|' if item.nbytes == 1 else '<'}{item.kind}{item.nbytes}",
            "data": (self.ptr if self.size else 0, False),
            "strides": None,
            "version": 3,
            "stream": self._gpu.stream,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return _DLPACK_CUDA, self._gpu.ordinal

    def __dlpack__(self, *, stream: object = None, **_: object) -> object:
        """A `dltensor` capsule. Our stream is waited for, so the consumer's stream need not be known."""
        if stream != -1:  # -1: the consumer wants no synchronisation
            self._gpu.synchronize_stream()
        return _capsule(self)

    def zero(self) -> None:
        """Fill with zeros, on the session's stream. Raises StateError when the array is constant."""
        self._check_writable()
        if self.nbytes:
            self._gpu.zero(self.ptr, self.nbytes)

    def copy_from(self, source: Any) -> None:
        """Fill from host memory: anything with the buffer protocol, C-contiguous and of the same number of bytes.

        Raises StateError for other memory, and when the array is constant.
        """
        self._check_writable()
        view = memoryview(source)
        self._check(view)
        if not self.nbytes:
            return
        if view.readonly:
            content = view.tobytes()
            self._gpu.upload(self.ptr, ctypes.cast(c_char_p(content), c_void_p).value or 0, self.nbytes)
            return
        host = (ctypes.c_char * self.nbytes).from_buffer(view)
        self._gpu.upload(self.ptr, ctypes.addressof(host), self.nbytes)

    def copy_to(self, target: Any) -> None:
        """Copy into host memory: anything writable with the buffer protocol, of the same number of bytes."""
        view = memoryview(target)
        self._check(view)
        if not self.nbytes:
            return
        host = (ctypes.c_char * self.nbytes).from_buffer(view)
        self._gpu.download(ctypes.addressof(host), self.ptr, self.nbytes)

    def tobytes(self) -> bytes:
        host = bytearray(self.nbytes)
        self.copy_to(host)
        return bytes(host)

    def numpy(self) -> Any:
        """A copy as a numpy array; without ml_dtypes one of bits, of a type that numpy has not."""
        import numpy as np

        host = np.empty(self.shape, dtypes.numpys(self.dtype))
        self.copy_to(host.reshape(-1).view("uint8"))
        return host

    def _check_writable(self) -> None:
        if self.readonly:
            raise StateError(f"array {self.name}", "is constant", hint="write it where s.fresh is true, before s.steps")

    def _check(self, view: memoryview) -> None:
        if view.nbytes != self.nbytes or not view.c_contiguous:
            what = f"{view.nbytes} bytes, {'C' if view.c_contiguous else 'not C'}-contiguous"
            raise StateError(f"array {self.name}", f"host memory is not {self.nbytes} contiguous bytes", what)

    def __iter__(self) -> Iterator[Any]:
        raise TypeError("a DeviceArray lies on the GPU: use .numpy() for a copy on the host")


# ---------------------------------------------------------------- DLPack
class _Tensor(ctypes.Structure):
    """DLManagedTensor with its DLTensor."""

    _fields_ = [
        ("data", c_void_p),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("ndim", c_int32),
        ("code", c_uint8),
        ("bits", c_uint8),
        ("lanes", c_uint16),
        ("shape", ctypes.POINTER(c_int64)),
        ("strides", c_void_p),
        ("byte_offset", c_uint64),
        ("manager", c_void_p),
        ("deleter", c_void_p),
    ]


_NAME = c_char_p(b"dltensor")
_handed_out: dict[int, tuple[object, ...]] = {}
"""Address of a tensor in a consumer's hands → what must live as long."""

_api = ctypes.pythonapi
_api.PyCapsule_New.restype = ctypes.py_object
_api.PyCapsule_New.argtypes = [c_void_p, c_char_p, c_void_p]
_api.PyCapsule_IsValid.restype = c_int
_api.PyCapsule_IsValid.argtypes = [c_void_p, c_char_p]
_api.PyCapsule_GetPointer.restype = c_void_p
_api.PyCapsule_GetPointer.argtypes = [c_void_p, c_char_p]


def _delete(tensor: int) -> None:
    """The consumer is done with a tensor."""
    _handed_out.pop(tensor, None)


def _destroy(capsule: int) -> None:
    """A capsule goes; one that was consumed has another name, and its tensor lives on. Takes the bare address: a
    py_object of a dying capsule would revive it."""
    if _api.PyCapsule_IsValid(capsule, _NAME):
        _delete(_api.PyCapsule_GetPointer(capsule, _NAME))


_CALLBACK = ctypes.CFUNCTYPE(None, c_void_p)
_DELETE = _CALLBACK(_delete)
_DESTROY = _CALLBACK(_destroy)


def _capsule(array: DeviceArray) -> object:
    item = dtypes.TYPES[array.dtype]
    shape = (c_int64 * array.ndim)(*array.shape)
    tensor = _Tensor(
        data=array.ptr,
        device_type=_DLPACK_CUDA,
        device_id=array.__dlpack_device__()[1],
        ndim=array.ndim,
        code=item.dlpack,
        bits=8 * item.nbytes,
        lanes=1,
        shape=shape,
        deleter=ctypes.cast(_DELETE, c_void_p),
    )
    address = ctypes.addressof(tensor)
    _handed_out[address] = (tensor, shape, array)
    return _api.PyCapsule_New(address, _NAME, ctypes.cast(_DESTROY, c_void_p))


# ---------------------------------------------------------------- cupy
def cupy_works() -> bool:
    """cupy is installed and its runtime finds a GPU. It does not on the simulated GPU: it asks for private tables."""
    try:
        import cupy

        return int(cupy.cuda.runtime.getDeviceCount()) > 0
    except Exception:  # whatever a missing, foreign or broken cupy raises means the same: do without
        return False


def as_cupy(array: DeviceArray) -> Any:
    """The same memory as a cupy array; the DeviceArray lives as long."""
    import cupy

    memory = cupy.cuda.UnownedMemory(array.ptr, array.nbytes, array, array.__dlpack_device__()[1])
    return cupy.ndarray(array.shape, array.dtype, cupy.cuda.MemoryPointer(memory, 0))
