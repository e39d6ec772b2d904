"""What a PyTorch program does on kept memory: bind it in each way there is, and train with weights and momentum in one arena.

The memory is at an address that somebody else keeps. The same code runs on host memory with a torch without CUDA, which is how its logic is
tried without a GPU (tests/conformance/test_torch_work.py).
"""

import ctypes as c
import hashlib
from collections.abc import Callable
from typing import Any

import torch

from tests.gpu import dlpack

ALIGN = 256
WIDE, CLASSES, BATCH = 512, 10, 64


class Interface:
    """An object with the address as `__cuda_array_interface__` has it."""

    def __init__(self, address: int, count: int, typestr: str) -> None:
        self.__cuda_array_interface__ = {
            "shape": (count,), "typestr": typestr, "data": (address, False), "strides": None, "version": 3,
        }  # fmt: skip


def by_interface(address: int, count: int, typestr: str = "<f4") -> Any:
    return torch.as_tensor(Interface(address, count, typestr), device="cuda")


def by_dlpack(address: int, count: int, device: int = dlpack.CUDA) -> Any:
    made = torch.from_dlpack(producer := dlpack.Producer(address, count, device))
    made.kept_producer = producer
    return made


def by_cupy(address: int, count: int) -> Any:
    import cupy

    memory = cupy.cuda.UnownedMemory(address, 4 * count, None)
    return torch.from_dlpack(cupy.ndarray((count,), cupy.float32, cupy.cuda.MemoryPointer(memory, 0)))


WAYS: dict[str, Callable[[int, int], Any]] = {"from_dlpack": by_dlpack, "as_tensor": by_interface, "cupy": by_cupy}


def host_bytes(address: int, size: int) -> Any:
    """Host memory as a uint8 tensor: what stands in for `by_interface` where there is no CUDA."""
    return torch.frombuffer((c.c_ubyte * size).from_address(address), dtype=torch.uint8)


def step_in_place(tensor: Any, value: float) -> str:
    """Write, add 1 in place; the digest that the memory must have then."""
    tensor.fill_(value)
    tensor += 1
    if tensor.is_cuda:
        torch.cuda.synchronize()
    expected = bytes(c.c_float(value + 1)) * tensor.numel()
    return hashlib.sha256(expected).hexdigest()


def digest(raw: Any) -> str:
    host = raw.cpu().contiguous()
    return hashlib.sha256(c.string_at(host.data_ptr(), host.numel())).hexdigest()


class Arena:
    """Slots of one uint8 tensor, always in the same order."""

    def __init__(self, raw: Any) -> None:
        self.raw, self.used = raw, 0

    def slot(self, like: Any) -> Any:
        size = like.numel() * like.element_size()
        view = self.raw[self.used : self.used + size].view(like.dtype).view(like.shape)
        self.used += -(-size // ALIGN) * ALIGN
        return view


class Training:
    """An MLP whose weights, momentum and step count are the bytes of `raw`. `fresh`: they begin here; else they are taken as they are."""

    def __init__(self, raw: Any, *, fresh: bool) -> None:
        torch.manual_seed(1)
        torch.use_deterministic_algorithms(True, warn_only=True)
        arena = Arena(raw)
        layers = torch.nn.Linear(WIDE, WIDE), torch.nn.ReLU(), torch.nn.Linear(WIDE, CLASSES)
        self.model = torch.nn.Sequential(*layers).to(raw.device)
        self.optimiser = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        self.count = arena.slot(torch.zeros(1, dtype=torch.int64))
        if fresh:
            self.count.zero_()
        for weight in self.model.parameters():
            place, momentum = arena.slot(weight.data), arena.slot(weight.data)
            if fresh:
                place.copy_(weight.data)
                momentum.zero_()
            weight.data = place
            self.optimiser.state[weight]["momentum_buffer"] = momentum
        self.raw, self.device = raw, raw.device

    def steps(self, count: int) -> dict[str, Any]:
        """Go on for that many steps; where it began and ended, the last loss and the digest of the state."""
        first, loss = int(self.count.item()), torch.zeros(1)
        for step in range(first, first + count):
            numbers = torch.Generator().manual_seed(step)
            batch = torch.randn(BATCH, WIDE, generator=numbers).to(self.device)
            target = torch.randint(CLASSES, (BATCH,), generator=numbers).to(self.device)
            self.optimiser.zero_grad()
            loss = torch.nn.functional.cross_entropy(self.model(batch), target)
            loss.backward()
            self.optimiser.step()
            self.count += 1
        return {"first": first, "last": int(self.count.item()), "loss": float(loss.item()), "sha256": digest(self.raw)}
