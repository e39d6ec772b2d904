"""A job that cannot have MPS: refused in its lease with a reason, and the node stays in service (guarantee 6)."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience.model.errors import GpuError
from resilience.model.lease import LeaseState
from resilience.parse import lease as text
from tests.unit.domain_world import ON, GpuTable, World, world

HOOKS = Path(__file__).resolve().parents[2] / "prolog_epilog"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as slurmd's prolog is")


@pytest.fixture(name="node")
def _node() -> Iterator[World]:
    with world() as node:
        yield node


def refused(node: World, job: int = 12) -> str:
    """The reason in a refused lease."""
    lease = text.parse(node.lease(job))
    assert lease.state is LeaseState.REFUSED
    assert (lease.colors, lease.gpus, lease.isolation) == ((), (), "none")
    return lease.reason


def nothing_left(node: World) -> None:
    assert node.domains() == []
    assert os.listdir(node.base / "run/n0/jobs") == []


@pytest.mark.parametrize("cuda", ["0", "MIG-5a5a5a5a-0001-0203-0405-060708090a0b"])
def test_a_job_on_a_mig_instance_is_refused_with_the_way_out(node: World, cuda: str) -> None:
    node.gpus.mig = frozenset({node.gpus.uuids[0]})
    environ = node.environ(12, ON, {"SLURM_JOB_GPUS": "0", "CUDA_VISIBLE_DEVICES": cuda})
    assert node.prolog(environ) == 0
    assert "MIG" in refused(node)
    assert "--mps=off" in refused(node)
    node.epilog(environ)
    nothing_left(node)


@pytest.mark.parametrize("asked", ["", "mps=off", "mps=off;domain=job", "domain=job"])
def test_a_job_that_did_not_ask_leaves_no_trace(node: World, asked: str) -> None:
    assert node.prolog(node.environ(12, asked)) == 0
    assert node.epilog(node.environ(12, asked)) == 0
    assert os.listdir(node.base) == []
    assert node.journal.rows == []


@pytest.mark.parametrize(
    ("asked", "more", "why"),
    [
        (ON, {"SLURM_JOB_GPUS": "", "CUDA_VISIBLE_DEVICES": ""}, "no GPU in this allocation"),
        (ON, {"SLURM_JOB_GPUS": "7", "CUDA_VISIBLE_DEVICES": "7"}, "the driver does not show: 7"),
        ("mps=on;domain=shared", {}, "--mps-domain: shared is forbidden by the administrator"),
        ("mps=on;domain=$(reboot)", {}, "character not allowed"),
        ("mps=on;require=isolation", {}, "isolation"),
        (ON, {}, "control daemon did not start"),
    ],
)
def test_a_refusal_says_why_and_leaves_nothing(node: World, asked: str, more: dict[str, str], why: str) -> None:
    environ = node.environ(12, asked, more)
    assert node.prolog(environ) == 0
    assert why in refused(node)
    assert [row["job"] for row in node.journal.of("job.refused")] == [12]
    assert node.epilog(environ) == 0
    nothing_left(node)
    assert node.journal.of("job.closed")[0]["residue"] == []


def test_a_missing_control_program_is_named(node: World) -> None:
    node.prolog(node.environ(12))
    assert "/nonexistent/nvidia-cuda-mps-control -d: status 127" in refused(node)
    assert "paths.mps_control" in refused(node)


def test_a_broken_driver_is_named(node: World) -> None:
    class Broken(GpuTable):
        def all(self) -> tuple[()]:
            raise GpuError("nvmlInit", 9, "Driver Not Loaded", hint="see nvidia-smi")

    node.gpus = Broken()
    assert node.prolog(node.environ(12)) == 0
    assert "nvmlInit: NVML error 9: Driver Not Loaded (see nvidia-smi)" in refused(node)


def test_a_fault_in_our_own_code_refuses_the_job(node: World) -> None:
    class Odd(GpuTable):
        def all(self) -> tuple[()]:
            raise ZeroDivisionError("odd")

    node.gpus = Odd()
    assert node.prolog(node.environ(12)) == 0
    assert "ZeroDivisionError: odd" in refused(node)


def test_a_path_that_is_too_long_for_a_socket(node: World) -> None:
    long = node.base / ("x" * 80)
    node.settings = replace(node.settings, paths=replace(node.settings.paths, run=str(long)))
    assert node.prolog(node.environ(12)) == 0
    reason = text.parse((long / "n0/jobs/12.lease").read_text()).reason
    assert "longer than 107 bytes" in reason
    assert "shorter paths.run" in reason


def test_only_a_failure_of_ours_drains_and_only_where_the_site_says_so(
    node: World, capsys: pytest.CaptureFixture[str]
) -> None:
    strict = node.drained()
    assert strict.prolog(node.environ(12, "mps=on;domain=evil")) == 0
    assert strict.prolog(node.environ(12, ON, {"SLURM_JOB_GPUS": "", "CUDA_VISIBLE_DEVICES": ""})) == 0
    assert capsys.readouterr().out == ""
    assert strict.prolog(node.environ(12, uid=64208)) == 1  # who has no process here
    assert capsys.readouterr().out == "drain\n"
    assert node.prolog(node.environ(12)) == 0


def test_what_the_jobs_user_may_have_done_drains_no_node(node: World, capsys: pytest.CaptureFixture[str]) -> None:
    """A process of the user, which may stop the daemon that is started as the user; it hides, as far as one can."""
    strict, user = node.drained(), 64209
    hides = "import ctypes; ctypes.CDLL(None).prctl(4, 0); print('up', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hides], user=user, group=user, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"up\n"
        assert strict.prolog(node.environ(12, uid=user)) == 0
        assert text.parse(node.lease(12)).state is LeaseState.REFUSED
        assert capsys.readouterr().out == ""
        other.kill()
    assert strict.prolog(node.environ(13, uid=user)) == 1
    assert capsys.readouterr().out == "drain\n"


@settings(max_examples=40)
@given(st.text(min_size=1).filter(lambda asked: "\0" not in asked))
def test_no_wish_of_a_user_fails_the_prolog(node: World, asked: str) -> None:
    environ = node.environ(12, asked)
    assert node.drained().prolog(environ) == 0
    assert node.epilog(environ) == 0
    assert node.domains() == []


def test_a_prolog_without_slurms_environment(node: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert node.prolog({"SPANK_MPSR": ON}) == 0
    assert "SLURMD_NODENAME" in capsys.readouterr().err
    assert os.listdir(node.base) == []


def test_a_lease_that_cannot_be_trusted_is_told_and_replaced(node: World) -> None:
    node.prolog(node.environ(12))
    path = node.base / "run/n0/jobs/12.lease"
    path.chmod(0o666)
    assert node.epilog(node.environ(12)) == 0
    assert "mode 0666" in str(node.journal.of("job.closed")[0]["residue"])
    assert not path.exists()


# ---------------------------------------------------------------------------------------------------- the hooks


@pytest.fixture(name="mpsr")
def _mpsr(tmp_path: Path) -> Path:
    program = tmp_path / "mpsr"
    program.write_text('#!/bin/sh\necho "$1" >>"$(dirname "$0")/calls"\neval "$FAKE"\n')
    program.chmod(0o755)
    return program


def hook(which: str, mpsr: Path, fake: str = "exit 0", asked: str = ON, **more: str) -> tuple[int, str, str]:
    environ = {"SPANK_MPSR": asked, "MPSR_BIN": str(mpsr), "FAKE": fake} | more
    done = subprocess.run([HOOKS / which], env=environ, capture_output=True, text=True, check=False, timeout=20)
    calls = mpsr.parent / "calls"
    return done.returncode, calls.read_text() if calls.exists() else "", done.stderr


def test_the_prolog_passes_a_job_that_did_not_ask(mpsr: Path) -> None:
    for asked in ("", "mps=off", "mps=off;domain=user"):
        assert hook("prolog", mpsr, "exit 1", asked) == (0, "", "")
    assert hook("prolog", mpsr) == (0, "prolog\n", "")


@pytest.mark.parametrize("which", ["prolog", "epilog"])
@pytest.mark.parametrize(
    ("fake", "status"),
    [
        ("exit 1", 0),
        ("echo Traceback; exit 1", 0),
        ("echo drain; exit 0", 0),
        ("echo drain; exit 127", 0),
        ("kill -9 $$", 0),
        ("echo drain; exit 1", 1),
    ],
)
def test_only_the_word_drains(which: str, fake: str, status: int, mpsr: Path) -> None:
    assert hook(which, mpsr, fake)[0] == status


def test_a_late_program_is_ended_and_the_node_stays(mpsr: Path) -> None:
    status, calls, err = hook("prolog", mpsr, "exec sleep 60", MPSR_DEADLINE="0.2")
    assert (status, calls) == (0, "prolog\n")
    assert "ended with status 124" in err


@pytest.mark.parametrize("path", ["mpsr", "/nonexistent/mpsr", ""])
def test_a_program_that_is_not_there_is_named(path: str, mpsr: Path) -> None:
    status, calls, err = hook("prolog", mpsr, MPSR_BIN=path or "relative/mpsr")
    assert (status, calls) == (0, "")
    assert "not an executable with its full path" in err


def test_hostile_wishes_are_not_evaluated_by_the_hook(mpsr: Path, tmp_path: Path) -> None:
    assert hook("prolog", mpsr, asked=f"$(touch {tmp_path}/evil);`touch {tmp_path}/evil`")[0] == 0
    assert not (tmp_path / "evil").exists()
