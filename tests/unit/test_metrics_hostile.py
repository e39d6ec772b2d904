"""What no record can do to the figures: break the text, add a word, let a count go back."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric

from resilience import catalog
from resilience.contract import contract
from resilience.metrics import FAMILIES, Fold, MetricKind
from tests.unit.machine_kit import UUID
from tests.unit.metrics_kit import BRIEFLY, RECORDS, WALL, parsed, samples, take, value

WORDS = st.sampled_from(
    [
        "act",
        "guard",
        "certain",
        "mmu",
        "requeue",
        "standby",
        "promote",
        "u1001/g0/a",
        "i",
        "1.0.0",
        UUID,
        'a"\n}\\ 9',
        "",
    ]
)
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), WORDS, st.text(max_size=5), st.floats(), st.integers(), st.just(10**400), st.just(31)
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=4,
)
KEYS = st.sampled_from(
    "incident task server gpu mode isolation ms missing residue spill swept domain resumed refused parts outcomes fault_class xid "
    "confidence blameless isolated same_as action part dry_run rung ask ok outcome what state lost wall".split()
)
HOSTILE = st.fixed_dictionaries(
    {"event": st.sampled_from([*contract()["event"], "x"]), "wall": st.just(WALL)},
    optional={},
).flatmap(lambda head: st.dictionaries(KEYS, VALUES, max_size=6).map(lambda more: more | head))


def allowed(name: str) -> set[str]:
    """The values that labels of this name can have; no others, whatever the journal says."""
    known = {
        word for family in FAMILIES.values() for label in family.labels if label.name == name for word in label.values
    }
    return known | {"other"} | ({"none", *map(str, catalog.xids())} if name == "xid" else set())


@BRIEFLY
@given(st.lists(HOSTILE, max_size=12))
def test_no_record_breaks_the_text_or_adds_a_word(records: list[dict[str, Any]]) -> None:
    made = Fold()
    before = samples(made.text())
    for record in records:
        take(made, record)
        now = samples(made.text())
        for (name, labels), count in before.items():
            if not name.startswith(("mpsr_agent", "mpsr_incidents_open", "mpsr_servers_unavailable")):
                assert now[name, labels] >= count, f"{name} went back"
        before = now
    bounded(made.text())


def bounded(text: str) -> None:
    """Every label has a value that it may have, and histograms are histograms."""
    for name, family in parsed(text).items():
        for sample in family.samples:
            for key, word in sample.labels.items():
                assert key in ("gpu", "le") or word in allowed(key), f"{name}: {key}"
                assert key != "gpu" or re.fullmatch(r"other|GPU-[0-9A-Za-z-]+", word)
        if FAMILIES[name].kind is MetricKind.HISTOGRAM:
            assert cumulative(family)


@pytest.mark.parametrize("stranger", ['a"\n}\\ 9', "4711", 4711, None, ["x"]])
def test_a_word_that_is_new_counts_as_other(stranger: object) -> None:
    made = Fold()
    for record, _ in RECORDS:
        for key, known in record.items():
            strange = dict.fromkeys(known, stranger) if isinstance(known, dict) else stranger
            if key != "event":
                take(made, {**record, key: strange})
    bounded(made.text())
    assert "4711" not in made.text()
    others = {name for (name, labels) in samples(made.text()) if ("other" in dict(labels).values())}
    assert len(others) >= 10, "the strangers were not met"


def cumulative(family: Metric) -> bool:
    """Buckets only grow, and the last one is the count."""
    for whole in (sample for sample in family.samples if sample.name.endswith("_count")):
        buckets = [
            sample.value
            for sample in family.samples
            if sample.name.endswith("_bucket") and whole.labels.items() <= sample.labels.items()
        ]
        if buckets != sorted(buckets) or buckets[-1] != whole.value:
            return False
    return True


@given(st.lists(st.text(max_size=40), max_size=8))
def test_no_line_breaks_it(lines: list[str]) -> None:
    made = Fold()
    for line in lines:
        made.line(line)
    assert value(made.text(), "mpsr_journal_skipped_lines_total") == sum(bool(line.strip()) for line in lines)
