"""What the drill's job left, read and judged. Pure: files as texts, Slurm's record as values.

The recovery log's sentences are those of machine/sentences.py. A row that does not hold says what was seen instead.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from resilience.drill.bystander import LONGEST, expected
from resilience.drill.plan import CULPRIT, KEPT, LOOK, PLAIN

_OPENED = re.compile(r"GPU fault on (?P<gpu>\S+): (?P<what>.*?), by (?P<who>job \d+ step \d+ task \d+)\b")
_FAULT = re.compile(r"GPU fault on (?P<gpu>\S+): ")
_LEVEL = re.compile(r"; isolation: (?P<level>[^;\n]+)")
_BACK = re.compile(
    r"step (?P<step>\d+) task 0: (?P<how>recovered on standby|restored from kept state|relaunched) (?P<ms>[\d.]+) ms"
)
_OBSERVING = "observing only"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    what: str
    seen: str
    held: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What the job left. `files` by name in the drill's directory, `log` its recovery log, `spilled` directories of spilled
    state that nobody took away."""

    job: int
    state: str
    restarts: int
    files: Mapping[str, str]
    log: str
    spilled: tuple[str, ...] = ()

    def word(self, name: str) -> str:
        return self.files.get(name, "").strip()

    def last_line(self, name: str) -> str:
        """Of a step's output."""
        return (self.word(f"{name}.log").splitlines() or ["no output"])[-1][:160]


def rows(left: Left) -> list[Row]:
    """The judgement, one row for each thing that must hold."""
    return [
        _where(left),
        _culprit(left),
        _bystander(left, KEPT, "bystander that keeps state"),
        _bystander(left, PLAIN, "bystander that does not"),
        Row(
            what="the job",
            seen=f"{left.state}, {left.restarts} restarts",
            held=left.state == "COMPLETED" and not left.restarts,
        ),
        Row(what="left behind", seen=", ".join(left.spilled) or "nothing", held=not left.spilled),
    ]


def _where(left: Left) -> Row:
    fault, level = _FAULT.search(left.log), _LEVEL.search(left.log)
    if fault is None:
        return Row(what="fault", seen="the job's recovery log tells of none", held=False)
    isolation = level["level"].strip() if level else "unknown"
    mode = "; recovery.mode is observe: nothing is recovered" if _OBSERVING in left.log else ""
    return Row(what="fault", seen=f"seen on {fault['gpu']}; isolation: {isolation}{mode}", held=not mode)


def _culprit(left: Left) -> Row:
    status, step = left.word(f"{CULPRIT}.status"), left.word(f"{CULPRIT}.step")
    if not status:
        return Row(what="culprit", seen=f"made no fault: {left.last_line(LOOK)}", held=False)
    named = {found["who"] for found in _OPENED.finditer(left.log)}
    right = named == {f"job {left.job} step {step} task 0"}
    who = "named" if right else f"named: {', '.join(sorted(named))}" if named else "nobody was named"
    return Row(what="culprit", seen=f"{who}; exit status {status}", held=right and status != "0")


def _bystander(left: Left, name: str, what: str) -> Row:
    status, out = left.word(f"{name}.status"), left.word(f"{name}.out").split()
    if status != "0" or len(out) != 2:
        how = f"ended with status {status}" if status else "did not end"
        return Row(what=what, seen=f"{how}: {left.last_line(name)}", held=False)
    steps = int(out[0]) if out[0].isdigit() else 0
    right = 0 < steps <= LONGEST and out[1] == expected(steps)
    back = [found for found in _BACK.finditer(left.log) if found["step"] == left.word(f"{name}.step")]
    how = ", ".join(f"{found['how']} in {found['ms']} ms" for found in back) or "not touched"
    bytes_of = "right" if right else "WRONG"
    return Row(what=what, seen=f"{how}; {bytes_of} bytes after {steps} steps", held=right)
