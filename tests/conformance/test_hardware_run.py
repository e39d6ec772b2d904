"""The hardware run on the simulated GPU: every experiment ends, and what it finds is what the simulator's profile assumes.

On a GPU the same experiments record the truth (tests/gpu/README.md). Here each assertion names the hypothesis that it stands for.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.experiments import LIMITS
from tests.gpusim.host import SimHost

pytestmark = [pytest.mark.sim, pytest.mark.slow, pytest.mark.timeout(240)]
ROOT = Path(__file__).parent.parent.parent
NAMES = ("environment", "two_servers", "kept_memory", "one_server", "standby", "ending", "zeroing", "rungs", "commit")
FATAL = {"illegal-write": 700, "illegal-read": 700, "trap": 719, "misaligned": 716, "illegal-instruction": 715}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("hardware-run")
    with SimHost(memory=1024) as host:
        argv = [sys.executable, "-m", "tests.gpu.run", "--small", "--out", str(out), "--only", ",".join(NAMES)]
        subprocess.run(argv, env={**os.environ, **host.env()}, cwd=ROOT, check=True, timeout=220)
    told: dict[str, Any] = json.loads((out / "results.json").read_text())["experiments"]
    return told


def test_every_experiment_ends_well(found: dict[str, Any]) -> None:
    assert {name: found[name]["how"] for name in NAMES} == dict.fromkeys(NAMES, "ended with status 0")


def test_limits_leave_room_in_nine_minutes() -> None:
    assert sum(LIMITS.values()) <= 9 * 60 + 30
    assert set(NAMES) < set(LIMITS)


@pytest.mark.parametrize("kind", FATAL)
def test_h4_a_fault_leaves_the_other_server_alone(found: dict[str, Any], kind: str) -> None:
    row = found["two_servers"]["found"][kind]
    assert row["fault"]["code"] == FATAL[kind]
    assert row["bystander_on_other_server"]["rounds"] > 0
    assert "stopped_by" not in row["bystander_on_other_server"]
    assert row["states"] == ["FAULT", "ACTIVE"]
    assert row["faulted_server_after_exit"] == "ACTIVE"


@pytest.mark.parametrize("kind", ["illegal-write", "trap", "SIGKILL"])
def test_h1_h2_h3_kept_memory_survives_byte_for_byte(found: dict[str, Any], kind: str) -> None:
    row = found["kept_memory"]["found"][f"made_by_client/{kind}"]
    for reader in ("other_server", "outside_mps", "recovered_server"):
        assert row[reader]["digest"]["sha256"] == row["before"], reader
        assert row[reader]["same_address"], reader


@pytest.mark.parametrize("kind", FATAL)
def test_h5_an_innocent_client_hears_the_culprits_code_from_every_call(found: dict[str, Any], kind: str) -> None:
    row = found["one_server"]["found"][kind]
    assert row["innocent_first_error"]["answer"]["code"] == FATAL[kind]
    assert row["innocent_calls"]["calls"]["cuStreamSynchronize"]["code"] == FATAL[kind]


@pytest.mark.parametrize("kind", FATAL)
def test_h6_newcomers_hear_807_until_the_server_is_rebuilt(found: dict[str, Any], kind: str) -> None:
    row = found["one_server"]["found"][kind]
    assert row["newcomer_while_both_live"] == 807
    assert row["newcomers"][-1]["code"] == 0
    assert {each["code"] for each in row["newcomers"][:-1]} <= {807}


def test_a_standby_takes_over_what_it_has_mapped(found: dict[str, Any]) -> None:
    for size, row in found["standby"]["found"].items():
        assert row["same_addresses"], size
        assert row["active_heard"]["code"] == FATAL["trap"], size
        assert row["copy"]["code"] == row["first_step"]["code"] == 0, size
        assert row["kept_bytes_same"], size


def test_h9_h10_ending_one_client_hurts_no_other_and_a_dead_server_is_806(found: dict[str, Any]) -> None:
    rows = found["ending"]["found"]
    for way in ("terminate_client", "SIGKILL"):
        assert [answer["code"] for answer in rows[way]["bystander"]] == [0, 0, 0], way
    assert rows["terminate_client"]["busy_heard"]["code"] == 810
    heard = [answer["code"] for answer in rows["SIGKILL server"]["bystander"]]
    assert set(heard) <= {0, 806}  # the first call may come before the news
    assert heard[-1] == 806


def test_every_rung_carries_the_program_over_the_fault(found: dict[str, Any]) -> None:
    rows = found["rungs"]["found"]
    assert {name.split()[0] for name in rows} == {"standby", "restore", "relaunch"}
    assert not [row for row in rows.values() if "failed" in row]


def test_a_commit_is_timed_with_and_without(found: dict[str, Any]) -> None:
    for rounds in found["commit"]["found"].values():
        assert [len(each["with"]["commit_s"]) for each in rounds] == [4, 4, 4]
        assert [len(each["without"]["commit_s"]) for each in rounds] == [0, 0, 0]
