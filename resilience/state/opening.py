"""What a session stands on: the GPU of the process and the store of its arrays, or host memory where there is no GPU.

A program whose job asked for MPS gets a GPU under MPS or ends with status `refused`: it never runs outside unnoticed.
"""

import sys
from collections.abc import Mapping
from typing import NoReturn

from resilience.model.errors import GpuError, ResilienceError
from resilience.state import names
from resilience.state.arrays import cupy_works
from resilience.state.driver import NO_GPU, CudaGpu, GpuFault
from resilience.state.stores import KeptStore, OwnStore, Store

_WAIT_FOR_SERVER = 20.0
"""Seconds that a program waits for an MPS server that is not ready (807): a rebuild takes about one."""
ARRAYS = ("auto", "cupy", "device", "numpy")


def open_gpu(environ: Mapping[str, str], device: int, arrays: str, *, supervised: bool) -> CudaGpu | None:
    """The GPU; None when the program may do without and there is none. Raises GpuFault, or GpuError."""
    if arrays == "numpy" and not supervised:
        return None
    try:
        gpu = CudaGpu(device, wait_for_server=_WAIT_FOR_SERVER if supervised else 0.0)
    except GpuFault:
        raise
    except GpuError as error:
        if supervised:
            _refuse("the job asked for MPS, but the GPU cannot be used", error)
        if arrays != "cupy" and error.code in NO_GPU:
            return None
        raise
    if supervised and not gpu.under_mps:
        pipe = environ.get("CUDA_MPS_PIPE_DIRECTORY", "not set")
        _refuse("the job asked for MPS, but this process runs outside it", f"pipe directory {pipe}")
    return gpu


def open_store(gpu: CudaGpu | None, arrays: str, *, shared: bool) -> Store:
    """Where the arrays live; `shared`: their memory is handed to a keeper."""
    cupy = gpu is not None and (arrays == "cupy" or (arrays == "auto" and cupy_works()))
    return KeptStore(gpu, cupy=cupy) if shared else OwnStore(gpu, cupy=cupy)


def _refuse(wrong: str, observed: object) -> NoReturn:
    """End the program: it cannot have what its job asked for."""
    hint = "the job's recovery log and `mpsr check` on the node say more"
    print(ResilienceError("session", wrong, observed, hint=hint).lines(), file=sys.stderr, flush=True)
    raise SystemExit(names.EXIT_REFUSED)
