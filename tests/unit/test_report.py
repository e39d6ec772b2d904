"""The page of `mpsr report`: what it draws is what the journal says, whatever that is, and a user's text stays text."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience.cli.main import main
from resilience.contract import exit_code
from resilience.model import records as rec
from resilience.model.ids import JobId
from resilience.model.records.journal import Entry, entry, line, parse
from resilience.report import drawing, journal_lines, overview, timeline
from resilience.report.evidence import Use, judged
from resilience.report.page import Page, render
from tests.unit.test_records import RECORDS

JOURNAL = Path(__file__).resolve().parents[1] / "data/journal-0.1.0.jsonl"
FIRST = "6b0dd000-1"


def entries() -> list[Entry]:
    return journal_lines.read(str(JOURNAL)).entries


def drawn(incident: str = FIRST, read: list[Entry] | None = None) -> timeline.Timeline:
    made = timeline.build(entries() if read is None else read, incident)
    assert made is not None
    return made


class Reader(HTMLParser):
    """Tags with their attributes, ids, links, and the text of table cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self._cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "td":
            self.cells.append("")
        self._cell = self._cell or tag == "td"

    def handle_endtag(self, tag: str) -> None:
        self._cell = self._cell and tag != "td"

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.cells[-1] += data

    def values(self, name: str) -> list[str]:
        return [str(attributes[name]) for _, attributes in self.tags if name in attributes]


# ---------------------------------------------------------------- the timeline
def test_the_times_are_those_of_the_journal() -> None:
    made = drawn()
    assert made.decide == pytest.approx(0.016751)
    assert made.recover == pytest.approx({"2.0.0": 0.019055, "3.0.0": 0.028871})
    assert made.detect == pytest.approx(2072.552545 - 2072.552142004)  # opened, after the kernel's line


def test_each_server_task_standby_and_request_has_its_lane() -> None:
    slurm = ["Slurm: comment 5", "Slurm: comment 2", "Slurm: comment 3"]
    tasks = ["2.0.0", "2.0.0 standby", "3.0.0", "3.0.0 standby", "5.0.0"]
    assert drawn().lanes == ["sightings", "agent", "server u64101/g0/a", *tasks, *slurm]


def test_slurms_answer_belongs_to_a_request_that_names_the_incident() -> None:
    """As 0.2.0 writes requests; its answers name none."""
    named = [
        entry({**one.values, "incident": FIRST} if one.event == "slurm.intent" else one.values)
        for one in entries()[:60]
    ]
    made = drawn(read=[one for one in named if one is not None])
    assert [(one.lane, one.text) for one in made.spans if one.kind == "slurm"] == [
        (one.lane, one.text) for one in drawn().spans if one.kind == "slurm"
    ]
    assert all(one.end < made.length for one in made.spans if one.lane == "Slurm: comment 5")


def test_a_server_takes_no_clients_until_it_is_rebuilt_and_a_task_comes_back() -> None:
    spans = {(one.lane, one.kind): (round(one.start, 4), round(one.end, 4)) for one in drawn().spans}
    start = 2072.552142004
    assert spans["server u64101/g0/a", "down"] == (round(2072.569584 - start, 4), round(2072.673822 - start, 4))
    verdict, back = round(2072.569611 - start, 4), round(2072.571226 - start, 4)
    assert spans["2.0.0", "hit"][1] == spans["2.0.0 standby", "back"][0] == verdict
    assert spans["2.0.0 standby", "good"][0] == back  # when the program says that its step was done


def test_a_wall_clock_that_is_set_moves_nothing() -> None:
    moved = [{**one.values, "wall": one.wall - 3600 * (number > 40)} for number, one in enumerate(entries())]
    read = [found for values in moved if (found := entry(values)) is not None]
    kept = [(mark.at, mark.text) for mark in drawn(read=read).marks if mark.lane == "2.0.0"]
    assert kept == [(mark.at, mark.text) for mark in drawn().marks if mark.lane == "2.0.0"]


def test_a_page_has_the_latest_incidents_and_says_how_many_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [fault.incident for fault in overview.build(entries()).faults]
    assert timeline.latest(entries(), names) == tuple(map(drawn, names))
    monkeypatch.setattr(timeline, "MOST", 2)
    some = timeline.latest(entries(), names)
    assert [one.incident for one in some] == names[1:]
    text = render(Page(title="t", source="s", made=0.0, overview=overview.build(entries()), timelines=some))
    assert "Only the latest 2 of 3 incidents are drawn." in text
    assert f"#i-{names[0]}" not in text


def test_nothing_that_the_journal_says_of_an_incident_is_left_out() -> None:
    texts = [mark.text for mark in drawn().marks]
    for one in entries():
        if one.record.incident == FIRST:
            assert one.sentence() in texts


def sighting(**values: object) -> rec.Sighting:
    found = entry({"event": "observation", "wall": 0, "source": "kmsg", "what": "xid", "fault": "mmu", **values})
    assert found is not None
    assert isinstance(found.record, rec.Sighting)
    return found.record


def attributed(**values: object) -> rec.IncidentAttributed:
    found = entry({"event": "incident.attributed", "wall": 0, "incident": "i", **values})
    assert found is not None
    assert isinstance(found.record, rec.IncidentAttributed)
    return found.record


@pytest.mark.parametrize(
    ("seen", "decided", "use"),
    [
        (sighting(who="job 5 step 0 task 0"), attributed(culprit="job 5 step 0 task 0"), Use.COUNTS),
        (sighting(who="job 6 step 0 task 0"), attributed(culprit="job 5 step 0 task 0"), Use.REJECTED),
        (sighting(who="job 5 step 0 task 0"), attributed(blameless=True), Use.REJECTED),
        (sighting(), attributed(culprit="job 5 step 0 task 0"), Use.SILENT),
        (sighting(who="job 5 step 0 task 0", fault="device"), attributed(blameless=True), Use.SILENT),
        (
            sighting(source="client", what="cuda", who="job 6 step 0 task 0"),
            attributed(culprit="job 5 step 0 task 0"),
            Use.SILENT,
        ),
        (sighting(what="of tomorrow", who="job 5 step 0 task 0"), attributed(), Use.SILENT),
    ],
)
def test_evidence_counts_or_is_rejected(seen: rec.Sighting, decided: rec.IncidentAttributed, use: Use) -> None:
    assert judged(seen, decided)[0] is use


# ---------------------------------------------------------------- the overview
def test_the_overview_counts_faults_culprits_and_endings() -> None:
    made = overview.build(entries())
    assert made.classes() == {"mmu": 3}
    assert made.certainty() == {"certain": 3}
    assert made.culprits() == [(f"job {job} step 0 task 0", 1) for job in (5, 7, 8)]
    assert made.endings == {"standby": 3, "requeued": 1}
    assert made.times["standby"] == pytest.approx([0.019055, 0.028871, 0.006783])
    since = made.faults[1].wall
    assert len(overview.build(entries(), since=since).faults) == 2


def test_gpu_time_of_the_first_fault_is_shared_by_the_jobs_on_the_gpu() -> None:
    made = overview.build(entries())
    first = {int(one.job): one.seconds for one in made.saved if one.incident == FIRST}
    at, held = 2072.552545, 4  # jobs 2, 3, 4 and 5
    assert first == {
        2: pytest.approx((at - 2070.461947 - 0.019055) / held),
        3: pytest.approx((at - 2070.386497 - 0.028871) / held),
    }


def test_a_job_sees_its_own_incidents_only() -> None:
    made = overview.of_job(entries(), JobId(2))
    assert [fault.incident for fault in made.faults] == [FIRST]
    assert {int(one.job) for one in made.saved} == {2}


# ---------------------------------------------------------------- the page
def page(read: list[Entry]) -> str:
    told = overview.build(read)
    names = dict.fromkeys(one.record.incident for one in read if one.record.incident)
    made = tuple(one for name in names if (one := timeline.build(read, name)) is not None)
    return render(Page(title="t", source="s", made=0.0, overview=told, timelines=made, notes=("n",)))


def test_a_page_needs_nothing_but_itself_and_its_links_lead_somewhere() -> None:
    text = page(entries())
    reader = Reader(text)
    assert {tag for tag, _ in reader.tags} & {"script", "link", "img", "iframe", "object"} == set()
    assert re.findall(r"(?:https?:)?//|url\(|@import", text) == []
    ids = reader.values("id")
    assert len(ids) == len(set(ids))
    targets = reader.values("href")
    assert {target[1:] for target in targets} <= set(ids)
    assert f"#i-{FIRST}" in targets


def test_each_sign_of_a_picture_is_a_row_of_its_table() -> None:
    made = drawn()
    signs = drawing.timeline(made).signs
    numbered = [int(found) for sign in signs for found in re.findall(r"^(\d+): ", sign.title, re.M)]
    assert sorted(numbered) == [mark.number for mark in made.marks]
    rows = Reader(page(entries())).cells
    assert all(any(mark.text in cell for cell in rows) for mark in made.marks)


HOSTILE = "</title><script>alert(1)</script><b onload='x'>\"'&amp;\x1b[31m"


def test_text_of_users_stays_text() -> None:
    read = []
    for one in entries():
        values = {
            key: HOSTILE if key in ("text", "words", "gpu", "reason", "fault", "why") else kept
            for key, kept in one.values.items()
        }
        found = entry(values)
        assert found is not None
        read.append(found)
    tags = Reader(page(read)).tags
    assert {tag for tag, _ in tags} == {tag for tag, _ in Reader(page(entries())).tags}
    assert not any(name.startswith("on") for _, attributes in tags for name in attributes)


_GEOMETRY = frozenset("x y x1 x2 y1 y2 cx cy r d width height points transform viewbox".split())


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(RECORDS, st.floats(-1e6, 1e12), st.floats(-1e6, 1e12)).map(
            lambda one: parse(line(one[0], wall=one[1], mono=one[2]))
        ),
        min_size=1,
        max_size=12,
    )
)
def test_whatever_a_journal_holds_a_page_comes_of_it(read: list[Entry | None]) -> None:
    found = [one for one in read if one is not None]
    drawn = Reader(page(found)).tags
    assert not any(
        "nan" in (value or "").lower()
        for _, attributes in drawn
        for key, value in attributes.items()
        if key in _GEOMETRY
    )
    overview.of_job(found, JobId(1))


# ---------------------------------------------------------------- the command
def run(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = main(("report", "--journal", str(JOURNAL), *words))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize(
    ("words", "name"), [(["2"], "mpsr-2.html"), ([FIRST], f"mpsr-{FIRST}.html"), (["--since", "1d"], "mpsr-since.html")]
)
def test_the_file_has_a_name_of_its_own(
    words: list[str], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, _ = run(*words, capsys=capsys)
    assert (status, out) == (0, f"{name}\n")
    assert (tmp_path / name).read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o600, "a journal names the jobs of all users"


def test_the_journal_that_logrotate_has_moved_is_read_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = JOURNAL.read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "n0").mkdir()
    (tmp_path / "n0/journal.jsonl.1").write_text("".join(lines[:60]), encoding="utf-8")
    (tmp_path / "n0/journal.jsonl").write_text("".join(lines[60:]), encoding="utf-8")
    (tmp_path / "mpsr.yaml").write_text(f"paths: {{log: {tmp_path}}}")
    words = ["--config", str(tmp_path / "mpsr.yaml"), "--node", "n0", "-o", "-"]
    assert main(["report", "--since", "2020-01-01", *words]) == 0
    page = capsys.readouterr().out
    assert page.count("<section ") == 3


def test_a_link_at_the_name_of_the_file_is_replaced_and_not_followed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "victim").write_text("kept")
    (tmp_path / "page").symlink_to("victim")
    assert run("2", "-o", str(tmp_path / "page"), capsys=capsys)[0] == 0
    assert (tmp_path / "victim").read_text() == "kept"
    assert not (tmp_path / "page").is_symlink()


@pytest.mark.parametrize(
    ("words", "says", "status"),
    [
        ([], "give a job, an incident, or --since", "usage"),
        (["2", "--since", "1d"], "give a job, an incident, or --since", "usage"),
        (["99"], "job 99: is not in the journal", "failed"),
        (["6b-9"], "incident 6b-9: is not in the journal", "failed"),
        (["2", "-o", "/nowhere/page.html"], "/nowhere/page.html: cannot be written", "failed"),
    ],
)
def test_what_cannot_be_reported_is_said(
    words: list[str], says: str, status: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, _, err = run(*words, capsys=capsys)
    assert (found, says in err) == (exit_code(status), True), err


@pytest.mark.parametrize(
    ("records", "endings", "ended"),
    [
        (
            [
                {"event": "recovered", "task": "2.0.1", "action": "relaunch", "ms": 80, "seq": -1},
                {"event": "job.accounted", "job": 2, "outcome": "failed"},
            ],
            {"failed": 1, "relaunch": 1},
            "1 failed, 1 recovered",
        ),
        (
            [{"event": "verdict", "task": f"2.0.{task}", "action": "requeue"} for task in (0, 1)],
            {"requeued": 2},
            "2 requeued",
        ),
        (
            [
                {"event": "verdict", "task": "2.0.0", "action": "requeue"},
                {"event": "verdict", "task": "2.0.0", "action": "fail"},
                {"event": "job.accounted", "job": 2, "outcome": "failed"},
            ],
            {"failed": 2},
            "2 failed",
        ),
    ],
    ids=("failed", "requeued", "refused"),
)
def test_a_users_page_says_how_it_ended(records: list[dict[str, object]], endings: dict[str, int], ended: str) -> None:
    parts = dict.fromkeys(("2.0.0", "2.0.1"), "bystander")
    first: dict[str, object] = {"event": "incident.attributed", "culprit": "job 9 step 0 task 0", "parts": parts}
    read = [entry({"wall": 1.0, "incident": "i", **record}) for record in (first, *records)]
    made = overview.of_job([one for one in read if one is not None], JobId(2))
    assert (made.endings, made.faults[0].ended, made.faults[0].victims) == (endings, ended, 2)


def test_the_records_beside_a_jobs_output_make_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = ("incident.attributed", "verdict", "recovered", "job.accounted")
    kept = [one.values for one in entries() if one.event in own and (one.event == own[0] or JobId(2) in one.jobs())]
    kept = [{**values, "parts": {"2.0.0": "bystander"}} for values in kept if values["incident"] == FIRST]
    file = tmp_path / "mpsr-2.jsonl"
    file.write_text("\n".join(map(json.dumps, kept)))
    assert main(["report", "2", "--journal", str(file), "-o", "-"]) == 0
    text = capsys.readouterr().out
    assert "These are the records of one job" in text
    assert "until 2.0.0 went on" in text
    cells = Reader(text).cells
    assert cells[cells.index("standby") : cells.index("standby") + 4] == ["standby", "1", "19.1 ms", "19.1 ms"]
    assert "1 recovered" in cells
    assert "this is not counted here" in text
