"""resilience.torch in one process, on arrays in host memory: what is refused, what stands on the arena, when a commit is due."""

import random
from collections.abc import Iterator
from typing import Any

import pytest

from resilience.model.errors import StateError
from resilience.state import session as sessions

pytest.importorskip("torch", reason="torch is not installed (make torch): resilience.torch is not tried here")
import torch

import resilience.torch
from resilience.torch import storages
from resilience.torch.kept import Kept
from resilience.torch.parts import part


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[sessions.Session]:
    monkeypatch.setattr(sessions, "_opened", False)
    with sessions.Session({}, spill_seconds=None, arrays="numpy", device=0, overhead=0.5) as session:
        yield session


def net() -> Any:
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))


def train(model: Any, optimizer: Any) -> None:
    optimizer.zero_grad()
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()


def standing(kept: Kept, tensor: Any) -> bool:
    return kept._state._arena.key(tensor) is not None


# ---------------------------------------------------------------- the arena
def test_tensors_keep_their_content_geometry_and_identity(session: sessions.Session) -> None:
    model = net()
    model.register_buffer("grid", torch.arange(24.0).view(2, 3, 4).transpose(0, 2), persistent=False)
    model.tied = model[0]
    model.small = torch.nn.Parameter(torch.randn(3, 2).to(torch.bfloat16))
    model.flags = torch.nn.Buffer(torch.tensor([True, False]))
    before = {name: (id(tensor), tensor.clone(), tensor.stride()) for name, tensor in model.named_parameters()}
    grid = model.grid.clone()
    kept = resilience.torch.keep(session, model=model)
    for _ in kept.steps(1):
        for name, tensor in model.named_parameters():
            same, content, stride = before[name]
            assert (id(tensor), tensor.stride()) == (same, stride)
            assert torch.equal(tensor, content)
            assert standing(kept, tensor)
            assert storages.nbytes(tensor) == tensor.numel() * tensor.element_size(), (
                "torch.save writes no more than before"
            )
        assert torch.equal(model.grid, grid)
        assert model.grid.stride() == (1, 4, 12)


def test_an_optimizers_state_has_its_place_before_its_first_step(session: sessions.Session) -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    drawn = torch.get_rng_state()
    kept = resilience.torch.keep(session, model=model, optimizer=optimizer, scheduler=scheduler)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert not optimizer.state
    for _ in kept.steps(1):
        train(model, optimizer)
        kept.commit()
    tensors = [tensor for state in optimizer.state.values() for tensor in state.values()]
    assert len(tensors) == 12
    assert all(standing(kept, tensor) for tensor in tensors)
    assert optimizer._opt_called


def test_what_the_program_replaces_stands_there_again_after_the_next_commit(session: sessions.Session) -> None:
    model = net()
    kept = resilience.torch.keep(session, model=model)
    for step in kept.steps(3):
        model[0].weight.data = torch.full((4, 3), float(step))
        kept.commit()
        assert standing(kept, model[0].weight)
        assert torch.equal(model[0].weight, torch.full((4, 3), float(step)))


def test_two_that_shared_and_share_no_more_are_both_kept(session: sessions.Session) -> None:
    """There is one slot for the two: the one that left stays outside, and its bytes go with the rest."""
    model = torch.nn.ModuleList([torch.nn.Linear(3, 3, bias=False), torch.nn.Linear(3, 3, bias=False)])
    model[1].weight = model[0].weight
    kept = resilience.torch.keep(session, model=model)
    for _ in kept.steps(1):
        model[1].weight = torch.nn.Parameter(torch.ones(3, 3))
        kept.commit()
        assert standing(kept, model[0].weight)
        assert not standing(kept, model[1].weight)
        state = kept._state._blob.read()["parts"]["model"]["tensors"]
        assert torch.equal(state["model.1.weight"], torch.ones(3, 3))
        assert torch.equal(state["model.0.weight"], model[0].weight)


def test_what_does_not_fit_is_refused_with_the_way_out(session: sessions.Session) -> None:
    late: dict[str, Any] = {}
    kept = resilience.torch.keep(session, late=late)
    for _ in kept.steps(1):
        kept.commit()
        late["more"] = torch.zeros(1 << 18)
        with pytest.raises(StateError, match="does not fit its place") as refused:
            kept.commit()
        assert "reserve=" in refused.value.hint


def test_reserve_makes_room(session: sessions.Session) -> None:
    late: dict[str, Any] = {}
    kept = resilience.torch.keep(session, late=late, reserve=2 << 20)
    for _ in kept.steps(1):
        late["more"] = torch.zeros(1 << 18)
        kept.commit()


def test_constant_objects_are_not_kept(session: sessions.Session) -> None:
    model, cache = net(), torch.zeros(4)
    kept = resilience.torch.keep(session, model=model, cache=cache, constant=["model"])
    for _ in kept.steps(1):
        assert not standing(kept, model[0].weight)
        assert standing(kept, cache)


# ---------------------------------------------------------------- refusals
class Closure(torch.optim.Optimizer):  # type: ignore[misc]
    """Needs a closure, as LBFGS does, and is not of torch."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {})

    def step(self, closure: Any = None) -> None:
        closure()


def sharded() -> Any:
    """A module that FSDP2 has given DTensors, one process in its mesh."""
    from torch.distributed.fsdp import fully_shard

    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        mesh = torch.distributed.init_device_mesh("cpu", (1,))
        model = net()
        fully_shard(model, mesh=mesh)
        return model
    finally:
        torch.distributed.destroy_process_group()


def loader(**more: Any) -> Any:
    return torch.utils.data.DataLoader(torch.arange(8), 2, **more)


@pytest.mark.parametrize(
    ("make", "wrong", "way_out"),
    [
        (lambda: {"model": sharded()}, "is a DTensor", "DistributedDataParallel"),
        (
            lambda: {"o": torch.optim.LBFGS(net().parameters())},
            "cannot be known before its first step: LBFGS",
            "closure",
        ),
        (lambda: {"o": Closure(net().parameters())}, "cannot be known before its first step: Closure", "closure"),
        (lambda: {"model": torch.nn.LazyLinear(3)}, "has no shape yet", "run one batch"),
        (lambda: {"model": torch.nn.Linear(2, 2, device="meta")}, "is on the meta device", "to_empty"),
        (lambda: {"t": torch.eye(3).to_sparse()}, "is not strided", "to_dense"),
        (lambda: {"t": [torch.ones(2, requires_grad=True) * 2]}, "is part of a gradient's graph", "detach"),
        (lambda: {"n": 7}, "cannot be kept: int", "dictionaries"),
        (lambda: {"n": {"f": lambda: 0}}, "cannot be pickled", ""),
        (lambda: {"commit": net()}, "a name is taken: commit", "another name"),
        (
            lambda: {"loader": loader(num_workers=1, persistent_workers=True)},
            "workers are persistent",
            "persistent_workers=False",
        ),
        (lambda: {"loader": loader(num_workers=1, in_order=False)}, "in no fixed order", "in_order=True"),
    ],
)
def test_what_cannot_be_kept_is_refused(make: Any, wrong: str, way_out: str, session: sessions.Session) -> None:
    with pytest.raises(StateError, match=wrong) as refused:
        resilience.torch.keep(session, **make()).commit()
    assert way_out in refused.value.hint


def test_a_constant_that_is_no_object_is_refused(session: sessions.Session) -> None:
    with pytest.raises(StateError, match="constant names no object: modle"):
        resilience.torch.keep(session, model=net(), constant=["modle"])


def test_a_commit_of_the_sessions_alone_is_told(session: sessions.Session) -> None:
    kept = resilience.torch.keep(session, model=net())
    kept.commit()
    kept._state._array[:] = 0
    with pytest.raises(StateError, match="was committed by the session"):
        kept._state._blob.read()


def test_a_sparse_optimizer_has_its_place(session: sessions.Session) -> None:
    embedding = torch.nn.Embedding(9, 3, sparse=True)
    optimizer = torch.optim.SparseAdam(embedding.parameters())
    kept = resilience.torch.keep(session, model=embedding, optimizer=optimizer)
    for _ in kept.steps(1):
        embedding(torch.tensor([1, 2])).sum().backward()
        optimizer.step()
        kept.commit()
    assert all(
        standing(kept, one) for one in optimizer.state[embedding.weight].values() if isinstance(one, torch.Tensor)
    )


# ---------------------------------------------------------------- an equal program takes it
@pytest.mark.parametrize(
    "wrong",
    [
        lambda it: it.pop("scheduler"),
        lambda it: it.update(model=torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))),
        lambda it: it.update(model=net().to(torch.float64)),
        lambda it: it.update(model=torch.nn.Sequential(net())),
        lambda it: it["optimizer"].add_param_group({"params": [torch.nn.Parameter(torch.ones(2))]}),
    ],
)
def test_a_state_of_other_objects_is_refused(wrong: Any, session: sessions.Session) -> None:
    def objects() -> dict[str, Any]:
        model = net()
        optimizer = torch.optim.Adam(model.parameters())
        return {"model": model, "optimizer": optimizer, "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1)}

    mine = objects()
    kept = resilience.torch.keep(session, **mine)
    kept.commit()
    kept._state.read()
    other = objects()
    wrong(other)
    kept._state._parts = {name: part(name, thing) for name, thing in other.items()}
    with pytest.raises(StateError) as refused:
        kept._state.read()
    assert "same" in refused.value.hint


def test_containers_are_refilled_in_place(session: sessions.Session) -> None:
    cache = [(torch.zeros(2), torch.ones(2))]
    requests: dict[str, Any] = {"open": [1, 2], "cache": cache}
    held, lists = cache[0][0], requests["open"]
    generator, numbers = torch.Generator().manual_seed(4), random.Random(4)
    kept = resilience.torch.keep(session, requests=requests, generator=generator, numbers=numbers)
    for _ in kept.steps(1):
        held += 3
        kept.commit()
        drawn = torch.rand(1, generator=generator), numbers.random()
        held += 1
        lists.append(3)
        requests["new"] = 1
        held -= 1  # the session would bring the arena's bytes back
        kept._state.read()
        assert requests == {"open": [1, 2], "cache": cache}
        assert requests["open"] is lists
        assert requests["cache"][0][0] is held
        assert torch.equal(held, torch.full((2,), 3.0))
        assert (torch.rand(1, generator=generator), numbers.random()) == drawn


# ---------------------------------------------------------------- when a commit is due
def test_none_between_two_backward_passes(session: sessions.Session) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    kept = resilience.torch.keep(session, model=model, optimizer=optimizer)
    for step in kept.steps(4):
        model(torch.ones(2, 3)).sum().backward()
        if step % 2 == 0:
            assert not kept.due()
            with pytest.raises(StateError, match="gradients are being accumulated") as refused:
                kept.commit()
            assert "optimizer.step()" in refused.value.hint
        else:
            optimizer.step()
            assert kept._gradients.done_with()
            optimizer.zero_grad(set_to_none=step == 1)
            assert kept._gradients.done_with()
            kept.commit()


def test_a_skipped_step_is_no_accumulation(session: sessions.Session) -> None:
    model, idle = net(), net()
    first, second = torch.optim.SGD(model.parameters()), torch.optim.SGD(idle.parameters())
    scaler = torch.amp.GradScaler("cpu")
    kept = resilience.torch.keep(session, model=model, idle=idle, first=first, second=second, scaler=scaler)
    for step in kept.steps(3):
        first.zero_grad()
        loss = model(torch.ones(2, 3)).sum() * (float("inf") if step == 1 else 1)
        scaler.scale(loss).backward()
        assert not kept._gradients.done_with()
        scaler.step(first)
        scaler.update()
        kept.commit()


def polluting(kept: Kept, model: Any, second: Any) -> None:
    """A step of the second optimiser that leaves gradients to the first, as a generator does to its discriminator."""
    model(second.param_groups[0]["params"][0][:2] + 1).sum().backward()
    second.step()


@pytest.mark.parametrize("gradients", [False, True])
def test_gradients_that_stay_are_told_of_or_kept(
    gradients: bool, session: sessions.Session, capsys: pytest.CaptureFixture[str]
) -> None:
    model, other = net(), net()
    first, second = torch.optim.SGD(model.parameters(), lr=0.1), torch.optim.SGD(other.parameters(), lr=0.1)
    kept = resilience.torch.keep(session, model=model, other=other, first=first, second=second, gradients=gradients)
    said = []
    for _ in kept.steps(100):
        train(model, first)
        polluting(kept, model, second)
        said.append(kept.due())
        if gradients:
            kept.commit()
    if not gradients:
        assert not any(said)
        assert capsys.readouterr().err.startswith("mpsr: keep: no commit in 100 steps")
        return
    assert any(said)
    assert standing(kept, model[0].weight.grad)
    grown = model[0].weight.grad.clone()
    first.zero_grad()
    kept._state.read()
    assert torch.equal(model[0].weight.grad, grown)
