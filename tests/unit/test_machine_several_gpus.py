"""Servers over several GPUs: a fault on any of them is one of theirs, and a task that it does not reach goes on."""

from resilience.model import effect as fx
from resilience.model.ids import GpuMinor, GpuUuid, TaskRef
from resilience.model.options import Servers
from tests.unit.machine_kit import Node, newest_incident, server

GPUS = tuple((GpuMinor(minor), GpuUuid(f"GPU-{minor}")) for minor in (0, 1, 2))
ALL = tuple(uuid for _, uuid in GPUS)


def job_of_two(node: Node) -> tuple[TaskRef, TaskRef]:
    first, second = (node.task(1, task, gpus=GPUS, servers=Servers.JOB) for task in (0, 1))
    assert len(node.state.pairs) == 1
    return first, second


def test_who_is_not_hit_is_left_alone_and_who_is_takes_its_standby() -> None:
    node = Node()
    guilty, other = job_of_two(node)
    node.culprit(guilty)
    assert other not in node.verdicts(node.log), "its GPU may be another than the culprit's"
    assert node.state.incidents[newest_incident(node)].attribution is not None
    node.cuda(other)
    (verdict,) = [told for ref, told in node.verdicts().items() if ref == other]
    assert (verdict.action, verdict.server) == ("promote", server("b"))


def test_an_xid_says_which_of_the_gpus_it_was() -> None:
    node = Node()
    guilty, _ = job_of_two(node)
    node.culprit(guilty)
    incident = newest_incident(node)
    assert node.state.incidents[incident].uuid == "GPU-0,GPU-1,GPU-2"
    node.xid(31, guilty, gpu=GpuMinor(1))
    assert node.state.incidents[incident].uuid == "GPU-1"
    node.xid(31, guilty, gpu=GpuMinor(7))
    assert node.state.incidents[incident].uuid == "GPU-1"


def test_an_xid_before_the_servers_log_joins_its_incident() -> None:
    node = Node()
    guilty, _ = job_of_two(node)
    node.xid(43, gpu=GpuMinor(2))
    assert not node.state.incidents
    node.culprit(guilty)
    assert node.state.incidents[newest_incident(node)].uuid == "GPU-2"
    assert not node.state.strays


def test_a_gpu_that_is_lost_takes_the_whole_job_with_it() -> None:
    node = Node()
    tasks = job_of_two(node)
    node.xid(79, gpu=GpuMinor(2))
    assert {told.action for told in node.verdicts(node.log).values()} == {"requeue"}
    assert set(node.verdicts(node.log)) == set(tasks)
    (drain,) = node.of(fx.AskDrain, node.log)
    assert drain.intent.gpu == "GPU-2"


def test_a_server_is_opened_anew_over_all_of_them() -> None:
    node = Node()
    guilty, other = job_of_two(node)
    node.culprit(guilty)
    node.exit(other, number=0)
    opened = [effect for effect in node.of(fx.Open, [*node.log, *node.wait(60)]) if effect.server == server("a")]
    assert opened
    assert {effect.uuids for effect in opened} == {ALL}


def test_a_launcher_that_ends_long_after_its_ranks_is_recovered_all_the_same() -> None:
    """torchrun needs seconds to end; its servers have come back by then."""
    node = Node()
    guilty, other = job_of_two(node)
    node.culprit(guilty)
    node.exit(guilty, status=256)
    node.rebuilt("a")
    node.wait(10)
    node.exit(other, status=256)
    assert node.verdicts(node.log)[other].action in ("relaunch", "restore", "promote")


def test_a_failure_much_later_is_the_tasks_own() -> None:
    node = Node()
    guilty, other = job_of_two(node)
    node.culprit(guilty)
    node.exit(guilty, status=256)
    node.rebuilt("a")
    node.wait(60)
    node.exit(other, status=256)
    node.wait(60)
    assert node.verdicts(node.log)[other].action == "none"
