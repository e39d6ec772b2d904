"""No two files need each other: imports of the package, and what the supervisor's and the plugin's files call."""

import ast
import subprocess
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "resilience"
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for file in PACKAGE.rglob("*.py")
}


def needs(name: str) -> Iterator[str]:
    """The modules of the package that a module imports, at its top or later."""
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (one if one in MODULES else node.module for one in inside)


def circle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_the_package_imports_in_one_direction() -> None:
    assert circle({name: set(needs(name)) - {name} for name in MODULES}) == []


@pytest.mark.parametrize("part", ["spank_plugin/launcher", "spank_plugin/plugin"])
def test_c_files_call_in_one_direction(part: str, tmp_path: Path) -> None:
    """By what the compiled files define and leave undefined."""
    defined: dict[str, str] = {}
    wanted: dict[str, set[str]] = {}
    for source in (ROOT / part).glob("*.c"):
        compiled = tmp_path / f"{source.stem}.o"
        subprocess.run(["gcc", "-D_GNU_SOURCE", f"-I{ROOT / 'spank_plugin'}", "-c", "-o", compiled, source], check=True)
        for line in subprocess.run(["nm", compiled], check=True, capture_output=True, text=True).stdout.splitlines():
            kind, symbol = line.split()[-2:]
            if kind == "U":
                wanted.setdefault(source.stem, set()).add(symbol)
            elif kind.isupper():
                defined[symbol] = source.stem
    calls = {file: {defined[one] for one in symbols if one in defined} - {file} for file, symbols in wanted.items()}
    assert len(calls) > 5
    assert circle(calls) == []


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) != []
