"""A puppet that works with PyTorch on memory of the raw driver: `python3 -m tests.gpu.torch_program FD`.

Without torch, or without a GPU for it, `torch` answers what is missing and nothing else is asked.
"""

import importlib.util
import os
import sys
import time
from typing import Any

from tests.gpu import swap
from tests.gpu.features import Calls, told
from tests.gpu.puppet import Puppet, main

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for matrix products that give the same bits every time
GRAPH_SIZE = 4 << 20


class TorchPuppet(Puppet):
    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.keep: list[Any] = []
        """Tensors over memory that is not torch's: they stay for as long as the process."""
        self.training: Any = None

    def do_torch(self, fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        """Import, context, first kernel with their times; then what `start` answers."""
        if importlib.util.find_spec("torch") is None:
            return {"code": 0, "missing": "torch is not installed"}, []
        begin = time.monotonic()
        import torch

        imported = time.monotonic()
        if not torch.cuda.is_available():
            return {"code": 0, "missing": f"torch {torch.__version__} sees no GPU"}, []
        first = torch.zeros(1 << 20, device="cuda")
        torch.cuda.synchronize()
        context = time.monotonic()
        first += 1
        torch.cuda.synchronize()
        started, _ = self.do_start([])
        times = {
            "import_s": imported - begin,
            "context_s": context - imported,
            "first_kernel_s": time.monotonic() - context,
        }
        return {**started, **times, "torch": torch.__version__}, []

    def do_bind(self, fds: list[int], address: int, size: int) -> tuple[dict[str, Any], list[int]]:
        """Each way to make a tensor of that memory: same pointer, and are the bytes right after an in-place step?"""
        from tests.gpu import torch_work

        rows: dict[str, Any] = {}
        for number, (name, bind) in enumerate(torch_work.WAYS.items()):
            try:
                tensor = bind(address, size // 4)
                self.keep.append(tensor)
                right = torch_work.step_in_place(tensor, number)
                rows[name] = {
                    "same_pointer": tensor.data_ptr() == address,
                    "right": right,
                    **self.do_digest([], address, size)[0],
                }
            except Exception as error:  # whatever torch or cupy raise is the finding
                rows[name] = {"failed": f"{type(error).__name__}: {error}"[:500]}
        return {"code": 0, "ways": rows}, []

    def do_train(
        self, fds: list[int], address: int, size: int, fresh: bool, steps: int
    ) -> tuple[dict[str, Any], list[int]]:
        from tests.gpu import torch_work

        if self.training is None:
            self.training = torch_work.Training(torch_work.by_interface(address, size, "|u1"), fresh=fresh)
        return {"code": 0, **self.training.steps(steps)}, []

    def do_until_error(self, fds: list[int], trap: bool, seconds: float) -> tuple[dict[str, Any], list[int]]:
        """Work on other memory until torch raises; `trap`: fault here."""
        import torch

        one, end = torch.ones(256, 256, device="cuda"), time.monotonic() + seconds
        try:
            if trap:
                self.driver.launch("trap", 1, 1)
            while time.monotonic() < end:
                one = one @ one * 0.001
                torch.cuda.synchronize()
        except Exception as error:
            return {"code": 0, "raised": type(error).__name__, "text": str(error)[:500], "at": time.monotonic()}, []
        return {"code": 0, "raised": ""}, []

    def do_leave(self, fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        """End as a program does whose exception nobody caught."""
        raise RuntimeError("the run asked for it")

    def do_graph(self, fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        """torch's own graph, captured on stand-in pages, replayed on memory that came below them; `right`: each number was set once."""
        import torch

        from tests.gpu import torch_work

        calls: Calls = {"import": self.driver.import_fd(fds[0])}
        at = swap.stand_in(self.driver, GRAPH_SIZE, calls)
        if swap.bad(calls):
            return told(calls), []
        tensor = torch_work.by_interface(at, GRAPH_SIZE // 4)
        self.keep.append(tensor)
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            tensor.fill_(5)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            tensor.fill_(7)
            tensor += 1
        graph.replay()
        torch.cuda.synchronize()
        us = swap.put_below(self.driver, at, calls["import"].value, GRAPH_SIZE, calls)
        if swap.bad(calls):
            return told(calls), []
        before = float(tensor[0].item())
        graph.replay()
        torch.cuda.synchronize()
        return told(calls, before=before, right=bool((tensor == 8).all().item()), swap_us=us), []


if __name__ == "__main__":
    main(TorchPuppet(int(sys.argv[1])), sys.argv[2:])
