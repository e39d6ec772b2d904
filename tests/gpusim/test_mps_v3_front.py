"""The front of protocol 3 as it is documented: options, the pipe directory, the line at the start, help."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.gpusim import dialect, mps_control, mps_v3, mps_v3_commands
from tests.gpusim.host import SimHost
from tests.gpusim.mps_harness import LIMIT, Mps, wait_for
from tests.gpusim.mps_v3_harness import create, listed, place_on, say


def test_help_names_every_verb_with_what_it_takes(v3: Mps) -> None:
    create(v3, "a")
    before = listed(v3, "server")
    assert say(v3, "client", "help") == [
        "Usage: nvidia-cuda-mps-control client list [--server=<s>] [--all] [--format=<table|csv>[,noheader]]",
        "Usage: nvidia-cuda-mps-control client get <pid> <field>",
        "Usage: nvidia-cuda-mps-control client terminate <pid>",
    ]
    assert say(v3, "server", "delete", "help") == ["Usage: nvidia-cuda-mps-control server delete <name> [--force]"]
    assert say(v3, "server", "create", "help")[0].startswith("Usage: nvidia-cuda-mps-control server create [<name>]")
    assert say(v3, "server", "start", "help") == ['Unknown command "server start help"']
    assert listed(v3, "server") == before


def test_every_module_that_the_front_end_knows_has_its_table_and_its_help(v3: Mps) -> None:
    assert tuple(mps_v3_commands.COMMANDS) == mps_v3.MODULES
    for module, verbs in mps_v3_commands.COMMANDS.items():
        lines = say(v3, module, "help")
        assert [line.split()[:4] for line in lines] == [
            ["Usage:", "nvidia-cuda-mps-control", module, verb] for verb in verbs or ["help"]
        ]


def test_the_daemon_prints_where_clients_find_it(sim_host: SimHost) -> None:
    place = place_on(sim_host)
    line = f"To connect CUDA applications to this daemon, set CUDA_MPS_PIPE_DIRECTORY={place.pipe}"
    try:
        assert place.start("-p", "3").stdout.splitlines() == [line]
        assert line in place.log("control.log")
    finally:
        place.close()


def test_in_the_foreground_the_line_stands_once_on_standard_output(sim_host: SimHost) -> None:
    place = place_on(sim_host)
    script = str(sim_host.build / "bin" / "nvidia-cuda-mps-control")
    with subprocess.Popen([script, "-f", "-p", "3"], env=place.env, stdout=subprocess.PIPE, text=True) as daemon:
        try:
            wait_for("the daemon", lambda: place.run(["nvidia-cuda-mps-control", "-q"]).returncode == 0 or None)
            said, _ = daemon.communicate(timeout=LIMIT)
        finally:
            place.close()
    line = f"To connect CUDA applications to this daemon, set CUDA_MPS_PIPE_DIRECTORY={place.pipe}"
    assert [one for one in said.splitlines() if "To connect" in one] == [line]


@pytest.mark.parametrize("options", [("--protocol", "3"), ("-p", "2")])
def test_protocol_3_is_chosen_by_either_option_and_the_environment_beats_it(
    sim_host: SimHost, options: tuple[str, str]
) -> None:
    place = place_on(sim_host)
    try:
        assert place.start(*options, CUDA_MPS_PROTOCOL_VERSION="3" if options[1] == "2" else "").returncode == 0
        assert say(place, "server", "list", "--format=csv,noheader") == []
        assert place.command("get_server_list") == ['Unknown command "get_server_list"']
    finally:
        place.close()


def test_the_options_of_protocol_3(sim_host: SimHost) -> None:
    place = place_on(sim_host)

    def ask(*words: str) -> subprocess.CompletedProcess[str]:
        return place.run(["nvidia-cuda-mps-control", *words])

    shown = ask("-h", "-p", "3").stdout.splitlines()
    assert "  -a,--apply <file>" in shown
    assert shown[-len(mps_v3.MODULES) :] == [f"  {module}" for module in mps_v3.MODULES]
    assert "get_server_list" in ask("-h").stdout
    for bad in (("-d", "-p", "4"), ("-d", "-p"), ("-d", "-p", "3", "--apply")):
        assert ask(*bad).stdout.startswith("Unrecognized option")
    assert not place.pipe.exists()


@pytest.mark.parametrize(
    ("words", "uid", "there", "folder"),
    [
        (["-d", "-p", "3"], 0, "", "run"),
        (["-d"], 0, "", "tmp"),
        (["-d", "-p", "3"], 1000, "", "tmp"),
        (["server", "list"], 0, "", "run"),
        (["server", "list"], 0, "tmp", "tmp"),
        ([], 0, "run", "run"),
        ([], 0, "tmp", "tmp"),
        (["-d"], 0, "run", "tmp"),
        ([], 1000, "run", "tmp"),
    ],
)
def test_without_the_variable_root_finds_protocol_3_below_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], uid: int, there: str, folder: str
) -> None:
    for name in ("run", "tmp"):
        (tmp_path / name).mkdir()
    if there:
        (tmp_path / there / "control").touch()
    monkeypatch.setattr(mps_v3, "PIPE_OF_ROOT", str(tmp_path / "run"))
    monkeypatch.setattr(mps_control, "PIPE", str(tmp_path / "tmp"))
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    for name in ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_PROTOCOL_VERSION"):
        monkeypatch.delenv(name, raising=False)
    modern, older = dialect.DIALECTS["615"], dialect.DIALECTS["610"]
    assert mps_control.pipe_directory(modern, mps_control.Flags(modern, words)) == str(tmp_path / folder)
    assert mps_control.pipe_directory(older, mps_control.Flags(older, words)) == str(tmp_path / "tmp")
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", "/somewhere")
    assert mps_control.pipe_directory(modern, mps_control.Flags(modern, words)) == "/somewhere"
