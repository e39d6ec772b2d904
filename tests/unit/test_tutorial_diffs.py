"""The tutorials' programs against their plain forms: seven lines at most, and the page shows exactly those."""

import difflib
import re
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).parents[2] / "docs/tutorial"
PAIRS = [("train", "vision"), ("train", "language"), ("serve", "serve"), ("mpi", "diffusion")]
MOST = 7


def changes(folder: str, program: str) -> list[str]:
    """`- ` and `+ ` lines from the plain form to the other, as written; indentation, blank lines and docstrings aside."""
    plain, kept = (
        re.sub(r'\A""".*?"""\n', "", (TUTORIAL / folder / f"{name}.py").read_text(encoding="utf-8"), flags=re.S)
        for name in (f"{program}_plain", program)
    )
    before, after = ([line for line in text.splitlines() if line.strip()] for text in (plain, kept))
    matcher = difflib.SequenceMatcher(None, [line.strip() for line in before], [line.strip() for line in after], False)
    found = []
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind != "equal":
            found += [f"-{line}" for line in before[a:b]] + [f"+{line}" for line in after[c:d]]
    return found


@pytest.mark.parametrize(("folder", "program"), PAIRS)
def test_the_page_shows_the_lines_that_make_a_program_survive(folder: str, program: str) -> None:
    lines = changes(folder, program)
    assert 0 < sum(line.startswith("+") for line in lines) <= MOST
    page = (TUTORIAL / folder / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(rf"^```diff {program}\n(.*?)^```$", page, re.M | re.S)
    assert shown == "".join(f"{line}\n" for line in lines), "the page shows other lines than these"
