"""A culprit again and again: faults count for the user's program that caused them, for some time.

After `recovery.strikes` of them each task of the program gets a server of its own, after `strikes_refuse` none at all. So a
program with a bug, an array of a thousand tasks of it too, hurts the owner's other jobs so many times and not more: those of
its tasks that a fault finds on a server with others go on apart, too. Where servers are shared all programs of a user count as
one, for others are hit.

The driver's own faults give no strike: hardware's, and those at one address that other programs, too, were said to have
caused. Addresses below the first 64 KiB are null pointers, which any program makes.
"""

from enum import Enum, auto

from resilience.machine import servers
from resilience.machine.classify import USER_MADE
from resilience.machine.draft import Turn
from resilience.model import effect as fx
from resilience.model import records as rec
from resilience.model.fault import Fault, FaultClass
from resilience.model.ids import TaskRef
from resilience.model.incident import Attribution, Incident
from resilience.model.world import Strike, Task

_KEPT = 4096
"""Strikes of all users, the latest."""
_OF_USER = 256
"""Of one user."""
_NULL = 1 << 16
_COUNTS = (*USER_MADE, FaultClass.UNKNOWN)
"""What a program does, as far as is known when the culprit is named."""


class Standing(Enum):
    FREE = auto()
    APART = auto()
    REFUSED = auto()


def standing(turn: Turn, task: Task) -> Standing:
    """What a task's program may have here."""
    limits, count = turn.recovery, len(of_program(turn, task))
    if turn.observe or not count:
        return Standing.FREE
    if limits.strikes_refuse and count >= limits.strikes_refuse:
        return Standing.REFUSED
    return Standing.APART if limits.strikes and count >= limits.strikes else Standing.FREE


def of_program(turn: Turn, task: Task) -> tuple[Strike, ...]:
    """The strikes that count for a task now."""
    pair = turn.pair_of(task.server)
    uid = _uid(turn, task)
    if pair is None or uid is None or not (task.program or pair.shared):
        return ()
    since = turn.now.wall - turn.recovery.strikes_window
    mine = (strike for strike in turn.history.strikes if strike.uid == uid and strike.at > since)
    return tuple(strike for strike in mine if pair.shared or strike.program == task.program)


def _uid(turn: Turn, task: Task) -> int | None:
    job = turn.jobs.get(task.ref.job)
    return job.uid if job is not None else None


def give(turn: Turn, incident: Incident, result: Attribution) -> None:
    """A culprit was named."""
    task = turn.tasks.get(result.culprit.task) if result.culprit is not None and result.culprit.task else None
    pair = turn.pair_of(incident.server)
    if task is None or not _counts(incident.fault) or not (task.program or (pair is not None and pair.shared)):
        return
    server = pair.servers.get(incident.server.color) if pair is not None else None
    if server is not None and server.killed == result.culprit:
        return  # it was killed: that its neighbours suffered is no fault of its program
    uid = _uid(turn, task)
    if uid is None or any(strike.incident == incident.id for strike in turn.history.strikes):
        return
    strike = Strike(
        at=turn.now.wall, uid=uid, program=task.program, address=incident.address, task=str(rec.task_id(task.ref)),
        incident=incident.id,
    )  # fmt: skip
    if others := _same_address(turn, incident, strike):
        _take_back(turn, others, "the same address in other programs: the driver's own fault")
        return
    _keep(turn, (*turn.history.strikes, strike))
    record = rec.StrikeGiven(
        incident=incident.id, task=task.ref, uid=uid, program=task.program, count=len(of_program(turn, task))
    )
    turn.journal(record)
    turn.job_line(task.ref.job, record)


def _counts(fault: Fault) -> bool:
    """A program that says itself that hardware failed is not excused by that."""
    return fault.kind in _COUNTS or fault.heard


def _same_address(turn: Turn, incident: Incident, strike: Strike) -> tuple[Strike, ...]:
    """Strikes of other programs at the same address; where servers are shared, of other users: one user's count as one."""
    if strike.address is None or strike.address < _NULL:
        return ()
    since = turn.now.wall - turn.recovery.strikes_window
    pair = turn.pair_of(incident.server)
    same = (other for other in turn.history.strikes if other.address == strike.address and other.at > since)
    if pair is not None and pair.shared:
        return tuple(other for other in same if other.uid != strike.uid)
    return tuple(other for other in same if other.program != strike.program)


def closed(turn: Turn, incident: Incident) -> None:
    """All is known of a fault: what turned out to be nobody's doing counts for nobody."""
    mine = tuple(strike for strike in turn.history.strikes if strike.incident == incident.id)
    if not mine:
        return
    address = incident.address
    if not _counts(incident.fault) or (incident.attribution is not None and incident.attribution.blameless):
        _take_back(turn, mine, f"{incident.fault.numbers()}: nobody's doing")
    elif mine[0].address is None and address is not None:  # the driver has told it since
        told = Strike(
            at=mine[0].at, uid=mine[0].uid, program=mine[0].program, address=address, task=mine[0].task,
            incident=mine[0].incident,
        )  # fmt: skip
        rest = tuple(strike for strike in turn.history.strikes if strike not in mine)
        _keep(turn, (*rest, told))
        if others := _same_address(turn, incident, told):
            _take_back(turn, (*others, told), "the same address in other programs: the driver's own fault")


def _take_back(turn: Turn, strikes: tuple[Strike, ...], why: str) -> None:
    _keep(turn, tuple(strike for strike in turn.history.strikes if strike not in strikes))
    for strike in strikes:
        turn.journal(rec.StrikeTaken(incident=strike.incident, uid=strike.uid, program=strike.program, reason=why))


def _keep(turn: Turn, strikes: tuple[Strike, ...]) -> None:
    since = turn.now.wall - turn.recovery.strikes_window
    kept: list[Strike] = []
    of_user: dict[int, int] = {}
    for strike in sorted((one for one in strikes if one.at > since), key=lambda one: one.at, reverse=True):
        of_user[strike.uid] = of_user.get(strike.uid, 0) + 1
        if of_user[strike.uid] <= _OF_USER and len(kept) < _KEPT:
            kept.append(strike)
    turn.struck(tuple(reversed(kept)))
    turn.do(fx.KeepStrikes(strikes=turn.history.strikes))


def apart(turn: Turn, incident: Incident, guilty: TaskRef | None) -> Incident:
    """Tasks on the server whose program has strikes enough go on on servers of their own."""
    if not incident.hit:
        return incident
    for ref in sorted(incident.clients):
        task = turn.tasks.get(ref)
        if task is None or ref == guilty or ref in incident.apart or standing(turn, task) is Standing.FREE:
            continue
        own = servers.open_quarantine(turn, incident.server)
        incident = turn.incident(turn.incidents[incident.id], apart={**turn.incidents[incident.id].apart, ref: own})
    return incident


def at_hello(turn: Turn, ref: TaskRef) -> bool:
    """Put a new task apart, or refuse it, as its program's strikes want it. True: it is refused."""
    task = turn.tasks[ref]
    found = standing(turn, task)
    if found is Standing.FREE:
        return False
    count, hours = len(of_program(turn, task)), turn.recovery.strikes_window / 3600
    refused = found is Standing.REFUSED
    record = rec.StrikesApplied(
        task=ref, uid=_uid(turn, task), program=task.program, count=count, action="refused" if refused else "apart"
    )
    turn.journal(record)
    if refused:
        last = of_program(turn, task)[-1]
        reason = (
            f"this program has caused {count} GPU faults on this node within {hours:g} h, the last as {last.task}: "
            "mend it, or wait; a program whose file has changed begins anew (the admin: recovery.strikes)"
        )
        turn.do(fx.Refuse(ref=ref, reason=reason))
        turn.task(ref, over=True)
        return True
    turn.job_line(ref.job, record)
    pair = turn.pairs[task.server.domain, task.server.gpu]
    if turn.mps.compute_mode != "exclusive":
        turn.task(ref, server=servers.open_quarantine(turn, pair.server(pair.active)))
    return False
