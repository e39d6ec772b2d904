"""Training programs for tests of resilience.torch, and a process that starts them again and again.

It loads torch once and forks a child for each start, which ends by SIGKILL at a chosen point of a chosen commit. Its standard output
has a JSON line for each chain of starts: what killed the children and the digest that the last one came to. A chain
that kills nobody has no session: it is the program as it would be without us.
"""

import datetime
import functools
import hashlib
import json
import os
import random
import signal
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch._dynamo  # what the first step of an optimiser imports otherwise, in each child

import resilience
import resilience.torch
from resilience.state.driver import CudaGpu
from resilience.state.record import Commit, CommitRecord
from resilience.torch.arena import Arena
from resilience.torch.blob import Blob
from resilience.torch.kept import Kept
from tests.gpusim.torch_here import on_the_simulated_gpu

POINTS = ("before", "bound", "blob", "before-copying", "after-copying", "torn", "before-held", "after-held", "after")
"""Of a commit: where a child dies. `torn`: half of the copy is done."""


# ---------------------------------------------------------------- the programs
class Pictures(torch.utils.data.Dataset):  # type: ignore[misc]
    """Small pictures of ten classes, changed a little at random each time that one is loaded."""

    def __init__(self, count: int = 15) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Any, int]:
        picture = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(index))
        return picture + 0.1 * torch.randn(3, 6, 6) + random.random() + float(np.random.rand()), index % 10


class Net(torch.nn.Sequential):  # type: ignore[misc]
    def __init__(self) -> None:
        layers = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Dropout(0.3)
        super().__init__(*layers, torch.nn.Flatten(), torch.nn.Linear(64, 10))


class Text(torch.nn.Module):  # type: ignore[misc]
    """A language model whose output weights are its embedding's."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(32, 16)
        self.block = torch.nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.out = torch.nn.Linear(16, 32, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, tokens: Any) -> Any:
        return self.out(self.block(self.embedding(tokens)))


class Training:
    """A program: its objects, and its loop with and without `keep`."""

    epochs = 2

    def __init__(self) -> None:
        torch.manual_seed(5)
        random.seed(5)
        np.random.seed(5)
        self.log: dict[str, Any] = {"losses": []}
        self.model = self.make_model()
        self.optimizer = self.make_optimizer(self.model.parameters())
        self.loader = self.make_loader()
        self.objects: dict[str, Any] = {
            "model": self.model, "optimizer": self.optimizer, "loader": self.loader, "log": self.log, **self.others()
        }  # fmt: skip

    def make_model(self) -> Any:
        return Net()

    def make_optimizer(self, parameters: Any) -> Any:
        return torch.optim.AdamW(parameters, lr=0.01)

    def make_loader(self) -> Any:
        return torch.utils.data.DataLoader(Pictures(), 5, shuffle=True)

    def others(self) -> dict[str, Any]:
        return {}

    def loss(self, batch: Any) -> Any:
        return torch.nn.functional.cross_entropy(self.model(batch[0]), batch[1])

    def step(self, batch: Any, number: int) -> None:
        self.optimizer.zero_grad()
        loss = self.loss(batch)
        loss.backward()
        self.optimizer.step()
        self.log["losses"].append(loss.item())

    def after_epoch(self) -> None:
        """What the program does when an epoch's batches are over."""

    def run(self, kept: Any = None) -> None:
        for _ in kept.epochs(self.epochs) if kept else range(self.epochs):
            for number, batch in enumerate(kept.loader if kept else self.loader):
                self.step(batch, number)
                if kept:
                    kept.commit()
            self.after_epoch()

    def digest(self) -> str:
        """Of all that is state at the end, the next random numbers among it."""
        state = [
            self.model.state_dict(),
            self.optimizer.state_dict(),
            self.log,
            [random.random(), np.random.rand()],
            torch.rand(2),
        ]
        state += [one.state_dict() for one in self.others_at_end()]
        digest = hashlib.sha256()
        for text in told(state):
            digest.update(text)
        return digest.hexdigest()[:16]

    def others_at_end(self) -> list[Any]:
        return [
            one
            for one in self.objects.values()
            if hasattr(one, "state_dict") and one not in (self.model, self.optimizer)
        ]


def told(tree: Any) -> Any:
    if isinstance(tree, torch.Tensor):
        tensor: Any = tree
        yield tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield str(key).encode()
            yield from told(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from told(value)
    else:
        yield repr(tree).encode()


class Vision(Training):
    """Mixed precision's scaler, a schedule by steps, a schedule by epochs, a commit after each epoch."""

    def others(self) -> dict[str, Any]:
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, 0.02, total_steps=20)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=5)
        self.average = torch.optim.swa_utils.AveragedModel(self.model)
        return {"scheduler": self.scheduler, "scaler": self.scaler, "average": self.average}

    def step(self, batch: Any, number: int) -> None:
        self.optimizer.zero_grad()
        loss = self.loss(batch)
        if number == 1:
            loss = loss * float("inf")  # the scaler skips this step
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self.log["losses"].append(loss.item())

    def after_epoch(self) -> None:
        self.average.update_parameters(self.model)
        self.log["drawn"] = (torch.rand(1).item(), random.random())

    def run(self, kept: Any = None) -> None:
        for _ in kept.epochs(self.epochs) if kept else range(self.epochs):
            for number, batch in enumerate(kept.loader if kept else self.loader):
                self.step(batch, kept.step % 3 if kept else number)
                if kept:
                    kept.commit()
            self.after_epoch()
            if kept:
                kept.commit()


class Language(Training):
    """Tied weights in bfloat16, gradients accumulated over two batches, no epochs but steps."""

    def make_model(self) -> Any:
        return Text().to(torch.bfloat16)

    def make_loader(self) -> Any:
        tokens = torch.randint(32, (12, 8), generator=torch.Generator().manual_seed(9))
        return torch.utils.data.DataLoader(tokens, 2, shuffle=True, generator=torch.Generator().manual_seed(3))

    def loss(self, batch: Any) -> Any:
        return torch.nn.functional.cross_entropy(self.model(batch).flatten(0, 1), batch.flatten())

    def run(self, kept: Any = None) -> None:
        def batches() -> Any:
            while True:
                yield from kept.loader if kept else self.loader

        endless = batches()
        for step in kept.steps(14) if kept else range(14):
            loss = self.loss(next(endless))
            (loss / 2).backward()
            self.log["losses"].append(loss.item())
            if step % 2:
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=step % 4 == 1)
            if kept and step % 2:
                kept.commit()
            elif kept:
                assert not kept.due()


class Workers(Training):
    """Two workers with random numbers of their own."""

    def make_loader(self) -> Any:
        return torch.utils.data.DataLoader(Pictures(), 5, shuffle=True, num_workers=2)


class Strided(Training):
    """channels_last weights."""

    def make_model(self) -> Any:
        return Net().to(memory_format=torch.channels_last)

    def loss(self, batch: Any) -> Any:
        pictures = batch[0].contiguous(memory_format=torch.channels_last)
        return torch.nn.functional.cross_entropy(self.model(pictures), batch[1])


class Parallel(Training):
    """One of two ranks of DistributedDataParallel, each with batches and random numbers of its own."""

    def __init__(self) -> None:
        self.rank = int(os.environ["RANK"])
        store = torch.distributed.FileStore(f"{os.environ['RENDEZVOUS']}.{_starts}", 2)
        limit = datetime.timedelta(seconds=100)
        torch.distributed.init_process_group("gloo", store=store, rank=self.rank, world_size=2, timeout=limit)
        super().__init__()
        torch.manual_seed(10 + self.rank)

    def make_model(self) -> Any:
        return torch.nn.parallel.DistributedDataParallel(Net())

    def make_loader(self) -> Any:
        pictures = Pictures(12)
        mine = torch.utils.data.distributed.DistributedSampler(pictures, 2, self.rank, seed=1)
        return torch.utils.data.DataLoader(pictures, 3, sampler=mine)


class Compiled(Training):
    def make_model(self) -> Any:
        return torch.compile(Net())

    def run(self, kept: Any = None) -> None:
        torch._dynamo.reset()
        super().run(kept)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2, torch._dynamo.utils.counters["stats"]


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "amsgrad": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
    "tensor-lr": lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.01), foreach=False),
    "fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "foreach": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
    "adadelta": torch.optim.Adadelta,
    "adamax": lambda p: torch.optim.Adamax(p, lr=0.01),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "radam": lambda p: torch.optim.RAdam(p, lr=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.01),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01),
    "groups": lambda p: torch.optim.AdamW([{"params": [one], "lr": 0.01 / (1 + n)} for n, one in enumerate(p)]),
}


class Optimized(Training):
    """Training with one of OPTIMIZERS."""

    def __init__(self, which: str) -> None:
        self.which = which
        super().__init__()

    def make_optimizer(self, parameters: Any) -> Any:
        return OPTIMIZERS[self.which](parameters)


CASES: dict[str, Callable[[], Training]] = {
    "vision": Vision,
    "language": Language,
    "workers": Workers,
    "strided": Strided,
    "parallel": Parallel,
    "compiled": Compiled,
    **{name: functools.partial(Optimized, name) for name in OPTIMIZERS},
}


# ---------------------------------------------------------------- starts
_starts = 0
"""So far. Ranks meet in the start of one number."""


def die_at(point: str, sequence: int) -> None:
    """This process ends at a point of the commit with that number."""
    copying: list[int] = []

    def now(here: str, at: int) -> None:
        if (here, at) == (point, sequence):
            os.kill(os.getpid(), signal.SIGKILL)

    def around(
        owner: Any, name: str, before: Callable[..., None], after: Callable[..., None] = lambda *_: None
    ) -> None:
        plain = getattr(owner, name)

        def wrapped(*given: Any, **more: Any) -> Any:
            before(*given)
            answer = plain(*given, **more)
            after(*given)
            return answer

        setattr(owner, name, wrapped)

    coming = [0]

    def commit(kept: Any) -> None:
        coming[0] = kept._session.sequence + 1
        now("before", coming[0])

    def begin(_: object, entry: Commit) -> None:
        copying[:] = [entry.sequence] * (entry.phase == 0)
        now(("before-copying", "before-held")[entry.phase], entry.sequence)

    def copy(gpu: Any, to: int, source: int, size: int) -> None:
        if point == "torn" and copying == [sequence]:
            plain_copy(gpu, to, source, size // 2)
            gpu.synchronize()
            now("torn", sequence)

    plain_copy = CudaGpu.copy
    around(Kept, "commit", commit, lambda kept, *_: now("after", kept._session.sequence))
    around(Arena, "bind", lambda *_: None, lambda *_: now("bound", coming[0]))
    around(Blob, "write", lambda *_: None, lambda *_: now("blob", coming[0]))
    around(
        CommitRecord, "write", begin, lambda _, entry: now(("after-copying", "after-held")[entry.phase], entry.sequence)
    )
    around(CudaGpu, "copy", copy)


def start(case: str, point: str = "", sequence: int = 0) -> None:
    """The program, with a session; it is killed where that is told, and prints its digest otherwise."""
    if point:
        die_at(point, sequence)
    with resilience.session(name="training", arrays="device", overhead=1) as session:
        program = CASES[case]()
        kept = resilience.torch.keep(session, **program.objects)
        program.run(kept)
    print(program.digest(), flush=True)


def plain(case: str) -> None:
    program = CASES[case]()
    program.run()
    print(program.digest(), flush=True)


def forked(what: Callable[..., None], *words: Any) -> tuple[int, str]:
    """How a child that does that ended, and what it printed."""
    global _starts
    _starts += 1
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(theirs, 1)
        status = 1
        try:
            what(*words)
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            os._exit(status)
    os.close(theirs)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said = os.read(ours, 999) if status == 0 else b""  # not to its end: a killed child's workers live on for seconds
    os.close(ours)
    return status, said.decode().strip()


def chain(case: str, point: str, most: int = 99) -> dict[str, Any]:
    """Starts that die at that point of each commit in turn, until one ends by itself."""
    kills = 0
    while True:
        status, said = forked(start, case, point, kills + 1) if kills < most else forked(start, case)
        if status != -signal.SIGKILL:
            return {"case": case, "point": point, "kills": kills, "status": status, "digest": said}
        kills += 1


def main(words: list[str]) -> None:
    """CASE and POINT in turn: `plain` for the program without us, a point and, after a colon, how many starts die at most."""
    torch.set_num_threads(1)
    on_the_simulated_gpu()
    for case, point in zip(words[::2], words[1::2], strict=True):
        if point == "plain":
            status, said = forked(plain, case)
            row = {"case": case, "point": point, "kills": 0, "status": status, "digest": said}
        else:
            where, _, most = point.partition(":")
            row = chain(case, where, int(most or 99))
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
