"""A thin stand-in for what torch does with CUDA, for processes of `tests.gpu.torch_program` on the simulated GPU.

torch's CPU build works on the bytes that lie behind a device address, and waits for the GPU through the simulated driver. No streams, no
graphs, no allocator.
"""

import ctypes
import sys
from typing import Any

SHADOW = 0x1000_0000_0000
"""From a device address to the simulated driver's own view of the bytes (tests/gpusim/space.c)."""
WINDOW = range(0x2000_0000_0000, 0x2100_0000_0000)
"""Its device addresses."""
NOTHING_YET = (0, 3, 201)
"""No error, or nothing begun that there could be one of: torch itself would have begun."""


def host(address: int, size: int) -> Any:
    return (ctypes.c_ubyte * size).from_address(address + SHADOW)


def stand_in(torch: Any) -> None:
    as_tensor, from_dlpack, data_ptr = torch.as_tensor, torch.from_dlpack, torch.Tensor.data_ptr
    kinds = {"<f4": torch.float32, "|u1": torch.uint8}

    def aliased(source: Any, device: str = "cpu") -> Any:
        told = getattr(source, "__cuda_array_interface__", None)
        if told is None:
            return as_tensor(source, device=device)
        kind = kinds[told["typestr"]]
        return torch.frombuffer(host(told["data"][0], told["shape"][0] * kind.itemsize), dtype=kind)

    def produced(source: Any) -> Any:
        if source.__dlpack_device__()[0] == 1:
            return from_dlpack(source)
        tensor = source.managed.tensor
        return torch.frombuffer(host(tensor.data, tensor.shape[0] * 4), dtype=torch.float32)

    def pointer(tensor: Any) -> int:
        address = data_ptr(tensor)
        return int(address - SHADOW if address - SHADOW in WINDOW else address)

    def synchronize() -> None:
        code = ctypes.CDLL("libcuda.so.1").cuCtxSynchronize()
        if code not in NOTHING_YET:
            raise RuntimeError(f"CUDA error: {code}")

    for name in ("zeros", "ones"):
        plain = getattr(torch, name)
        setattr(torch, name, lambda *shape, plain=plain, device=None, **more: plain(*shape, **more))
    torch.as_tensor, torch.from_dlpack, torch.Tensor.data_ptr = aliased, produced, pointer
    torch.Tensor.cpu = torch.Tensor.clone
    torch.cuda.is_available, torch.cuda.synchronize = (lambda: True), synchronize


if "tests.gpu.torch_program" in sys.orig_argv:
    import torch

    stand_in(torch)
