"""The two command lines of docs/how-to/hardware-run.md: short enough to be sent, the same as in the script, and run as they stand."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.backend import MEMORY_MIB
from tests.conformance.hardware_kit import NO_TIMEOUT, PATIENCE, alive, environ, script
from tests.gpu.experiments import PLANS
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
MIDDLING = {"server_init_ms": "1500", "rebuild_ms": "1500", "cuinit_ms": "300", "context_ms": "500"}
"""What hardware may take: thirty times the profile's rebuild, and waits where the profile has none."""


def commands() -> dict[str, str]:
    first, rest = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return {"first": first, "rest": rest}


def test_they_are_two_and_short_and_those_of_the_script() -> None:
    for name, text in commands().items():
        assert len(text) <= MOST
        body = re.search(rf"^{name}\(\) {{\n(.*?)^}}$", SCRIPT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        assert body is not None
        assert re.sub(r"^    ", "", body[1], flags=re.MULTILINE) == text


def run(name: str, out: Path, **values: str) -> tuple[dict[str, Any], str]:
    """One command, in a shell of its own; its results, and what it printed. Nothing of it is left."""
    with SimHost(memory=MEMORY_MIB, values=values) as host:
        there = script(out.parent / "bin", "timeout", NO_TIMEOUT)
        env = environ(host, there, OUT=str(out), **{PATIENCE_WORD: str(PATIENCE)})
        done = subprocess.run(
            ["bash", "-c", commands()[name]],
            env=env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert alive(f"SIMGPU_DIR={host.path}") == []
    results: dict[str, Any] = json.loads((out / "results.json").read_text())
    assert list(results["experiments"]) == list(PLANS[name])
    sizes = [path.stat().st_size for path in out.iterdir()]
    assert len(sizes) <= 8
    assert max(sizes) < 16 << 20
    assert (out / "machine.txt").read_text().count("NVIDIA-SMI") or os.access("/dev/nvidiactl", os.F_OK)
    return results, done.stdout


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_the_first_decides_on_hardware_that_is_slow(tmp_path: Path) -> None:
    results, said = run("first", tmp_path / "out", **MIDDLING)
    agrees = {one.name: one.agrees for one in outcomes(results["experiments"])}
    assert {name: agrees[name] for name in DECIDING} == dict.fromkeys(DECIDING, True)
    assert "as assumed  H4   two_servers_one_gpu: yes" in said


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_the_rest_says_what_is_not_there(tmp_path: Path) -> None:
    results, said = run("rest", tmp_path / "out")
    assert "not seen    E24  torch_trains_on: torch: torch is not installed" in said
    assert "not seen    E24  cupy_kernels: cupy: cupy is not installed" in said
    assert results["experiments"]["environment"]["found"]["client"]["mps"] == 1


@pytest.mark.parametrize("words", [[], ["everything"]])
def test_the_script_names_its_parts(words: list[str]) -> None:
    done = subprocess.run(["bash", SCRIPT, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "hint: first, rest or both" in done.stderr
