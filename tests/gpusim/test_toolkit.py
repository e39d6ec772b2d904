"""Our prototypes, layouts, numbers and probes against NVIDIA's own headers and assembler, where this machine has them."""

import ctypes
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resilience import catalog
from resilience.state import driver
from tests.gpu import features, nvml, raw
from tests.gpu.experiments import sparse
from tests.gpusim import toolkit
from tests.gpusim.toolkit import Shape, shape_of, shape_of_argument, shapes, told

headers = pytest.mark.skipif(toolkit.includes() is None, reason=f"no cuda.h and nvml.h: {toolkit.HINT}")
assembler = pytest.mark.skipif(toolkit.find("bin/ptxas") is None, reason=f"no ptxas: {toolkit.HINT}")
NEWEST_PTX = (9, 0)
"""What driver 580 (CUDA 13.0) takes."""
OLDEST_GPU = 90
"""The hardware runs are on H100 and H200: a driver compiles PTX for its own target and newer GPUs only."""
ARCHITECTURES = ("sm_75", "sm_90", "sm_100")
SOURCES = sorted(toolkit.HERE.glob("*.c"))


def same(ours: dict[str, Shape], theirs: dict[str, tuple[str, Shape]]) -> None:
    """Each of our functions has the header's arguments, and is not an older version than the header means by its name."""
    assert {name: shape for name, (_, shape) in theirs.items()} == ours
    assert {name: means for name, (means, _) in theirs.items() if means != name} == {}


@headers
def test_prototypes_of_the_product(tmp_path: Path) -> None:
    ours = {name: tuple(map(shape_of, arguments)) for name, arguments in driver._FUNCTIONS.items()}
    same(ours, shapes(tmp_path, "cuda.h", ours))


class Recorder:
    """A libcuda that does nothing and remembers how it was called."""

    def __init__(self) -> None:
        self.called: dict[str, Shape] = {}

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*arguments: object) -> int:
            self.called[name] = tuple(map(shape_of_argument, arguments))
            return 0

        return call


def raw_calls() -> dict[str, Shape]:
    """Every call of the hardware run's own binding."""
    probe = raw.Driver.__new__(raw.Driver)
    probe.lib = recorder = Recorder()  # type: ignore[assignment]
    probe.context, probe.stream, probe.module = (ctypes.c_void_p(1) for _ in range(3))
    probe.start()
    probe.attribute(1)
    probe.uuid()
    probe.load(b"x")
    probe.launch("k", 1, 1, ctypes.c_int(1))
    probe.sync()
    probe.granularity()
    probe.create(1)
    probe.export(1)
    probe.import_fd(1)
    probe.map(1, 1)
    probe.unmap(1, 1)
    probe.release(1)
    probe.alloc(1)
    probe.copy(1, 1, 1)
    probe.read(1, 1)
    for way in features.WAYS.values():
        way(probe, b"x", 1, False)
    probe.launch("k", 1, 1, ctypes.c_int(1), cooperative=True)
    return recorder.called


def nvml_calls() -> dict[str, Shape]:
    """The same of its NVML."""
    asked = nvml.Nvml.__new__(nvml.Nvml)
    asked.trouble, asked.device = "", ctypes.c_void_p(1)
    asked.lib = recorder = Recorder()  # type: ignore[assignment]
    asked.call("nvmlInit_v2")
    asked.call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(0), ctypes.byref(asked.device))
    asked.recovery_action()
    asked.driver_version()
    return recorder.called


@headers
def test_calls_of_the_hardware_run(tmp_path: Path) -> None:
    ours = raw_calls()
    assert len(ours) > 15
    same(ours, shapes(tmp_path, "cuda.h", ours))
    ours = nvml_calls()
    same(ours, shapes(tmp_path, "nvml.h", ours))


@headers
def test_functions_of_the_simulated_driver(tmp_path: Path) -> None:
    """Their shapes; an older version that the real library exports as well may be there, beside the new one."""
    found: dict[str, str] = {}
    for source in SOURCES:
        found |= {name: text for name, text in toolkit.exported(source).items() if name.startswith("cu")}
    assert len(found) > 80
    declared = []
    for name, text in found.items():
        words = ["void *" if "*" in one else one for one in text.split(",")]
        declared.append(f'extern "C" CUresult {name}({", ".join(words)});')
    rows = told(tmp_path, '#include "cuda_abi.h"\n' + "\n".join(declared), [f"SHAPE({name})" for name in found])
    ours = {row[0]: tuple(row[2:]) for row in rows}
    known = known_names(found)
    theirs = shapes(tmp_path, "cuda.h", known)
    assert {name: shape for name, (_, shape) in theirs.items()} == {name: ours[name] for name in known}
    assert {means for means, _ in theirs.values()} <= set(found)
    older = set(found) - set(known)
    assert {re.sub(r"_v\d$", "", name) for name in older} <= {re.sub(r"_v\d$", "", name) for name in known}


def known_names(names: dict[str, str]) -> list[str]:
    """Those that cuda.h declares: an older version has its prototype only for who compiles against that."""
    include = toolkit.includes()
    assert include is not None
    text = subprocess.run(
        ["gcc", "-E", "-P", str(include / "cuda.h")], check=True, capture_output=True, text=True
    ).stdout
    return [name for name in names if re.search(rf"\b{name}\s*\(", text)]


@headers
def test_functions_of_the_simulated_nvml(tmp_path: Path) -> None:
    files = toolkit.HERE.glob("nvml*.c")
    rows = (row for file in files for row in toolkit.exported(file).items())
    found = {name: text for name, text in rows if name.startswith("nvml")}
    assert len(found) > 25
    ours = {name: tuple(_word(one) for one in text.split(",") if one.strip() != "void") for name, text in found.items()}
    theirs = shapes(tmp_path, "nvml.h", found)
    assert {name: shape for name, (_, shape) in theirs.items()} == ours


def _word(parameter: str) -> str:
    return "p" if "*" in parameter else "n8" if "long" in parameter else "n4"


@headers
def test_layouts(tmp_path: Path) -> None:
    """Structures that go to the driver, offset and size of each field."""
    prop = {"type": "type", "requestedHandleTypes": "handle_types", "location": "location"}
    pairs: list[tuple[str, Any, dict[str, str]]] = [
        ("CUmemLocation", driver._Location, {"type": "type", "id": "id"}),
        ("CUmemAllocationProp", driver._Properties, prop | {"win32HandleMetaData": "win32", "allocFlags": "flags"}),
        ("CUmemAccessDesc", driver._Access, {"location": "location", "flags": "flags"}),
        ("CUmemAllocationProp", raw.AllocationProp, prop | {"win32HandleMetaData": "win32", "allocFlags": "flags"}),
        ("CUmemAccessDesc", raw.AccessDesc, {"location": "location", "flags": "flags"}),
        (
            "nvmlEventData_t",
            nvml.EventData,
            {
                "device": "device",
                "eventType": "kind",
                "eventData": "data",
                "gpuInstanceId": "gpu_instance",
                "computeInstanceId": "compute_instance",
            },
        ),
        (
            "nvmlFieldValue_t",
            nvml.FieldValue,
            {
                "fieldId": "field",
                "scopeId": "scope",
                "timestamp": "timestamp",
                "latencyUsec": "latency_us",
                "valueType": "kind",
                "nvmlReturn": "code",
                "value": "value",
            },
        ),
    ]
    for name, ours, fields in pairs:
        lines = [f"SIZE({name})", *(f"PLACE({name}, {field})" for field in fields)]
        theirs = [
            [int(word) for word in row[1:]] for row in told(tmp_path, "#include <cuda.h>\n#include <nvml.h>", lines)
        ]
        places = [getattr(ours, mine) for mine in fields.values()]
        assert [[ctypes.sizeof(ours)], *([place.offset, place.size] for place in places)] == theirs, name
        assert len(fields) == len(ours._fields_)


@headers
def test_numbers(tmp_path: Path) -> None:
    expected = {
        "CU_DEVICE_ATTRIBUTE_MPS_ENABLED": driver.ATTRIBUTE_MPS_ENABLED,
        "CUDA_ERROR_MPS_SERVER_NOT_READY": driver.MPS_SERVER_NOT_READY,
        "CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR": driver._POSIX_FD,
        "CU_MEM_ALLOCATION_TYPE_PINNED": 1,
        "CU_MEM_LOCATION_TYPE_DEVICE": 1,
        "CU_MEM_ACCESS_FLAGS_PROT_READWRITE": 3,
        "CU_STREAM_NON_BLOCKING": 1,
        "nvmlEventTypeXidCriticalError": nvml.XID_EVENT,
        "NVML_FI_DEV_GET_GPU_RECOVERY_ACTION": nvml.RECOVERY_ACTION,
    } | {row.name: code for code, row in catalog.cuda_errors().items()}
    rows = told(tmp_path, "#include <cuda.h>\n#include <nvml.h>", [f"NUMBER({name})" for name in expected])
    assert {row[0]: int(row[1]) for row in rows} == expected


@headers
def test_errors_that_end_a_process() -> None:
    """Whatever cuda.h calls the end of a process or a context ends it for us too, and for the catalogue."""
    include = toolkit.includes()
    assert include is not None
    text = (
        (include / "cuda.h")
        .read_text(encoding="utf-8")
        .partition("typedef enum cudaError_enum")[2]
        .partition("} CUresult")[0]
    )
    described = re.findall(r"/\*\*(.*?)\*/\s*CUDA_\w+\s*=\s*(\d+)", text, re.S)
    final = {
        int(code)
        for words, code in described
        if re.search(r"terminated\s+(\*\s+)?and\s+(\*\s+)?relaunched|must\s+(\*\s+)?be\s+(\*\s+)?destroyed", words)
    }
    assert len(final) > 10
    assert final - driver.STICKY == set()
    assert {code for code in final if not catalog.cuda_errors()[code].sticky} == set()
    assert driver.MPS_SERVER_NOT_READY not in driver.STICKY


def ptx_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "*.ptx"], cwd=toolkit.ROOT, capture_output=True, text=True, check=False)
    return [toolkit.ROOT / name for name in listed.stdout.split()] or sorted(toolkit.ROOT.glob("*/**/*.ptx"))


@pytest.mark.parametrize("file", ptx_files(), ids=lambda file: file.name)
def test_ptx_is_for_the_drivers_and_gpus_that_are_meant(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    major, minor = map(int, re.findall(r"^\.version (\d+)\.(\d+)", text, re.MULTILINE)[0])
    assert (major, minor) <= NEWEST_PTX
    assert int(re.findall(r"^\.target sm_(\d+)\b", text, re.MULTILINE)[0]) <= OLDEST_GPU


@assembler
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_probes_of_the_hardware_run_assemble(tmp_path: Path, architecture: str) -> None:
    """The committed PTX is assembled in test_driver_kernels.py; this is what an experiment brings along itself."""
    probes = tmp_path / "sparse.ptx"
    probes.write_text(sparse.PTX)
    command = [str(toolkit.find("bin/ptxas")), f"-arch={architecture}", "-o", str(tmp_path / "out.cubin"), str(probes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
