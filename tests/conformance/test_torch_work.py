"""What the run's PyTorch program does on kept memory, on host memory with a torch without CUDA. Left out where torch is not installed."""

import ctypes
import hashlib
import json
import mmap
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.backend import MEMORY_MIB
from tests.conformance.hardware_kit import asked, environ
from tests.gpu.strings import ROOT
from tests.gpusim.host import SimHost

torch = pytest.importorskip(
    "torch", reason="torch is not installed: the logic of the experiment `torch` is not tried here"
)
SIZE = 8 << 20
STAND_IN = Path(__file__).with_name("torch_stand_in")
TRAIN = """
import ctypes, json, mmap, os, signal, sys
from tests.gpu import torch_work

path, fresh, steps, then = sys.argv[1:]
memory = mmap.mmap(os.open(path, os.O_RDWR), 0)
raw = torch_work.host_bytes(ctypes.addressof(ctypes.c_char.from_buffer(memory)), len(memory))
print(json.dumps(torch_work.Training(raw, fresh=fresh == "fresh").steps(int(steps))), flush=True)
if then == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


def train(path: Path, *, fresh: bool, steps: int, then: str = "ends") -> dict[str, Any]:
    words = [str(path), "fresh" if fresh else "kept", str(steps), then]
    done = subprocess.run([sys.executable, "-c", TRAIN, *words], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False,
                          capture_output=True, text=True, timeout=110)  # fmt: skip
    assert done.returncode == (-signal.SIGKILL if then == "killed" else 0), done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def memory(path: Path) -> Path:
    path.write_bytes(bytes(SIZE))
    return path


def test_training_goes_on_to_the_bit_in_memory_that_outlived_its_process(tmp_path: Path) -> None:
    kept, whole = memory(tmp_path / "kept"), memory(tmp_path / "whole")
    half = train(kept, fresh=True, steps=20, then="killed")
    rest = train(kept, fresh=False, steps=20)
    undisturbed = train(whole, fresh=True, steps=40)
    assert (half["last"], rest["first"], rest["last"]) == (20, 20, 40)
    assert rest["sha256"] == undisturbed["sha256"] != half["sha256"]
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == rest["sha256"]


def test_a_dlpack_capsule_aliases_the_memory() -> None:
    from tests.gpu import dlpack, torch_work

    anonymous = mmap.mmap(-1, 1 << 20)
    address = ctypes.addressof(ctypes.c_char.from_buffer(anonymous))
    tensor = torch_work.by_dlpack(address, (1 << 20) // 4, dlpack.CPU)
    assert tensor.data_ptr() == address
    right = torch_work.step_in_place(tensor, 3)
    assert hashlib.sha256(anonymous[:]).hexdigest() == right


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_experiment_with_a_stand_in_for_torchs_cuda(tmp_path: Path) -> None:
    """Everything of it but cupy and the graph: who is client of which server, the fault, torch's exception, the reader."""
    with SimHost(memory=MEMORY_MIB) as host:
        told = asked(tmp_path, environ(host, PYTHONPATH=str(STAND_IN)), "environment", "torch")
    assert told.how("torch") == "ended with status 0"
    one = told.verdict("torch_trains_on")
    assert (one.agrees, one.seen, one.missing) == (True, "to the bit", ()), one
    row = told.found("torch")["training"]
    assert (row["torch_said"]["raised"], row["torch_said"]["text"]) == ("RuntimeError", "CUDA error: 719")
    assert row["trainer_gone_s"] is not None
    for where in ("outside", "mps"):
        ways = told.found("torch")[f"bindings/{where}"]["ways"]
        for name in ("from_dlpack", "as_tensor"):
            assert ways[name]["same_pointer"]
            assert ways[name]["sha256"] == ways[name]["right"]
        assert "No module named 'cupy'" in ways["cupy"]["failed"]


@pytest.mark.sim
def test_a_torch_that_sees_no_gpu_says_so(tmp_path: Path) -> None:
    with SimHost(memory=MEMORY_MIB) as host:
        told = asked(tmp_path, environ(host), "torch")
    assert told.found("torch")["skipped"] == f"torch {torch.__version__} sees no GPU"
    assert told.verdict("torch_trains_on").why.endswith("sees no GPU")
