"""Jobs as users name them: tasks of arrays and components of heterogeneous jobs, in every command that takes a job."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from resilience.adapters.slurm.scontrol import Scontrol
from resilience.cli.main import main
from resilience.model.errors import ConfigError
from resilience.model.ids import JobId
from resilience.parse import job_name
from tests.unit import squeue_kit

ROOT = Path(__file__).parents[2]

# An array of four tasks of which one waits, and a heterogeneous job of two.
JOBS = {
    13: {"ArrayJobID": "10", "ArrayTaskID": "3"},
    10: {"ArrayJobID": "10", "ArrayTaskID": "4", "State": "PENDING"},
    12: {"ArrayJobID": "10", "ArrayTaskID": "2"},
    11: {"ArrayJobID": "10", "ArrayTaskID": "1", "Name": "ArrayTaskID=3"},
    20: {"ArrayJobID": "20", "HetJobID": "20", "HetJobOffset": "0"},
    21: {"ArrayJobID": "21", "HetJobID": "20", "HetJobOffset": "1"},
}
SACCT = r"""#!/bin/sh
[ "$7" = 30 ] || { echo "Slurm accounting storage is disabled" >&2; exit 1; }
printf '31|30_1\n33|30_[5-9]\n32|30_2\n'
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """squeue, sacct, a configuration and a journal of jobs 3, 11, 12, 13, 21, 32 and 103."""
    squeue_kit.program(tmp_path)
    squeue_kit.says(tmp_path, JOBS)
    (tmp_path / "sacct").write_text(SACCT)
    (tmp_path / "sacct").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "mpsr.yaml").write_text(
        f"paths:\n  scontrol: {tmp_path}/scontrol\n  run: /nowhere\nslurm:\n  adapter: scontrol\n"
    )
    (tmp_path / "journal").write_text(
        "".join(
            json.dumps({"event": "job.opened", "wall": 1.0, "job": job, "domain": f"d{job}"}) + "\n"
            for job in (3, 10, 11, 12, 13, 20, 21, 32, 103, 201)
        )
    )
    return tmp_path


def told(place: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, set[int], str]:
    """Exit status, the jobs that were told of, standard error."""
    status = main([*words, "--config", str(place / "mpsr.yaml"), "--journal", str(place / "journal")])
    out, err = capsys.readouterr()
    return status, {int(job) for job in re.findall(r"domain[= ]d(\d+)", out)}, err


@pytest.mark.parametrize("command", [("log", "-j"), ("explain",)], ids=["log", "explain"])
@pytest.mark.parametrize(
    ("name", "jobs"),
    [
        ("103", {103}),
        ("10_3", {13}),
        ("10_[1-3]", {11, 12, 13}),
        ("10_[1,3%2]", {11, 13}),
        ("10_4", {10}),
        ("20+1", {21}),
        ("20+0", {20}),
        ("30_2", {32}),
    ],
)
def test_a_job_is_found_by_what_squeue_calls_it(
    command: tuple[str, ...], name: str, jobs: set[int], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(place, capsys, *command, name) == (0, jobs, "")


@pytest.mark.parametrize("command", [("log", "-j"), ("explain",)], ids=["log", "explain"])
@pytest.mark.parametrize("name", ["10_9", "20+7", "99_1", "30_7", "10+1"])
def test_what_slurm_does_not_know_is_an_error_with_a_way_out(
    command: tuple[str, ...], name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, jobs, err = told(place, capsys, *command, name)
    assert (status, jobs) == (2, set())
    assert err.startswith(f"mpsr: job {name}: Slurm does not say which job that is: ")
    assert "give the job's own number: sacct -X -o JobID%20,JobIDRaw" in err


def test_status_shows_the_leases_of_one_job(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["status", "--node", "n0", "--config", str(place / "mpsr.yaml"), "-j"]
    assert main([*words, "10_3"]) == 0
    assert "no leases" in capsys.readouterr().out
    assert main([*words, "10_9"]) == 2


@pytest.mark.parametrize(
    "text", ["10.0", "10_3.batch", "10_", "10_[", "10_[3-1]", "10_x", "10+", "_3", "0", "-1", "1e3", "10 ", "١"]
)
def test_what_is_no_job_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        job_name.parse(text)


def test_members_are_read_from_slurms_records(place: Path) -> None:
    slurm = Scontrol(program=str(place / "scontrol"), timeout=10, requeue_timeout=10)
    assert sorted(slurm.members(JobId(10))) == [(10, "4", ""), (11, "1", ""), (12, "2", ""), (13, "3", "")]
    assert slurm.members(JobId(20)) == ((20, "", "0"), (21, "", "1"))


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
@pytest.mark.parametrize("words", [("log",), ("log", "--json"), ("explain", "7")], ids=" ".join)
def test_a_terminal_that_lacks_a_character_costs_nothing(encoding: str, words: tuple[str, ...], tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    texts = ["name=я €", "é", "\ud800", "𝄞"]
    journal.write_text(
        "".join(json.dumps({"event": "job.refused", "wall": 1.0, "job": 7, "reason": text}) + "\n" for text in texts)
    )
    done = subprocess.run(
        [sys.executable, "-m", "resilience.cli.main", *words, "--journal", str(journal)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
        timeout=60,
    )
    lines = done.stdout.decode(encoding).splitlines()
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(lines) == len(texts) + (words[0] == "explain")
    if "--json" in words:
        assert [json.loads(line)["reason"] for line in lines] == texts
