"""The serialized options and the lease file: round trips, and any other text refused with the key or line named."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.contract import contract
from resilience.model.errors import ConfigError, WireError
from resilience.model.ids import Color, DomainKey, GpuMinor, GpuUuid, JobId, NodeName
from resilience.model.lease import Isolation, Lease, LeaseState
from resilience.model.options import Domain, JobOptions, OnCulprit, Require, Rung
from resilience.parse import lease as lease_text
from resilience.parse import options

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
    gpus=st.lists(st.tuples(st.integers(0, 99).map(GpuMinor), plain.map(GpuUuid)), max_size=8).map(tuple),
    run=words,
    log=words,
    agent=words,
    python=words,
    spill=words,
    opened=st.integers(0, 1 << 40).map(lambda milliseconds: milliseconds / 1000),
)


@given(leases)
def test_leases_come_back(lease: Lease) -> None:
    assert lease_text.parse(lease_text.render(lease)) == lease


@given(leases, st.integers(0, 400), st.text("a0=%\n;,:é\0", max_size=4), st.integers(0, 6))
def test_a_damaged_lease_is_taken_or_refused(lease: Lease, at: int, put: str, cut: int) -> None:
    text = lease_text.render(lease)
    damaged = text[:at] + put + text[at + cut :]
    with contextlib.suppress(WireError):  # any other exception fails
        assert lease_text.render(lease_text.parse(damaged))
