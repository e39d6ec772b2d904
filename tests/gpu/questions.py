"""The open questions as a table: `python3 -m tests.gpu.questions` writes it into docs/measurements/README.md.

A test keeps the page, the questions and the experiments in step.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from tests.gpusim import profile

SOURCE = Path(__file__).with_name("questions.toml")
PAGE = Path(__file__).parent.parent.parent / "docs" / "measurements" / "README.md"
BEGIN, END = "<!-- made by tests/gpu/questions.py -->\n", "<!-- end -->\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    asks: str
    experiments: tuple[str, ...] = ()
    left_out: str = ""


def load() -> dict[str, Question]:
    """Every question by its id."""
    tables = tomllib.loads(SOURCE.read_text(encoding="utf-8"))
    return {
        name: Question(
            asks=one["asks"], experiments=tuple(one.get("experiments", ())), left_out=one.get("left_out", "")
        )
        for name, one in tables.items()
    }


def table() -> str:
    """One row a question; `assumed` names the profile's entries and says whether a run has confirmed them."""
    lines = ["| | question | asked by | not asked, and why | simulator's assumption |", "|---|---|---|---|---|"]
    for name, one in load().items():
        assumed = [entry for entry in profile.load().values() if entry.id == name]
        state = ", ".join(f"`{entry.name}` {'confirmed' if entry.confirmed else 'unconfirmed'}" for entry in assumed)
        asked = ", ".join(f"`{each}`" for each in one.experiments)
        lines.append(f"| {name} | {one.asks} | {asked or '–'} | {one.left_out or '–'} | {state or '–'} |")
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """The page with a fresh table between its marks."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{table()}\n{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
