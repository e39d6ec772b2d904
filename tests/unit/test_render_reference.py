"""What is made from the code is what is committed: reference pages, manual pages, completions."""

import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {
    page: text
    for generator in ("generate.py", "generate_commands.py")
    for page, text in runpy.run_path(str(DOCS / generator))["PAGES"].items()
}


@pytest.mark.parametrize("page", sorted(PAGES))
def test_the_page_is_not_stale(page: str) -> None:
    committed = (DOCS / page).read_text(encoding="utf-8")
    assert committed == PAGES[page](), "run: make docs"


@pytest.mark.parametrize("page", sorted((DOCS / "man").glob("*.[158]")), ids=lambda page: page.name)
def test_man_pages_are_roff(page: Path) -> None:
    if not (man := shutil.which("groff")):
        pytest.skip("no groff")
    done = subprocess.run([man, "-man", "-Tutf8", "-ww", "-z", page], capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("mpsr st", "status"),
        ("mpsr log --si", "--since"),
        ("mpsr drill --fault illegal-i", "illegal-instruction"),
        ("mpsr check --config pypro", "pyproject.toml"),
        ("mpsr render --out completi", "completions"),
    ],
)
def test_bash_completes(typed: str, offered: str) -> None:
    script = 'source completions/mpsr; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_mpsr; echo "${COMPREPLY[*]}"'
    command = ["bash", "-c", script, "complete", *typed.split()]
    done = subprocess.run(command, cwd=DOCS.parent, capture_output=True, text=True, check=True)
    assert done.stdout == f"{offered}\n"


def links(page: Path) -> list[str]:
    """Relative links of a Markdown page, without their anchors."""
    found = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    return [link.split("#")[0] for link in found if "://" not in link and not link.startswith("#")]


MINE = [*DOCS.rglob("*.md"), *DOCS.parent.glob("*.md")]


@pytest.mark.parametrize("page", MINE, ids=lambda page: str(page.relative_to(DOCS.parent)))
def test_links_lead_somewhere(page: Path) -> None:
    assert [link for link in links(page) if not (page.parent / link).exists()] == []
