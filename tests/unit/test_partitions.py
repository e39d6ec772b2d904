"""SM partitions: how a GPU is cut, what the daemon's words mean, and what the machine makes of a fault in one of them."""

import pytest

from resilience.model import effect as fx
from resilience.model import event as ev
from resilience.model.ids import DomainKey
from resilience.model.lease import Isolation
from resilience.model.observation import What
from resilience.model.options import JobOptions
from resilience.model.world import Health, ServerState
from resilience.parse import mps_control as parse
from resilience.parse.job_environment import job_environment
from resilience.parse.mps_control import PartitionTable
from resilience.placement import domain_plan, partition_plan
from tests.unit.machine_kit import UUID, Node, pid, ref, server

BASE64 = "Dx4A+AAA/BBB/AA=="


# ---------------------------------------------------------------------------------------------------- the plan
@pytest.mark.parametrize(
    ("driver", "promised"),
    [("610.43.02", True), ("615", True), ("595.99.02", False), ("580.159.04", False), ("", False), ("x610", False)],
)
def test_which_drivers_isolate(driver: str, promised: bool) -> None:
    assert partition_plan.isolates(driver) is promised


@pytest.mark.parametrize(
    ("percent", "chunks", "expected"),
    [(25, 16, (4, 4)), (30, 16, (4, 4)), (50, 16, (8, 2)), (51, 16, (8, 2)), (100, 16, (16, 1)), (1, 16, (1, 16)),
     (25, 3, (1, 3)), (60, 9, (5, 1)), (50, 0, (1, 0))],
)  # fmt: skip
def test_the_cut(percent: int, chunks: int, expected: tuple[int, int]) -> None:
    assert partition_plan.cut(percent, chunks) == expected


def test_the_share_is_asked_for_or_slurms_or_a_quarter() -> None:
    assert partition_plan.share(JobOptions(threads=40), 50) == 40
    assert partition_plan.share(JobOptions(), 50) == 50
    assert partition_plan.share(JobOptions(), None) == 25


@pytest.mark.parametrize(
    ("text", "share"), [("25", 25), ("100", 100), ("375", None), ("0", None), ("", None), ("2x", None)]
)
def test_slurms_share(text: str, share: int | None) -> None:
    base = {"SLURM_JOB_ID": "1", "SLURM_JOB_UID": "1", "SLURMD_NODENAME": "n0"}
    assert job_environment(base | {"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": text}).share == share


def test_the_first_free_partition() -> None:
    assert partition_plan.pick((), 4) == 1
    assert partition_plan.pick((1, 3), 4) == 2
    assert partition_plan.pick((1, 2), 2) is None
    assert partition_plan.pick((), 0) is None


def test_what_makes_a_server_whole() -> None:
    table = PartitionTable(chunks=16, partitions={"a": 8, "b": 8})
    assert partition_plan.whole(table, ("a", "b"), 50)
    assert not partition_plan.whole(table, ("a",), 50)
    assert not partition_plan.whole(table, ("a", "c"), 50)
    assert not partition_plan.whole(table, ("a", "b"), 25)
    assert not partition_plan.whole(PartitionTable(chunks=0, partitions={}), (), 50)


def test_a_domain_with_partitions_has_a_name_of_its_own() -> None:
    assert domain_plan.twins(DomainKey("u7")) == ("u7", "u7-sm")
    assert domain_plan.twins(DomainKey("u7-sm")) == ("u7", "u7-sm")


# ---------------------------------------------------------------------------------------------------- the daemon's words
DASHES = (
    "GPU                  Partition                            free     used     free   used   clients",
    "                                                          chunks   chunks   SM     SM",
    "GPU-1d5f7a52-9f0a-4a -                                    9        7        76     56",
    f"GPU-1d5f7a52-9f0a-4a {BASE64}                    -        7        -      56     Yes",
)
BLANKS = ("GPU Partition free used free used clients", "GPU-1d 9 7 76 56", f"GPU-1d {BASE64} 7 56 No")


@pytest.mark.parametrize("lines", [DASHES, BLANKS, (*DASHES[:2], "GPU-1d5f - 9 7 76 56 -", DASHES[3])])
def test_the_table_of_partitions(lines: tuple[str, ...]) -> None:
    assert parse.partition_table(lines) == PartitionTable(chunks=16, partitions={BASE64: 7})


@pytest.mark.parametrize(
    "lines",
    [(), ('Unknown command "lspart"',), ("Static partitioning mode is not enabled",), ("GPU-1d x y z w",), DASHES[:2]],
)
def test_no_table(lines: tuple[str, ...]) -> None:
    assert parse.partition_table(lines) is None


def test_partitions_that_were_made() -> None:
    lines = (f"Partition {UUID}/{BASE64} created", f"{UUID}/Dx5", "Failed to create the requested SM partition",
             f"GPU-other/{BASE64}", f"{UUID}/$(id)", f"Partition {UUID}/x y created")  # fmt: skip
    assert parse.partitions_made(lines, UUID) == (BASE64, "Dx5")


def test_the_commands_may_be_sent() -> None:
    assert parse.script(f"sm_partition rm {UUID} {BASE64}").endswith(b"\nget_default_active_thread_percentage\n")
    with pytest.raises(ValueError, match="not a control command"):
        parse.script("sm_partition add GPU\nquit")


# ---------------------------------------------------------------------------------------------------- the machine
def two_partitions(**options: object) -> Node:
    """Job 1 with two tasks in partition 1, job 2 in partition 2."""
    node = Node()
    for job, task in ((1, 0), (1, 1), (2, 0)):
        node.task(job, task, isolation=Isolation.SM, slot=job, **options)  # type: ignore[arg-type]
    return node


def proven(node: Node, sight: ServerState = ServerState.ACTIVE) -> list[fx.Effect]:
    """The control daemon's answers, as the machine's own questions bring them."""
    effects: list[fx.Effect] = []
    for _ in range(3):
        effects += node.wait(0.03)
        effects += node.sight("a", sight)
    return effects


def test_a_trap_stays_with_the_tasks_of_its_partition() -> None:
    node = two_partitions()
    log = list(node.culprit(ref(1)))
    log += node.handling()
    log += node.xid(13, ref(1))
    log += node.cuda(ref(1), 719)
    log += node.cuda(ref(1, 1), 719)
    assert node.told(log) == {}  # nobody waits but those it happened to: first it is proven where it stayed
    log = proven(node)
    told = {one.ref: (one.action.value, one.part.value) for one in node.of(fx.Verdict, log)}
    assert told == {ref(1): ("fail", "culprit"), ref(1, 1): ("promote", "bystander")}
    (line,) = [line for line in node.lines(effects=log) if line.startswith("GPU fault")]
    end = "step 0 task 0 culprit, step 0 task 1 bystander; isolation: SM partitions; isolated, no neighbour touched"
    assert line.endswith(end)
    assert node.journal("incident.opened")[0]["partition"] == 1
    assert node.journal("incident.attributed")[0]["isolated"] is True
    pair = next(iter(node.state.pairs.values()))
    assert pair.health(server("a").color) is Health.UP
    node.do(ev.Exited(ref=ref(1), role=ev.Role.ACTIVE, pid=pid(ref(1)), status=256))
    node.do(ev.Stepped(ref=ref(1, 1), incident=node.verdicts(log)[ref(1, 1)].incident, seq=1, ms=1.0))
    assert "isolated, no neighbour touched (incident " in node.comments(effects=node.wait(3) + list(node.log))[0]


def test_without_a_name_the_only_task_of_the_partition_did_it() -> None:
    node = two_partitions()
    node.cuda(ref(2), 719)
    node.xid(13)
    effects = proven(node)
    assert node.told(effects) == {2: ("fail", "culprit", "")}
    assert "the SM partition's only client" in str(node.journal("incident.attributed")[0]["why"])


def test_a_memory_fault_that_nobody_is_named_for_makes_no_culprit() -> None:
    """It may have come from another partition, whatever the daemon says meanwhile."""
    node = two_partitions()
    node.cuda(ref(2), 700)
    effects = proven(node) + node.wait(0.5)
    assert node.told(effects) == {2: ("promote", "suspect", "b")}


def test_what_crosses_partitions_is_one_fault() -> None:
    node = two_partitions()
    effects = list(node.cuda(ref(2), 700))  # the neighbour is heard first
    effects += node.cuda(ref(1), 700)
    effects += node.culprit(ref(1))
    effects += node.handling()
    assert node.told(effects) == {}
    assert len(node.state.incidents) == 2
    effects = list(node.sight("a", ServerState.FAULT))
    assert len(node.state.incidents) == 1
    effects += node.xid(31, ref(1))
    effects += node.cuda(ref(1, 1), 700)
    told = {one.ref: (one.action.value, one.part.value) for one in node.of(fx.Verdict, effects)}
    assert told == {ref(1): ("fail", "culprit"), ref(1, 1): ("promote", "bystander"), ref(2): ("promote", "bystander")}
    assert not [line for line in node.lines(effects=effects) if "isolated" in line]


def test_a_task_that_the_fault_did_not_reach_is_not_told_even_when_the_server_is_in_fault() -> None:
    node = two_partitions()
    node.culprit(ref(1))
    node.cuda(ref(1), 719)
    effects = list(node.sight("a", ServerState.FAULT)) + node.wait(5)
    assert {one.ref for one in node.of(fx.Verdict, effects)} == {ref(1)}


def test_two_traps_at_once_are_two_faults() -> None:
    node = two_partitions()
    for who in (ref(1), ref(2)):
        node.culprit(who)
        node.cuda(who, 719)
        node.xid(13, who)
    effects = proven(node)
    assert node.told(effects) == {1: ("fail", "culprit", ""), 2: ("fail", "culprit", "")}


def test_a_failure_in_another_partition_is_its_own_affair() -> None:
    node = two_partitions()
    node.culprit(ref(1))
    node.cuda(ref(1), 719)
    node.exit(ref(2))
    effects = proven(node)
    assert node.told(effects)[2] == ("none", "unknown", "")


def test_a_daemon_that_does_not_answer_delays_and_proves_nothing() -> None:
    node = two_partitions()
    effects = list(node.culprit(ref(1)))
    effects += node.cuda(ref(1), 719)
    assert node.told(effects + node.wait(0.49)) == {}
    assert node.told(node.wait(0.02)) == {1: ("fail", "culprit", "")}
    assert not [line for line in node.lines() if "isolated" in line]


def test_a_lone_line_of_the_log_opens_nothing() -> None:
    node = two_partitions()
    assert node.of(fx.Poll, node.handling())
    assert not node.state.incidents
    node.see(What.CULPRIT, color="a")
    assert len(node.state.incidents) == 1
    assert node.told(proven(node) + node.wait(0.2)) == {}
