"""How mpsr-launch starts a task: what task and agent are told, and which leases it takes."""

import os
import stat
from pathlib import Path

import pytest

from resilience.model.lease import LeaseState
from resilience.model.options import JobOptions
from resilience.parse import packet
from tests.spank.node import LAUNCHER, launch, lease, write_lease
from tests.spank.slurm import wait_for
from tests.spank.supervisor_kit import Node, shell

# ---------------------------------------------------------------- what a task and the agent are told


def test_argv0_of_the_plugin(node: Node) -> None:
    supervised = node.start("-c", 'echo "$0 ${MPSR_ARGV0-unset}"', env={"MPSR_ARGV0": "sh"})
    node.agent.accept().place()
    assert supervised.end() == (0, "sh unset\n", "")


def test_hello_and_the_environment_of_the_task(built: Path, tmp_path: Path) -> None:
    node = Node(tmp_path, options=JobOptions(mps=True, threads=25, memory=2048))
    environment = {"CUDA_MPS_LOG_DIRECTORY": "/x", "PMI_RANK": "0"}
    supervised = node.start(*shell("env | grep -E '^(CUDA|MPSR)' | sort"), env=environment)
    hello = node.agent.accept().place()
    status, out, _ = supervised.end()
    got = dict(line.split("=", 1) for line in out.splitlines())
    assert status == 0
    keys = "v job step task local gpu mpi resumed retries_used active_pid session".split()
    assert {key: hello[key] for key in keys} == {
        "v": "1", "job": "7", "step": "2", "task": "5", "local": "1", "gpu": "3", "mpi": "1", "resumed": "0",
        "retries_used": "0", "active_pid": "0", "session": "0",
    }  # fmt: skip
    assert "threads=25" in hello["options"]
    assert len(got.pop("MPSR_TOKEN")) == 32
    assert len(got.pop("MPSR_PROGRAM")) == 16
    assert int(got.pop("MPSR_FD")) >= 10
    assert got == {
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "25",
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "0=2048M",
        "CUDA_MPS_PIPE_DIRECTORY": "/pipes/a",
        "CUDA_VISIBLE_DEVICES": "GPU-bbbb",
        "MPSR_COLOR": "a",
        "MPSR_ENDING_LIBRARY": str(built / "libmpsr-ending.so"),
        "MPSR_ENDING_SOCKET": f"{tmp_path}/n0/jobs/7/e2.5",
        "MPSR_KEEPER": f"{tmp_path}/n0/jobs/7/k2.5",
        "MPSR_LEASE": f"{tmp_path}/n0/jobs/7.lease",
        "MPSR_OPTIONS": hello["options"],
        "MPSR_ROLE": "active",
        "MPSR_SPILL": f"{tmp_path}/n0/.mpsr-7",
        "MPSR_SPILL_MS": "45000",
    }
    node.agent.close()


def test_refused_by_the_agent(node: Node) -> None:
    supervised = node.start("true")
    agent = node.agent.accept()
    agent.expect("hello")
    agent.send("refuse", reason="no server answers")
    assert supervised.end() == (3, "", "mpsr: refused by the node agent: no server answers\n")


def test_an_agent_that_hangs_up_before_it_answers_is_asked_again(node: Node) -> None:
    supervised = node.start(*shell("echo ran"))
    first = node.agent.accept()
    first.expect("hello")
    first.close()
    assert node.agent.accept().place()["resumed"] == "0"
    assert supervised.end() == (0, "ran\n", "")


def test_recovery_log_is_appended_and_never_through_a_link(node: Node, tmp_path: Path) -> None:
    log, link = tmp_path / "job.log", tmp_path / "link.log"
    log.write_text("first\n")
    link.symlink_to(log)
    supervised, agent = node.both(*shell("read x; exit 0"))
    agent.send("log", path=log, line="a culprit is named")
    agent.send("log", path=link, line="not this")
    agent.send("log", path=tmp_path / "new.log", line="fresh")
    wait_for((tmp_path / "new.log").exists, "the new log")
    status, _, errors = supervised.end(stdin="\n")
    assert status == 0
    assert log.read_text() == "first\na culprit is named\n"
    assert stat.S_IMODE((tmp_path / "new.log").stat().st_mode) == 0o600
    assert "recovery log: cannot be written" in errors
    assert str(link) in errors


@pytest.mark.parametrize("kind", ["another's file", "fifo", "directory", "second name"])
def test_a_recovery_log_that_another_has_put_there_is_not_written(node: Node, tmp_path: Path, kind: str) -> None:
    """Others may write the directory of the job's output. The line is not lost: the task's standard error has it."""
    log, mine = tmp_path / "job.log", tmp_path / "mine"
    reader = -1
    match kind:
        case "another's file":
            if os.geteuid() != 0:
                pytest.skip("only root gives files away")
            log.touch()
            os.chown(log, 65534, 65534)
            log.chmod(0o666)
        case "fifo":
            os.mkfifo(log, 0o666)
            reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
        case "directory":
            log.mkdir()
        case "second name":
            mine.write_text("secret\n")
            log.hardlink_to(mine)
    supervised, agent = node.both(*shell("read x; exit 0"))
    agent.send("log", path=log, line="a culprit is named")
    agent.send("log", path=tmp_path / "new.log", line="fresh")
    wait_for((tmp_path / "new.log").exists, "the new log")
    status, _, errors = supervised.end(stdin="\n")
    assert status == 0
    assert f"mpsr: recovery log: cannot be written: {log}: " in errors
    assert "mpsr: a culprit is named\n" in errors
    if reader >= 0:
        assert os.read(reader, 100) == b""
        os.close(reader)
    elif log.is_file():
        assert log.read_text() == ("secret\n" if kind == "second name" else "")


def deep(top: Path, size: int) -> Path:
    """A directory whose path has so many bytes."""
    path = str(top)
    while (left := size - len(os.fsencode(path)) - 1) > 0:
        path += "/" + "d" * (left if left <= 200 else 150)
    os.makedirs(path)
    return Path(path)


@pytest.mark.parametrize("size", [1016, 2000, 4075])
def test_a_working_directory_may_be_as_deep_as_the_kernel_takes_it(node: Node, tmp_path: Path, size: int) -> None:
    directory = deep(tmp_path, size)
    supervised = launch(node.lease, *shell('echo "$MPSR_SPILL"'), cwd=directory)
    node.agent.accept().place()
    assert supervised.end() == (0, f"{directory}/.mpsr-{node.lease.job}\n", "")


@pytest.mark.parametrize("gone", [False, True], ids=["no-room", "removed"])
def test_without_a_place_to_spill_the_task_runs_all_the_same(node: Node, tmp_path: Path, gone: bool) -> None:
    directory = deep(tmp_path, 4090)
    leave = 'rmdir "$PWD" && ' if gone else ""
    script = f"{leave}exec {LAUNCHER} sh -c 'echo \"<$MPSR_SPILL>\"'"
    supervised = launch(node.lease, "-c", script, cwd=directory, launcher=Path("/bin/sh"))
    node.agent.accept().place()
    status, out, errors = supervised.end()
    assert (status, out) == (0, "<>\n")
    assert errors.startswith("mpsr: spill: no directory for it below the working directory: ")
    assert "a requeue begins from scratch" in errors


def test_the_recovery_log_goes_to_the_first_place_that_can_be_written(node: Node, tmp_path: Path) -> None:
    home, fifo, far = tmp_path / "home", tmp_path / "fifo", deep(tmp_path / ("ü" * 100), 4000) / "job.log"
    home.mkdir()
    os.mkfifo(fifo)
    supervised = node.start(*shell("read x; exit 0"), env={"HOME": str(home)})
    agent = node.agent.accept()
    agent.place()
    agent.send("log", path="/dev/null", other=tmp_path / "job.log", line="one")
    agent.send("log", path=fifo, other=fifo, line="two")
    agent.send("log", path=far, other=far, line="three")
    agent.send("log", path=home, other="", line="four")
    wait_for(lambda: (home / f"mpsr-{node.lease.job}.log").exists() and far.exists(), "the logs")
    assert supervised.end(stdin="\n") == (0, "", "")
    assert (tmp_path / "job.log").read_text() == "one\n"
    assert (home / f"mpsr-{node.lease.job}.log").read_text() == "two\nfour\n"
    assert far.read_text() == "three\n"


def test_malformed_messages_are_told_and_ignored(node: Node) -> None:
    supervised, agent = node.both(*shell("read x; exit 0"))
    agent.expect("started")
    for said in (
        b"verdict action",
        b"\xff",
        b"verdict action=explode",
        b"sing a=1",
        b"verdict action=restore",
        b"x" * (packet.MAX_BYTES + 1),
    ):
        agent.socket.send(said)
    agent.send("log", path=str(node.jobs / "barrier"), line="x")
    wait_for((node.jobs / "barrier").exists, "all messages to be read")
    status, _, errors = supervised.end(stdin="\n")
    assert status == 0
    assert len([line for line in errors.splitlines() if line.startswith("mpsr: agent: ")]) == 6


def test_unknown_and_unexecutable_programs(node: Node, tmp_path: Path) -> None:
    supervised, _agent = node.both("no-such-program")
    assert supervised.end() == (127, "", "mpsr: no-such-program: cannot be run: No such file or directory\n")
    plain = tmp_path / "plain"
    plain.write_text("x")
    supervised, _agent = node.both(str(plain))
    assert supervised.end() == (126, "", f"mpsr: {plain}: cannot be run: Permission denied\n")


# ---------------------------------------------------------------- leases


@pytest.mark.parametrize(
    "changes", [{"uid": 12345}, {"job": 8}, {"state": LeaseState.REFUSED, "reason": "no GPU left"}]
)
def test_a_lease_that_does_not_fit(built: Path, tmp_path: Path, changes: dict[str, object]) -> None:
    it = lease(tmp_path, **changes)  # type: ignore[arg-type]
    path = write_lease(it)
    supervised = launch(it, "true", env={"SLURM_JOB_ID": "7", "MPSR_LEASE": str(path)})
    status, _, errors = supervised.end()
    assert status == 3
    assert errors.startswith("mpsr: task: no GPU left" if "reason" in changes else "mpsr: task: lease of another")


@pytest.mark.parametrize("where", ["file", "directory", "owner", "absent", "link"])
def test_a_lease_that_is_not_to_be_trusted(built: Path, tmp_path: Path, where: str) -> None:
    it = lease(tmp_path)
    path = write_lease(it)
    match where:
        case "file":
            path.chmod(0o664)
        case "directory":
            path.parent.chmod(0o777)
        case "owner":
            os.chown(path, 1, 1)
        case "absent":
            path.unlink()
        case "link":
            path.rename(path.with_suffix(".real"))
            path.symlink_to(path.with_suffix(".real"))
    status, _, errors = launch(it, "true").end()
    assert status == 3
    assert errors.count("\n") == 1
    assert str(path.parent if where == "directory" else path) in errors


def test_no_program_and_no_job(built: Path, tmp_path: Path) -> None:
    it = lease(tmp_path)
    write_lease(it)
    assert launch(it).end()[0] == 2
    status, _, errors = launch(it, "true", env={"MPSR_LEASE": "", "SLURM_JOB_ID": "4000000"}).end()
    assert status == 3
    assert errors.startswith(
        "mpsr: task: cannot be seen here: /run/mpsr: the prolog did not run, or this is a container"
    )
