"""The guard's test: the script of its job, and the judgement of what that left. Pure.

A job of the drill's kind (a GPU of its own, fault domains of its own) with an MMU fault in it, and what the guard module's
hooks had seen before and after. They count whether the module isolates or not, so a module that is off is tested too, and
the fault then ends nobody but the job's own step. The counts are the node's: faults of others there count as well.
"""

import json
import shlex
from typing import Any

from resilience.drill.judge import Judgement, Left
from resilience.drill.plan import CULPRIT, LOOK, STEP

BEFORE, AFTER = "before", "after"
FAULT = "illegal-address"
_HONEST = 1.0
"""Seconds of honest work before the fault: a busy client."""

_SCRIPT = """\
#!/bin/bash
# The test of the guard module: one GPU fault of our own, and what the module's hooks saw of it.
{step}step {before} {python} -m resilience.drill.hooks
step {look} {python} -m resilience.drill.alone
if [ "$(cat {before}.status {look}.status)" = "0
0" ]; then
    step {culprit} {python} -m resilience.drill.culprit {fault} --after {honest}
    step {after} {python} -m resilience.drill.hooks
fi
"""


def script(python: str) -> str:
    """The batch script; `python` runs the programs on the node."""
    return _SCRIPT.format(
        step=STEP,
        python=shlex.quote(python),
        before=BEFORE,
        look=LOOK,
        culprit=CULPRIT,
        after=AFTER,
        fault=FAULT,
        honest=_HONEST,
    )


def rows(left: Left) -> list[Judgement]:
    """The judgement, one row for each thing that must hold."""
    before, after = _counts(left, BEFORE), _counts(left, AFTER)
    if before is None:
        return [Judgement(what="module", seen=left.last_line(BEFORE), held=False)]
    covers = f"{before['level']}; hooks the cancels of {', '.join(before['cancels'])} in driver {before['driver']}"
    module = Judgement(what="module", seen=covers, held=True)
    if left.word(f"{LOOK}.status") != "0":
        return [module, Judgement(what="fault", seen=f"made none: {left.last_line(LOOK)}", held=False)]
    status = left.word(f"{CULPRIT}.status")
    fault = Judgement(what="fault", seen=f"{FAULT}; exit status {status or 'unknown'}", held=status not in ("", "0"))
    if after is None:
        return [module, fault, Judgement(what="hooks", seen=left.last_line(AFTER), held=False)]
    return [module, fault, *_seen(before, after)]


def _counts(left: Left, step: str) -> dict[str, Any] | None:
    if left.word(f"{step}.status") != "0":
        return None
    counts = json.loads(left.word(f"{step}.log").splitlines()[-1])
    return counts if isinstance(counts, dict) else None


def _seen(before: dict[str, Any], after: dict[str, Any]) -> list[Judgement]:
    new = {name: after[name] - before[name] for name in ("faults", "cancels_seen", "strays", "isolated")}
    text = f"{new['faults']} faults, {new['cancels_seen']} cancels of them, {new['strays']} without a record"
    hooks = Judgement(what="hooks", seen=text, held=new["cancels_seen"] > 0 and not new["strays"])
    if after["level"] != "on":
        return [hooks, Judgement(what="isolation", seen=f"not tried: the module is {after['level']}", held=True)]
    seen = "the fault was sunk" if new["isolated"] else "the fault was let through: the node's journal says why"
    return [hooks, Judgement(what="isolation", seen=seen, held=new["isolated"] > 0)]
