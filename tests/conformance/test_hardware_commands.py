"""The two command lines of docs/how-to/hardware-run.md: short enough to be sent, the same as in the script, and run as they stand."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.backend import MEMORY_MIB
from tests.conformance.hardware_kit import NO_TIMEOUT, PATIENCE, TWO_KINDS, alive, environ, script
from tests.gpu.experiments import PLANS
from tests.gpu.stage import ONLY_KINDS
from tests.gpu.stage import PATIENCE as PATIENCE_WORD
from tests.gpu.strings import ROOT
from tests.gpu.verdicts import outcomes
from tests.gpusim.host import SimHost

PAGE = ROOT / "docs" / "how-to" / "hardware-run.md"
SCRIPT = ROOT / "tests" / "gpu" / "hardware-run.sh"
MOST = 2000
DECIDING = (
    "raw_fd_keeps_memory",
    "memory_survives_server_fault",
    "import_across_servers",
    "two_servers_one_gpu",
    "standby_elsewhere",
)
MIDDLING = {"server_init_ms": "1000", "rebuild_ms": "1000", "cuinit_ms": "150", "context_ms": "250"}
"""What hardware may take: twenty times the profile's rebuild, and waits where the profile has none."""


def commands() -> dict[str, str]:
    first, rest = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return {"first": first, "rest": rest}


def test_they_are_two_and_short_and_those_of_the_script() -> None:
    for name, text in commands().items():
        assert len(text) <= MOST
        body = re.search(rf"^{name}\(\) {{\n(.*?)^}}$", SCRIPT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        assert body is not None
        assert re.sub(r"^    ", "", body[1], flags=re.MULTILINE) == text


SHORTER = """case "$2" in tests.gpu.run) shift 2; exec {python} -m tests.gpu.run "$@" --only {names};; *) exec {python} "$@";; esac"""
"""A `python3` that asks a part of the plan: test_hardware_run.py asks all of it."""


def run(name: str, out: Path, *names: str, **values: str) -> tuple[dict[str, Any], str]:
    """One command, in a shell of its own, of these experiments; its results, and what it printed. Nothing of it is left."""
    assert set(names) < set(PLANS[name])
    assert f"--plan {name} " in commands()[name]
    with SimHost(memory=MEMORY_MIB, values=values) as host:
        there = script(out.parent / "bin", "timeout", NO_TIMEOUT)
        script(there, "python3", SHORTER.format(python=sys.executable, names=",".join(names)))
        env = environ(host, there, OUT=str(out), **{PATIENCE_WORD: str(PATIENCE), ONLY_KINDS: TWO_KINDS[1]})
        done = subprocess.run(
            ["bash", "-c", commands()[name]],
            env=env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert alive(f"SIMGPU_DIR={host.path}") == []
    results: dict[str, Any] = json.loads((out / "results.json").read_text())
    assert list(results["experiments"]) == list(names)
    sizes = [path.stat().st_size for path in out.iterdir()]
    assert len(sizes) <= 8
    assert max(sizes) < 16 << 20
    assert (out / "machine.txt").read_text().count("NVIDIA-SMI") or os.access("/dev/nvidiactl", os.F_OK)
    return results, done.stdout


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.timeout(700)
def test_the_first_decides_on_hardware_that_is_slow(tmp_path: Path) -> None:
    results, said = run("first", tmp_path / "out", *list(PLANS["first"])[:4], **MIDDLING)
    agrees = {one.name: one.agrees for one in outcomes(results["experiments"])}
    assert {name: agrees[name] for name in DECIDING} == dict.fromkeys(DECIDING, True)
    assert "as assumed  H4   two_servers_one_gpu: yes" in said


@pytest.mark.sim
@pytest.mark.timeout(700)
def test_the_rest_says_what_is_not_there(tmp_path: Path) -> None:
    results, said = run("rest", tmp_path / "out", "environment", "torch", "cupy")
    torch = "torch is not installed" if find_spec("torch") is None else "torch "
    assert f"not seen    E24  torch_trains_on: torch: {torch}" in said
    assert "not seen    E24  cupy_kernels: cupy: cupy is not installed" in said
    assert results["experiments"]["environment"]["found"]["client"]["mps"] == 1


@pytest.mark.parametrize("words", [[], ["everything"]])
def test_the_script_names_its_parts(words: list[str]) -> None:
    done = subprocess.run(["bash", SCRIPT, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "hint: first, rest or both" in done.stderr
