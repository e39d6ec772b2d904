"""The hardware run on machines that refuse: what can be answered is, what cannot is `not seen` with the reason."""

import json
import stat
from pathlib import Path

import pytest

from tests.conformance.backend import MEMORY_MIB
from tests.conformance.hardware_kit import (
    CONTROL,
    OTHER_WORDS,
    SECOND_REFUSED,
    TWO_KINDS,
    asked,
    control,
    environ,
    refuse,
    script,
)
from tests.gpusim.host import SimHost
from tests.gpusim.inject import Injector

pytestmark = [pytest.mark.sim, pytest.mark.timeout(900)]
DECIDING = ("raw_fd_keeps_memory", "memory_survives_server_fault", "import_across_servers", "two_servers_one_gpu")
NOT_SUPPORTED = 801
LONG = tuple(word for name in ("two_servers", "kept_memory", "one_server") for word in ("--limit", f"{name}=2000"))
"""For tests of waits within an experiment."""


def test_a_second_daemon_that_is_refused_confirms_nothing_of_two_servers(tmp_path: Path) -> None:
    with SimHost(memory=MEMORY_MIB) as host:
        there = control(host, tmp_path / "bin", SECOND_REFUSED)
        told = asked(tmp_path / "out", environ(host, there), "environment", "two_servers", "standby", argv=TWO_KINDS)
    assert told.agrees("two_servers_one_gpu", "standby_elsewhere", "standby_outside") == {
        "two_servers_one_gpu": None,
        "standby_elsewhere": None,
        "standby_outside": True,
    }
    assert "bystander is not a client of server two: attribute 133 is 0" in told.verdict("two_servers_one_gpu").why


@pytest.mark.slow
def test_beside_a_second_daemon_that_is_refused_kept_memory_is_asked_as_far_as_it_goes(tmp_path: Path) -> None:
    with SimHost(memory=MEMORY_MIB) as host:
        there = control(host, tmp_path / "bin", SECOND_REFUSED)
        told = asked(tmp_path / "out", environ(host, there), "environment", "kept_memory")
    survived = told.verdict("memory_survives_server_fault")
    assert survived.agrees
    assert any("other_server" in one for one in survived.missing)
    assert told.agrees("raw_fd_keeps_memory", "import_across_servers") == {
        "raw_fd_keeps_memory": True,
        "import_across_servers": None,
    }


@pytest.mark.slow
def test_a_server_that_calls_its_states_otherwise_is_used_all_the_same(tmp_path: Path) -> None:
    with SimHost(memory=MEMORY_MIB) as host:
        there = control(host, tmp_path / "bin", OTHER_WORDS)
        told = asked(
            tmp_path / "out",
            environ(host, there),
            "environment",
            "two_servers",
            "kept_memory",
            "standby",
            argv=TWO_KINDS,
        )
    assert told.found("environment")["server"]["state"] == "Serving"
    assert "without_mps" not in told.results
    assert set(told.agrees(*DECIDING, "standby_elsewhere").values()) == {True}
    assert told.found("two_servers")["trap"]["states"] == ["Recovering", "Serving"]


@pytest.mark.slow
def test_a_server_that_is_slow_beyond_patience_leaves_what_needs_none(tmp_path: Path) -> None:
    with SimHost(memory=MEMORY_MIB, values={"server_init_ms": "900000"}) as host:
        told = asked(
            tmp_path / "out",
            environ(host),
            "environment",
            "two_servers",
            "kept_memory",
            "zeroing",
            argv=("--patience", "0.5"),
        )
    assert told.found("environment")["plain"]["code"] == 0
    assert told.how("environment") == "ended with status 0"
    assert told.results["without_mps"].startswith("state none, rc 0")
    assert told.verdict("raw_fd_keeps_memory").agrees
    assert told.verdict("two_servers_one_gpu").agrees is None


@pytest.mark.slow
def test_memory_that_vmm_refuses_is_taken_plainly(tmp_path: Path) -> None:
    with SimHost(memory=MEMORY_MIB) as host:
        refuse(host, "cuMemCreate", NOT_SUPPORTED)
        told = asked(
            tmp_path / "out",
            environ(host),
            "environment",
            "two_servers",
            "kept_memory",
            "standby",
            "in_flight",
            "zeroing",
            argv=TWO_KINDS,
        )
    assert told.agrees("two_servers_one_gpu", "fresh_memory", "fault_codes") == {
        "two_servers_one_gpu": True,
        "fresh_memory": True,
        "fault_codes": True,
    }
    for name in (*DECIDING[:3], "standby_elsewhere", "torn_stores"):
        one = told.verdict(name)
        assert (one.agrees, "no descriptor of its memory: CUDA error 801" in one.why) == (None, True), one


@pytest.mark.slow
def test_an_export_that_is_refused_is_a_finding_and_no_crash(tmp_path: Path) -> None:
    names = ("environment", "two_servers", "kept_memory", "standby", "in_flight", "costs", "stand_in", "endings")
    with SimHost(memory=MEMORY_MIB) as host:
        refuse(host, "cuMemExportToShareableHandle", NOT_SUPPORTED)
        told = asked(tmp_path / "out", environ(host), *names, argv=TWO_KINDS)
    assert {name: told.how(name) for name in names} == dict.fromkeys(names, "ended with status 0")
    assert set(told.agrees("two_servers_one_gpu", "endings").values()) == {True}
    for name in (*DECIDING[:3], "standby_elsewhere", "torn_stores", "stand_in_graph"):
        one = told.verdict(name)
        assert (one.agrees, "CUDA error 801" in one.why) == (None, True), one
    costs = told.found("costs")["outside"]["vmm_us"].values()
    assert NOT_SUPPORTED in {each["export"] for each in costs}
    assert all(each["times"]["create"] for each in costs)


def test_an_nvidia_smi_that_hangs_costs_its_own_row_only(tmp_path: Path) -> None:
    with SimHost(memory=MEMORY_MIB) as host:
        there = control(host, script(tmp_path / "bin", "nvidia-smi", "exec sleep 1000"), 'exec "$REAL" "$@"')
        told = asked(tmp_path / "out", environ(host, there), "environment", "partitions", argv=("--patience", "1"))
    found = told.found("environment")
    assert told.how("environment") == "ended with status 0"
    assert (found["client"]["mps"], found["nvml"]["driver"]) == (1, "580.159.04")
    assert "timed out" in found["smi"]
    assert told.found("partitions")["driver"] == "580.159.04"


@pytest.mark.parametrize("content", ["garbage", "#!/nowhere/sh\n"])
def test_an_mps_program_that_cannot_be_run_is_passed_over(tmp_path: Path, content: str) -> None:
    with SimHost(memory=MEMORY_MIB) as host:
        bad = tmp_path / "bad" / CONTROL
        bad.parent.mkdir()
        bad.write_bytes(content.encode() + b"\x00\x01")
        bad.chmod(bad.stat().st_mode | stat.S_IXUSR)
        told = asked(tmp_path / "out", environ(host, bad.parent), "environment")
    assert told.found("environment")["client"]["mps"] == 1
    assert told.results["programs"][str(bad)] != "taken"


def test_without_a_runnable_one_the_rest_is_asked(tmp_path: Path) -> None:
    with SimHost(memory=MEMORY_MIB) as host:
        bad = tmp_path / "bad" / CONTROL
        bad.parent.mkdir()
        bad.write_bytes(b"garbage\x00\x01")
        bad.chmod(0o755)
        env = environ(host, bad.parent) | {"PATH": f"{bad.parent}:/usr/bin:/bin"}
        told = asked(tmp_path / "out", env, "environment", "two_servers", "kept_memory", "standby", "costs", "zeroing")
    assert told.verdict("raw_fd_keeps_memory").agrees
    assert told.verdict("raw_fd_keeps_memory").missing
    assert "skipped" in told.found("two_servers")
    assert [name for name in told.found("standby") if "failed" not in told.found("standby")[name]] == ["no MPS/2 MiB"]
    assert list(told.found("costs")) == ["outside"]


@pytest.mark.slow
def test_a_server_that_stays_in_fault_is_replaced_and_not_waited_for_again_and_again(tmp_path: Path) -> None:
    with SimHost(memory=MEMORY_MIB, values={"rebuild_ms": "900000"}) as host:
        told = asked(
            tmp_path / "out",
            environ(host),
            "environment",
            "two_servers",
            "kept_memory",
            "one_server",
            argv=("--patience", "0.4", *LONG, *TWO_KINDS),
        )
    assert {told.how(name) for name in ("two_servers", "kept_memory", "one_server")} == {"ended with status 0"}
    assert told.agrees("two_servers_one_gpu", "rebuild") == {"two_servers_one_gpu": True, "rebuild": None}
    assert "stayed FAULT" in told.verdict("rebuild").why
    survived = told.verdict("memory_survives_server_fault")
    assert survived.agrees
    assert any("server one stays FAULT" in one for one in survived.missing)


def test_without_libcuda_every_verdict_is_not_seen_and_the_run_ends_early(tmp_path: Path) -> None:
    with SimHost(memory=64) as host:
        env = environ(host) | {"LD_LIBRARY_PATH": str(tmp_path)}
        told = asked(tmp_path / "out", env, "environment", "two_servers", "costs")
    assert told.found("environment")["plain"]["gone"].startswith("ended with status")
    assert told.how("two_servers").startswith("not run: the GPU did not answer twice: libcuda.so.1")
    hypotheses = json.loads((tmp_path / "out/hypotheses.json").read_text())
    assert {one["agrees"] for one in hypotheses} == {None}


@pytest.mark.parametrize(
    "how", [pytest.param(2, id="error"), pytest.param(3, id="wrong bytes", marks=pytest.mark.slow)]
)
def test_a_busy_clients_death_that_hurts_is_seen_and_the_way_of_ending_named(tmp_path: Path, how: int) -> None:
    with SimHost(memory=MEMORY_MIB) as host:
        Injector(host.path).set("busy_death_permille", 1000)
        Injector(host.path).set("busy_death_how", how)
        told = asked(tmp_path / "out", environ(host), "endings")
    assert told.verdict("endings").seen == "others with SIGTERM; SIGKILL"
