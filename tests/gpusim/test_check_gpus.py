"""`mpsr check` on the simulated GPUs: what NVML answers with an error is told, and is not taken for a no."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.gpusim.driver_harness import LIMIT, ROOT, built
from tests.gpusim.host import SimHost
from tests.gpusim.inject import Injector

pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
LISTING = """
import json
from resilience.adapters.gpu.nvml import NvmlGpus
print(json.dumps([[one.mig, one.capability, list(one.unanswered)] for one in NvmlGpus().all()]))
"""


@pytest.fixture
def sim() -> Iterator[SimHost]:
    with SimHost(gpus=1, memory=64, build=built()) as made:
        yield made


def python(sim: SimHost, *words: str) -> subprocess.CompletedProcess[str]:
    environment = sim.env() | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


@pytest.mark.parametrize(
    ("rules", "seen"),
    [
        ({}, [False, 9, []]),
        ({"mig": 1}, [True, 9, []]),
        ({"mig_error": 3, "capability_error": 13}, [False, 0, []]),
        ({"mig_error": 999}, [None, 9, ["nvmlDeviceGetMigMode: NVML error 999: Unknown Error"]]),
        ({"capability_error": 15}, [False, None, ["nvmlDeviceGetCudaComputeCapability: NVML error 15"]]),
    ],
)
def test_only_an_unknown_question_is_a_no(sim: SimHost, rules: dict[str, int], seen: list[object]) -> None:
    for key, value in rules.items():
        Injector(sim.path).set(key, value)
    done = python(sim, "-c", LISTING)
    ((mig, capability, unanswered),) = json.loads(done.stdout)
    assert [mig, capability] == seen[:2]
    assert isinstance(seen[2], list)
    assert all(str(got).startswith(told) for got, told in zip(unanswered, seen[2], strict=True)), unanswered


def test_the_check_tells_of_mig_and_of_errors_once(sim: SimHost) -> None:
    config = sim.path / "mpsr.yaml"
    config.write_text("{}")
    words = ("-m", "resilience.cli.main", "check", "--config", str(config), "--slurm-conf", str(sim.path / "none"))
    Injector(sim.path).set("mig_error", 999)
    done = python(sim, *words)
    uuid = sim.gpus[0].uuid
    assert done.stdout.count(f"warning {uuid}: nvmlDeviceGetMigMode: NVML error 999: Unknown Error\n") == 1, done
    assert "MIG:" not in done.stdout
    Injector(sim.path).clear()
    Injector(sim.path).set("mig", 1)
    done = python(sim, *words)
    assert [line.split(": ")[0] for line in done.stdout.splitlines() if uuid in line] == ["note    MIG"], done.stdout
