"""The tables both ways: every row reaches a class and a handler, every class and every kind has a row."""

import re
import tomllib
from importlib.resources import files

import pytest

from resilience import catalog
from resilience.catalog import MessageRow
from resilience.contract import contract
from resilience.model.fault import WEIGHT, DeviceState, FaultClass, Reach
from resilience.model.mpslog import LogKind
from resilience.parse.mpslog import parse_line


def test_classes_are_the_contracts() -> None:
    assert [kind.value for kind in FaultClass] == contract()["words"]["fault_classes"]
    assert set(WEIGHT) == set(FaultClass)


def test_every_class_has_a_number_or_a_message() -> None:
    """control_daemon and server come from CUDA numbers and log messages, the others from Xids as well."""
    seen = {fault.kind for fault in catalog.xids().values()} | {
        row.fault.kind for row in catalog.cuda_errors().values()
    }
    assert seen == set(FaultClass)
    assert {fault.device for fault in catalog.xids().values()} == set(DeviceState)
    assert {fault.reach for fault in catalog.xids().values()} == set(Reach)


def test_a_programs_word_never_takes_a_gpu_out_of_use() -> None:
    assert not [code for code, row in catalog.cuda_errors().items() if row.fault.device.out_of_use]


@pytest.mark.parametrize("name", ["xid.toml", "cuda.toml", "mps_log.toml"])
def test_every_row_has_words_and_a_source(name: str) -> None:
    table = tomllib.loads((files("resilience.catalog") / name).read_text())
    rows = table["message"] if "message" in table else [row for part in table.values() for row in part.values()]
    for row in rows:
        assert row["source"].strip(), row
        assert row.get("words", row.get("sample", "")).strip(), row


def test_a_gpu_that_is_out_of_use_is_a_device_fault() -> None:
    assert all(fault.kind is FaultClass.DEVICE for fault in catalog.xids().values() if fault.device.out_of_use)


def test_recovery_actions_cover_what_nvml_defines() -> None:
    assert sorted(catalog.recovery_actions()) == list(range(8))


@pytest.mark.parametrize("row", catalog.messages(), ids=lambda row: f"{row.kind.value}-{row.dialects[0]}")
def test_every_message_is_found_by_its_own_sample(row: MessageRow) -> None:
    line = parse_line(f"[2026-01-02 03:04:05.678 Server  7] {row.sample}")
    assert line is not None
    assert line.kind is row.kind
    volta = parse_line(f"[2026-01-02 03:04:05.678 Other  7] Volta MPS: {row.sample}")
    assert volta is not None
    assert volta.kind is row.kind


def test_every_kind_of_message_has_a_row() -> None:
    assert {row.kind for row in catalog.messages()} == set(LogKind)


def test_samples_match_one_row_only() -> None:
    for row in catalog.messages():
        client = r"\{(?:PID: )?\d+, (?:Context(?: ID)?: )?\d+\}"
        hits = [
            other for other in catalog.messages() if re.fullmatch(other.pattern.replace("<client>", client), row.sample)
        ]
        assert hits == [row], row.sample
