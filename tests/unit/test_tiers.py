"""The folders of tests/ and their tiers: each folder has one, the guide names it, and a test that needs more is refused."""

import re
from pathlib import Path

import pytest

from tests.conftest import FOLDERS, TIERS, misplaced

ROOT = Path(__file__).parents[2]


def test_each_folder_with_tests_has_a_tier() -> None:
    assert set(FOLDERS) == {file.parent.name for file in (ROOT / "tests").glob("*/test_*.py")}


def test_the_guide_names_each_folder_and_its_tier() -> None:
    rows = re.findall(r"^\| `tests/(\w+)` \| (\w+)", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M)
    told = {folder: next((tier for tier in TIERS if tier in marks), "unit") for folder, marks in FOLDERS.items()}
    assert dict(rows) == told | {"conformance": "sim"}, "of two, the one without a GPU"


@pytest.mark.parametrize(
    ("folder", "marks", "wrong"),
    [
        ("unit", set(), ""),
        ("unit", {"sim"}, "no tests that need sim"),
        ("conformance", {"gpu"}, ""),
        ("conformance", {"cluster", "sim"}, "no tests that need cluster"),
        ("spank", {"cluster", "guard", "gpu"}, "no tests that need gpu and guard"),
        ("new", set(), "has no tier"),
    ],
)
def test_a_test_that_needs_more_than_its_folder_is_refused(folder: str, marks: set[str], wrong: str) -> None:
    said = misplaced(folder, marks)
    assert (wrong in said) if wrong else (said == "")
