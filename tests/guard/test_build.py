"""The module and its stand-ins compile without a word, for each kernel whose headers are here, also under sparse."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.guard.conftest import Bench, all_kernels
from tests.guard.kernels import MODULE, WANTED, Kernel, kernels
from tests.guard.modules import STRICT, VARIANTS, BuildFailed, copy_sources, run

SOURCES = sorted(path for path in MODULE.rglob("*.[ch]") if not path.name.endswith(".mod.c"))


@pytest.mark.guard
@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", ["mps_guard", *VARIANTS])
@pytest.mark.parametrize("kernel", all_kernels())
def test_builds_without_a_word(kernel: Kernel, name: str, bench: Bench) -> None:
    """W=1 and sparse, both with warnings as errors."""
    built = bench.built(kernel)[name]
    assert built.told == ()
    info = subprocess.run(["modinfo", built.module], capture_output=True, text=True, check=True).stdout
    assert re.search(rf"^vermagic: +{re.escape(kernel.release)} ", info, re.M)
    assert re.search(r"^license: +GPL v2$", info, re.M)


@pytest.mark.guard
@pytest.mark.parametrize("kernel", all_kernels())
def test_sparse_is_at_work(kernel: Kernel, tmp_path: Path) -> None:
    """A build that sparse must object to fails: its silence above means something."""
    source = copy_sources(tmp_path / "module")
    with (source / "main.c").open("a") as file:
        file.write("\nint *mg_wrong(int __user *p);\nint *mg_wrong(int __user *p)\n{\n\treturn (int *)p;\n}\n")
    with pytest.raises(BuildFailed, match="address space"):
        run("make", "-s", "-C", kernel.headers, f"M={source}", *STRICT, "main.o")


@pytest.mark.guard
@pytest.mark.parametrize("series", WANTED)
def test_wanted_series(series: str) -> None:
    """Says in the run's report which kernels were left out."""
    if not any(kernel.series == series for kernel in kernels()):
        pytest.skip(f"no headers of {series} are to be had here")


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(MODULE)))
def test_kernel_style(source: Path) -> None:
    """What checkpatch.pl, which Debian does not ship, would see first."""
    text = source.read_text()
    lines = text.splitlines()
    opening = (
        "// SPDX-License-Identifier: GPL-2.0-only"
        if source.suffix == ".c"
        else "/* SPDX-License-Identifier: GPL-2.0-only"
    )
    assert lines[0].startswith(opening)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    for number, line in enumerate(lines, 1):
        assert line == line.rstrip(), f"{number}: blanks at the end"
        assert not re.match(r"^ +[^ *]", line) or line.startswith(" *"), f"{number}: indented with blanks"
        assert len(line.expandtabs(8)) <= 100, f"{number}: longer than 100 columns"
        assert not re.match(r"^\s+//", line), f"{number}: C++ comment"
        assert "\n\n\n" not in text
