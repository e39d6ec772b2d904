"""The report's page in a real browser: nothing beside the window or the picture, no complaint, links that lead, both themes, print."""

import json
from pathlib import Path

import pytest

from resilience.cli.main import main
from tests.unit.browser import CHROMIUM, look, printed
from tests.unit.test_report import FIRST, entries

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of a journal, whose first incident has long names, many tasks and evidence against two."""
    lines = []
    tasks = [f"{4294967290 + number}.4294967291.{number}" for number in range(24)]
    for one in entries():
        values = dict(one.values)
        if values.get("incident") == FIRST:
            if one.event == "incident.opened":
                values["clients"] = [*values["clients"], *tasks]  # type: ignore[misc]
            if one.event == "incident.closed":
                values["outcomes"] = {**values["outcomes"], **dict.fromkeys(tasks, "failed")}  # type: ignore[dict-item]
        if values.get("source") == "kmsg":
            values["text"] = "Xid" * 300
            values["who"] = "job 3 step 0 task 0"
        lines.append(json.dumps(values))
    directory = tmp_path_factory.mktemp("browser")
    (directory / "journal").write_text("\n".join(lines), encoding="utf-8")
    file = directory / "page.html"
    assert main(["report", "--since", "2020-01-01", "--journal", str(directory / "journal"), "-o", str(file)]) == 0
    return file


@pytest.mark.parametrize("width", [500, 800, 1440, 2560])
def test_nothing_is_cut_off_and_links_lead(page: Path, width: int) -> None:
    found = look(page, width=width)
    assert found.complaints == ()
    assert found.seen["wide"] <= 0
    assert (found.seen["outside"], found.seen["cut"], found.seen["dead"]) == ([], [], [])
    assert found.seen["drawn"] == 5 + 3  # the overview's pictures, and one for each incident


def test_dark_is_dark_and_light_is_light(page: Path) -> None:
    light, dark = look(page, width=1000).seen, look(page, width=1000, dark=True).seen
    assert (light["ground"], dark["ink"]) == ("rgb(255, 255, 255)", "rgb(230, 237, 243)")
    assert (light["ink"], dark["ground"]) == ("rgb(27, 31, 36)", "rgb(15, 19, 24)")


def test_it_prints(page: Path) -> None:
    assert printed(page).startswith(b"%PDF-")


def test_the_measure_itself_sees_what_is_cut_off(page: Path) -> None:
    """A test of the test: a wide box, a dead link and a text outside of its picture are seen."""
    spoiled = page.with_name("spoiled.html")
    text = page.read_text(encoding="utf-8").replace('href="#top"', 'href="#nowhere"')
    text = text.replace("</svg>", '<text x="900" y="5">outside</text></svg>', 1)
    spoiled.write_text(text.replace("</h1>", '</h1><p style="width:9000px">wide</p>'), encoding="utf-8")
    seen = look(spoiled, width=800).seen
    assert seen["wide"] > 0
    assert seen["outside"] == ["text: outside"]
    assert seen["dead"]
