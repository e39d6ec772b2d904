"""Which GPU the cluster takes: each thing that a real machine may lack is named, and an MPS server is really tried."""

import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from resilience.adapters.mps.mps_control import SERVER_PROGRAM
from resilience.model.errors import GpuError
from resilience.model.ids import GpuUuid
from resilience.ports import Gpu
from tests.cluster import gpu
from tests.conformance.backend import no_simulator
from tests.gpu import stage
from tests.gpusim.host import SimHost

H200 = Gpu(minor=3, uuid=GpuUuid("GPU-x"), name="NVIDIA H200", driver="580.159.04", bus_id="0000:06:00.0")


@pytest.fixture(name="machine")
def _machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """A machine with one H200 as a container may show it, and nothing wrong with it. Tests take things away."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in (gpu.CONTROL_PROGRAM, SERVER_PROGRAM, "nvidia-smi"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    version = tmp_path / "version"
    version.touch()
    here = SimpleNamespace(programs=programs, version=version, gpus=(H200,), modes={}, busy="", server="")
    device = SimpleNamespace(st_mode=stat.S_IFCHR | 0o666)
    real_stat = os.stat

    def look(path: str, *more: object, **named: object) -> object:
        return here.modes.get(path, device) if str(path).startswith("/dev/nvidia") else real_stat(path, *more, **named)  # type: ignore[arg-type]

    def smi(path: str, *words: str) -> str:
        answers = {"--query-gpu=compute_mode": here.mode, "--query-gpu=mig.mode.current": here.mig}
        return str(next((text for word, text in answers.items() if word in words), here.busy))

    def gpus() -> tuple[Gpu, ...]:
        if isinstance(here.gpus, Exception):
            raise here.gpus
        found: tuple[Gpu, ...] = here.gpus
        return found

    here.mode, here.mig = "Default\n", "Disabled\n"
    monkeypatch.setattr(gpu, "VERSION", version)
    monkeypatch.setattr(gpu, "USUAL", "/nonexistent")
    monkeypatch.setattr(gpu, "NvmlGpus", lambda: SimpleNamespace(all=gpus))
    monkeypatch.setattr(gpu, "smi", smi)
    monkeypatch.setattr(gpu, "no_server", lambda *_: here.server)
    monkeypatch.setattr(os, "stat", look)
    return here


def test_a_machine_that_has_everything(machine: SimpleNamespace) -> None:
    found = gpu.find(str(machine.programs))
    assert found.gpu is not None
    assert (found.gpu.model, found.gpu.minor) == ("NVIDIA H200", 3)
    assert str(found) == "GPU: NVIDIA H200, driver 580.159.04, /dev/nvidia3, an MPS server was tried"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda here: here.version.unlink(), "no NVIDIA driver is loaded"),
        (lambda here: setattr(here, "gpus", GpuError("nvmlInit", 9, "Driver Not Loaded")), "Driver Not Loaded"),
        (lambda here: setattr(here, "gpus", ()), "the driver has no GPU"),
        (lambda here: (here.programs / gpu.CONTROL_PROGRAM).unlink(), "NVIDIA H200, but nvidia-cuda-mps-control is not on PATH"),
        (lambda here: (here.programs / SERVER_PROGRAM).unlink(), "nvidia-cuda-mps-server is not on PATH"),
        (
            lambda here: here.modes.update({"/dev/nvidia-uvm": SimpleNamespace(st_mode=stat.S_IFCHR | 0o600)}),
            "/dev/nvidia-uvm cannot be used by ordinary users (crw-------)",
        ),
        (lambda here: setattr(here, "mode", "Exclusive_Process\n"), "its compute mode is Exclusive_Process"),
        (lambda here: setattr(here, "mode", ""), "does not tell its compute mode"),
        (lambda here: setattr(here, "mig", "Enabled\n"), "MIG"),
        (lambda here: setattr(here, "busy", "4711\n"), "process 4711 uses it"),
        (lambda here: setattr(here, "server", "no MPS server starts on it (none): x"), "no MPS server starts"),
    ],
)  # fmt: skip
def test_what_is_missing_is_said(machine: SimpleNamespace, change: object, why: str) -> None:
    change(machine)  # type: ignore[operator]
    found = gpu.find(str(machine.programs))
    assert found.gpu is None
    assert why in str(found)
    assert str(found).startswith("GPU: simulated, because ")


def test_a_busy_gpu_is_taken_only_when_asked_for(machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.busy = "4711\n"
    monkeypatch.setenv("PATH", str(machine.programs))
    assert gpu.choose(gpu.AUTO).gpu is None
    assert gpu.choose(gpu.REAL).gpu is not None
    assert gpu.choose(gpu.SIM).gpu is None
    machine.version.unlink()
    with pytest.raises(LookupError, match="no NVIDIA driver"):
        gpu.choose(gpu.REAL)


@pytest.mark.sim
@pytest.mark.skipif(bool(no_simulator()), reason="needs the simulated GPU")
def test_a_server_is_really_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "READY_SECONDS", 3.0)
    with SimHost(values={"server_init_ms": "20"}) as sim:
        for name, value in sim.env().items():
            monkeypatch.setenv(name, value)
        path = sim.env()["PATH"]
        one = Gpu(minor=0, uuid=GpuUuid(sim.gpus[0].uuid), name="x", driver="580", bus_id="0000:06:00.0")
        assert gpu.no_server(one, path) == ""
        assert gpu.query(one, path, "compute_mode") == "Default"
        assert gpu.in_use(one, path) == ""
        none = Gpu(minor=0, uuid=GpuUuid("GPU-none"), name="x", driver="580", bus_id="0000:06:00.0")
        assert "no MPS server starts on it" in gpu.no_server(none, path)
