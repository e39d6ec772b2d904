"""The serialized options and the lease file: round trips, and any other text refused with the key or line named."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.contract import contract
from resilience.model.errors import ConfigError, WireError
from resilience.model.ids import Color, DomainKey, GpuMinor, GpuUuid, JobId, NodeName
from resilience.model.lease import Isolation, Lease, LeaseState
from resilience.model.options import Domain, JobOptions, OnCulprit, Require, Rung
from resilience.model.settings import Options as Rules
from resilience.model.settings import PartitionRules
from resilience.parse import lease as lease_text
from resilience.parse import options, rules

TABLE = json.loads((Path(__file__).resolve().parents[1] / "data/options.json").read_text(encoding="utf-8"))
LEASES = json.loads((Path(__file__).resolve().parents[1] / "data/leases.json").read_text(encoding="utf-8"))
CHARSET = contract()["wire"]["charset"]

job_options = st.builds(
    JobOptions,
    mps=st.booleans(),
    domain=st.sampled_from(Domain),
    threads=st.none() | st.integers(1, 100),
    memory=st.none() | st.integers(1, (1 << 40) - 1),
    state=st.none() | st.integers(1, (1 << 40) - 1),
    standby=st.booleans(),
    recover=st.sets(st.sampled_from(Rung), min_size=1).map(lambda some: tuple(rung for rung in Rung if rung in some)),
    retries=st.integers(0, 100),
    on_culprit=st.sampled_from(OnCulprit),
    require=st.sampled_from(Require),
)


@given(job_options)
def test_options_come_back(given_options: JobOptions) -> None:
    text = options.serialize(given_options)
    assert options.parse(text) == given_options
    assert len(text) <= contract()["wire"]["max_bytes"]
    assert set(text) <= set(CHARSET)


@given(st.text(max_size=80) | st.text(CHARSET, max_size=80))
def test_any_text_is_taken_or_refused(text: str) -> None:
    with contextlib.suppress(ConfigError):  # any other exception fails
        assert options.parse(options.serialize(options.parse(text))) == options.parse(text)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("threads=0", "bad value for threads: 0"),
        ("threads=101", "bad value for threads: 101"),
        ("memory=4gb", "bad value for memory: 4gb"),
        ("domain=world", "bad value for domain: world"),
        ("recover=", "bad value for recover"),
        ("recover=standby,standby", "bad value for recover: standby,standby"),
        ("retries=101", "bad value for retries: 101"),
        ("mps=yes", "bad value for mps: yes"),
        ("nokey=1", "unknown key: nokey"),
        ("mps", "not key=value: mps"),
        ("mps=on;mps=on", "key given twice: mps"),
        ("mps=$(id)", "character not allowed"),
        ("mps=on;" + "x" * 600, "longer than 512 bytes"),
    ],
)
def test_refusals_name_what_is_wrong(text: str, wrong: str) -> None:
    with pytest.raises(ConfigError) as caught:
        options.parse(text)
    assert wrong in str(caught.value)


@pytest.mark.parametrize(
    ("text", "mib"),
    [("1", 1), ("512M", 512), ("4g", 4096), ("2T", 2 << 20), ("007", 7), ("1099511627775", (1 << 40) - 1)],
)
def test_sizes(text: str, mib: int) -> None:
    assert options.size_mib(text) == mib


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5g", "4gb", "g", "１", "0x10", "1099511627776", "1048576T"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(ValueError):
        options.size_mib(text)


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
plain = st.from_regex(r"[A-Za-z0-9-]{1,20}", fullmatch=True)
leases = st.builds(
    Lease,
    job=st.integers(1, 1 << 31).map(JobId),
    uid=st.integers(0, (1 << 32) - 2),
    gid=st.integers(0, (1 << 32) - 2),
    user=words,
    node=plain.map(NodeName),
    restart=st.integers(0, 99),
    state=st.sampled_from(LeaseState),
    reason=words,
    options=job_options,
    domain=plain.map(DomainKey),
    isolation=st.sampled_from(Isolation),
    slots=st.lists(st.tuples(st.integers(0, 99).map(GpuMinor), st.integers(1, 64)), max_size=8).map(tuple),
    colors=st.lists(st.sampled_from(["a", "b", "q1"]).map(Color), unique=True).map(tuple),
    gpus=st.lists(st.tuples(st.integers(0, 99).map(GpuMinor), plain.map(GpuUuid)), min_size=1, max_size=8).map(tuple),
    run=words,
    log=words,
    agent=words,
    python=words,
    spill=words,
    partition=words,
    opened=st.integers(0, 1 << 40).map(lambda milliseconds: milliseconds / 1000),
)


@given(leases)
def test_leases_come_back(lease: Lease) -> None:
    assert lease_text.parse(lease_text.render(lease)) == lease


OPEN = Lease(
    job=JobId(7),
    uid=1001,
    gid=1001,
    user="alice",
    node=NodeName("n0"),
    restart=0,
    state=LeaseState.OPEN,
    reason="",
    options=JobOptions(mps=True),
    domain=DomainKey("u1001"),
    isolation=Isolation.DOMAINS,
    slots=(),
    colors=(Color("a"), Color("b")),
    gpus=((GpuMinor(0), GpuUuid("GPU-1")),),
    run="/run/mpsr",
    log="/var/log/mpsr",
    agent="/run/mpsr/n0/agent.sock",
    python="/usr/bin/python3",
    spill="",
    opened=1790000000.0,
)


def changed(text: str, change: str) -> str:
    """A lease's text with one line put in the place of that with the same key, or added."""
    key = change.partition("=")[0]
    rows = [row for row in text.splitlines() if not row.startswith(f"{key}=")]
    return "".join(f"{row}\n" for row in [*rows, change])


@pytest.mark.parametrize("change", LEASES["good"])
def test_a_lease_with_a_good_value(change: str) -> None:
    lease_text.parse(changed(lease_text.render(OPEN), change))


@pytest.mark.parametrize("change", LEASES["bad"])
def test_a_lease_with_a_bad_value(change: str) -> None:
    with pytest.raises(WireError):
        lease_text.parse(changed(lease_text.render(OPEN), change))


@given(leases, st.integers(0, 400), st.text("a0=%\n;,:é\0", max_size=4), st.integers(0, 6))
def test_a_damaged_lease_is_taken_or_refused(lease: Lease, at: int, put: str, cut: int) -> None:
    text = lease_text.render(lease)
    damaged = text[:at] + put + text[at + cut :]
    with contextlib.suppress(WireError):  # any other exception fails
        assert lease_text.render(lease_text.parse(damaged))


# ---------------------------------------------------------------- the cases that C is held to as well (test_twins.py)


@pytest.mark.parametrize(("key", "text", "canonical"), TABLE["good"])
def test_a_good_value_in_canonical_form(key: str, text: str, canonical: str) -> None:
    assert options.check_value(key, text) == canonical
    assert options.check_value(key, canonical) == canonical


@pytest.mark.parametrize(("key", "text"), TABLE["bad"])
def test_a_bad_value(key: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"bad value for {key}"):
        options.check_value(key, text)


def option(key: str) -> str:
    """As a user writes it."""
    return "--mps" if key == "mps" else f"--mps-{key}"


def site_of(row: dict[str, Any]) -> Rules:
    given = {key: options.check_value(key, value) for key, value in row.get("defaults", {}).items()}
    site = Rules(
        defaults=given,
        locked=tuple(row.get("locked", ())),
        forbidden=tuple(row.get("forbidden", ())),
        partitions={
            name: PartitionRules(
                defaults={key: options.check_value(key, value) for key, value in own.get("defaults", {}).items()},
                locked=tuple(own["locked"]) if "locked" in own else None,
                forbidden=tuple(own["forbidden"]) if "forbidden" in own else None,
            )
            for name, own in row.get("partitions", {}).items()
        },
    )
    return rules.of_partition(site, row.get("partition", ""))


@pytest.mark.parametrize(
    "row", TABLE["sites"], ids=lambda row: f"{row['asked']} {row.get('partition', row.get('forbidden', ''))}"
)
def test_what_a_site_allows(row: dict[str, Any]) -> None:
    key, _, value = row["asked"].partition("=")
    asked = {key: options.check_value(key, value)} if key else {}
    if "refused" in row:
        name, why = row["refused"]
        with pytest.raises(ConfigError) as caught:
            rules.in_force(asked, site_of(row))
        assert (caught.value.subject, caught.value.wrong) == (option(name), why)
    else:
        held = dict(pair.split("=", 1) for pair in options.serialize(rules.in_force(asked, site_of(row))).split(";"))
        assert row["holds"].items() <= held.items()
