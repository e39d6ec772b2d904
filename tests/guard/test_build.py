"""The module and its stand-ins compile without a word, for each kernel whose headers are here, also under sparse."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.guard.conftest import Bench, all_kernels
from tests.guard.kernels import BUILD, MODULE, WANTED, Kernel, kernels
from tests.guard.modules import SPARSE, STRICT, VARIANTS, BuildFailed, copy_sources, run

SOURCES = sorted(path for path in MODULE.rglob("*.[ch]") if not path.name.endswith(".mod.c"))


@pytest.mark.guard
@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", ["mps_guard", *VARIANTS])
@pytest.mark.parametrize("kernel", all_kernels())
def test_builds_without_a_word(kernel: Kernel, name: str, bench: Bench) -> None:
    """W=1, and sparse for Debian's own kernels, both with warnings as errors."""
    built = bench.built(kernel)[name]
    assert built.told == ()
    info = subprocess.run(["modinfo", built.module], capture_output=True, text=True, check=True).stdout
    assert re.search(rf"^vermagic: +{re.escape(kernel.release)} ", info, re.M)
    assert re.search(r"^license: +GPL v2$", info, re.M)


@pytest.mark.guard
@pytest.mark.parametrize("kernel", all_kernels())
def test_sparse_is_at_work(kernel: Kernel, tmp_path: Path) -> None:
    """A build that sparse must object to fails: its silence above means something."""
    if kernel.debug:
        pytest.skip("sparse looks at the sources with Debian's kernels")
    source = copy_sources(tmp_path / "module")
    with (source / "main.c").open("a") as file:
        file.write("\nint *mg_wrong(int __user *p);\nint *mg_wrong(int __user *p)\n{\n\treturn (int *)p;\n}\n")
    with pytest.raises(BuildFailed, match="address space"):
        run("make", "-s", "-C", kernel.headers, f"M={source}", *STRICT, *SPARSE, "main.o")


@pytest.mark.guard
@pytest.mark.parametrize("series", WANTED)
def test_wanted_series(series: str) -> None:
    """Says in the run's report which kernels were left out."""
    if not any(kernel.series == series for kernel in kernels()):
        pytest.skip(f"no headers of {series} are to be had here")


CHECKPATCH = BUILD / "checkpatch" / "checkpatch.pl"


@pytest.mark.guard
@pytest.mark.skipif(
    not CHECKPATCH.exists(), reason="no checkpatch.pl, which needs the kernel's source (make guard GUARD=--all)"
)
def test_checkpatch_has_nothing_to_say() -> None:
    """About the module; the programs of its tests live in user space. It is built for many kernels, so it asks which."""
    sources = [path for path in SOURCES if "tests" not in path.relative_to(MODULE).parts]
    told = run(
        "perl",
        CHECKPATCH,
        "--no-tree",
        "--terse",
        "--no-summary",
        "--ignore",
        "EMBEDDED_FILENAME,LINUX_VERSION_CODE,CONSTANT_COMPARISON",
        "--max-line-length=100",
        "-f",
        *sources,
    )
    assert told == ""


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(MODULE)))
def test_kernel_style(source: Path) -> None:
    """What checkpatch.pl would see first, where that is not at hand."""
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
