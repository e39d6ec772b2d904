"""`--apply FILE` of protocol 3: the documented tables and keys, and a daemon that does not start with any other."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.gpusim import host
from tests.gpusim.host import SimHost
from tests.gpusim.mps_harness import LIMIT, Mps, wait_for
from tests.gpusim.mps_v3_harness import door, join, listed, place_of, place_on, say

WHOLE = """
schema_version = "1.0"
[servers.training]
allowed_devices = "{gpu}"
pinned_memory_limit = "10G"
active_thread_percentage = "50"
client_priority = "0"
uid = {uid}
locality_domains = false
[servers.training.namespaces.default]
client_priority = "1"
[servers.training.namespaces.high_priority]
pinned_memory_limit = "5G"
active_thread_percentage = "25"
[[servers.training.devices]]
uuid = "{gpu}"
[[servers.training.devices.sm_partitions]]
name = "large"
chunks = 4
include_remainder = false
[servers.second]
[features.memacct]
enabled = false
audit_log = true
[features.context-share]
enabled = true
default_socket = "on"
"""


def ready(place: Mps, name: str) -> None:
    wait_for(f"server {name}", lambda: say(place, "server", "get", name, "status") == ["Ready"] or None)


@pytest.mark.parametrize("option", ["-a", "--apply"])
def test_a_file_makes_servers_namespaces_partitions_and_features(
    sim_host: SimHost, tmp_path: Path, option: str
) -> None:
    file, gpu, uid = tmp_path / "config.toml", sim_host.gpus[0].uuid, str(os.getuid())
    file.write_text(WHOLE.format(gpu=gpu, uid=uid))
    with place_of(sim_host, option, str(file)) as v3:
        file.write_text("it is read once")
        for name in ("training", "second"):
            ready(v3, name)
        assert [(*row[:2], *row[3:6]) for row in listed(v3, "server")] == [
            ("training", uid, "Ready", str(v3.pipe / "training"), gpu),
            ("second", uid, "Ready", str(v3.pipe / "second"), "all"),
        ]
        assert listed(v3, "namespace") == [
            ["default", "training", "Ready", "10G", "50", "1", door(v3, "training")],
            ["high_priority", "training", "Ready", "5G", "25", "-", door(v3, "training", "high_priority")],
            ["default", "second", "Ready", "-", "-", "-", door(v3, "second")],
        ]
        assert [row[:7] for row in listed(v3, "sm-partition", "--server=training")] == [
            ["training", gpu, "large", "4", "32", "false", "created"],
            ["training", gpu, "-", "12", "96", "-", "unallocated"],
        ]
        assert say(v3, "feature", "describe", "--format=csv,noheader") == [
            "memacct,disabled,memacct,-",
            "context-share,enabled (default),context-share,-",
        ]
        assert say(v3, "memacct", "describe", "--format=csv,noheader") == ["audit_log,true"]
        assert "percentage=25" in join(v3, "training", space="high_priority").hello
        assert say(v3, "server", "delete", "second") == []  # as if it had been made by hand
        wait_for("its end", lambda: [row[0] for row in listed(v3, "server")] == ["training"] or None)


def test_an_empty_file_changes_nothing(sim_host: SimHost, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("")
    with place_of(sim_host, "-a", str(file)) as v3:
        assert listed(v3, "server") == []
        assert "enabled (default)" in say(v3, "feature", "describe", "memacct", "--format=csv,noheader")[0]


def test_locality_domains_of_the_file_keep_partitions_away(sim_host: SimHost, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[servers.a]\nlocality_domains = true\n")
    with place_of(sim_host, "-a", str(file)) as v3:
        assert say(v3, "sm-partition", "create", "p", "--server=a", "--device=0", "--chunks=1") == [
            "SM partition 'p' cannot be created: server a has locality domains"
        ]


DEVICE = '[[servers.a.devices]]\nuuid = "{gpu}"\n'
PARTITION = '[[servers.a.devices.sm_partitions]]\nname = "p"\n'


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("colour = 1", "colour: unknown key"),
        ('schema_version = "2.0"', "schema_version: 2.0, expected 1.0"),
        ("schema_version = 1.0", "schema_version: expected a string"),
        ("servers = 1", "servers: expected a table"),
        ("servers.a = 1", "servers.a: expected a table"),
        ("[servers.a]\ncolour = 1", "servers.a.colour: unknown key"),
        ('[servers.a]\nallowed-devices = "0"', "servers.a.allowed-devices: unknown key"),
        ("[servers.A]", "servers.A: invalid name A"),
        ("[servers.a]\nclient_priority = 0", "servers.a.client_priority: expected a string"),
        ('[servers.a]\nclient_priority = "2"', "servers.a: Invalid priority value - must be 0 or 1!"),
        ('[servers.a]\npinned_memory_limit = "4"', "servers.a: Invalid memory limit 4"),
        ('[servers.a]\nactive_thread_percentage = "101"',
         "servers.a: Invalid percentage 101, expected between 1 and 100"),
        ('[servers.a]\nuid = "0"', "servers.a.uid: expected an integer"),
        ("[servers.a]\nuid = -1", "servers.a.uid: no server can be started for user -1"),
        ('[servers.a]\nlocality_domains = "true"', "servers.a.locality_domains: expected true or false"),
        ("[servers.a.namespaces.x]\nuid = 0", "servers.a.namespaces.x.uid: unknown key"),
        ("[servers.a.namespaces.X]", "servers.a: invalid name X"),
        ('[servers.a.namespaces.x]\nclient_priority = "9"',
         "servers.a.namespaces.x: Invalid priority value - must be 0 or 1!"),
        ("[servers.a.devices]", "servers.a.devices: expected an array of tables"),
        ("[[servers.a.devices]]", "servers.a.devices[0]: uuid is missing"),
        (DEVICE + "ordinal = 0", "servers.a.devices[0].ordinal: unknown key"),
        ('[[servers.a.devices]]\nuuid = "GPU-x"', "servers.a.devices[0].uuid: GPU-x is no device of this server"),
        ('[servers.a]\nallowed_devices = "GPU-x"\n' + DEVICE,
         "servers.a.devices[0].uuid: {gpu} is no device of this server"),
        (DEVICE + PARTITION, "servers.a.devices[0].sm_partitions[0]: chunks is missing"),
        (DEVICE + "[[servers.a.devices.sm_partitions]]\nchunks = 1",
         "servers.a.devices[0].sm_partitions[0]: name is missing"),
        (DEVICE + PARTITION + "chunks = 0", "servers.a.devices[0].sm_partitions[0].chunks: 0, expected a positive integer"),
        (DEVICE + PARTITION + "chunks = true", "servers.a.devices[0].sm_partitions[0].chunks: expected an integer"),
        (DEVICE + PARTITION + "chunks = 1\nsize = 2", "servers.a.devices[0].sm_partitions[0].size: unknown key"),
        (DEVICE + 2 * (PARTITION + "chunks = 1\n"), "servers.a.devices[0].sm_partitions[1].name: p is bad or taken"),
        ("[servers.a]\nlocality_domains = true\n" + DEVICE + PARTITION + "chunks = 1",
         "servers.a: locality domains and SM partitions exclude each other"),
        ("[features.colour]", "features.colour: unknown"),
        ("[features.context-share]\naudit_log = true", "features.context-share.audit_log: unknown key"),
        ('[features.memacct]\ndefault_socket = "on"', "features.memacct.default_socket: unknown key"),
        ("[features.memacct]\nenabled = 1", "features.memacct.enabled: expected true or false"),
        (f"[servers.{64 * 'x'}]", f"servers.{64 * 'x'}: the path of its socket is too long for namespace default"),
    ],
)  # fmt: skip
def test_a_configuration_error_is_said_and_the_daemon_does_not_start(
    sim_host: SimHost, tmp_path: Path, text: str, why: str
) -> None:
    file, gpu = tmp_path / "config.toml", sim_host.gpus[0].uuid
    file.write_text(text.replace("{gpu}", gpu))
    place = place_on(sim_host)
    try:
        done = place.start("-p", "3", "-a", str(file))
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"Configuration file {file}: {why.replace('{gpu}', gpu)}\n"
        assert not place.pipe.exists()
    finally:
        place.close()


def test_a_file_that_cannot_be_read_is_an_error(sim_host: SimHost, tmp_path: Path) -> None:
    place = place_on(sim_host)
    bad = tmp_path / "bad.toml"
    bad.write_text("[servers")
    for file, words in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory"), (bad, "Expected ']'")):
        done = place.start("-p", "3", "-a", str(file))
        assert done.returncode == 1
        assert done.stderr.startswith(f"Configuration file {file}: {words}")
    assert not place.pipe.exists()


@pytest.mark.parametrize("words", [("-d",), ("-p", "3"), ("server", "list")])
def test_a_file_is_for_the_start_of_a_daemon_with_protocol_3(sim_host: SimHost, words: tuple[str, ...]) -> None:
    place = place_on(sim_host)
    done = place.run(["nvidia-cuda-mps-control", "-a", "file", *words])
    assert done.returncode == 1
    assert done.stderr == "Configuration file file: only a daemon of protocol 3 reads one, at its start\n"
    assert not place.pipe.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may start a multi-user daemon")
def test_with_multiuser_the_servers_of_the_file_are_roots(sim_host: SimHost, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[servers.a]\nuid = 64001")
    done = place_on(sim_host).start("-p", "3", "-m", "-a", str(file))
    assert (done.returncode, done.stderr.rpartition(": ")[2]) == (1, "no server can be started for user 64001\n")


@pytest.mark.parametrize("with_file", [False, True])
def test_what_reads_toml_is_loaded_with_the_option_only(sim_host: SimHost, with_file: bool) -> None:
    place = place_on(sim_host)
    words = ["-d", "-p", "3", "-a", "none"] if with_file else ["server", "list"]
    script = str(sim_host.build / "bin" / "nvidia-cuda-mps-control")
    done = subprocess.run(
        [host.interpreter(), "-IS", "-X", "importtime", script, *words],
        env=place.env,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    assert done.returncode == 1
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "gpusim.mps_control" in loaded
    assert [name in loaded for name in ("tomllib", "gpusim.mps_v3_config")] == [with_file, with_file]
