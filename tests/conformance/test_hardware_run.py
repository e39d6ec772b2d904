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
from tests.gpu.experiments import LIMITS
from tests.gpu.faults import RARE
from tests.gpu.run import BUDGET_SECONDS
from tests.gpu.verdicts import SERVER_LOSING, VERDICTS, outcome
from tests.gpusim import profile

pytestmark = [pytest.mark.hypotheses, pytest.mark.slow, pytest.mark.timeout(BUDGET_SECONDS + 60)]
ROOT = Path(__file__).parent.parent.parent
RECORDS = ROOT / "build" / "gpu"
NOT_SIMULATED = {
    "green": "function cuDeviceGetDevResource is not there",
    "cuda-checkpoint": "program cuda-checkpoint is not there",
}
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")
OF_USERS = ("other_uid", "fault_across_users", "fd_across_users")
FATAL = {kind: profile.values()["fault_codes"][kind] for kind in SERVER_LOSING}


@pytest.fixture(name="found", scope="module")
def _found(backend: Choice, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All findings; recorded where they are the truth."""
    real = backend.kind == REAL
    out = RECORDS if real else tmp_path_factory.mktemp("hardware-run")
    with environment(backend.kind) as environ:
        argv = [sys.executable, "-m", "tests.gpu.run", "--out", str(out), *([] if real else ["--small"])]
        subprocess.run(argv, env=dict(environ), cwd=ROOT, check=True, timeout=BUDGET_SECONDS + 30)
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
    assert one.agrees, f"{one.id} {name}: seen {one.seen}, assumed {one.assumed} {one.why}"


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


def test_limits_leave_room_in_nine_minutes() -> None:
    assert sum(LIMITS.values()) <= BUDGET_SECONDS <= 9 * 60 - 10


@pytest.mark.parametrize("kind", FATAL)
def test_h4_a_fault_leaves_the_other_server_alone(found: dict[str, Any], assumed: None, kind: str) -> None:
    row = found["two_servers"]["found"][kind]
    assert row["fault"]["code"] == FATAL[kind]
    assert row["bystander_on_other_server"]["rounds"] > 0
    assert "stopped_by" not in row["bystander_on_other_server"]
    assert row["states"] == ["FAULT", "ACTIVE"]
    assert row["faulted_server_after_exit"] == "ACTIVE"


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
    for rounds in found["commit"]["found"].values():
        assert [len(each["with"]["commit_s"]) for each in rounds] == [4, 4]
        assert [len(each["without"]["commit_s"]) for each in rounds] == [0, 0]


@AS_ROOT
def test_e19_a_second_user_waits_its_turn_or_shares_the_server_and_its_fate(
    found: dict[str, Any], assumed: None
) -> None:
    rows = found["users"]["found"]
    assert rows["one_at_a_time"] == {
        "alice": 0,
        "bob_beside_alice": 807,
        "alice_still_works": 0,
        "bob_after_alice": 0,
    }
    both = rows["shared"]
    assert (both["starts"], both["servers"], both["server_uid"], both["clients"]) == ([0, 0], 1, 0, 2)
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
