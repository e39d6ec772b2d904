"""What a program kept is zeros once nobody is to go on from it, in device memory and on the host."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from resilience.state import wiping
from resilience.state.link import KeeperLink
from tests.conformance.keeper_kit import TOKEN, connects, deposit
from tests.conformance.state_harness import ROOT, Program, Task, eventually

pytestmark = pytest.mark.sim

_GRANULE = 2 << 20

KEEPS = """
import os, sys, time, resilience
with resilience.session(arrays="device") as s:
    u = s.array("u", 5000, "uint8")
    h = s.array("h", 5000, "uint8", where="host")
    c = s.array("c", 5000, "uint8", where="host", constant=True)
    b = s.host("b")
    u.copy_from(b"\\xaa" * 5000)
    h[:] = c[:] = 0xAA
    b.write(b"\\xaa" * 5000)
    s.commit(1, secret="a-secret-value")
    print("kept", flush=True)
    if sys.argv[1] == "waits":
        time.sleep(99)
    os.read(int(os.environ["MPSR_FD"]), 99)
"""


def kept(task: Task, end: str) -> tuple[Program, list[int]]:
    """A program that keeps state in device memory and on the host, and the descriptors of all of it: record first."""
    task.start_keeper()
    program = task.start(["-c", KEEPS, end], MPSR_SPILL="")
    program.heard("session")
    assert program.process.stdout is not None
    assert program.process.stdout.readline() == "kept\n"
    link = KeeperLink(str(task.keeper_path), task.token, "reader")
    assert link.first is not None
    link.close()
    fds = link.first[1][1:]
    assert content(fds).count(b"\xaa") >= 2 * 4 * 5000 - 5000, "work and kept; what is constant is there once"
    assert b"a-secret-value" in content(fds)
    return program, fds


def content(fds: list[int]) -> bytes:
    return b"".join(os.pread(fd, _size(fd), 0) for fd in fds)


def _size(fd: int) -> int:
    """The simulated GPU's memory has a page of its own behind it."""
    size = os.fstat(fd).st_size
    return size if os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:") else size // _GRANULE * _GRANULE


def wiped(fds: list[int]) -> bool:
    return not any(content(fds))


def wiper(task: Task, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "resilience.state.wipe"]
    environ = task.environ("a", **more)
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=20)


def test_the_wiper_overwrites_what_a_killed_program_kept(task: Task) -> None:
    program, fds = kept(task, "waits")
    program.kill()
    done = wiper(task)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert wiped(fds)


def test_what_a_living_program_works_on_is_left_as_it_is(task: Task) -> None:
    program, fds = kept(task, "waits")
    before = content(fds)
    done = wiper(task)
    assert done.returncode == 1
    assert "kept state was not wiped: wipe: another process still uses the kept state" in done.stderr
    assert content(fds) == before
    program.kill()


def test_without_a_gpu_the_host_part_is_overwritten_and_the_rest_told(task: Task) -> None:
    program, fds = kept(task, "waits")
    program.kill()
    done = wiper(task, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 1
    assert "kept state was not wiped: " in done.stderr
    host = [fds[0], *(fd for fd in fds if wiping.of_host(fd))]
    assert wiped(host)
    assert not wiped(fds)


def test_a_program_that_ends_well_leaves_no_commit(task: Task) -> None:
    """What it works on is its own to the end: it may use it after the session."""
    program, fds = kept(task, "ends")
    program.tell("go")
    assert program.ended()[0] == 0
    left = content(fds)
    assert b"a-secret-value" not in left
    assert left.count(b"\xaa") <= 4 * 5000


def test_a_keeper_whose_supervisor_was_killed_overwrites_the_host_part(tmp_path: Path) -> None:
    path = tmp_path / "k"
    code = (
        "import subprocess, sys\n"
        f"subprocess.Popen([sys.executable, '-E', '-m', 'resilience.state.keeper', '--socket', {str(path)!r}])\n"
        "sys.stdin.read()\n"
    )
    environ = {"MPSR_TOKEN": TOKEN}
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environ, stdin=subprocess.PIPE) as parent:
        eventually("a keeper", lambda: connects(path))
        layout, fds, _ = deposit()
        memory = os.memfd_create(wiping.NAME)
        os.pwrite(memory, b"\xaa" * 9000, 1 << 20)
        fds[2] = memory
        link = KeeperLink(str(path), TOKEN, "active")
        link.put(layout, fds)
        link.close()
        parent.kill()
    eventually("the keeper's end", lambda: not path.exists())
    assert wiped([fds[1], memory])
    assert os.fstat(memory).st_blocks * 512 < 1 << 20, "pages that were never used are not made"
    assert os.pread(fds[3], 5, 0) == b"state", "not by its name the host's"


def test_a_sealed_array_is_cut_to_nothing() -> None:
    fd = os.memfd_create(wiping.NAME, os.MFD_ALLOW_SEALING)
    os.write(fd, b"\xaa" * 9000)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 0x10)  # F_SEAL_FUTURE_WRITE
    wiping.overwrite([-1, fd])
    assert os.fstat(fd).st_size == 0
