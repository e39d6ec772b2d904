"""The simulated control daemon against the recorded real ones, step by step.

Every difference stands in transcripts/differences.toml with a reason. A difference that is not listed fails, and so
does a listed one that is no longer there.
"""

from __future__ import annotations

import fnmatch
import json
import os
import tomllib
from pathlib import Path

import pytest

from tests.gpusim import host
from tests.gpusim.record import Recorder, Transcript
from tests.gpusim.record_scenarios import ROOT_SCENARIOS, SCENARIOS

FOLDER = Path(__file__).parent / "transcripts"
LISTED = tomllib.loads((FOLDER / "differences.toml").read_text(encoding="utf-8"))["difference"]


def differences(real: Transcript, ours: Transcript) -> dict[str, tuple[object, object]]:
    """`scenario / step / field` of everything that is not the same."""
    found: dict[str, tuple[object, object]] = {}
    for scenario, steps in real.items():
        if scenario in ROOT_SCENARIOS and os.geteuid() != 0:
            continue
        mine = ours[scenario]
        for step in [*steps, *(extra for extra in mine if extra not in steps)]:
            left, right = steps.get(step, {}), mine.get(step, {})
            for field in left | right:
                if left.get(field) != right.get(field):
                    found[f"{scenario} / {step} / {field}"] = (left.get(field), right.get(field))
    return found


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
