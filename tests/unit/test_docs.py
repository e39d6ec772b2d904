"""The pages: every link leads somewhere, and what they show can be typed and is taken.

Nothing of the site's own tools is needed; `make site` checks the same links as the site has them.
"""

import re
import shlex
import subprocess
import tomllib
from itertools import takewhile
from pathlib import Path

import pytest
import yaml

from docs import stage
from resilience.cli.commands import COMMANDS, WITHOUT_ARGUMENTS
from resilience.cli.main import main
from resilience.cli.parser import whole
from resilience.config import mpsr_yaml, render
from resilience.model.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = stage.pages()
LINK = re.compile(r"\]\(([^)\s]+)[^)]*\)")
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def prose(page: str) -> str:
    """A page without its code."""
    lines = FENCE.sub("", text(page)).splitlines()
    return re.sub(r"`[^`\n]*`", "", "\n".join(line for line in lines if not line.startswith("    ")))


def anchors(page: str) -> set[str]:
    """What a heading can be linked by, as GitHub makes it."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+)$", FENCE.sub("", text(page)), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        number = next(number for number in range(1000) if (f"{slug}-{number}" if number else slug) not in found)
        found.add(f"{slug}-{number}" if number else slug)
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    known = set(stage.known())
    folders = {str(parent) for name in known for parent in Path(name).parents}
    wrong = []
    for target in LINK.findall(prose(page)):
        if re.match(r"(https?|mailto):", target):
            continue
        path, _, anchor = target.partition("#")
        place = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        name = str(place.relative_to(ROOT)) if place.is_relative_to(ROOT) else "outside"
        if name not in known | folders:
            wrong.append(f"{target}: no file that git knows")
        elif anchor and anchor not in anchors(name):
            wrong.append(f"{target}: no such heading")
    assert wrong == []


def test_every_page_has_one_place_in_the_sites_menu() -> None:
    menu = [page for section in stage.menu().values() for page in section]
    assert sorted(menu) == sorted(PAGES)
    assert all(stage.menu().values())


def blocks(*languages: str) -> list[tuple[str, str]]:
    """(page, code) of each fenced block in one of these languages."""
    found = ((page, match) for page in PAGES for match in FENCE.finditer(text(page)))
    return [(page, re.sub(f"^{match[1]}", "", match[3], flags=re.M)) for page, match in found if match[2] in languages]


def commands() -> list[tuple[str, str]]:
    """(page, command line) of each call of mpsr that a page shows, on a line of its own or in a sentence."""
    found = []
    for page in PAGES:
        if page == "docs/reference/cli.md":  # rendered from the parser: usages, no calls
            continue
        found += [(page, call) for call in re.findall(r"`(mpsr [a-z][^`\n]*)`", FENCE.sub("", text(page)))]
        code = [line for line in text(page).splitlines() if line.startswith("    ")]
        code += [line for _, block in blocks("sh", "bash", "console") for line in block.splitlines()]
        for line in code:
            if match := re.match(r" *(?:\$ )?(?:/\S+/)?(mpsr [a-z].*)", line):
                found.append((page, match[1]))
    return sorted(set(found))


@pytest.mark.parametrize(("page", "line"), commands())
def test_a_command_that_is_shown_is_one(page: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is given to the real parser; one that only tells something is run."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(takewhile(lambda word: not set(word) <= set("|;&<>()"), lexer))
    words = ["4711" if word == "JOB" else word for word in words] + ["4711"] * (words[-1] == "-j")
    assert words[1] in COMMANDS, line
    if len(words) == 2 or words[1] in WITHOUT_ARGUMENTS or words[1] == "run" or "--" in words:
        return
    try:
        whole().parse_args(words[1:])
    except SystemExit as end:
        said = capsys.readouterr().err
        pytest.fail(f"{page}: {line}: exit status {end.code}: {said}")
    if words[1] == "explain" and "--options" in words:
        assert main(words[1:]) == 0


def test_some_commands_are_found() -> None:
    assert len(commands()) > 30
    assert any("explain --options" in line for _, line in commands())


@pytest.mark.parametrize(("page", "code"), blocks("yaml"))
def test_settings_that_are_shown_are_taken(page: str, code: str) -> None:
    values = yaml.safe_load(code)
    if set(values) <= set(render.Site.__dataclass_fields__):
        assert render.parse_site(yaml.safe_dump({"nodes": "gpu[01-04]"} | values), page).nodes
    elif set(values) <= set(Settings.__dataclass_fields__):
        assert mpsr_yaml.parse(code, page)


@pytest.mark.parametrize(("page", "code"), blocks("python", "sh", "bash", "toml"))
def test_code_that_is_shown_is_code(page: str, code: str) -> None:
    if "import " in code or "with " in code:
        compile(code, page, "exec")
    elif "[[" in code:
        tomllib.loads(code)
    else:
        subprocess.run(["bash", "-n"], input=code, text=True, check=True)
