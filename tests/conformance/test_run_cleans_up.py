"""An experiment that hangs takes nothing with it: what it started, its MPS daemons too, is gone before the next one begins."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conformance.hardware_kit import alive, asked, environ, run_argv, scaled
from tests.gpu.experiments import DANGEROUS, PLANS
from tests.gpu.results import Results, read
from tests.gpu.run import Run, gvisor
from tests.gpu.strings import ROOT
from tests.gpu.verdicts import outcome
from tests.gpusim.host import SimHost
from tests.gpusim.inject import Injector

pytestmark = [pytest.mark.sim, pytest.mark.timeout(900)]
WAIT_SECONDS = 300.0


def wait_for(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not true():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.02)


HANGS = """
import json, sys
from pathlib import Path
from tests.gpu import run

print(json.dumps(run.conduct("two_servers", float(sys.argv[2]), Path(sys.argv[1]), True)))
"""


def test_a_stopped_experiments_daemons_are_ended(tmp_path: Path) -> None:
    """The simulated server takes fifteen minutes to start: the experiment stands in the middle of its work when its time is over."""
    with SimHost(memory=64, values={"server_init_ms": "900000"}) as host:
        seconds = scaled(4.0)
        argv = [sys.executable, "-c", HANGS, str(tmp_path), str(seconds)]
        done = subprocess.run(
            argv, env={**os.environ, **host.env()}, cwd=ROOT, capture_output=True, text=True, check=True, timeout=600
        )
        result, text = json.loads(done.stdout)
        mark = f"SIMGPU_DIR={host.path}".encode()
        left = [path for path in Path("/proc").glob("[0-9]*/environ") if mark in _read(path).split(b"\0")]
    assert result["how"] == f"stopped after {seconds:.0f} s"
    assert {name[:15] for name in result["ended_after_it"]} == {"nvidia-cuda-mps"}
    assert "Starting control daemon" in text
    assert left == []


def test_a_machine_whose_servers_do_not_start_is_still_asked_the_rest(tmp_path: Path) -> None:
    """The control program is there and starts, its servers end at once: no experiment waits for them again and again."""
    with SimHost(memory=256) as host:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin/nvidia-cuda-mps-control").symlink_to(host.build / "bin/nvidia-cuda-mps-control")
        (tmp_path / "lib").symlink_to(host.build / "lib")
        environ = {**os.environ, **host.env(), "PATH": f"{tmp_path}/bin:/usr/bin:/bin"}
        argv = [
            "-m",
            "tests.gpu.run",
            "--out",
            f"{tmp_path}/out",
            "--small",
            "--patience",
            "10",
            "--only",
            "environment,two_servers,costs",
        ]
        done = subprocess.run(
            [sys.executable, *argv], env=environ, cwd=ROOT, capture_output=True, text=True, check=True, timeout=600
        )
    assert "no client is served by MPS here (state none" in done.stdout
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["without_mps"].startswith("state none, rc 0")
    found = {name: one.get("found", {}) for name, one in results["experiments"].items()}
    assert found["environment"]["plain"]["code"] == 0
    assert "skipped" in found["two_servers"]
    assert list(found["costs"]) == ["outside"]
    assert {one["how"] for one in results["experiments"].values()} == {"ended with status 0"}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_run_that_is_killed_leaves_its_rows_and_nothing_else(tmp_path: Path) -> None:
    """SIGKILL while an experiment waits for two servers, after a row that needs none."""
    with SimHost(memory=256, values={"server_init_ms": "900000"}) as host:
        argv, mark = run_argv(tmp_path, "--only", "kept_memory"), f"SIMGPU_DIR={host.path}"
        run = subprocess.Popen(argv, env=environ(host), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: sum("mps-control -d" in one for one in alive(mark)) == 2, "two daemons")
        folders = {word.split()[-1] for word in alive(mark) if "tests.gpu.warden" in word}
        assert len(folders) == 1
        run.kill()
        run.wait()
        wait_for(lambda: not alive(mark), "the end of all that it started")
        assert not [one for one in folders if Path(one).exists()]
    assert json.loads((tmp_path / "results.json").read_text())["experiments"] == {}
    found = read(tmp_path / "results.json")
    assert found["kept_memory"]["how"] == "the run was killed in it"
    one = outcome("raw_fd_keeps_memory", found)
    assert one.agrees
    assert one.missing
    assert len(list(tmp_path.iterdir())) <= 8


def test_a_gpu_that_no_longer_answers_ends_the_run(tmp_path: Path) -> None:
    """The health check's own allocation is refused, which no experiment makes."""
    with SimHost(memory=256) as host:
        Injector(host.path).fail("cuMemAlloc_v2", 1, 999)
        told = asked(tmp_path, environ(host), "costs", "zeroing", "sightings")
    assert told.how("costs") == "ended with status 0"
    assert (
        told.how("zeroing")
        == told.how("sightings")
        == "not run: the GPU did not answer twice: cuMemAlloc: CUDA error 999"
    )
    assert told.results["unwell"] == ["cuMemAlloc: CUDA error 999"] * 2


def test_an_experiments_limit_and_the_runs_budget_hold(tmp_path: Path) -> None:
    with SimHost(memory=256, values={"server_init_ms": "900000"}) as host:
        seconds = scaled(6.0)
        argv = ("--patience", "1", "--limit", "two_servers=2", "--limit", f"zeroing={seconds}")
        told = asked(tmp_path, environ(host), "two_servers", "zeroing", argv=argv)
        short = asked(tmp_path / "short", environ(host), "two_servers", "zeroing", argv=("--budget", "0.1"))
    assert told.how("two_servers") == "stopped after 2 s"
    assert told.how("zeroing") == f"stopped after {seconds:.0f} s"
    assert told.found("zeroing")["outside"]["dirty"] == 0
    assert {short.how(name) for name in ("two_servers", "zeroing")} == {"no time left"}


def test_some_time_is_kept_for_the_dangerous_ones_which_come_last() -> None:
    names = list(PLANS["rest"])
    assert set(names[-len(DANGEROUS) :]) == set(DANGEROUS)
    assert not DANGEROUS.keys() & PLANS["first"].keys()
    chosen = argparse.Namespace(budget=100.0, plan="rest", patience=1.0, limit=[("torch", 500.0)], names=names)
    run = Run(chosen, Path(), Results.__new__(Results))
    run.gvisor = False
    assert 70 < run.seconds("torch") <= 75
    assert run.seconds(names[-1]) == DANGEROUS[names[-1]]
    run.gvisor = True
    assert 90 < run.seconds("torch") <= 100
    assert run.left_out(names[-1], 60.0) == "not run: dangerous, and this is gVisor"
    assert run.left_out("torch", 60.0) == ""


@pytest.mark.parametrize(
    ("release", "version", "ring", "is_one"),
    [
        ("4.4.0", "Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016", "", True),
        ("6.1.0", "", "[    0.000000] Starting gVisor...", True),
        ("6.18.44-fc", "Linux version 6.18.44-fc (builder@host)", "", False),
        ("4.4.0-210-generic", "Linux version 4.4.0-210-generic (buildd@lgw01)", "", False),
    ],
)
def test_gvisor_is_known_by_what_it_calls_itself(release: str, version: str, ring: str, is_one: bool) -> None:
    assert gvisor(release, version, ring) is is_one
