"""An experiment that hangs takes nothing with it: what it started, its MPS daemons too, is gone before the next one begins."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gpu.stage import ROOT
from tests.gpusim.host import SimHost

pytestmark = pytest.mark.sim

HANGS = """
import json, sys
from pathlib import Path
from tests.gpu import run

print(json.dumps(run.conduct("two_servers", 4.0, Path(sys.argv[1]), True)))
"""


def test_a_stopped_experiments_daemons_are_ended(tmp_path: Path) -> None:
    """The simulated server takes a minute to start, so the experiment stands in the middle of its work when its time is over."""
    with SimHost(memory=64, values={"server_init_ms": "60000"}) as host:
        argv = [sys.executable, "-c", HANGS, str(tmp_path)]
        done = subprocess.run(
            argv, env={**os.environ, **host.env()}, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
        )
        result, text = json.loads(done.stdout)
        mark = f"SIMGPU_DIR={host.path}".encode()
        left = [path for path in Path("/proc").glob("[0-9]*/environ") if mark in _read(path).split(b"\0")]
    assert result["how"] == "stopped after 4 s"
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
        argv = ["-m", "tests.gpu.run", "--out", f"{tmp_path}/out", "--small", "--only", "environment,two_servers,costs"]
        done = subprocess.run(
            [sys.executable, *argv], env=environ, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
        )
    assert "no MPS server starts here (state none" in done.stdout
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
