"""The experiment of E2 on the simulated GPU, as documented for driver 610 and as it is with 580."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.backend import MEMORY_MIB
from tests.gpusim.host import SimHost

pytestmark = [pytest.mark.sim, pytest.mark.timeout(700)]
ROOT = Path(__file__).resolve().parents[2]


def asked(out: Path, **values: str) -> dict[str, Any]:
    """What the run of this one experiment found."""
    with SimHost(memory=MEMORY_MIB, values=values) as host:
        argv = [
            sys.executable,
            "-m",
            "tests.gpu.run",
            "--out",
            str(out),
            "--small",
            "--limit",
            "partitions=600",
            "--only",
            "partitions",
        ]
        subprocess.run(argv, env=host.env(LANG="C.UTF-8"), cwd=ROOT, check=True, timeout=600, capture_output=True)
    one: dict[str, Any] = json.loads((out / "results.json").read_text())["experiments"]["partitions"]
    assert (one["how"], one["ended_after_it"]) == ("ended with status 0", [])
    return one


def test_with_580_it_is_not_asked_and_no_server_is_started(tmp_path: Path) -> None:
    one = asked(tmp_path)
    assert one["found"]["skipped"].startswith("not asked: driver too old: 580.159.04")
    assert set(one["found"]) == {"driver", "probe", "skipped"}


@pytest.mark.parametrize("isolates", ["1", "0"])
def test_with_610_it_tells_who_was_hit(tmp_path: Path, isolates: str) -> None:
    found = asked(tmp_path, driver="610.43.02", dialect="610", partition_isolates=isolates)["found"]
    assert found["without_a_partition"] == 915
    assert found["with_a_client"]["rm of the other"].endswith("Terminate all clients before removing.")
    for kind, kept in (("trap", isolates == "1"), ("illegal-instruction", isolates == "1"), ("illegal-write", False)):
        row = found[kind]
        assert row["starts"] == [0, 0, 0]
        assert ("stopped_by" not in row["neighbour_after"]) is kept, kind
        assert row["state"] == ("ACTIVE" if kept else "FAULT"), kind
        assert row["mate_heard"] == row["fault"]["code"]
        assert row["newcomer_there"] == (0 if kept else 807)
        assert row["newcomer_here_meanwhile"] == 807
        assert (row["newcomer_here_after_exit"] == 0) is kept
        assert row["state_at_the_end"] == "ACTIVE"
        assert row["table_at_the_end"] == row["table_meanwhile"].replace("Yes", "No")
