"""Sums of device memory, made on the device: they tell a commit's bytes from others (resilience/state/sums.cu)."""

import ctypes
from ctypes import c_uint64
from pathlib import Path

from resilience.state.driver import CudaGpu

_BLOCK = 256
_BLOCKS = 512
"""Enough threads for the memory of any GPU to be busy."""
_WORD = 8
_MASK = (1 << 64) - 1


class DeviceSums:
    """The kernels and their memory, 1 MiB, on one GPU."""

    def __init__(self, gpu: CudaGpu) -> None:
        self._gpu = gpu
        module = gpu.load(Path(__file__).with_name("sums.ptx").read_bytes())
        self._sum, self._add = module.function("sum_words"), module.function("add_sums")
        self._partial = gpu.allocate(_WORD * _BLOCK * _BLOCKS)
        self._few = gpu.allocate(_WORD * _BLOCK)

    def of(self, address: int, size: int) -> int:
        """The sum of `size` bytes, a multiple of 8, from an address that is one too. Waits for it."""
        gpu, host = self._gpu, (c_uint64 * _BLOCK)()
        gpu.launch(self._sum, _BLOCKS, _BLOCK, [c_uint64(self._partial), c_uint64(address), c_uint64(size // _WORD)])
        gpu.launch(self._add, 1, _BLOCK, [c_uint64(self._few), c_uint64(self._partial), c_uint64(_BLOCK * _BLOCKS)])
        gpu.download(ctypes.addressof(host), self._few, ctypes.sizeof(host))
        return sum(host) & _MASK
