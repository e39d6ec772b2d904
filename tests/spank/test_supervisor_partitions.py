"""mpsr-launch and SM partitions: each process joins the job's own, and none runs outside it."""

from pathlib import Path

from resilience.model.ids import GpuMinor
from resilience.model.options import JobOptions
from tests.spank.supervisor_kit import PROGRAM, WITH_STANDBY, B, Node, shell


def cut(node: Node, **colors: str) -> None:
    """What the prolog writes beside the servers: their partitions, one a line."""
    for color, text in colors.items():
        path = node.jobs.parent / "d" / node.lease.domain / f"g{node.lease.gpus[1][0]}" / f"{color}.sm"
        path.write_text(text)


def partitioned(tmp_path: Path) -> Node:
    node = Node(tmp_path, slots=((GpuMinor(0), 1), (GpuMinor(3), 2)), options=JobOptions(mps=True, threads=25))
    cut(node, a="GPU-bbbb/Dx1\nGPU-bbbb/Dx2/AA+=\n", b="GPU-bbbb/Ex1\nGPU-bbbb/Ex2\n")
    return node


SHOW = "echo $MPSR_COLOR ${CUDA_MPS_SM_PARTITION-none} ${CUDA_MPS_ACTIVE_THREAD_PERCENTAGE-none}"


def test_each_process_joins_the_jobs_partition_on_its_own_server(built: Path, tmp_path: Path) -> None:
    node = partitioned(tmp_path)
    script = f"{SHOW} >&2; [ $MPSR_COLOR = b ] || exec {' '.join(PROGRAM)} fault,wait"
    supervised, agent = node.both(*shell(script))
    agent.expect("fault")
    agent.verdict("restore", **B)
    agent.expect("started", color="b")
    assert supervised.end()[::2] == (0, "a GPU-bbbb/Dx2/AA+= none\nb GPU-bbbb/Ex2 none\n")


def test_a_standby_joins_the_partition_of_the_spare_server(built: Path, tmp_path: Path) -> None:
    node = partitioned(tmp_path)
    supervised, agent = node.both(*shell(f"{SHOW} >&2; exec {' '.join(PROGRAM)} fault,wait"), **WITH_STANDBY)
    agent.expect("ready")
    agent.verdict("promote", **B)
    agent.expect("stepped")
    assert supervised.end()[0] == 0
    (parked,) = node.jobs.glob("*/standby-*.err")
    assert parked.read_text().splitlines()[0] == "b GPU-bbbb/Ex2 none"


def test_a_quarantine_server_has_no_partitions(built: Path, tmp_path: Path) -> None:
    node = partitioned(tmp_path)
    supervised, agent = node.both(*shell(f"{SHOW}; [ $MPSR_COLOR = q1 ]"))
    agent.expect("exit")
    agent.verdict("relaunch", color="q1", pipe="/pipes/q1")
    assert supervised.end()[:2] == (0, "a GPU-bbbb/Dx2/AA+= none\nq1 none 25\n")


def test_a_partition_that_is_not_there_is_said_and_nothing_runs_outside_it(built: Path, tmp_path: Path) -> None:
    node = partitioned(tmp_path)
    cut(node, a="GPU-bbbb/Dx1\n")
    supervised, _agent = node.both(*shell("echo ran"))
    assert supervised.end() == (3, "", "mpsr: server: the job's SM partition on server a of GPU 3 cannot be told\n")


def test_a_task_without_a_partition_inherits_none(node: Node) -> None:
    supervised = node.start(*shell(SHOW), env={"CUDA_MPS_SM_PARTITION": "GPU-x/another"})
    node.agent.accept().place()
    assert supervised.end()[:2] == (0, "a none none\n")
