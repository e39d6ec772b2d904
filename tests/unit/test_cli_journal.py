"""mpsr log and explain: stories from a journal with torn lines, and what options would do."""

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.adapters.linux.as_user import as_user
from resilience.cli.explain import consequences, in_force
from resilience.cli.log import open_recovery_log
from resilience.cli.main import main
from resilience.contract import contract
from resilience.model.errors import ConfigError, ResilienceError
from resilience.model.ids import JobId
from resilience.model.records.journal import Entry, entry, parse
from resilience.model.settings import Options
from resilience.parse import recovery_log
from resilience.report import journal_lines, story
from tests.unit import squeue_kit

BEGAN = 1790000000.0
RECORDS = [
    {"event": "job.opened", "wall": BEGAN - 9, "job": 12, "domain": "u1001", "gpus": [0]},
    {
        "event": "observation",
        "wall": BEGAN,
        "source": "client",
        "text": "error 700",
        "who": "job 13 step 0 task 0",
        "server": "u1001/g0/a",
    },
    {
        "event": "incident.opened",
        "wall": BEGAN,
        "incident": "6a-1",
        "server": "u1001/g0/a",
        "clients": ["12.0.0", "13.0.0"],
    },
    {"event": "incident.classified", "wall": BEGAN + 0.001, "incident": "6a-1", "fault": "mmu", "words": "Xid 31"},
    {
        "event": "incident.attributed",
        "wall": BEGAN + 0.0011,
        "incident": "6a-1",
        "culprit": "job 13 step 0 task 0",
        "confidence": "certain",
        "why": ["the server named it"],
    },
    {
        "event": "verdict",
        "wall": BEGAN + 0.002,
        "incident": "6a-1",
        "task": "12.0.0",
        "action": "promote",
        "part": "bystander",
        "reason": "its standby is ready",
    },
    {"event": "recovered", "wall": BEGAN + 0.006, "incident": "6a-1", "task": "12.0.0", "seq": 41, "ms": 4.2},
    {"event": "incident.closed", "wall": BEGAN + 1, "incident": "6a-1", "outcomes": {"12.0.0": "recovered"}},
    {"event": "job.closed", "wall": BEGAN + 60, "job": 14, "residue": []},
]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    file = tmp_path / "journal.jsonl"
    lines = [json.dumps(record) for record in RECORDS]
    lines.insert(2, '{"event": "torn", "wa')
    lines.insert(4, '["not", "a record"]')
    file.write_text("\n".join(lines) + "\n" + '{"event": "gro')
    return file


def run(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = main(words)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_torn_lines_are_left_out_and_counted(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run("log", "--journal", str(journal), capsys=capsys)
    assert (status, out.count("\n")) == (0, len(RECORDS))
    assert err == f"mpsr: {journal}: lines that are no record were left out: 3\n"
    assert out.splitlines()[0] == "2026-09-21T14:13:11.000Z job.opened            job=12 domain=u1001 gpus=[0]"


def test_json_gives_the_records_back(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run("log", "--json", "--journal", str(journal), capsys=capsys)
    assert [json.loads(line) for line in out.splitlines()] == RECORDS


@pytest.mark.parametrize(
    ("words", "events"),
    [
        (["-j", "12"], ["job.opened", "incident.opened", "verdict", "recovered", "incident.closed"]),
        (["-j", "13"], ["observation", "incident.opened", "incident.attributed"]),
        (["-j", "1"], []),
        (["--incident", "6a-1"], [str(record["event"]) for record in RECORDS if "incident" in record]),
        (["--since", "2026-09-21T14:14:00+00:00"], ["job.closed"]),
    ],
)
def test_the_journal_is_filtered(
    journal: Path, capsys: pytest.CaptureFixture[str], words: list[str], events: list[str]
) -> None:
    status, out, _ = run("log", "--json", *words, "--journal", str(journal), capsys=capsys)
    assert (status, [json.loads(line)["event"] for line in out.splitlines()]) == (0, events)


def told(values: dict[str, object]) -> str:
    return read(values).sentence()


def read(values: dict[str, object]) -> Entry:
    found = entry(values)
    assert found is not None
    return found


def test_an_incident_without_tasks_says_why_it_is_over() -> None:
    closed = {"event": "incident.closed", "wall": BEGAN, "incident": "6a-2", "outcomes": {}}
    assert told({**closed, "outcome": "every task had ended"}) == "incident 6a-2 is over: every task had ended"
    assert told(closed) == "incident 6a-2 is over"


def test_the_story_of_an_incident(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run("explain", "6a-1", "--journal", str(journal), capsys=capsys)
    assert status == 0
    assert out.splitlines() == [
        "Incident 6a-1, 2026-09-21 (times are UTC)",
        "14:13:20.000            seen on server u1001/g0/a by job 13 step 0 task 0 (client): error 700",
        "14:13:20.000            incident 6a-1: a GPU fault on server u1001/g0/a; its tasks are 12.0.0, 13.0.0",
        "14:13:20.001     +1 ms  it is a fault of class mmu (Xid 31)",
        "14:13:20.001            the culprit is job 13 step 0 task 0, confidence certain: the server named it",
        "14:13:20.002     +1 ms  verdict for job 12 step 0 task 0, a bystander, promote: its standby takes over:"
        " its standby is ready",
        "14:13:20.006     +4 ms  job 12 step 0 task 0 goes on from commit 41 after 4.2 ms",
        "14:13:21.000   +994 ms  incident 6a-1 is over: 1 recovered",
    ]


def test_sightings_of_other_servers_and_other_times_are_another_story() -> None:
    opened = {"event": "incident.opened", "wall": BEGAN, "incident": "x", "server": "u1/g0/a"}
    seen = {"event": "observation", "wall": BEGAN - 1, "source": "kmsg", "text": "t"}
    mine = [{**seen, "gpu": 0}, {**seen, "server": "u1/g0/a"}]
    others = [seen, {**seen, "gpu": 1}, {**seen, "server": "u1/g0/b"}, {**seen, "gpu": 0, "wall": BEGAN - 9}]
    found = story.of_incident(map(read, [*others, *mine, opened]), "x")
    assert [entry.values for entry in found] == [*mine, opened]
    assert story.of_incident([read(opened)], "y") == []


def test_the_story_of_a_job_has_the_incidents_that_it_was_in(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run("explain", "13", "--journal", str(journal), capsys=capsys)
    assert "by job 13 step 0 task 0 (client): error 700" in out
    assert "goes on from commit 41" in out
    assert "job 14" not in out


def test_what_is_not_in_the_journal_is_said(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run("explain", "99", "--journal", str(journal), capsys=capsys)
    assert status == 1
    assert err.splitlines()[-2] == f"mpsr: job 99: is not in the journal: {journal}"


def test_a_missing_journal_names_the_way_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run("log", "--journal", str(tmp_path / "none"), capsys=capsys)
    assert (status, "give --node NODE or --journal FILE" in err) == (1, True)


@pytest.mark.parametrize("event", sorted(contract()["event"]))
def test_every_event_of_the_contract_has_a_sentence(event: str) -> None:
    bare = told({"event": event, "wall": BEGAN})
    assert bare
    assert "dry_run" not in bare
    odd = told({"event": event, "wall": BEGAN, "task": 5, "ms": "x", "outcomes": [1], "dry_run": True})
    assert odd.startswith("(only written down")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
FIELDS = st.sampled_from(
    "incident job task who clients suspects culprit why ms seq action part reason outcomes residue gpus ask ok".split()
)


@given(st.sampled_from(sorted(contract()["event"])), st.dictionaries(FIELDS, JSON))
def test_any_record_can_be_listed_and_told(event: str, fields: dict[str, object]) -> None:
    record = parse(json.dumps({"event": event, "wall": BEGAN, **fields}))
    assert record is not None
    assert "\n" not in journal_lines.listing(record)
    assert len(story.tell([record])) == 1
    assert all(isinstance(job, int) for job in record.jobs())


@given(st.text(max_size=200))
def test_any_line_is_a_record_or_nothing(line: str) -> None:
    record = parse(line)
    assert record is None or record.event


def test_times_in_the_past() -> None:
    now = time.time()
    assert journal_lines.since("10m", now) == now - 600
    assert journal_lines.since("2026-09-21T14:13:20+00:00", now) == BEGAN
    for bad in ("", "m", "soon", "-5m", "99999999999d"):
        with pytest.raises(ConfigError, match="--since: is not a time"):
            journal_lines.since(bad, now)


@pytest.mark.parametrize(
    ("stdout", "places"),
    [
        ("/scratch/a/slurm-7.out", ["/scratch/a/mpsr-7.log", "/home/a/mpsr-7.log"]),
        ("", ["/home/a/mpsr-7.log"]),
        ("/dev/null", ["/home/a/mpsr-7.log"]),
        ("/dev/pts/3", ["/home/a/mpsr-7.log"]),
        ("/dev/../proc/self/fd/1", ["/home/a/mpsr-7.log"]),
        ("/home/a/out", ["/home/a/mpsr-7.log"]),
        ("/devel/out", ["/devel/mpsr-7.log", "/home/a/mpsr-7.log"]),
    ],
)
def test_the_jobs_log_lies_beside_its_output_else_where_it_runs(stdout: str, places: list[str]) -> None:
    assert list(recovery_log.places(stdout, "/home/a", JobId(7))) == places


def test_a_text_of_others_stays_on_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the story, and of the name of a job's own log: both go to an admin's terminal."""
    forged = [{**record, "reason": "x\n12:00:00.000 FORGED\x1b[2J"} for record in RECORDS]
    file = tmp_path / "journal.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in forged))
    status, out, _ = run("explain", "6a-1", "--journal", str(file), capsys=capsys)
    assert (status, "FORGED" in out, "\x1b" in out) == (0, True, False)
    assert not [line for line in out.splitlines() if line.startswith("12:00:00.000")]
    squeue_kit.program(tmp_path)
    squeue_kit.says(tmp_path, {7: {"WorkDir": "/nowhere/a\nb\x1b[2J", "StdOut": "out"}})
    config = tmp_path / "mpsr.yaml"
    paths = f"paths: {{log: {tmp_path}/log, scontrol: {tmp_path}/scontrol}}"
    config.write_text(f"{paths}\nslurm: {{adapter: scontrol}}\n")
    (tmp_path / "log/n0").mkdir(parents=True)
    (tmp_path / "log/n1").mkdir()
    _, _, err = run("log", "-j", "7", "--config", str(config), capsys=capsys)
    assert "(no /nowhere/a?b?[2J/mpsr-7.log)" in err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
@pytest.mark.parametrize("kind", ["another's file", "fifo", "link"])
def test_a_log_that_another_has_put_there_is_not_shown(shared_path: Path, kind: str) -> None:
    log = shared_path / "mpsr-7.log"
    match kind:
        case "fifo":
            os.mkfifo(log, 0o666)
        case "link":
            log.symlink_to("/etc/passwd")
        case _:
            log.write_text("mpsr[n0] all is well\n")
            log.chmod(0o644)
    with pytest.raises(
        ResilienceError, match="symbolic links" if kind == "link" else "is not a plain file of this user"
    ):
        as_user(65534, 65534, lambda: open_recovery_log(str(log)).read(), seconds=10)


def test_options_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run("explain", "--options", "mps=on;domain=job;memory=4G;standby=off", capsys=capsys)
    assert status == 0
    assert "memory=4096: a task that asks for more than 4096 MiB" in out
    assert "standby=off" in out
    assert "  1. the program starts again and goes on from its last commit" in out
    assert run("explain", "--options", "", capsys=capsys)[1].startswith("mps=off: nothing.")


@pytest.mark.parametrize(
    ("text", "site", "part"),
    [
        ("mps=on;domain=usr", Options(), "bad value for domain: usr"),
        ("mps", Options(), "is not key=value"),
        ("mps=on;mps=off", Options(), "key given twice"),
        ("domain=shared", Options(), "--mps-domain: shared is forbidden by the administrator: shared"),
        (
            "recover=standby,requeue",
            Options(forbidden=("recover=requeue",)),
            "--mps-recover: requeue is forbidden by the administrator",
        ),
        (
            "domain=user",
            Options(defaults={"domain": "job"}, locked=("domain",)),
            "--mps-domain: fixed by the administrator at job: user",
        ),
    ],
)
def test_what_a_site_would_refuse_is_refused(text: str, site: Options, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        in_force(text, site)
    assert part in str(caught.value)


def test_a_sites_defaults_hold_where_nothing_is_asked() -> None:
    site = Options(defaults={"mps": "on", "retries": "5"}, locked=("retries",))
    options = in_force("retries=5;threads=25", site)
    assert (options.mps, options.retries, options.threads) == (True, 5, 25)
    assert any("retries=5" in line for line in consequences(options))


def test_a_jobs_own_log_needs_no_node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where several nodes' journals lie, which one is meant is not clear; which job's log is."""
    for node in ("n0", "n1"):
        (tmp_path / "log" / node).mkdir(parents=True)
    (tmp_path / "mpsr-7.log").write_text("a line of the log\n")
    squeue_kit.program(tmp_path)
    squeue_kit.says(tmp_path, {7: {"WorkDir": str(tmp_path), "StdOut": f"{tmp_path}/slurm-%j.out"}})
    scontrol = tmp_path / "scontrol"
    config = tmp_path / "mpsr.yaml"
    config.write_text(f"paths:\n  log: {tmp_path}/log\n  scontrol: {scontrol}\nslurm:\n  adapter: scontrol\n")
    assert run("log", "-j", "7", "--config", str(config), capsys=capsys) == (0, "a line of the log\n", "")
    status, _, err = run("log", "-j", "7", "--json", "--config", str(config), capsys=capsys)
    assert (status, "there are several: n0 n1" in err) == (2, True)
