"""Which GPUs a process has, by CUDA's own word: `gpus.py [--ranks N | --device I]`.

Prints `task R: UUID,UUID,… mps` (or `plain`), after some memory was had and given back on each of them. With --ranks it forks N
processes, as torchrun does; each takes the device of its number alone and prints that. A CUDA error is one line on stderr and
exit status 1.
"""

import argparse
import ctypes
import os
import subprocess
import sys
import uuid
from ctypes import byref, c_int, c_size_t, c_uint64, c_void_p
from typing import Any

MPS_ENABLED = 133
"""CU_DEVICE_ATTRIBUTE_MPS_ENABLED."""


def cuda(name: str, *arguments: Any) -> None:
    if code := getattr(ctypes.CDLL("libcuda.so.1"), name)(*arguments):
        sys.exit(f"gpus: {name} failed with CUDA error {code}")


def use(ordinal: int) -> tuple[str, bool]:
    """A device's UUID, and whether it is had by way of MPS."""
    device, context, mps, address = c_int(), c_void_p(), c_int(), c_uint64()
    raw = (ctypes.c_ubyte * 16)()
    cuda("cuDeviceGet", byref(device), ordinal)
    cuda("cuDeviceGetUuid_v2", byref(raw), device)
    cuda("cuDeviceGetAttribute", byref(mps), MPS_ENABLED, device)
    cuda("cuDevicePrimaryCtxRetain", byref(context), device)
    cuda("cuCtxSetCurrent", context)
    cuda("cuMemAlloc_v2", byref(address), c_size_t(1 << 20))
    cuda("cuMemFree_v2", address)
    return f"GPU-{uuid.UUID(bytes=bytes(raw))}", bool(mps.value)


def main() -> None:
    parser = argparse.ArgumentParser(description="says which GPUs it has")
    parser.add_argument("--ranks", type=int, metavar="N", help="fork as many processes, each with a device of its own")
    parser.add_argument("--device", type=int, metavar="I", help="take this device alone")
    options = parser.parse_args()
    if options.ranks:
        ranks = [subprocess.Popen([sys.executable, __file__, "--device", str(rank)]) for rank in range(options.ranks)]
        sys.exit(max(rank.wait() for rank in ranks))
    cuda("cuInit", 0)
    count = c_int()
    cuda("cuDeviceGetCount", byref(count))
    found = [use(ordinal) for ordinal in ([options.device] if options.device is not None else range(count.value))]
    who = f"rank {options.device}" if options.device is not None else f"task {os.environ.get('SLURM_PROCID', '0')}"
    modes = {mps for _, mps in found}
    how = "mps" if modes == {True} else "plain" if modes == {False} else f"mixed {modes}"
    print(f"{who}: {','.join(name for name, _ in found)} {how}", flush=True)


if __name__ == "__main__":
    main()
