"""Kernel log lines: published samples, and whatever else may stand in a kernel log."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.parse.xid import Bus, GpuLine, XidLine, parse_bus, parse_line

_DATA = Path(__file__).parent.parent / "data" / "xid" / "samples.jsonl"
_SAMPLES = [json.loads(row) for row in _DATA.read_text().splitlines()]


@pytest.mark.parametrize("sample", _SAMPLES, ids=[f"{row['xid']}-{n}" for n, row in enumerate(_SAMPLES)])
def test_published_samples(sample: dict[str, Any]) -> None:
    line = parse_line(sample["line"])
    assert isinstance(line, XidLine)
    for key in ("xid", "pid", "name", "gpu_instance", "compute_instance", "previous", "recovery"):
        assert getattr(line, key) == sample[key], key
    assert "caused by" not in line.text


def test_the_text_is_what_follows_the_name() -> None:
    line = parse_line(_SAMPLES[0]["line"])
    assert isinstance(line, XidLine)
    assert line.text.startswith("Ch 00000010, intr 00000000. MMU Fault: ENGINE CE2")


def test_gpu_line_gives_the_uuid() -> None:
    line = parse_line("NVRM: GPU at PCI:0000:06:00: GPU-1d5f7a52-9f0a-4a3e-8c37-2f3f0a6a7f11")
    assert line == GpuLine(bus=Bus(domain=0, bus=6, device=0), uuid="GPU-1d5f7a52-9f0a-4a3e-8c37-2f3f0a6a7f11")


def test_both_spellings_of_a_bus_id_are_one_bus() -> None:
    assert parse_bus("0000:c3:00") == parse_bus("00000000:C3:00.0") == Bus(domain=0, bus=0xC3, device=0)
    assert parse_bus("nonsense") is None


@pytest.mark.parametrize(
    "line",
    ["", "NVRM: Xid", "NVRM: Xid (PCI:zz): 31", "usb 1-1: new device", "NVRM: loading NVIDIA UNIX Open Kernel Module"],
)
def test_other_lines_are_no_event(line: str) -> None:
    assert parse_line(line) is None


@given(st.one_of(st.text(), st.text().map(lambda tail: f"NVRM: Xid (PCI:0000:06:00): {tail}")))
def test_never_raises(line: str) -> None:
    parse_line(line)


@given(
    st.integers(0, 99999),
    st.integers(0, 999999999),
    st.text(st.characters(codec="ascii", exclude_characters=",\n\r'<>")),
)
def test_number_and_pid_come_through_whatever_the_name(xid: int, pid: int, name: str) -> None:
    line = parse_line(f"NVRM: Xid (PCI:0000:06:00): {xid}, pid={pid}, name={name}, Ch 1")
    assert isinstance(line, XidLine)
    assert (line.xid, line.pid) == (xid, pid)


@pytest.mark.parametrize(
    "before", ["Nov 30 17:00:00 host kernel: ", "Nov 30 17:00:00 host kernel: [ 1234.567890] ", ""]
)
@pytest.mark.parametrize("inside", ["", "[ 1234.567890] "])
@pytest.mark.parametrize("sample", _SAMPLES[::7], ids=lambda row: str(row["xid"]))
def test_a_line_that_rsyslog_repeats_says_the_same(sample: dict[str, Any], before: str, inside: str) -> None:
    text = sample["line"][sample["line"].index("NVRM") :]
    assert parse_line(f"{before}message repeated 3 times: [ {inside}{text}]") == parse_line(text)


def test_a_process_called_like_rsyslogs_words_changes_nothing() -> None:
    line = parse_line("NVRM: Xid (PCI:0000:06:00): 31, pid=7, name=message repeated 2 times: [ x]")
    assert isinstance(line, XidLine)
    assert line.name == "message repeated 2 times: [ x]"
    closed = parse_line("kernel: NVRM: Xid (PCI:0000:06:00): 31, pid=7, name=a, [b]")
    assert isinstance(closed, XidLine)
    assert closed.text == "[b]"
