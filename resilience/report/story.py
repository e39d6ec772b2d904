"""An incident or a job as a story in plain words, from the records of a journal. Pure.

Knows how to say the events of the contract; one that it has no sentence for is told by the contract's own description
and its fields, so that nothing in the journal is left out of a story.
"""

from collections.abc import Callable, Iterable
from typing import Any

from resilience.contract import contract
from resilience.model.ids import JobId, StepId, TaskId, TaskRef
from resilience.parse.journal import Record
from resilience.report.journal_lines import jobs, listing, when

_ACTIONS = {
    "none": "nothing is done: no fault of the GPU is known, and its exit status is passed on",
    "promote": "its standby takes over",
    "restore": "it starts again on a healthy server and goes on from its last commit",
    "relaunch": "it starts again from scratch, in the same allocation",
    "quarantine": "it goes on alone, on a server of its own",
    "requeue": "Slurm takes the job back; kept state is written to disk first",
    "fail": "it ends",
}
_PARTS = {
    "culprit": "which caused the fault",
    "bystander": "a bystander",
    "suspect": "one of the suspects",
    "unknown": "whose part is not known",
}


_BEFORE = 2.0
"""Seconds before an incident in which a sighting of its server or GPU may be what opened it."""


def of_incident(records: Iterable[Record], incident: str) -> list[Record]:
    """The records of one incident, in order, with the sightings of its server and GPU from shortly before to its end."""
    every = list(records)
    own = [record for record in every if record.get("incident") == incident]
    if not own:
        return []
    server = next((record["server"] for record in own if isinstance(record.get("server"), str)), "")
    first, last = float(own[0]["wall"]) - _BEFORE, float(own[-1]["wall"])
    return [record for record in every if record.get("incident") == incident or _sighting(record, server, first, last)]


def _sighting(record: Record, server: str, first: float, last: float) -> bool:
    if record["event"] != "observation" or not server or not first <= float(record["wall"]) <= last:
        return False
    if record.get("server"):
        return bool(record["server"] == server)
    gpu = record.get("gpu")
    return gpu is not None and f"/g{gpu}/" in server


def of_job(records: Iterable[Record], job: int) -> list[Record]:
    """What is about a job, and all of the incidents that it was in."""
    every = list(records)
    incidents = {record["incident"] for record in every if record.get("incident") and job in jobs(record)}
    belong = {id(record) for incident in incidents for record in of_incident(every, str(incident))}
    return [record for record in every if job in jobs(record) or id(record) in belong]


def tell(records: list[Record]) -> list[str]:
    """The story, a line for each record: time, milliseconds since the record before, a sentence."""
    lines: list[str] = []
    before = float(records[0]["wall"]) if records else 0.0
    for record in records:
        wall = float(record["wall"])
        lines.append(f"{when(wall)[11:-1]} {_since(wall - before):>9}  {sentence(record)}")
        before = wall
    return lines


def _since(seconds: float) -> str:
    return f"+{seconds:.1f} s" if seconds >= 10 else f"+{seconds * 1000:.0f} ms" if seconds >= 0.0005 else ""


def sentence(record: Record) -> str:
    """One record in plain words."""
    event = str(record["event"])
    say = _SENTENCES.get(event)
    try:
        text = say(record) if say else ""
    except (TypeError, AttributeError, ValueError):  # a record of another shape than ours
        text = ""
    if not text:
        meaning = contract()["event"].get(event)
        rest = listing(record).split(" ", 1)[1].removeprefix(event).strip()
        text = f"{meaning} ({rest})" if meaning and rest else meaning or f"{event} {rest}"
    if record.get("dry_run"):
        text = f"(only written down, recovery.mode is observe) {text}"
    return text


def _task(record: Record) -> str:
    """Whom a record is about."""
    task = record.get("task")
    if isinstance(task, str) and task.count(".") == 2:
        job, step, rank = task.split(".")
        return TaskRef(job=JobId(int(job)), step=StepId(int(step)), task=TaskId(int(rank))).words()
    if record.get("job") is not None:
        return f"task {task} of job {record['job']}" if task is not None else f"job {record['job']}"
    return f"task {task}" if task is not None else "a task"


def _names(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _because(record: Record, key: str = "reason") -> str:
    value = record.get(key)
    return f": {_names(value)}" if value else ""


def _observation(record: Record) -> str:
    who = f" by {record['who']}" if record.get("who") else ""
    where = f" on server {record['server']}" if record.get("server") else ""
    return f"seen{where}{who} ({record.get('source', '?')}): {record.get('text', '')}".rstrip(": ")


def _opened(record: Record) -> str:
    clients = record.get("clients")
    hit = f"; its tasks are {_names(clients)}" if clients else ""
    return f"incident {record.get('incident')}: a GPU fault on server {record.get('server', '?')}{hit}"


def _classified(record: Record) -> str:
    words = f" ({record['words']})" if record.get("words") else ""
    return f"it is a fault of class {record.get('fault', '?')}{words}"


def _attributed(record: Record) -> str:
    why = _because(record, "why")
    if record.get("culprit"):
        return f"the culprit is {record['culprit']}, confidence {record.get('confidence', '?')}{why}"
    if record.get("suspects"):
        return f"nobody is named; the suspects are {_names(record['suspects'])}{why}"
    return f"nobody is named{why}"


def _verdict(record: Record) -> str:
    action = str(record.get("action", record.get("would", "?")))
    part = _PARTS.get(str(record.get("part")), "")
    whom = _task(record) + (f", {part}," if part else "")
    return f"verdict for {whom} {action}: {_ACTIONS.get(action, 'see its fields')}{_because(record)}"


def _recovered(record: Record) -> str:
    ms = f" after {record['ms']} ms" if record.get("ms") is not None else ""
    seq = f" from commit {record['seq']}" if record.get("seq") is not None else ""
    return f"{_task(record)} goes on{seq}{ms}"


def _failed(record: Record) -> str:
    rung = record.get("rung") or record.get("action")
    return f"{_task(record)}: {rung or 'a rung'} did not work{_because(record)}"


def _closed(record: Record) -> str:
    outcomes = record.get("outcomes")
    counted: dict[str, int] = {}
    if isinstance(outcomes, dict) and outcomes:
        for outcome in outcomes.values():
            counted[str(outcome)] = counted.get(str(outcome), 0) + 1
    elif outcomes or record.get("outcome"):
        return f"incident {record.get('incident')} is over: {_names(outcomes or record['outcome'])}"
    told = ", ".join(f"{number} {outcome}" for outcome, number in counted.items())
    return f"incident {record.get('incident')} is over{f': {told}' if told else ''}"


def _intent(record: Record) -> str:
    asked = record.get("ask") or record.get("action") or "something"
    about = f" for job {record['job']}" if record.get("job") is not None else ""
    return f"Slurm is asked to {asked}{about}{_because(record)}"


def _outcome(record: Record) -> str:
    asked = record.get("ask") or record.get("action") or "the request"
    good = record.get("ok")
    verb = {True: "did it", False: "refused"}.get(good, "answered") if isinstance(good, bool) else "answered"
    return f"Slurm {verb} ({asked}){_because(record, 'detail') or _because(record)}"


def _job_opened(record: Record) -> str:
    gpus = f", GPU {_names(record['gpus'])}" if record.get("gpus") else ""
    slots = f", SM partition {_names(record['slots'])}" if record.get("slots") else ""
    kept = f"; isolation: {record['isolation']}" if record.get("isolation") else ""
    less = f", {record['no_partition']}" if record.get("no_partition") else ""
    return f"job {record.get('job')} holds domain {record.get('domain', '?')}{gpus}{slots}{kept}{less}"


def _job_refused(record: Record) -> str:
    return f"job {record.get('job')} cannot have MPS{_because(record)}"


def _job_closed(record: Record) -> str:
    residue = record.get("residue")
    left = f"left behind: {_names(residue)}" if residue else "nothing was left behind"
    return f"job {record.get('job')} is closed; {left}"


def _hello(record: Record) -> str:
    came = "is back at the agent, it runs" if record.get("resumed") else "begins"
    return f"{_task(record)} {came} on server {record.get('server', '?')}"


def _gone(record: Record) -> str:
    if record.get("refused"):
        return f"a supervisor was turned away (uid {record.get('uid', '?')}){_because(record)}"
    return f"the supervisor of {_task(record)} left"


def _exit(record: Record) -> str:
    status = record.get("status")
    how = f"with raw status {status}"
    if isinstance(status, int) and 0 <= status <= 0xFFFF:
        how = f"by signal {status & 0x7F}" if status & 0x7F else f"with exit status {status >> 8}"
    return f"the {record.get('role', 'active')} process of {_task(record)} ended {how}"


def _domain(record: Record) -> str:
    server = f"{record.get('domain', '?')}/g{record.get('gpu', '?')}/{record.get('color', '?')}"
    residue = f"; left behind: {_names(record['residue'])}" if record.get("residue") else ""
    return f"server {server} {'answers' if record['event'] == 'domain.opened' else 'is closed'}{residue}"


def _server(record: Record) -> str:
    what = "takes clients again" if record["event"] == "server.rebuilt" else "was ended and started anew"
    ms = f" after {record['ms']} ms" if record.get("ms") is not None else ""
    return f"server {record.get('server', '?')} {what}{ms}{_because(record)}"


_SENTENCES: dict[str, Callable[[Record], str]] = {
    "observation": _observation,
    "task.hello": _hello,
    "task.gone": _gone,
    "task.exit": _exit,
    "domain.opened": _domain,
    "domain.closed": _domain,
    "server.rebuilt": _server,
    "server.replaced": _server,
    "incident.opened": _opened,
    "incident.classified": _classified,
    "incident.attributed": _attributed,
    "incident.closed": _closed,
    "verdict": _verdict,
    "recovered": _recovered,
    "recovery.failed": _failed,
    "slurm.intent": _intent,
    "slurm.outcome": _outcome,
    "job.opened": _job_opened,
    "job.refused": _job_refused,
    "job.closed": _job_closed,
}
