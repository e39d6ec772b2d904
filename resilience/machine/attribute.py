"""Who did it: evidence → culprit with a confidence, or the set that it must be in. Pure.

  certain  the server's log names a process that is a task's, the server has one client only, or the guard's record
  strong   the kernel log's Xid names a process of ours (under MPS it may be the server's, which is nobody's), the
           only process that was hit while the server went on, or the only earlier suspect where no one is new, or a
           client of the server was killed shortly before and nothing of the same weight names another
  weak     the only earlier suspect, but newcomers may have done it: not enough to fail anyone, enough to try it alone
  none     then one of the clients did it: an earlier suspect or a newcomer, if an unattributed fault came before

A hardware fault and a daemon's end are nobody's: everyone is a bystander. A program's word for that counts as long as no
evidence names anyone and the server goes on.
"""

from collections.abc import Iterable

from resilience.machine.classify import USER_MADE, excuses
from resilience.model.fault import Fault, Reach
from resilience.model.ids import TaskRef
from resilience.model.incident import Attribution, Confidence, Evidence
from resilience.model.observation import Client, Observation, Source, What
from resilience.model.radius import Radius, Server
from resilience.model.world import KnownServer as ServerRecord
from resilience.model.world import Suspicion

KILLED_SECONDS = 10.0
"""Time in which a killed client's neighbours show what it did to them: work that was under way then ends in an error soon."""
_ORDER = {Confidence.NONE: 0, Confidence.WEAK: 1, Confidence.STRONG: 2, Confidence.CERTAIN: 3}


def weigh(seen: Observation, fault: Fault, client: Client | None) -> Evidence | None:
    """What one sighting says about who did it; None when it says nothing."""
    if client is None or (client.task is None and client.job is None):
        return None
    if seen.what is What.CULPRIT:
        return Evidence(client=client, confidence=Confidence.CERTAIN, why=f"server log names {client}")
    if seen.what is What.ISOLATED:
        return Evidence(client=client, confidence=Confidence.CERTAIN, why=f"the guard names {client}")
    if seen.what is What.XID and seen.source is Source.KMSG and fault.kind in USER_MADE:
        return Evidence(client=client, confidence=Confidence.STRONG, why=f"Xid {seen.xid} names {client}")
    return None


def killed_before(server: ServerRecord | None, opened: float) -> tuple[Evidence, ...]:
    """The client of a server that was killed shortly before an incident: whoever is hurt then may be so by that."""
    if server is None or server.killed is None or not 0 <= opened - server.killed_at <= KILLED_SECONDS:
        return ()
    why = f"killed with work in flight {opened - server.killed_at:.1f} s before"
    return (Evidence(client=server.killed, confidence=Confidence.STRONG, why=why),)


def blameless(fault: Fault) -> bool:
    """Nobody's program can have caused this: not when only a program says so, which may be the one that did it."""
    return excuses(fault) and not fault.heard


def attribute(
    evidence: Iterable[Evidence],
    fault: Fault,
    radius: Radius,
    earlier: Suspicion | None,
) -> Attribution:
    """The verdict on who did it, from all that is known now. `earlier`: the last unattributed fault of this domain and
    GPU that still counts."""
    clients = radius.clients
    if blameless(fault):
        return Attribution(confidence=Confidence.NONE, blameless=True, why=(f"{fault.words}: nobody's doing",))
    best = max(evidence, key=lambda item: _ORDER[item.confidence], default=None)
    if best is not None and best.confidence.names:
        return Attribution(confidence=best.confidence, culprit=best.client, why=(best.why,))
    if excuses(fault) and not isinstance(radius, Server):
        return Attribution(confidence=Confidence.NONE, blameless=True, why=(f"a program's word: {fault.words}",))
    if radius.complete and len(clients) == 1 and not radius.strangers:
        (only,) = clients
        return _named(only, Confidence.CERTAIN, f"the {radius.WHERE}'s only client")
    apart = not isinstance(radius, Server) and (fault.reach is Reach.PROCESS or fault.kind in USER_MADE)
    if radius.complete and apart and len(radius.hits) == 1:
        (only,) = radius.hits
        return _named(only, Confidence.STRONG, "only this process was hit")
    narrowed = clients & earlier.suspects if earlier else frozenset[TaskRef]()
    if earlier is None or not narrowed:
        return Attribution(confidence=Confidence.NONE, suspects=clients, why=("nobody was named",))
    pool = narrowed | (clients - earlier.clients)
    if len(narrowed) > 1:
        return Attribution(confidence=Confidence.NONE, suspects=pool, why=("nobody was named, again",))
    (only,) = narrowed
    if pool == narrowed and not radius.strangers:
        return _named(only, Confidence.STRONG, "the only one suspected before that was here this time")
    why = "suspected before, but others have joined since"
    return Attribution(confidence=Confidence.WEAK, suspects=pool, alone=only, why=(why,))


def _named(ref: TaskRef, confidence: Confidence, why: str) -> Attribution:
    return Attribution(confidence=confidence, culprit=Client(pid=0, task=ref, job=ref.job), why=(why,))
