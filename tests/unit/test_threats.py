"""SECURITY.md names tests for each threat, and the tests that it names exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
_SECTION = re.search(r"^## Threats and their tests\n(.*?)^## ", PAGE, re.M | re.S)
THREATS = re.split(r"^### ", _SECTION[1] if _SECTION else "", flags=re.M)[1:]
NAMED = re.findall(r"`(tests/[\w/.]+\.py)(?:::(\w+))?`", PAGE)


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.split("\n", 1)[0])
def test_a_threat_has_tests(threat: str) -> None:
    assert re.search(r"^- `tests/[\w/.]+\.py::test_\w+`$", threat, re.M)


@pytest.mark.parametrize(("file", "name"), NAMED, ids=lambda word: word.rpartition("/")[2])
def test_a_test_that_is_named_exists(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert not name or name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_page_has_threats() -> None:
    assert len(THREATS) >= 10
