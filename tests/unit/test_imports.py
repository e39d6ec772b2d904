"""The rooms of the package: each imports only rooms above it, only some touch the world, only the CLI builds adapters."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "resilience"
ROOMS: tuple[frozenset[str], ...] = tuple(
    frozenset(row.split())
    for row in (
        "model",
        "contract",
        "catalog",
        "parse",
        "placement",
        "machine",
        "metrics",
        "ports",
        "adapters",
        "agent",
        "config",
        "state",
        "hooks",
        "check",
        "report",
        "drill",
        "cli",
    )
)
"""From the top down. A room may import itself, its row and every row above it."""
PURE = frozenset("model contract catalog parse placement machine metrics ports agent report".split())
WORLD = frozenset({"time", "subprocess", "socket", "random"})
ENVIRONMENT = frozenset({"environ", "getenv", "putenv"})
OPEN_TO_THE_WORLD = frozenset({"adapters", "config", "state", "hooks", "check", "drill", "cli"})
FILES = sorted(PACKAGE.rglob("*.py"))


def room(module: str) -> str:
    """The room of resilience.<room>[.…]; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


def rank(name: str) -> int:
    return next(index for index, row in enumerate(ROOMS) if name in row)


def own_room(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full name of every module imported anywhere in a file, lazily or not."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative imports hide their room"
            base = node.module or ""
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}" if base == "resilience" else base


def uses_environ(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        found = False
        if isinstance(node, ast.Attribute):
            found = node.attr in ENVIRONMENT and isinstance(node.value, ast.Name) and node.value.id == "os"
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            found = any(alias.name in ENVIRONMENT for alias in node.names)
        if found:
            yield node.lineno  # type: ignore[attr-defined]  # both kinds have one


def complaints(file: Path, text: str) -> list[str]:
    """What is wrong with one file of the package."""
    tree = ast.parse(text)
    here = own_room(file)
    found: list[str] = []
    for line, module in imports(tree):
        top = module.split(".")[0]
        if top == "resilience" and (other := room(module)) and rank(other) > rank(here):
            found.append(f"{file.name}:{line}: {here} imports {other}, which is below it")
        if here in PURE and module.startswith("resilience.adapters"):
            found.append(f"{file.name}:{line}: {here} names an adapter: {module}")
        if top in WORLD and here not in OPEN_TO_THE_WORLD:
            found.append(f"{file.name}:{line}: {here} imports {top}")
    if here not in OPEN_TO_THE_WORLD:
        found += [f"{file.name}:{line}: {here} reads the environment" for line in uses_environ(tree)]
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_file_keeps_to_its_room(file: Path) -> None:
    if own_room(file) == "__init__":  # it gives programs their session, when asked for it and not before
        body = ast.parse(file.read_text(encoding="utf-8")).body
        assert not [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
        return
    assert complaints(file, file.read_text(encoding="utf-8")) == []


def test_every_room_is_in_the_list() -> None:
    rooms = {own_room(file) for file in FILES} - {"__init__"}
    assert rooms <= frozenset.union(*ROOMS)


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("model/ids.py", "from resilience.parse import words", "model imports parse"),
        ("machine/policy.py", "import time", "machine imports time"),
        (
            "agent.py",
            "def f() -> None:\n    from resilience.adapters.slurm.scontrol import Scontrol",
            "agent names an adapter",
        ),
        ("machine/x.py", "from resilience import agent", "machine imports agent"),
        ("machine/x.py", "import os\nprint(os.environ)", "machine reads the environment"),
        ("placement/x.py", "from os import getenv", "placement reads the environment"),
        ("parse/x.py", "from subprocess import run", "parse imports subprocess"),
        ("cli/log.py", "import time, socket\nfrom resilience.agent import Agent", ""),
    ],
)
def test_the_walk_itself_sees_what_it_should(name: str, text: str, complaint: str) -> None:
    found = complaints(PACKAGE / name, text)
    assert [complaint in line for line in found] == ([True] if complaint else [])
