"""The hypotheses: every experiment of the hardware run, and what it says about each assumption of the simulator's profile.

On a real GPU the findings and the verdicts are recorded below build/gpu and nothing is asserted but that the run went through. On the
simulated GPU each verdict must be the profile's value: so the simulator does what the profile says, and the experiments can tell.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.backend import REAL, SIM, Choice, environment
from tests.conformance.hardware_kit import PATIENCE, alive
from tests.gpu.experiments import BUDGETS, FIRST, LIMITS, RESERVE
from tests.gpu.faults import RARE
from tests.gpu.judge_faults import SERVER_LOSING
from tests.gpu.verdicts import VERDICTS, outcome
from tests.gpusim import profile

RUN_SECONDS = BUDGETS["all"] * PATIENCE + 60
"""On a simulated GPU limits are multiplied: how fast the machine is must not count."""
pytestmark = [pytest.mark.hypotheses, pytest.mark.slow, pytest.mark.timeout(RUN_SECONDS + 60)]
ROOT = Path(__file__).parent.parent.parent
RECORDS = ROOT / "build" / "gpu"
NOT_SIMULATED = {
    "green": "function cuDeviceGetDevResource is not there",
    "cuda-checkpoint": "program cuda-checkpoint is not there",
}
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")
LACKING = {"torch_trains_on": "torch: torch is not installed", "cupy_kernels": "cupy: cupy is not installed"}
"""Needs the CUDA runtime."""
OF_USERS = ("other_uid", "fault_across_users", "fd_across_users")
FATAL = {kind: profile.values()["fault_codes"][kind] for kind in SERVER_LOSING}


@pytest.fixture(name="found", scope="module")
def _found(backend: Choice, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All findings; recorded where they are the truth."""
    real = backend.kind == REAL
    out = RECORDS if real else tmp_path_factory.mktemp("hardware-run")
    with environment(backend.kind) as environ:
        argv = [
            sys.executable,
            "-m",
            "tests.gpu.run",
            "--out",
            str(out),
            *([] if real else ["--small", "--patience", str(PATIENCE)]),
        ]
        subprocess.run(argv, env=dict(environ), cwd=ROOT, check=True, timeout=RUN_SECONDS)
        assert real or alive(f"SIMGPU_DIR={environ['SIMGPU_DIR']}") == []
    told: dict[str, Any] = json.loads((out / "results.json").read_text())["experiments"]
    return told


@pytest.fixture(name="assumed")
def _assumed(backend: Choice) -> None:
    """For tests of the simulator's answers: on a real GPU the findings stand in the record, right or not."""
    if backend.kind != SIM:
        pytest.skip(f"a real GPU: recorded in {RECORDS.relative_to(ROOT)}, not asserted")


@pytest.mark.parametrize("name", [pytest.param(one, marks=AS_ROOT if one in OF_USERS else ()) for one in VERDICTS])
def test_the_simulator_does_what_its_profile_says(found: dict[str, Any], assumed: None, name: str) -> None:
    one = outcome(name, found)
    if name in LACKING:
        assert (one.agrees, one.why) == (None, LACKING[name])
        return
    assert one.agrees, f"{one.id} {name}: seen {one.seen}, assumed {one.assumed} {one.why}"
    assert one.missing == ()


def test_every_experiment_is_in_the_record(found: dict[str, Any]) -> None:
    assert list(found) == list(LIMITS)


def test_every_experiment_ends_well_and_leaves_nothing(found: dict[str, Any], assumed: None) -> None:
    assert {name: (one["how"], one["ended_after_it"]) for name, one in found.items()} == dict.fromkeys(
        LIMITS, ("ended with status 0", [])
    )


def test_what_the_simulator_has_not_is_said_to_be_missing(found: dict[str, Any], assumed: None) -> None:
    for way, lacking in NOT_SIMULATED.items():
        for where in ("outside", "mps"):
            row = found["features"]["found"][way][where]
            assert row.get("works", row)["not there"] == lacking, (way, where)
    assert {where: "not there" in row for where, row in found["sparse"]["found"].items()} == {
        "outside": True,
        "mps": True,
    }


@pytest.mark.parametrize("way", ["graph", "cooperative"])
def test_e14_a_fault_in_another_way_of_launching_is_like_any_other(
    found: dict[str, Any], assumed: None, way: str
) -> None:
    row = found["features"]["found"][way]
    for where in ("outside", "mps"):
        assert (row[where]["works"]["code"], row[where]["right"]) == (0, True), where
    assert (row["fault"]["fault"]["code"], row["fault"]["innocent_heard"]) == (719, 719)
    assert row["fault"]["server_after"] == "ACTIVE"
    assert row["fault"]["again"]["code"] == 0


def failures(told: Any, path: str = "") -> dict[str, str]:
    """What went wrong in any row."""
    if not isinstance(told, dict):
        return {}
    here = {path: str(told["failed"])} if "failed" in told else {}
    return here | {where: why for name, each in told.items() for where, why in failures(each, f"{path}/{name}").items()}


def test_no_row_went_wrong(found: dict[str, Any], assumed: None) -> None:
    assert failures({name: one.get("found", {}) for name, one in found.items()}) == {}


def test_what_decides_the_design_has_its_time_in_six_minutes() -> None:
    deciding = ("environment", "two_servers", "kept_memory", "standby")
    assert list(FIRST)[: len(deciding)] == list(deciding)
    assert BUDGETS["first"] <= 6 * 60
    assert max(BUDGETS.values()) + 30 <= 10 * 60
    assert min(FIRST["two_servers"], FIRST["kept_memory"]) >= 75
    assert LIMITS["endings"] <= RESERVE


@pytest.mark.parametrize("kind", FATAL)
def test_h4_a_fault_leaves_the_other_server_alone(found: dict[str, Any], assumed: None, kind: str) -> None:
    row = found["two_servers"]["found"][kind]
    assert row["fault"]["code"] == FATAL[kind]
    assert row["bystander_on_other_server"]["rounds"] > 0
    assert "stopped_by" not in row["bystander_on_other_server"]
    assert row["states"] == ["FAULT", "ACTIVE"]
    assert row["faulted_server_after_exit"] == "ACTIVE"


@pytest.mark.parametrize("way", ["terminate_client, SIGTERM", "SIGTERM", "SIGKILL"])
def test_e13_a_neighbour_verified_its_results_through_the_end(found: dict[str, Any], assumed: None, way: str) -> None:
    tries = found["endings"]["found"][way]["tries"]
    assert {each["busy"] for each in tries} == {"queue", "endless"}
    assert all(each["neighbour"]["rounds"] > 0 and not each["hurt"] for each in tries)
    assert all(each["gone_s"] is not None for each in tries)


@pytest.mark.parametrize("kind", ["illegal-write", "trap", "SIGKILL"])
def test_h1_h2_h3_kept_memory_survives_byte_for_byte(found: dict[str, Any], assumed: None, kind: str) -> None:
    row = found["kept_memory"]["found"][f"made_by_client/{kind}"]
    for reader in ("other_server", "outside_mps", "recovered_server"):
        assert row[reader]["digest"]["sha256"] == row["before"], reader
        assert row[reader]["same_address"], reader


@pytest.mark.parametrize("kind", FATAL)
def test_h6_newcomers_hear_807_until_the_server_is_rebuilt(found: dict[str, Any], assumed: None, kind: str) -> None:
    row = found["one_server"]["found"][kind]
    assert row["newcomer_while_both_live"] == 807
    assert row["newcomers"][-1]["code"] == 0
    assert {each["code"] for each in row["newcomers"][:-1]} <= {807}


def test_h9_h10_ending_one_client_hurts_no_other_and_a_dead_server_is_806(found: dict[str, Any], assumed: None) -> None:
    rows = found["ending"]["found"]
    for way in ("terminate_client", "SIGKILL"):
        assert [answer["code"] for answer in rows[way]["bystander"]] == [0, 0, 0], way
    assert rows["terminate_client"]["busy_heard"]["code"] == 810
    heard = [answer["code"] for answer in rows["SIGKILL server"]["bystander"]]
    assert set(heard) <= {0, 806}  # the first call may come before the news
    assert heard[-1] == 806


def test_every_rung_carries_the_program_over_the_fault(found: dict[str, Any], assumed: None) -> None:
    rows = found["rungs"]["found"]
    assert {name.split()[0] for name in rows} == {"standby", "restore", "relaunch"}
    assert not [row for row in rows.values() if "failed" in row]


def test_a_commit_is_timed_with_and_without(found: dict[str, Any], assumed: None) -> None:
    for row in found["commit"]["found"].values():
        assert [len(each["with"]["commit_s"]) for each in row["rounds"]] == [4, 4]
        assert [len(each["without"]["commit_s"]) for each in row["rounds"]] == [0, 0]


@AS_ROOT
def test_e19_a_second_user_waits_its_turn_or_shares_the_server_and_its_fate(
    found: dict[str, Any], assumed: None
) -> None:
    rows = found["users"]["found"]
    turns = rows["one_at_a_time"]
    assert [turns[name]["code"] for name in ("alice", "bob_beside_alice", "bob_after_alice")] == [0, 807, 0]
    assert turns["alice_still_works"] == 0
    both = rows["shared"]
    assert [each["mps"] for each in both["clients_at_first"]] == [1, 1]
    assert (both["servers"], both["server_uid"], both["clients"]) == (1, 0, 2)
    assert any(f"{both['pids']['bob']}" in line and "fatal" in line for line in both["logged"])
    assert both["server_after"] == "ACTIVE"


def test_e1_rare_faults_stay_in_their_server(found: dict[str, Any], assumed: None) -> None:
    rows = found["rare_faults"]["found"]
    for kind in RARE:
        assert rows[f"outside/{kind}"]["bystander_heard"] == 0, kind
        here = rows[f"mps/{kind}"]
        assert here["bystander_heard"] == here["fault"]["code"], kind
        assert "stopped_by" not in here["other_server"], kind
        assert here["faulted_server_after_exit"] == "ACTIVE", kind


def test_a_job_goes_on_from_the_file_that_was_spilled(found: dict[str, Any], assumed: None) -> None:
    rows = {name: row for name, row in found["disk"]["found"].items() if name.endswith("MiB")}
    assert len(rows) == 1
    for name, row in rows.items():
        assert row["rc"] == 0, row
        assert row["file_bytes"] > int(name.split()[0]) << 20
        assert "failed" not in row
        assert int(row["seq"]) >= 1
