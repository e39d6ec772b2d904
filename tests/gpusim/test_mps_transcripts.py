"""The simulated control daemon against the recorded real ones, step by step.

Every difference stands in transcripts/differences.toml with a reason. A difference that is not listed fails, and so
does a listed one that is no longer there.
"""

from __future__ import annotations

import fnmatch
import json
import tomllib
from pathlib import Path

import pytest

from tests.gpusim import host
from tests.gpusim.record import Recorder
from tests.gpusim.record_scenarios import SCENARIOS
from tests.gpusim.transcript_diff import differences

FOLDER = Path(__file__).parent / "transcripts"
LISTED = tomllib.loads((FOLDER / "differences.toml").read_text(encoding="utf-8"))["difference"]


@pytest.mark.parametrize("dialect", ["535", "550", "580", "595"])
def test_simulator_says_what_the_real_daemon_said(dialect: str, sim_build: Path) -> None:
    real = json.loads((FOLDER / f"{dialect}.json").read_text(encoding="utf-8"))["scenarios"]
    with host.SimHost(gpus=0, build=sim_build) as bare:
        env = bare.env(SIMGPU_MPS_DIALECT=dialect, TZ="UTC")
        binary = str(sim_build / "bin" / "nvidia-cuda-mps-control")
        ours = Recorder(binary, env, dialect, [str(sim_build / "bin" / "gpusim-mps-client")]).record(SCENARIOS)
    found = differences(real, json.loads(json.dumps(ours)))
    listed = [entry["where"] for entry in LISTED if dialect in entry["dialects"]]
    surprises = {
        where: pair for where, pair in found.items() if not any(fnmatch.fnmatchcase(where, one) for one in listed)
    }
    assert not surprises, "\n".join(f"{where}\n  real {pair[0]}\n  ours {pair[1]}" for where, pair in surprises.items())
    stale = [one for one in listed if not any(fnmatch.fnmatchcase(where, one) for where in found)]
    assert not stale, f"listed in differences.toml, but the same by now: {stale}"


def test_every_difference_has_a_reason() -> None:
    assert all(entry["reason"].strip() for entry in LISTED)
