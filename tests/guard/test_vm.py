"""The module in a virtual machine against the stand-in driver: one test here for each test of kernel_module/tests/vm."""

import re

import pytest

from resilience.parse.guard import parse_records
from tests.guard.conftest import Bench, bootable_kernels, debug_kernels
from tests.guard.kernels import MODULE, Kernel

NAMES = [
    name
    for source in sorted((MODULE / "tests" / "vm").glob("*.c"))
    for name in re.findall(r"\bTEST\((\w+)\)", source.read_text())
]

pytestmark = [pytest.mark.guard, pytest.mark.timeout(1000)]
runs = pytest.mark.parametrize("kernel", [pytest.param(kernel, id=kernel.series) for kernel in bootable_kernels()])


@runs
def test_machine_runs_to_its_end_without_trouble(kernel: Kernel, bench: Bench) -> None:
    transcript = bench.transcript(kernel)
    assert transcript.counted == len(NAMES), transcript.text[-2000:]
    assert transcript.trouble == []
    assert any("mps_guard: armed, off until enabled=1" in line for line in transcript.log)


@runs
@pytest.mark.parametrize("name", NAMES)
def test_in_the_machine(kernel: Kernel, name: str, bench: Bench) -> None:
    outcome = bench.transcript(kernel).outcomes.get(name)
    assert outcome is not None, "the machine did not come so far"
    assert outcome.ok, "\n".join(outcome.complaints)


@runs
def test_neighbours_stall_is_measured(kernel: Kernel, bench: Bench) -> None:
    """With the guard and without, for each size of storm. The figures of docs/measurements come from tests/guard/storms.py."""
    stalls = bench.transcript(kernel).stalls
    assert [(row["guard"], row["pages"]) for row in stalls] == [
        (guard, pages) for pages in (1, 100, 10000) for guard in (0, 1)
    ]
    assert all(row["p50_us"] <= row["p99_us"] <= row["max_us"] for row in stalls)


@pytest.mark.parametrize("kernel", [pytest.param(kernel, id=kernel.series) for kernel in debug_kernels()])
@pytest.mark.parametrize(
    "finding",
    [
        "BUG: sleeping function called from invalid context at .*mistakes.c",
        "WARNING: possible circular locking dependency detected",
        "BUG: KASAN: (slab-)?use-after-free in mistakes_init",
    ],
)
def test_the_kernel_was_looking(kernel: Kernel, finding: str, bench: Bench) -> None:
    """After hundreds of rounds of the guard the judges are still awake: each finds the mistake that is made for it."""
    mistakes = bench.transcript(kernel).mistakes
    assert re.search(finding, mistakes), mistakes[:2000]


@runs
def test_records_as_python_reads_them(kernel: Kernel, bench: Bench) -> None:
    """The same bytes give the same fields in C and in Python."""
    records = bench.transcript(kernel).records
    assert len(records) == 4
    for fields, data in records:
        (record,) = parse_records(data)
        seen = {
            "version": 1,
            "size": len(data),
            "sequence": record.sequence,
            "time_ns": record.time_ns,
            "incident": record.incident,
            "address": record.address,
            "start_ns": record.start_ns,
            "cgroup": record.cgroup,
            "dropped": record.dropped,
            "kind": record.kind.value,
            "why": record.why.value,
            "gpu": record.gpu,
            "reason": record.reason,
            "pid": record.pid,
            "uid": record.uid,
            "windows": record.windows,
            "holds": record.holds,
            "holders": record.holders,
            "comm": record.comm,
        }
        assert {name: str(value) for name, value in seen.items()} == fields
