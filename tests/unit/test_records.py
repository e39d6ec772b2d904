"""The journal's records: one for each event of the contract, and read back without loss whoever wrote them."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.contract import contract
from resilience.model import records as rec
from resilience.model.ids import Color, DomainKey, GpuMinor, JobId, ServerId, StepId, TaskId, TaskRef
from resilience.model.observation import Client
from resilience.model.records.journal import KINDS, Unknown, entry, line, parse
from resilience.report import story

OLD = Path(__file__).resolve().parents[1] / "data/journal-0.1.0.jsonl"
NUMBERS = st.integers(0, 2**31)
TASKS = st.builds(TaskRef, job=NUMBERS.map(JobId), step=NUMBERS.map(StepId), task=NUMBERS.map(TaskId))
WORDS = st.text(max_size=12)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "int": NUMBERS,
    "float": st.floats(0, 1e9),
    "str": WORDS,
    "JobId": NUMBERS.map(JobId),
    "TaskRef": TASKS,
    "ServerId": st.builds(
        ServerId,
        domain=st.from_regex(r"[ju][0-9]{1,9}(-sm)?", fullmatch=True).map(DomainKey),
        gpu=st.integers(0, 4095).map(GpuMinor),
        color=st.sampled_from(["a", "b", "q12"]).map(Color),
    ),
    "Client": st.one_of(
        TASKS.map(lambda task: Client(pid=0, task=task, job=task.job)),
        st.builds(Client, pid=NUMBERS, job=NUMBERS.map(JobId)),
        st.builds(Client, pid=NUMBERS),
    ),
}


def value(kind: Any) -> st.SearchStrategy[Any]:
    text = str(kind) if "[" in str(kind) or "|" in str(kind) or "Optional" in str(kind) else kind.__name__
    names = [name for name in VALUES if name in text.replace("records", "")]
    if "Mapping" in text:
        return st.dictionaries(VALUES["TaskRef" if "TaskRef" in text else "str"], WORDS, max_size=3)
    one = VALUES[names[-1]]
    return st.lists(one, max_size=3).map(tuple) if "tuple" in text else one


RECORDS = st.sampled_from(sorted(KINDS)).flatmap(
    lambda event: st.builds(KINDS[event], **{item.name: value(item.type) for item in fields(KINDS[event])})
)


def test_every_event_of_the_contract_has_its_record() -> None:
    assert set(KINDS) == set(contract()["event"])
    assert all(item.metadata["help"] and item.metadata["since"] for kind in KINDS.values() for item in fields(kind))


@given(RECORDS)
def test_a_record_comes_back_as_it_was_written(record: rec.Record) -> None:
    found = parse(line(record, wall=1.5, mono=2.5, lost=3))
    assert found is not None
    assert (found.record, found.event, found.wall, found.mono, found.lost) == (record, record.EVENT, 1.5, 2.5, 3)
    assert found.sentence()


def test_a_journal_of_0_1_0_is_read_without_loss() -> None:
    lines = OLD.read_text(encoding="utf-8").splitlines()
    entries = [found for text in lines if (found := parse(text)) is not None]
    assert len(entries) == len(lines)
    for text, found in zip(lines, entries, strict=True):
        assert found.values == json.loads(text)
        known = found.record.json()
        lost = {key for key, said in found.values.items() if key not in known and said != ""} - {
            "event",
            "wall",
            "mono",
        }
        assert lost <= {"comment", "text"}, f"{found.event}: no field for {lost}"
    told = story.tell(story.of_jobs(entries, {2}))
    assert any("the culprit is job 5 step 0 task 0, confidence certain" in text for text in told)
    assert any("job 2 step 0 task 0 goes on" in text for text in told)


def test_what_a_newer_version_wrote_is_listed_and_told_with_all_that_stands_in_it() -> None:
    text = json.dumps({"event": "server.moved", "wall": 1.0, "mono": 1.0, "job": 7, "to": "n1"})
    found = parse(text)
    assert found is not None
    assert isinstance(found.record, Unknown)
    assert (found.jobs(), found.values) == (frozenset({JobId(7)}), json.loads(text))
    assert "to=n1" in found.sentence()
    newer = entry({"event": "recovered", "wall": 1.0, "task": "7.0.0", "ms": 4.5, "watts": 300, "seq": "seven"})
    assert newer is not None
    assert newer.record == rec.Recovered(task=TaskRef(job=JobId(7), step=StepId(0), task=TaskId(0)), ms=4.5)
    assert {"watts", "seq"} <= set(newer.values)


@pytest.mark.parametrize("who", ["job 5 step 0 task 0", "job 5 step batch task 0", "job 5 process 77", "process 77"])
def test_a_client_is_read_as_it_is_written(who: str) -> None:
    found = Client.of(who)
    assert found is not None
    assert str(found) == who


@pytest.mark.parametrize("text", ["", "job 5", "job x step 0 task 0", "step 0 task 0 of job 5", "job 5 step 0 task 0 "])
def test_another_text_is_no_client(text: str) -> None:
    assert Client.of(text) is None
