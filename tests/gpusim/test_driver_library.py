"""The simulated driver as a library: the functions that it offers, the codes that it is told to return, its memory safety."""

from __future__ import annotations

import os
import re
import subprocess

from tests.gpusim.driver_harness import Program, counted, out
from tests.gpusim.host import HERE, SimHost
from tests.gpusim.mps_harness import wait_for

# -- what the library offers ---


def rows() -> list[tuple[str, int, str]]:
    text = (HERE / "proc.c").read_text()
    found = re.findall(r"X\((cu\w+), (\d+), (cu\w+)\)", text)
    return [(name, int(since), function) for name, since, function in found]


def test_each_function_of_the_table_is_exported_and_found(program: Program) -> None:
    table = rows()
    assert len(table) > 90
    names = [function for _, _, function in table]
    assert program.do("exports", names) == names
    for name, since, _ in table:
        address, status = program.cu(
            "cuGetProcAddress_v2", name.encode() + b"\0", out("u64"), ("i32", since), 0, out("i32")
        )
        assert address != 0
        assert status == 0


def test_a_function_that_is_not_written_is_missing(program: Program) -> None:
    assert program.do("exports", ["cuGraphCreate", "cuMemAlloc", "cuGetExportTable"]) == []
    answer = program.cu("cuGetProcAddress_v2", b"cuGraphCreate\0", out("u64"), ("i32", 13000), 0, out("i32"))
    assert answer == [0, 1]
    assert program.cu("cuGetProcAddress_v2", b"cuMemCreate\0", out("u64"), ("i32", 9000), 0, out("i32")) == [0, 2]
    assert program.code("cuGetProcAddress", b"cuGraphCreate\0", out("u64"), ("i32", 13000), 0) == 500


def test_proc_address_gives_the_function_of_the_version(program: Program) -> None:
    def find(version: int) -> int:
        name = b"cuCtxCreate\0"
        return int(program.cu("cuGetProcAddress_v2", name, out("u64"), ("i32", version), 0, out("i32"))[0])

    assert len({find(4000), find(11040), find(12050)}) == 3
    assert find(13000) == find(12050)
    address = program.cu("cuGetProcAddress_v2", b"cuCtxSynchronize\0", out("u64"), ("i32", 13000), 0, out("i32"))[0]
    assert program.do("call_address", address) == 0


# -- injection ---


def test_the_nth_call_fails_as_injected(sim: SimHost) -> None:
    (sim.path / "inject").write_text("fail cuMemAlloc 2 2\nfail cuInit 1 999\n# a remark\n\nset rebuild_ms 5\n")
    with Program(sim, start=False) as one:
        assert one.code("cuInit", 0) == 999
        assert one.code("cuInit", 0) == 0
        one.cu("cuCtxCreate_v2", out("u64"), 0, 0)
        codes = [one.code("cuMemAlloc_v2", out("u64"), 4) for _ in range(3)]
        assert codes == [0, 2, 0]
        assert one.finish() == ""


def test_rules_that_come_later_are_read(program: Program, sim: SimHost) -> None:
    program.cu("cuCtxSynchronize")
    (sim.path / "inject").write_text("".join(f"fail cuCtxSynchronize {n} 719\n" for n in range(2, 60)))
    wait_for("the rule", lambda: program.code("cuCtxSynchronize") == 719 or None)
    (sim.path / "inject").write_text("frobnicate\n")
    wait_for("the rules' end", lambda: program.code("cuCtxSynchronize") == 0 or None)
    assert "rule is not understood: frobnicate" in program.finish()


# -- the sanitizers ---


def test_the_c_side_is_clean_under_the_sanitizers(sim: SimHost) -> None:
    done = subprocess.run(
        ["make", "-s", "-j2", "-C", str(HERE), "asan", f"OUT={sim.build}"],
        env=os.environ | {"SIMGPU_DIR": str(sim.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("ok\n")
    assert counted(sim) == 0
