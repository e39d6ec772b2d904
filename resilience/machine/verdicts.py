"""Telling a task what to do, and writing it down before: the verdict's way out of the machine, and two last words.

Intents are journalled before the supervisor is told. Which verdict it is, others decide (recover.py, jobs.py).
"""

from dataclasses import replace

from resilience.machine.draft import Turn
from resilience.model import effect as fx
from resilience.model import records as rec
from resilience.model.ids import IncidentId, ServerId, TaskRef
from resilience.model.incident import Action, Case, Outcome, Part
from resilience.model.options import Rung


def send(turn: Turn, name: IncidentId, ref: TaskRef, action: Action, server: ServerId | None, reason: str) -> None:
    case = turn.incidents[name].cases[ref]
    record = rec.Verdict(
        incident=name, task=ref, action=action, part=case.part, server=server, reason=reason, ms=since(turn, name)
    )
    turn.journal(record)
    turn.do(fx.Verdict(ref=ref, incident=name, action=action, part=case.part, server=server, reason=reason))
    turn.job_line(ref.job, record)


def fail(turn: Turn, name: IncidentId, ref: TaskRef, reason: str) -> None:
    """The last word: the task passes its failure on."""
    case = turn.incidents[name].cases[ref]
    turn.case(name, ref, outcome=Outcome.FAILED, action=Action.FAIL, reasons=(*case.reasons, reason))
    send(turn, name, ref, Action.FAIL, None, reason)
    turn.task(ref, over=True, asking=0, reported=0)


def ask_to_spill(turn: Turn, name: IncidentId, ref: TaskRef, part: Part, reason: str) -> None:
    """Verdict requeue: to the task whose case came to that, and to its job's other tasks."""
    before = turn.open_case(ref)
    if before is not None and before[0].id != name:
        turn.case(before[0].id, ref, outcome=Outcome.GONE, reasons=(*before[1].reasons, "its job is requeued"))
    incident = turn.incidents[name]
    case = incident.cases.get(ref) or Case(part=part, outcome=Outcome.TOLD)
    case = replace(
        case,
        outcome=Outcome.TOLD,
        action=Action.REQUEUE,
        tried=(*case.tried, Rung.REQUEUE),
        told_at=turn.now.mono,
        due=0.0,
    )
    turn.incident(incident, cases={**incident.cases, ref: case})
    turn.task(ref, incident=name, asking=0, reported=0)
    send(turn, name, ref, Action.REQUEUE, None, reason)


def since(turn: Turn, name: IncidentId) -> float:
    return round((turn.now.mono - turn.incidents[name].opened) * 1000, 3)
