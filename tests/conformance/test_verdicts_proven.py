"""Verdicts stand on proof: processes that were clients of the servers they are taken for, well before, and results that were compared."""

import copy
import json
from typing import Any

import pytest

from tests.gpu.verdicts import outcome

DIGEST, OTHER = "a" * 64, "b" * 64


def client(server: str | None, **more: Any) -> dict[str, Any]:
    return {"server": server, "code": 0, "mps": int(server is not None), "pid": 7, **more}


SERVERS = {"one": {"pid": 11, "state": "ACTIVE", "ready": True}, "two": {"pid": 12, "state": "ACTIVE", "ready": True}}
WELL = {"rounds": 3, "slowest_us": 1.0, "digest": DIGEST}


def two_servers() -> dict[str, Any]:
    return {
        "proof": {"clients": {"culprit": client("one"), "bystander": client("two"), "watcher": client(None)}, "servers": SERVERS},
        "before": WELL, "fault": {"kind": "trap", "code": 719}, "bystander_on_other_server": WELL,
    }  # fmt: skip


def kept() -> dict[str, Any]:
    reader = {"import": 0, "map": 0, "digest": {"code": 0, "sha256": DIGEST}}
    return {
        "proof": {"clients": {"client": client("one"), "other_server": client("two")}, "servers": SERVERS},
        "before": DIGEST, "fault": {"code": 719}, "while_maker_lives": {"client": client(None), **reader},
        "other_server": {"client": client("two"), **reader}, "outside_mps": {"client": client(None), **reader},
        "recovered_server": {"client": client("one"), **reader},
    }  # fmt: skip


def standby() -> dict[str, Any]:
    clients = {"active": client("one"), "culprit": client("one"), "standby": client("two")}
    return {
        "proof": {"clients": clients, "servers": SERVERS}, "fault": {"code": 719}, "active_heard": {"code": 719}, "before": DIGEST,
        "same_addresses": True, "kept_bytes_same": True, "copy": {"code": 0}, "first_step": {"code": 0},
        "untouched": True, "rehearsal": {"code": 0}, "give_way": {"code": 0},
    }  # fmt: skip


def made(experiment: str, name: str, row: dict[str, Any]) -> dict[str, Any]:
    return {experiment: {"how": "ended with status 0", "found": {name: copy.deepcopy(row)}}}


def change(row: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The row with one thing otherwise."""
    row = json.loads(json.dumps(row))  # nothing of it stands in two places
    *way, last = path.split("/")
    place = row
    for word in way:
        place = place[word]
    place[last] = value
    return row


CASES = {
    "two_servers_one_gpu": ("two_servers", "trap", two_servers()),
    "memory_survives_server_fault": ("kept_memory", "made_by_client/trap", kept()),
    "raw_fd_keeps_memory": ("kept_memory", "made_by_client/SIGKILL", kept()),
    "import_across_servers": ("kept_memory", "made_by_client/SIGKILL", kept()),
    "standby_elsewhere": ("standby", "spare server/64 MiB", standby()),
}


@pytest.mark.parametrize("name", CASES)
def test_with_proof_it_agrees_and_says_which_part_is_missing(name: str) -> None:
    one = outcome(name, made(*CASES[name]))
    assert one.agrees, one
    assert bool(one.missing) == (name != "standby_elsewhere")
    assert ("IN PART" in one.line()) == bool(one.missing)


UNPROVEN = [
    ("two_servers_one_gpu", "proof/clients/bystander/mps", 0),
    ("two_servers_one_gpu", "proof/clients/bystander/code", 805),
    ("two_servers_one_gpu", "proof/clients/culprit/mps", 0),
    ("two_servers_one_gpu", "proof/servers/two", {"pid": 0, "state": "none", "ready": False}),
    ("two_servers_one_gpu", "proof/servers/two", SERVERS["one"]),
    ("two_servers_one_gpu", "proof", {}),
    ("two_servers_one_gpu", "before", {"rounds": 0, "stopped_by": {"code": 700}}),
    ("two_servers_one_gpu", "fault", {"kind": "trap", "code": 0}),
    ("memory_survives_server_fault", "proof/clients/client/mps", 0),
    ("memory_survives_server_fault", "fault", {"gone": "ended with status -9"}),
    ("raw_fd_keeps_memory", "outside_mps/client/code", 100),
    ("raw_fd_keeps_memory", "failed", "client: no descriptor of its memory: CUDA error 801"),
    ("import_across_servers", "proof/clients/other_server/mps", 0),
    ("import_across_servers", "proof/servers/two", SERVERS["one"]),
    ("standby_elsewhere", "proof/clients/standby/mps", 0),
    ("standby_elsewhere", "proof/clients/standby/server", "one"),
    ("standby_elsewhere", "active_heard", {"code": 0}),
    ("standby_elsewhere", "before", None),
]


@pytest.mark.parametrize(("name", "path", "value"), UNPROVEN)
def test_without_proof_it_is_not_seen(name: str, path: str, value: Any) -> None:
    experiment, row_name, row = CASES[name]
    one = outcome(name, made(experiment, row_name, change(row, path, value)))
    assert (one.agrees, one.seen) == (None, None)
    assert one.why


OTHERWISE = [
    ("two_servers_one_gpu", "bystander_on_other_server/digest", OTHER),
    ("two_servers_one_gpu", "bystander_on_other_server", {"rounds": 1, "stopped_by": {"code": 719}}),
    ("memory_survives_server_fault", "outside_mps/digest/sha256", OTHER),
    ("memory_survives_server_fault", "recovered_server/digest", {"code": 700}),
    ("raw_fd_keeps_memory", "outside_mps", {"client": client(None), "import": 1}),
    ("import_across_servers", "other_server", {"client": client("two"), "import": 1}),
    ("standby_elsewhere", "kept_bytes_same", False),
    ("standby_elsewhere", "untouched", False),
    ("standby_elsewhere", "rehearsal", {"code": 719}),
    ("standby_elsewhere", "give_way", {"code": 719}),
    ("standby_elsewhere", "first_step", {"code": 719}),
]


@pytest.mark.parametrize(("name", "path", "value"), OTHERWISE)
def test_what_went_otherwise_is_said_to_be_so(name: str, path: str, value: Any) -> None:
    experiment, row_name, row = CASES[name]
    one = outcome(name, made(experiment, row_name, change(row, path, value)))
    assert (one.agrees, one.seen) == (False, "no")


def test_a_reader_that_could_not_start_is_a_missing_part_and_no_lost_memory() -> None:
    row = change(kept(), "recovered_server", {"no_reader": "server one stays FAULT"})
    one = outcome("memory_survives_server_fault", made("kept_memory", "made_by_client/trap", row))
    assert one.agrees
    assert "recovered_server: server one stays FAULT" in one.missing


REFUSED = {"import": 1, "digest": {"code": 1}}


def test_lost_bytes_count_only_where_they_could_be_read_before() -> None:
    row = change(kept(), "while_maker_lives/digest/sha256", OTHER)
    for reader in ("other_server", "outside_mps", "recovered_server"):
        row = change(row, f"{reader}/digest/sha256", OTHER)
    for name, where in (("memory_survives_server_fault", "trap"), ("raw_fd_keeps_memory", "SIGKILL")):
        one = outcome(name, made("kept_memory", f"made_by_client/{where}", row))
        assert (one.agrees, "not even while its maker lived" in one.why) == (None, True)


def test_a_reader_that_may_not_have_the_memory_says_nothing_of_it() -> None:
    row = kept()
    row["other_server"] = {"client": client("two"), **REFUSED}
    survived = outcome("memory_survives_server_fault", made("kept_memory", "made_by_client/trap", row))
    assert survived.agrees
    assert any("other_server cannot import it: CUDA error 1" in one for one in survived.missing)
    assert outcome("import_across_servers", made("kept_memory", "made_by_client/SIGKILL", row)).seen == "no"
    row["outside_mps"] = {"client": client(None), **REFUSED}
    row["recovered_server"] = {"client": client("one"), **REFUSED}
    assert outcome("memory_survives_server_fault", made("kept_memory", "made_by_client/trap", row)).seen == "no"
    assert outcome("import_across_servers", made("kept_memory", "made_by_client/SIGKILL", row)).agrees is None


def test_a_client_that_was_idle_at_its_end_proves_nothing() -> None:
    row = endings()
    row["tries"][0]["busy_code"] = 0
    assert outcome("endings", made("endings", "SIGKILL", row)).agrees is None
    row["tries"][0]["busy_code"] = 600
    assert outcome("endings", made("endings", "SIGKILL", row)).agrees


def test_codes_are_judged_by_the_kinds_that_were_seen() -> None:
    one = outcome("fault_codes", made("two_servers", "trap", two_servers()))
    assert (one.agrees, one.seen) == (True, {"trap": 719})
    assert len(one.missing) == 6
    other = outcome("fault_codes", made("two_servers", "trap", change(two_servers(), "fault/code", 700)))
    assert (other.agrees, other.seen) == (False, {"trap": 700})


def endings(**neighbour: Any) -> dict[str, Any]:
    proof = {"clients": {"busy": client("one"), "neighbour": client("one")}, "servers": SERVERS}
    return {"proof": proof, "tries": [{"proof": proof, "neighbour": neighbour, "hurt": bool(neighbour)}]}


def test_one_victim_of_one_way_is_enough() -> None:
    nobody = outcome("endings", made("endings", "SIGKILL", endings()))
    assert nobody.agrees
    assert len(nobody.missing) == 3
    somebody = outcome("endings", made("endings", "SIGKILL", endings(code=0, wrong=2)))
    assert (somebody.agrees, somebody.seen) == (False, "others with SIGKILL")
