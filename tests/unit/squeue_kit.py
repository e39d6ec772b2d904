"""A squeue and a scontrol in one object, for the adapter's `run`: fields of fixed widths as print.c of squeue (22.05 and
24.11 alike) writes them, byte by byte; requests are remembered.

tests/cluster/test_free_text.py and test_slurm_port.py ask the real ones.
"""

import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from resilience.adapters.slurm.slurm_program import ProgramAnswer

LETTERS = {"A": "JobID", "x": "ExcNodeList"}
PLAIN = {
    "ArrayJobID": "2",
    "ArrayTaskID": "N/A",
    "HetJobID": "N/A",
    "HetJobOffset": "N/A",
    "State": "RUNNING",
    "BatchFlag": "1",
    "Requeue": "1",
    "RestartCnt": "0",
    "PriorityLong": "4294901759",
    "Reason": "None",
    "EndTime": "NONE",
    "exit_code": "0",
    "UserName": "alice",
    "Name": "wrap",
    "WorkDir": "/home/alice",
    "StdOut": "/home/alice/slurm-%j.out",
    "admin_comment": "(null)",
    "ExcNodeList": "",
}


@dataclass
class Cluster:
    """Jobs by number, their fields where they differ from PLAIN."""

    jobs: dict[int, dict[str, str | bytes]] = field(default_factory=dict)
    config: str = "JobRequeue              = 1\nRequeueExit             = (null)\n"
    asked: list[tuple[str, ...]] = field(default_factory=list)
    refuse: str = ""

    def run(self, program: str, *words: str, timeout: float) -> ProgramAnswer:
        if program.endswith("squeue"):
            return self._squeue(*words)
        if words[0] == "show":
            return ProgramAnswer(status=0, out=self.config.encode(), err="")
        self.asked.append(words)
        if self.refuse:
            return ProgramAnswer(status=1, out=b"", err=f"slurm_update error: {self.refuse}")
        return ProgramAnswer(status=0, out=b"", err="")

    def _squeue(self, *words: str) -> ProgramAnswer:
        options = dict(word.removeprefix("--").partition("=")[::2] for word in words)
        if "Format" in options:
            columns = [(name, int(width)) for name, width in re.findall(r"(\w+):(\d+)", options["Format"])]
        else:
            columns = [(LETTERS[name], int(width)) for width, name in re.findall(r"%(\d+)(\w)", options["format"])]
        if not self.jobs:
            return ProgramAnswer(status=1, out=b"", err="slurm_load_jobs error: Invalid job id specified")
        rows = [self._row(job, given, columns) for job, given in self.jobs.items()]
        return ProgramAnswer(status=0, out=b"".join(rows), err="")

    def _row(self, job: int, given: dict[str, str | bytes], columns: list[tuple[str, int]]) -> bytes:
        fields = {**PLAIN, "JobID": str(job), **given}
        cells = [(_bytes(fields[name]), width) for name, width in columns]
        return b"".join(cell[:width].ljust(width) for cell, width in cells) + b"\n"


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode(errors="surrogateescape")


REPO = Path(__file__).resolve().parents[2]


def program(directory: Path) -> None:
    """A program squeue in `directory`, which shows the jobs of `jobs.json` there (see `says`)."""
    text = f"#!{sys.executable} -P\nimport sys\nsys.path.insert(0, {str(REPO)!r})\n"
    text += f"from tests.unit.squeue_kit import main\nsys.exit(main({str(directory / 'jobs.json')!r}))\n"
    (directory / "squeue").write_text(text)
    (directory / "squeue").chmod(0o755)


def says(directory: Path, jobs: dict[int, dict[str, str]]) -> None:
    (directory / "jobs.json").write_text(json.dumps(jobs))


def main(file: str) -> int:
    jobs = {int(job): fields for job, fields in json.loads(Path(file).read_text()).items()}
    answer = Cluster(jobs=jobs).run("squeue", *sys.argv[1:], timeout=0)
    sys.stdout.buffer.write(answer.out)
    sys.stderr.write(answer.err)
    return answer.status
