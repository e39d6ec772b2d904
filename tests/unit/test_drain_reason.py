"""The reason of a drained node, as Slinky's operator and NVSentinel's monitor read it (docs/how-to/health.md)."""

import re
import tomllib
from pathlib import Path

import pytest

from resilience.model.effect import AskDrain
from resilience.model.records.told import drain_reason
from tests.unit.machine_kit import Node

PAGE = (Path(__file__).parents[2] / "docs/how-to/health.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("xid", [48, 79, 95])
def test_other_tools_find_gpu_and_xid_in_it(xid: int) -> None:
    node = Node()
    node.task(1)
    node.xid(xid)
    (drain,) = node.of(AskDrain)
    reason = drain_reason(drain.intent)
    (pattern,) = tomllib.loads(re.findall(r"(?s)```toml\n(.*?)```", PAGE)[0])["patterns"]
    assert re.search(pattern["regex"], reason), reason
    assert f"Xid {xid}" in reason
    assert not reason.startswith("slurm-operator:")
    assert reason.isprintable()
    assert not set(reason) & set(";|")
