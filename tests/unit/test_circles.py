"""No two C files need each other, by what the supervisor's and the plugin's files call. Of Python, import-linter says so."""

import subprocess
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def circle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


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
