"""Memory as a program sees it: arrays of numpy and bytes on the host, device buffers or cupy's arrays on the GPU."""

import ctypes
import mmap
from typing import Any

from resilience.model.errors import StateError
from resilience.state import dtypes
from resilience.state.arrays import DeviceArray, as_cupy
from resilience.state.driver import CudaGpu
from resilience.state.host_bytes import HostBytes
from resilience.state.layout import BYTES, ArraySpec


def zeros(size: int) -> Any:
    """Host memory of this process alone, a ctypes array; its pages are there when they are used."""
    return (ctypes.c_char * size).from_buffer(mmap.mmap(-1, size))


def on_host(spec: ArraySpec, address: int, owner: Any = None) -> Any:
    """A numpy array, or HostBytes. `owner`: what holds the memory, where that is not the session."""
    if spec.dtype == BYTES:
        return HostBytes(spec, address, owner)
    try:
        import numpy as np
    except ImportError:
        hint = "pip install slurm-mps-resilience[programs]; s.host(name) keeps bytes without it"
        raise StateError(f"array {spec.name}", "arrays on the host need numpy", hint=hint) from None
    buffer: Any = owner or (ctypes.c_char * max(spec.nbytes, 1)).from_address(address)
    return np.ndarray(spec.shape, dtypes.numpys(spec.dtype), buffer=buffer)


def read_only(array: Any) -> None:
    """What is constant: numpy's arrays and device buffers refuse to write it."""
    if isinstance(array, DeviceArray):
        array.readonly = True
    elif hasattr(array, "setflags"):
        array.setflags(write=False)


def on_device(gpu: CudaGpu | None, spec: ArraySpec, address: int, *, cupy: bool) -> Any:
    """A device buffer, or cupy's array where cupy has the type."""
    assert gpu is not None
    array = DeviceArray(gpu, spec, address)
    return as_cupy(array) if cupy and not dtypes.TYPES[spec.dtype].bits else array
