"""Who computes where its job asked to be: the sentence for each way to be elsewhere, and when a context is news."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from resilience.adapters.gpu.computing import ComputingWatch
from resilience.agent.attached import Attached
from resilience.agent.clients import Clients
from resilience.machine.attached import Facts, lack
from resilience.model import records as rec
from resilience.model.errors import GpuError, MpsControlError
from resilience.model.ids import GpuMinor, GpuUuid, NodeName, ServerId
from resilience.model.options import JobOptions
from resilience.model.settings import MpsSettings, Recovery
from resilience.model.world import State
from resilience.ports import Context, Gpu
from tests.unit.agent_kit import FakeLeases, FakeProcfs, until
from tests.unit.machine_kit import lease, server

PIPE, SHARE, LIMIT, SM = (
    "CUDA_MPS_PIPE_DIRECTORY",
    "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE",
    "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT",
    "CUDA_MPS_SM_PARTITION",
)
LEASE = lease(1)
RIGHT = {PIPE: f"{LEASE.run}/n0/d/u1001/g0/a", SHARE: "30", LIMIT: "0=512M"}
FINE = Facts(
    lease=LEASE,
    options=JobOptions(mps=True, threads=30, memory=512),
    gpu=GpuMinor(0),
    mps=True,
    ours=True,
    environ=RIGHT,
)


def without(name: str) -> dict[str, str]:
    return {key: value for key, value in RIGHT.items() if key != name}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"gpu": None}, "computes on a GPU that its job does not have"),
        ({"mps": False, "ours": False, "environ": {}}, f"computes outside MPS: it has no {PIPE}"),
        ({"mps": False, "environ": {PIPE: "/x"}}, f"computes outside MPS: {PIPE} is /x"),
        (
            {"mps": False},
            f"computes outside MPS: no MPS server answered it at {RIGHT[PIPE]} (a container must show it: docs/how-to/containers.md)",
        ),
        ({"mps": False, "environ": None}, "computes outside MPS: its environment cannot be read"),
        ({"ours": False, "environ": {PIPE: "/x"}}, f"is a client of an MPS server that is not its job's: {PIPE} is /x"),
        ({"environ": without(SHARE)}, f"may use more than its 30 percent of the GPU's threads: it has no {SHARE}"),
        ({"environ": RIGHT | {SHARE: "31"}}, f"may use more than its 30 percent of the GPU's threads: {SHARE} is 31"),
        ({"environ": RIGHT | {SHARE: "12.5"}}, ""),
        ({"environ": without(LIMIT)}, f"may use more than its 512 MiB of device memory: it has no {LIMIT}"),
        ({"environ": RIGHT | {LIMIT: "0=1G"}}, f"may use more than its 512 MiB of device memory: {LIMIT} is 0=1G"),
        ({"environ": RIGHT | {LIMIT: "0=1024K"}}, ""),
        ({"environ": None}, ""),
        ({"environ": {}, "options": JobOptions(mps=True)}, ""),
        ({"environ": without(SHARE), "lease": replace(LEASE, slots=((GpuMinor(0), 1),))}, ""),
        ({"environ": RIGHT | {SM: "GPU-1/Dx1"}, "partition": "GPU-1/Dx1"}, ""),
        ({"environ": None, "partition": "GPU-1/Dx1"}, ""),
        (
            {"environ": RIGHT | {SM: "GPU-1/Dx2"}, "partition": "GPU-1/Dx1"},
            f"is not in its job's SM partition GPU-1/Dx1: {SM} is GPU-1/Dx2",
        ),
        ({"partition": "GPU-1/Dx1"}, f"is not in its job's SM partition GPU-1/Dx1: it has no {SM}"),
    ],
)
def test_what_is_wrong_with_a_process(changes: dict[str, Any], words: str) -> None:
    assert lack(replace(FINE, **changes)) == words


@dataclass
class Lists:
    """NVML's two lists, as a test has them."""

    mps: set[int] = field(default_factory=set)
    plain: set[int] = field(default_factory=set)
    broken: bool = False
    looks: int = 0

    def all(self) -> tuple[Gpu, ...]:
        return ()

    def mps_processes(self, uuid: GpuUuid) -> Iterable[int]:
        self.looks += 1
        if self.broken:
            raise GpuError("nvml", 1, "away")
        return tuple(self.mps)

    def plain_processes(self, uuid: GpuUuid) -> Iterable[int]:
        return tuple(self.plain)


GPU = GpuUuid("GPU-1")


@pytest.fixture
def watch() -> Iterable[tuple[ComputingWatch, Lists]]:
    lists = Lists()
    it = ComputingWatch(lists, every=0.01)
    yield it, lists
    it.close()


def news(watch: ComputingWatch) -> set[Context]:
    found: set[Context] = set()

    def heard() -> bool:
        found.update(watch.read())
        return bool(found)

    until(heard, "news")
    return found


def _looked(lists: Lists, begun: int) -> bool:
    return lists.looks > begun


def looks(lists: Lists, more: int = 4) -> None:
    """Until it has looked some times more."""
    begun = lists.looks
    until(lambda: lists.looks >= begun + more, "looks")


def test_a_context_is_news_once_and_anew_when_it_changes(watch: tuple[ComputingWatch, Lists]) -> None:
    it, lists = watch
    lists.mps = {7}
    it.watch(frozenset({GPU}))
    assert news(it) == {Context(uuid=GPU, pid=7, mps=True)}
    looks(lists)
    assert it.read() == ()
    lists.mps, lists.plain = set(), {7}
    assert news(it) == {Context(uuid=GPU, pid=7, mps=False)}
    lists.plain = set()
    looks(lists)
    lists.plain = {7}
    assert news(it) == {Context(uuid=GPU, pid=7, mps=False)}


def test_an_nvml_that_does_not_answer_is_told_once(
    watch: tuple[ComputingWatch, Lists], capfd: pytest.CaptureFixture[str]
) -> None:
    it, lists = watch
    lists.broken = True
    it.watch(frozenset({GPU}))
    said = until(lambda: capfd.readouterr().err, "the line")
    assert said == "mpsr: agent: processes are not compared with MPS servers: nvml: NVML error 1: away\n"
    for _ in range(3):  # each is a look
        begun = lists.looks
        it.watch(frozenset({GPU}))
        until(partial(_looked, lists, begun), "a look")
    assert (it.read(), capfd.readouterr().err) == ((), "")


# ---------------------------------------------------------------- the agent's part
EMPTY = State(node=NodeName("n0"), recovery=Recovery(), mps=MpsSettings(), complete=0.0)


@dataclass
class Lane:
    """A worker whose calls run when the test says so."""

    calls: list[tuple[Callable[[], Any], Callable[[Any], Any]]] = field(default_factory=list)

    def submit(self, lane: str, call: Callable[[], Any], then: Callable[[Any], Any]) -> None:
        self.calls.append((call, then))

    def run(self) -> None:
        call, then = self.calls.pop(0)
        then(call())


@dataclass
class Servers:
    pids: dict[str, set[int]] = field(default_factory=lambda: {"a": set(), "b": set()})
    silent: str = ""

    def clients(self, server: ServerId) -> tuple[int, ...]:
        if server.color == self.silent:
            raise MpsControlError(f"mps {server.color}", "does not answer")
        return tuple(self.pids[server.color])


class Node:
    """Attached with a lease, two servers, and processes that belong to the job by their environment."""

    def __init__(self) -> None:
        self.lane, self.servers, self.procfs = Lane(), Servers(), FakeProcfs()
        self.said: list[rec.Record] = []
        leases = FakeLeases({LEASE.job: LEASE}, there=[server("a"), server("b")])
        ports: Any = SimpleNamespace(
            procfs=self.procfs, leases=leases, mps=self.servers, worker=self.lane, computing=None, end_client=None,
            journal=SimpleNamespace(append=self.said.append),
        )  # fmt: skip
        logs: Any = SimpleNamespace(tell=lambda job, record: None)
        self.it = Attached(ports, Clients(self.procfs, leases), logs, state=lambda: EMPTY, act=True)
        self.it.leases({LEASE.job: LEASE})

    def process(self, pid: int, *, mps: bool) -> None:
        self.procfs.parents[pid], self.procfs.jobs[pid], self.procfs.uids[pid] = 1, LEASE.job, LEASE.uid
        self.it.context(Context(uuid=LEASE.gpus[0][1], pid=pid, mps=mps))

    def told(self) -> list[int | None]:
        return [record.pid for record in self.said if isinstance(record, rec.ProcessUnattached)]


def test_one_that_comes_while_servers_are_asked_is_judged_by_the_next_answer() -> None:
    node = Node()
    node.servers.pids["a"] = {7}
    node.process(7, mps=True)
    call, then = node.lane.calls.pop()
    answer = call()
    node.servers.pids["a"].add(8)
    node.process(8, mps=True)
    then(answer)
    node.lane.run()
    assert (node.told(), node.lane.calls) == ([], [])
    node.process(9, mps=True)
    node.lane.run()
    assert node.told() == [9]


def test_a_client_of_a_server_of_ours_is_inside_whatever_nvml_says() -> None:
    node = Node()
    node.servers.pids["b"] = {7}
    node.process(7, mps=False)
    node.process(8, mps=False)
    node.lane.run()
    node.lane.run()
    assert node.told() == [8]


def test_a_server_that_does_not_answer_may_have_it() -> None:
    node = Node()
    node.servers.silent = "b"
    node.process(7, mps=True)
    node.lane.run()
    node.process(8, mps=False)
    node.lane.run()
    assert node.told() == [8]
