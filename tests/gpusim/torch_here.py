"""Runs a PyTorch program with torch's CPU build on the memory of the simulated GPU: `python3 -m tests.gpusim.torch_here PROGRAM ARGUMENTS`.

torch knows nothing of the simulated GPU, but the bytes behind its addresses are host memory (space.c): `torch.as_tensor` of a device
buffer gives a tensor on the CPU that stands on them. The program computes on the CPU then, and what it keeps is kept on the GPU.
"""

import ctypes
import runpy
import sys
from typing import Any

import torch

SHADOW = 0x1000_0000_0000
"""From a device address to the simulated driver's own view of the bytes."""


def on_the_simulated_gpu() -> None:
    plain = torch.as_tensor

    def as_tensor(source: Any, **more: Any) -> Any:
        if not hasattr(source, "__cuda_array_interface__"):
            return plain(source, **more)
        told = source.__cuda_array_interface__
        size = told["shape"][0]
        return torch.frombuffer((ctypes.c_ubyte * size).from_address(told["data"][0] + SHADOW), dtype=torch.uint8)

    torch.as_tensor = as_tensor


if __name__ == "__main__":
    on_the_simulated_gpu()
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
