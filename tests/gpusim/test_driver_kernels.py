"""The project's kernels: the same bits on the simulated GPU as in numpy, through cuda-bindings; PTX that is current."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.gpusim.driver_harness import FAULTS, HEAT, ROOT, SUMS, Program, built, out
from tests.gpusim.host import HERE, SimHost
from tests.gpusim.toolkit import HINT, find

Field = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


@pytest.fixture
def sim() -> Iterator[SimHost]:
    with SimHost(memory=64, build=built()) as made:
        yield made


def start_field(ny: int, nx: int) -> Field:
    """heat_init in numpy."""
    field = np.zeros((ny, nx))
    field[ny // 3 : ny - ny // 3, nx // 3 : nx - nx // 3] = 50.0
    field[0] = 100.0
    return field


def step(now: Field, k: float) -> Field:
    """heat_step in numpy, each sum in the kernel's order."""
    after = now.copy()
    centre = now[1:-1, 1:-1]
    around = ((now[:-2, 1:-1] + now[2:, 1:-1]) + now[1:-1, :-2]) + now[1:-1, 2:]
    after[1:-1, 1:-1] = centre + k * (around - 4.0 * centre)
    return after


def row_sums(a: Field, b: Field) -> Field:
    """heat_residual in numpy: from left to right, which numpy.sum does not promise."""
    total = np.zeros(a.shape[0])
    for x in range(a.shape[1]):
        difference = a[:, x] - b[:, x]
        total = total + difference * difference
    return total


SOLVER = """
import ctypes, sys
from pathlib import Path
import numpy as np
from cuda.bindings import driver as cuda

def ok(answer):
    assert answer[0] == cuda.CUresult.CUDA_SUCCESS, answer[0]
    return answer[1] if len(answer) == 2 else answer[1:]

ptx, result, ny, nx, steps = Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:6])
ok(cuda.cuInit(0))
ok(cuda.cuCtxSetCurrent(ok(cuda.cuDevicePrimaryCtxRetain(0))))
module = ok(cuda.cuModuleLoadData(ptx.read_bytes() + bytes(1)))
names = (b"heat_init", b"heat_step", b"heat_residual")
init, step, residual = (ok(cuda.cuModuleGetFunction(module, name)) for name in names)
size = ny * nx * 8
now, after, sums = (int(ok(cuda.cuMemAlloc(n))) for n in (size, size, ny * 8))
stream = ok(cuda.cuStreamCreate(0))
P, I, D = ctypes.c_void_p, ctypes.c_int, ctypes.c_double

def launch(function, threads, values, kinds):
    ok(cuda.cuLaunchKernel(function, (threads + 127) // 128, 1, 1, 128, 1, 1, 0, stream, (values, kinds), 0))

launch(init, ny * nx, (now, ny, nx), (P, I, I))
for _ in range(steps):
    launch(step, ny * nx, (after, now, ny, nx, 0.2), (P, P, I, I, D))
    now, after = after, now
launch(residual, ny, (sums, now, after, ny, nx), (P, P, P, I, I))
ok(cuda.cuStreamSynchronize(stream))
field, rows = np.empty((ny, nx)), np.empty(ny)
ok(cuda.cuMemcpyDtoH(field, now, size))
ok(cuda.cuMemcpyDtoH(rows, sums, ny * 8))
np.savez(result, field=field, rows=rows)
"""


def test_heat_is_bit_identical_with_numpy_through_cuda_bindings(sim: SimHost, tmp_path: Path) -> None:
    pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
    ny, nx, steps = 37, 53, 60
    result = tmp_path / "result.npz"
    arguments = [str(HEAT), str(result), str(ny), str(nx), str(steps)]
    done = subprocess.run(
        [sys.executable, "-c", SOLVER, *arguments], env=sim.env(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    field = start_field(ny, nx)
    before = field
    for _ in range(steps):
        before, field = field, step(field, 0.2)
    found = np.load(result)
    assert found["field"].tobytes() == field.tobytes()
    assert found["rows"].tobytes() == row_sums(field, before).tobytes()
    assert field.sum() > start_field(ny, nx).sum()  # heat flows in from the hot rim


@pytest.mark.parametrize("threads", [1, 63, 65, 1000])
def test_plain_kernels(sim: SimHost, threads: int) -> None:
    n = 900
    with Program(sim) as one:
        module = one.module(FAULTS)
        x, y, sums = (one.cu("cuMemAlloc_v2", out("u64"), 8 * 1100) for _ in range(3))
        values = np.linspace(-1.0, 7.0, n)
        one.write(x, values.tobytes())
        assert one.launch(one.function(module, "fill"), 1000, ("u64", y), ("i32", n), ("f64", 0.1)) == 0
        axpy = one.function(module, "axpy")
        assert one.launch(axpy, threads, ("i32", n), ("f64", 0.3), ("u64", x), ("u64", y)) == 0
        expected = np.full(n, 0.1)
        launched = (threads + min(threads, 64) - 1) // min(threads, 64) * min(threads, 64)
        expected[:launched] = expected[:launched] + 0.3 * values[:launched]
        assert one.read(y, 8 * n) == expected.tobytes()
        one.launch(one.function(module, "checksum"), 8, ("u64", sums), ("u64", y), ("i32", 2 * n))
        words = np.frombuffer(expected.tobytes(), dtype=np.uint32)
        hashes = []
        for thread in range(8):
            value = 14695981039346656037
            for word in words[thread::8].tolist():
                value = (value ^ word) * 1099511628211 % 2**64
            hashes.append(value)
        assert one.read(sums, 64) == np.array(hashes, dtype=np.uint64).tobytes()


def release(nvcc: Path) -> str:
    told = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"release ([0-9.]+)", told)
    assert found, told
    return found[1]


def shape(text: str) -> list[str]:
    """The kernels with their parameters: what every compiler must make of the source."""
    return [" ".join(entry.split()) for entry in re.findall(r"\.entry (\w+\s*\([^)]*\))", text)]


@pytest.mark.parametrize("ptx", [HEAT, FAULTS, SUMS], ids=["heat", "faults", "sums"])
def test_ptx_was_made_from_this_source(ptx: Path) -> None:
    """Needs no compiler: the PTX carries the sum of the source."""
    source = ptx.with_suffix(".cu")
    sum_of = hashlib.sha256(source.read_bytes()).hexdigest()
    assert f"// sha256 of {source.name}: {sum_of}" in ptx.read_text(), "stale: make -C tests/gpusim ptx"


@pytest.mark.parametrize("ptx", [HEAT, FAULTS, SUMS], ids=["heat", "faults", "sums"])
def test_ptx_is_what_nvcc_makes_of_it(ptx: Path, tmp_path: Path) -> None:
    """To the byte with the release that made it; with another one the same kernels and parameters."""
    nvcc = find("bin/nvcc")
    if nvcc is None:
        pytest.skip(f"no nvcc, so the PTX cannot be compiled again: {HINT}")
    fresh, committed = tmp_path / "fresh.ptx", ptx.read_text()
    argv = ["sh", str(HERE / "ptx.sh"), str(ptx.with_suffix(".cu")), str(fresh)]
    subprocess.run(argv, env={**os.environ, "NVCC": str(nvcc)}, check=True)
    if f"// nvcc {release(nvcc)}\n" in committed:
        assert fresh.read_text() == committed, "stale: make -C tests/gpusim ptx"
    else:
        assert shape(fresh.read_text()) == shape(committed) != []


@pytest.mark.parametrize("target", ["sm_75", "sm_90", "sm_100"])
@pytest.mark.parametrize("ptx", [HEAT, FAULTS, SUMS], ids=["heat", "faults", "sums"])
def test_ptx_is_accepted_by_the_gpus_assembler(ptx: Path, target: str, tmp_path: Path) -> None:
    """What the driver's own compiler does to it when it is loaded."""
    ptxas = find("bin/ptxas")
    if ptxas is None:
        pytest.skip(f"no ptxas: {HINT}")
    argv = [str(ptxas), f"-arch={target}", "-o", str(tmp_path / "out.cubin"), str(ptx)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("ptx", [HEAT, FAULTS, SUMS], ids=["heat", "faults", "sums"])
def test_ptx_names_the_kernels_of_its_source_and_fuses_nothing(ptx: Path) -> None:
    text = ptx.read_text()
    source = ptx.with_suffix(".cu").read_text()
    kernels = re.findall(r'extern "C" __global__ void (\w+)', source)
    assert re.findall(r"\.entry (\w+)", text) == kernels
    assert len(kernels) >= 2
    assert not re.search(r"\bfma\.", text)
    assert ".version 6.4\n.target sm_75\n" in text


def test_abi_is_that_of_the_toolkit() -> None:
    header = find("include/cuda.h")
    if header is None:
        pytest.skip("no cuda.h below /usr/local or from pip: nothing to compare cuda_abi.h with")
    done = subprocess.run(
        ["make", "-s", "-C", str(HERE), "abi", f"CUDA_INCLUDE={header.parent}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
