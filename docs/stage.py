"""Lays out `make site`: every Markdown file that git knows, and the files that they link to, at their own places, and the menu.

    python docs/stage.py DIRECTORY    # DIRECTORY/site-pages and DIRECTORY/mkdocs.yml, which adds to the one of this tree

Links of a page are relative to where it lies, also those that leave docs/; in a copy of the tree they lead where they lead here.
The page of the README is the site's first.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
SECTIONS = {
    "mpsr": ["README.md", "docs/README.md"],
    "For users": [
        "docs/how-to/users",
        "docs/tutorial/",
        "docs/reference/session",
        "docs/reference/options",
        "docs/how-to/read-logs",
    ],
    "How to": ["docs/how-to/install", "docs/how-to/configure", "docs/how-to/"],
    "Understand": ["docs/explanation/architecture", "docs/explanation/", "docs/measurements/"],
    "Reference": ["docs/reference/cli", "docs/reference/"],
    "Decisions": ["docs/adr/"],
    "Work on mpsr": ["CONTRIBUTING", ""],
}
"""The menu: a section has the pages that begin so and are in no section before it."""
LEFT_OUT = "tests/data/"
"""Recorded samples say where they come from; that is no page."""


def known() -> list[str]:
    """Every file that git knows; in a tree without git, such as one that was unpacked, every file that is not made here."""
    if not (ROOT / ".git").exists():
        files = (file.relative_to(ROOT) for file in ROOT.rglob("*") if file.is_file())
        return [str(file) for file in files if file.parts[0] != "build" and not file.parts[0].startswith(".venv")]
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [name for name in found.split("\0") if name and (ROOT / name).is_file()]


def pages() -> list[str]:
    return [name for name in known() if name.endswith(".md") and not name.startswith(LEFT_OUT)]


def linked(page: str) -> set[str]:
    """Files of this tree that a page links to."""
    text = (ROOT / page).read_text(encoding="utf-8")
    places = ((ROOT / page).parent / target for target in LINK.findall(text) if ":" not in target)
    inside = (place.resolve() for place in places)
    return {str(place.relative_to(ROOT)) for place in inside if place.is_file() and place.is_relative_to(ROOT)}


def menu() -> dict[str, list[str]]:
    """The pages by section; each is in one."""
    rest = pages()
    found: dict[str, list[str]] = {}
    for section, beginnings in SECTIONS.items():
        mine = [name for start in beginnings for name in rest if name.startswith(start)]
        found[section] = list(dict.fromkeys(mine))
        rest = [name for name in rest if name not in mine]
    return found


def main(build: Path) -> None:
    target = build / "site-pages"
    shutil.rmtree(target, ignore_errors=True)
    for name in sorted({file for page in pages() for file in (page, *linked(page))}):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target / name)
    config = {"INHERIT": str(ROOT / "mkdocs.yml"), "docs_dir": "site-pages", "site_dir": "site"}
    nav = [{section: list(names)} for section, names in menu().items()]
    (build / "mkdocs.yml").write_text(json.dumps(config | {"nav": nav}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
