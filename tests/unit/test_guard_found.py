"""What the module found in the driver, as `mpsr status` and `mpsr check` tell it. The files are those that sysfs has; a real
module's are read in the virtual machine (tests/guard)."""

from pathlib import Path

import pytest

from resilience.adapters.gpu.guard import found
from resilience.check import gpus, guard
from resilience.check.finding import Severity
from resilience.model.guard import Level
from resilience.model.ids import GpuUuid
from resilience.ports import Gpu


def sysfs(tmp_path: Path, **values: object) -> tuple[str, str]:
    parameters = tmp_path / "parameters"
    parameters.mkdir()
    for name, value in values.items():
        (parameters / name).write_text(f"{value}\n")
    (tmp_path / "version").write_text("580.142\n")
    return str(parameters), str(tmp_path / "version")


def gpu(capability: int | None, *, mig: bool = False) -> Gpu:
    return Gpu(minor=0, uuid=GpuUuid("GPU-1"), name="X", driver="580", bus_id="0:6:0.0", capability=capability, mig=mig)


def test_what_it_found_and_saw(tmp_path: Path) -> None:
    seen = found(*sysfs(tmp_path, cancels="volta hopper", faults=7, cancels_seen=6, strays=1, isolated=2))
    assert (seen.driver, seen.cancels) == ("580.142", ("volta", "hopper"))
    assert (seen.faults, seen.cancels_seen, seen.strays, seen.isolated) == (7, 6, 1, 2)


def test_nothing_is_found_where_there_is_no_module(tmp_path: Path) -> None:
    seen = found(str(tmp_path / "none"), str(tmp_path / "no version"))
    assert (seen.driver, seen.cancels, seen.cancels_seen) == ("", (), 0)


@pytest.mark.parametrize(
    ("cancels", "capability", "covered"),
    [
        ("volta hopper", 7, True),
        ("turing hopper", 8, True),
        ("volta hopper", 9, True),
        ("turing hopper", 12, True),
        ("volta", 9, False),
        ("hopper", 8, False),
        ("volta hopper", 6, False),
    ],
)
def test_each_gpu_needs_its_generations_cancel(tmp_path: Path, cancels: str, capability: int, covered: bool) -> None:
    assert found(*sysfs(tmp_path, cancels=cancels)).covers(capability) is covered


def test_a_covered_driver_is_told_by_what_is_hooked(tmp_path: Path) -> None:
    seen = found(*sysfs(tmp_path, cancels="volta hopper"))
    (told,) = guard.findings(Level.ON, seen, (gpu(9),))
    assert told.level is Severity.FINE
    assert told.text == "on; covers driver 580.142: hooks the cancels of volta, hopper"


@pytest.mark.parametrize(
    ("values", "gpus", "says"),
    [
        ({"cancels": "volta hopper"}, (gpu(6),), "does not cover a X (compute capability 6): GPU-1"),
        (
            {"cancels": "volta hopper"},
            (gpu(None),),
            "may not cover a X, whose compute capability NVML does not tell: GPU-1",
        ),
        (
            {"cancels": "volta hopper", "strays": 3},
            (gpu(9),),
            "3 cancels came without a record before them, and passed",
        ),
        ({}, (gpu(9),), "does not say what it hooks in driver 580.142"),
    ],
)
def test_what_is_not_covered_is_a_warning(
    tmp_path: Path, values: dict[str, object], gpus: tuple[Gpu, ...], says: str
) -> None:
    told = guard.findings(Level.ON, found(*sysfs(tmp_path, **values)), gpus)
    assert [finding.text for finding in told if finding.level is Severity.WARNING] == [says]


def test_a_gpu_in_mig_mode_is_told_of_once(tmp_path: Path) -> None:
    cut = (gpu(9, mig=True),)
    told = guard.findings(Level.ON, found(*sysfs(tmp_path, cancels="volta hopper")), cut) + gpus.check(cut)
    assert [finding.subject for finding in told if "GPU-1" in finding.text] == ["MIG"]


_MISSING = "6,812,5121,-;mps_guard: driver: unknown cancel function: uvm_hal_new_cancel_faults_va\n"


@pytest.mark.parametrize(
    ("log", "why"),
    [
        (_MISSING, "driver: unknown cancel function: uvm_hal_new_cancel_faults_va"),
        (
            "Nov 30 19:00:00 n0 kernel: [ 1.2] mps_guard: driver: anchor missing: uvm_suspend_entry\n",
            "driver: anchor missing: uvm_suspend_entry",
        ),
        (_MISSING + "6,813,6121,-;mps_guard: armed, off until enabled=1\n", ""),
        ("6,1,1,-;other: driver: x\n", ""),
        ("6,1,1,-;mps_guard: driver: \x1b[31mx\n", ""),
        ("", ""),
    ],
)
def test_why_it_refused_is_in_the_kernels_log(tmp_path: Path, log: str, why: str) -> None:
    (tmp_path / "kmsg").write_text(log)
    assert guard.refusal(str(tmp_path / "kmsg")) == why


def test_no_log_no_reason(tmp_path: Path) -> None:
    assert guard.refusal(str(tmp_path / "kmsg")) == ""
