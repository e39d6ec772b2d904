"""A word means one thing: no two classes of the product have one name, but for a fact and what is written down of it."""

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "resilience"
FACT_AND_RECORD = {
    "JobOpened": {"model/event.py", "model/records/node.py"},
    "JobClosed": {"model/event.py", "model/records/node.py"},
    "Verdict": {"model/effect.py", "model/records/incidents.py"},
}


def test_each_class_has_a_name_of_its_own() -> None:
    places: dict[str, set[str]] = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].add(str(path.relative_to(PACKAGE)))
    assert {name: where for name, where in places.items() if len(where) > 1} == FACT_AND_RECORD
