"""A journal judged again: as recorded with the same settings, differently with others, and never an exception."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience.cli.main import main
from resilience.contract import exit_code
from resilience.model.options import JobOptions
from resilience.model.records.journal import Entry, entry, line, parse
from resilience.model.settings import Recovery, Settings
from resilience.replay import compare, script
from resilience.replay.play import Play
from resilience.report import journal_lines
from tests.unit.test_records import RECORDS

JOURNAL = Path(__file__).resolve().parents[1] / "data/journal-0.1.0.jsonl"
ASKED = JobOptions(mps=True)
RETRIES = "mps=on;retries=1"
"""What all jobs of that journal had asked for."""


def recorded(**changes: Any) -> list[Entry]:
    """The journal, with `options` of its jobs as 0.2.0 writes them."""
    read = [
        entry({**one.values, **(changes if one.event == "job.opened" else {})})
        for one in journal_lines.read(str(JOURNAL)).entries
    ]
    return [one for one in read if one is not None]


def played(entries: list[Entry], *, recorded_mode: bool = True, **recovery: Any) -> list[Entry]:
    chosen = Settings(recovery=Recovery(**recovery))
    return Play(script.write(entries, ASKED), chosen, recorded_mode=recorded_mode).run()


def different(one: list[Entry], two: list[Entry]) -> list[tuple[str, str, str]]:
    rows = compare.differ(compare.rows(compare.decisions(one), compare.decisions(two)))
    return [(row.what, row.one, row.two) for row in rows]


def test_the_same_settings_decide_as_recorded() -> None:
    entries = recorded(options=RETRIES)
    again = played(entries)
    assert different(entries, again) == []
    assert len(compare.rows(compare.decisions(entries), compare.decisions(again))) == 10


def test_what_the_journal_does_not_hold_is_the_only_difference() -> None:
    assert different(recorded(), played(recorded())) == [("6.0.0", "requeue, gone", "promote, recovered")]
    assert script.write(recorded(), ASKED).guessed == 9
    assert script.write(recorded(options=RETRIES), ASKED).guessed == 0


def test_a_played_journal_is_judged_as_it_was_played() -> None:
    once = played(recorded(options=RETRIES), attribution_ms=5)
    assert different(once, played(once, attribution_ms=5)) == []


def test_a_shorter_wait_takes_the_weaker_evidence() -> None:
    entries = recorded(options=RETRIES)
    assert different(entries, played(entries, attribution_ms=5)) == [
        ("culprit", f"job {job} step 0 task 0, certain", f"job {job} step 0 task 0, strong") for job in (5, 7)
    ]


def test_observing_tells_nobody_anything() -> None:
    entries = recorded(options=RETRIES)
    rows = different(entries, played(entries, recorded_mode=False, mode="observe"))
    assert ("2.0.0", "promote, recovered", "promote (only written down), passed") in rows


def test_results_come_when_they_came() -> None:
    entries = recorded(options=RETRIES)

    def times(found: list[Entry]) -> list[tuple[object, ...]]:
        return [(one.values["task"], one.values["ms"]) for one in found if one.event == "recovered"]

    assert [task for task, _ in times(played(entries))] == [task for task, _ in times(entries)]
    for (_, here), (_, there) in zip(times(entries), times(played(entries)), strict=True):
        assert there == pytest.approx(
            here, abs=15
        )  # the program's own clock may say that it was done before its word came


def test_a_fault_that_is_in_one_journal_only_is_a_row() -> None:
    entries = recorded(options=RETRIES)
    none = compare.rows(compare.decisions(entries), [])
    assert {row.two for row in none} == {compare.ABSENT}
    assert {row.one for row in compare.rows([], compare.decisions(entries))} == {compare.ABSENT}


@settings(max_examples=150)
@given(st.lists(st.tuples(RECORDS, st.floats(0, 1e6)), max_size=12))
def test_whatever_a_journal_holds_it_can_be_judged(records: list[tuple[Any, float]]) -> None:
    read = [parse(line(record, wall=at, mono=at)) for record, at in records]
    entries = [one for one in read if one is not None]
    compare.rows(compare.decisions(entries), compare.decisions(played(entries)))


# ---------------------------------------------------------------- the command
@pytest.fixture
def journal(tmp_path: Path) -> Path:
    file = tmp_path / "journal"
    file.write_text("\n".join(json.dumps(one.values) for one in recorded(options=RETRIES)))
    return file


def test_other_settings_are_told_as_a_table_and_a_page(
    journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, page = tmp_path / "mpsr.yaml", tmp_path / "page.html"
    other.write_text("recovery: {attribution_ms: 5}")
    assert main(["replay", str(journal), "--with", str(other), "-o", str(page)]) == exit_code("ok")
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "3 incidents; judged again with the settings in force, 10 of 10 decisions are as recorded"
    assert out[1] == f"with {other}: 2 of 10 decisions differ"
    assert out[2].split() == ["INCIDENT", "WHAT", "SETTINGS", "IN", "FORCE", "OTHER", "SETTINGS"]
    assert out[3].split("  ")[-1].strip() == "job 5 step 0 task 0, strong"
    assert len(out) == 6
    text = page.read_text(encoding="utf-8")
    assert "Nothing on this page has happened" in text
    assert "Decided differently" in text
    assert text.count("<svg") == 5 + 3


@pytest.mark.parametrize(("lines", "says"), [("", "has no incident: 0"), ("{}\n", "has no incident")])
def test_a_journal_without_incidents_is_said(
    lines: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "journal"
    file.write_text(lines)
    assert main(["replay", str(file)]) == exit_code("failed")
    assert says in capsys.readouterr().err
