"""Which tasks a supervisor takes for ranks of MPI: those whose program is MPI's, however Slurm has wired the step."""

import socket
import sys
from pathlib import Path

import pytest

from resilience.model.options import JobOptions, Ranks
from tests.spank.slurm import wait_for
from tests.spank.supervisor_kit import PROGRAM, WITH_STANDBY, Node, alive

WIRED = {"PMI_RANK": "0"}
MAP = (
    "import mmap, os, sys; "
    "keep = [mmap.mmap(os.open(name, os.O_RDONLY), 0, prot=mmap.PROT_READ) for name in sys.argv[1:]]; input()"
)


def mapping(where: Path, *names: str) -> tuple[str, ...]:
    """A program that maps files of these names, as the loader would, says so, and ends when it reads a line."""
    files = [where / name for name in names]
    for file in files:
        file.write_bytes(b"x" * 4096)
    return (sys.executable, "-c", MAP, *map(str, files))


@pytest.mark.parametrize("library", ["libmpi.so.40", "libmpich.so.12", "libpmi2.so.0", "libpmix.so.2", "orted"])
def test_a_program_that_has_loaded_mpi_is_a_rank(node: Node, tmp_path: Path, library: str) -> None:
    supervised = node.start(*mapping(tmp_path, "libcuda.so.1", library))
    agent = node.agent.accept()
    assert agent.place()["mpi"] == "0"
    agent.expect("ranks", mpi="1")
    assert supervised.end(stdin="\n")[0] == 0


@pytest.mark.parametrize("library", ["libmpir.so.23", "libmpfr.so.6", "libpmem.so.1"])
def test_a_task_wired_for_mpi_is_a_rank_until_it_is_seen_on_the_gpu_without(
    node: Node, tmp_path: Path, library: str
) -> None:
    supervised = node.start(*mapping(tmp_path, "libcuda.so.1", library), env=WIRED)
    agent = node.agent.accept()
    assert agent.place()["mpi"] == "1"
    agent.expect("ranks", mpi="0")
    assert supervised.end(stdin="\n")[0] == 0


def test_a_session_settles_it_and_has_its_standby(node: Node) -> None:
    supervised = node.start(*PROGRAM, "wait", env=WIRED)
    agent = node.agent.accept()
    assert agent.place(**WITH_STANDBY)["mpi"] == "1"
    agent.expect("ranks", mpi="0")
    agent.expect("session", role="active")
    agent.expect("ready", role="standby")
    supervised.process.kill()
    supervised.end()


@pytest.fixture
def manager() -> tuple[socket.socket, socket.socket]:
    """Slurm's end of PMI-2's wire, and the task's."""
    both = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    both[0].settimeout(8)
    return both


def test_a_program_that_speaks_pmi_is_a_rank_and_loses_its_standby(
    node: Node, manager: tuple[socket.socket, socket.socket]
) -> None:
    slurm, task = manager
    wire = task.fileno()
    speak = f"read x; echo cmd=init >&{wire}"
    script = f"{' '.join(PROGRAM)} wait & [ $MPSR_ROLE = standby ] || {{ {speak}; }}; wait"
    supervised = node.start("bash", "-c", script, env={"PMI_FD": str(wire)}, fds=(wire,))
    agent = node.agent.accept()
    assert agent.place(**WITH_STANDBY)["mpi"] == "1"
    agent.expect("ranks", mpi="0")
    standby = int(agent.expect("ready", role="standby")["pid"])
    assert supervised.process.stdin is not None
    supervised.process.stdin.write("\n")
    supervised.process.stdin.flush()
    assert slurm.recv(100) == b"cmd=init\n"
    agent.expect("ranks", mpi="1")
    wait_for(lambda: not alive(standby), "the standby's end")
    supervised.process.kill()
    supervised.end()


@pytest.mark.parametrize("wish", [Ranks.INDEPENDENT, Ranks.TOGETHER])
def test_who_knows_better_is_believed(built: Path, tmp_path: Path, wish: Ranks) -> None:
    node = Node(tmp_path, options=JobOptions(mps=True, ranks=wish))
    program = mapping(tmp_path, "libcuda.so.1", *(["libmpi.so.40"] if wish is Ranks.INDEPENDENT else []))
    supervised = node.start(*program, env=WIRED if wish is Ranks.INDEPENDENT else {})
    agent = node.agent.accept()
    assert agent.place()["mpi"] == ("1" if wish is Ranks.TOGETHER else "0")
    agent.expect("started")
    assert supervised.end(stdin="\n")[0] == 0
    agent.expect("exit")
    assert "ranks" not in [verb for verb, _ in agent.heard]
    node.agent.close()
