"""The contracts of import-linter in pyproject.toml: that they are the page's table of rooms, that they bite, and what they cannot say.

`make lint` checks the tree by them.
"""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "resilience"
CONTRACTS = {
    contract["id"]: contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}
BLIND = sorted(module.removeprefix("resilience.") for module in CONTRACTS["world"]["source_modules"])
"""The rooms that do not touch the world."""
ENVIRONMENT = frozenset({"environ", "environb", "getenv", "putenv"})


# ---------------------------------------------------------------- the contracts and the page
def table() -> list[tuple[str, str]]:
    """Each room of the page's table, from its top down, and whether it may touch the world."""
    page = (ROOT / "docs/explanation/architecture.md").read_text(encoding="utf-8")
    (rows,) = re.findall(r"^\| room \| what \| may touch the world \|\n\|[-|]+\n((?:\|.*\n)+)", page, re.M)
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows.splitlines()]
    return [(room, world) for rooms, _, world in cells for room in rooms.split(", ")]


def test_the_layers_are_the_pages_table() -> None:
    assert [room for room, _ in table()] == CONTRACTS["rooms"]["layers"][::-1]


def test_the_page_says_who_touches_the_world() -> None:
    assert sorted(room for room, world in table() if world in ("no", "through ports only")) == BLIND


def lint_imports(tree: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("lint-imports")
    command = [str(program), "--no-cache", "--no-logo", "pyproject.toml"]
    return subprocess.run(command, cwd=tree, env={"PYTHONPATH": str(tree)}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("contract", "file", "line"),
    [
        ("rooms", "model/ids.py", "from resilience.parse import lease"),
        ("rooms", "machine/policy.py", "def f() -> None:\n    from resilience import agent"),
        ("rooms", "new/__init__.py", "import os"),
        ("adapters", "agent/act.py", "def f() -> None:\n    from resilience.adapters.slurm.scontrol import Scontrol"),
        ("adapters", "report/story.py", "import resilience.adapters.gpu.nvml"),
        ("world", "machine/policy.py", "from time import monotonic"),
        ("world", "agent/loop.py", "import subprocess"),
        ("circles", "model/ids.py", "from resilience.model import lease"),
        ("circles", "adapters/linux/clock.py", "import resilience.adapters.mps.mps_talk"),
    ],
)
def test_a_contract_bites(contract: str, file: str, line: str, tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "resilience", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    spoiled = tmp_path / "resilience" / file
    spoiled.parent.mkdir(exist_ok=True)
    with spoiled.open("a") as text:
        text.write(f"\n{line}\n")
    done = lint_imports(tmp_path)
    assert f"{CONTRACTS[contract]['name']} BROKEN" in done.stdout, done.stdout
    assert done.returncode == 1


# ---------------------------------------------------------------- what they cannot say
def reads_environment(text: str) -> Iterator[int]:
    """The lines of a file that do."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute):
            found = node.attr in ENVIRONMENT and isinstance(node.value, ast.Name) and node.value.id == "os"
        else:
            found = isinstance(node, ast.ImportFrom) and node.module == "os"
            found = found and any(alias.name in ENVIRONMENT for alias in node.names)  # type: ignore[attr-defined]
        if found:
            yield node.lineno  # type: ignore[attr-defined]  # both kinds have one


@pytest.mark.parametrize("room", BLIND)
def test_a_room_without_the_world_reads_no_environment(room: str) -> None:
    files = [PACKAGE / f"{room}.py"] if room == "ports" else sorted((PACKAGE / room).rglob("*.py"))
    assert files
    assert [f"{file}:{line}" for file in files for line in reads_environment(file.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    "text", ["import os\nprint(os.environ)", "from os import getenv", "def f():\n    os.getenv('A')"]
)
def test_reading_the_environment_is_seen(text: str) -> None:
    assert len(list(reads_environment(text))) == 1


def test_the_package_itself_imports_nothing_at_once() -> None:
    """It gives programs their session when asked for it, and not before."""
    body = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8")).body
    assert not [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
