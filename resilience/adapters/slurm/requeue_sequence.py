"""The requeue that starts a job again within a second or two, shared by the two adapters of the Slurm port.

Left alone, Slurm lets a requeued job wait for `cred_expire` seconds (120 by default). The order here avoids that:
requeue; exclude the node and leave a comment (refused while the job is RUNNING, accepted from COMPLETING on); wait for
PENDING, since a start time given while COMPLETING is overwritten; wait for the second whole second after that, since
slurmd skips the prolog (seen on 22.05: the job then had no MPS) of a job whose credential was made in the second in
which it revoked the last one, or when it has looked through its revoked ones in this second or in that before, as it
does when the job ends; ask for the start now. Other jobs that start on the node have slurmd look, too: what is left
of the danger is the plugin's to mend (spank_plugin/plugin/late.c).

Relies on `Primitives`, each one call to Slurm. Guarantees: bounded by `timeout`; exclusions that the job already had
are kept; a job that is cancelled or out of time stays so; an exclusion that leaves the job no node is taken back; a job
that is pending already was requeued by somebody else and is only helped to start; what Slurm will not do is Refused in
its own words.
"""

import re
import time
from dataclasses import dataclass
from typing import Protocol

from resilience.adapters.slurm import account_text
from resilience.model.errors import SlurmAway, SlurmError
from resilience.model.ids import JobId, NodeName
from resilience.parse.hostlist import named
from resilience.ports import Done, Refused

PENDING_ALREADY = "job is pending execution"
NOWHERE = "BadConstraints"
"""Slurm's reason for a job whose last node was excluded; it takes the exclusion without a word (22.05)."""
_NODES = re.compile(r"[A-Za-z0-9._,\[\]-]*\Z")
"""A list of nodes that may be written back with one more."""
_UNDECIDED = ("", "BeginTime", "Priority")
_WATCH = 3.0
"""Seconds to watch for NOWHERE. The scheduler looks at the job within a second or two."""
_FIRST_POLL = 0.05
_SLOWEST_POLL = 0.5
"""Seconds between two looks at the state. The steps of the way take 0.1 s to KillWait."""
ENDED = frozenset("BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY TIMEOUT".split())
_DONE_WITH = frozenset("CANCELLED COMPLETED DEADLINE TIMEOUT".split())
"""States of a job that nobody wants again. FAILED is not among them: the fault may have ended the job before us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What the sequence needs to know of a job, again and again."""

    state: str
    batch: bool
    restarts: int
    held: bool
    """Its priority is 0."""
    reason: str
    """Why Slurm does not start it; empty when it has none."""


class Primitives(Protocol):
    def snapshot(self, job: JobId) -> Snapshot: ...

    def excluded(self, job: JobId) -> str:
        """Its excluded nodes, as its user wrote them."""

    def admin_comment(self, job: JobId) -> str:
        """What stands there, whoever wrote it. Raises SlurmError when it cannot be read whole."""

    def ask_requeue(self, job: JobId) -> Done | Refused: ...

    def ask_update(
        self, job: JobId, *, comment: str = "", excluded: str | None = None, start_now: bool = False
    ) -> Done | Refused:
        """`excluded` replaces the list; empty clears it, None leaves it."""


def merged(excluded: str, node: NodeName | None) -> str:
    """The list of excluded nodes with one more; empty when there is nothing to change."""
    if node is None or named(node, excluded):
        return ""
    return f"{excluded},{node}" if excluded else str(node)


def requeue(slurm: Primitives, job: JobId, *, comment: str, exclude: NodeName | None, timeout: float) -> Done | Refused:
    """The whole sequence. Raises SlurmError when Slurm cannot be asked, SlurmAway when it can be later."""
    deadline = time.monotonic() + timeout
    before = _settled(slurm, job, deadline)
    if not before.batch:
        return Refused(reason="only batch jobs can be requeued")
    if before.state in (*_DONE_WITH, "COMPLETING"):
        return Refused(reason=f"the job is {before.state}")
    if before.state == "SUSPENDED":  # Slurm would take it back and hold it for good (22.05)
        raise SlurmAway(f"job {job}", "is suspended")
    answer = slurm.ask_requeue(job)
    if isinstance(answer, Refused) and PENDING_ALREADY not in answer.reason.lower():
        return answer
    notes: list[str] = []
    already, wanted = _exclusions(slurm, job, exclude, notes)
    wanted = _exclude_and_comment(slurm, job, _account(slurm, job, comment, notes), wanted, notes)
    wait = _FIRST_POLL
    while (now := slurm.snapshot(job)).state != "PENDING":
        if now.state in ENDED:
            return Refused(reason=f"the job is {now.state}")
        if now.restarts > before.restarts and now.state == "RUNNING":
            return Done(detail="; ".join(["requeued and running again", *notes]))
        if time.monotonic() >= deadline:
            late = f"requeued, but still {now.state} after {timeout:g} s: it starts when Slurm lets it"
            return Done(detail="; ".join([late, *notes]))
        time.sleep(wait)
        wait = min(wait * 1.5, _SLOWEST_POLL)
    if now.held and now.reason != NOWHERE:
        return Refused(reason=f"the job is held: {now.reason or 'no reason given'}")
    time.sleep(2.0 - time.time() % 1.0)  # the next second but one: see the header
    started = slurm.ask_update(job, start_now=True)
    if isinstance(started, Refused):
        notes.append(f"starts after Slurm's own delay: {started.reason}")
    elif wanted and _fits_nowhere(slurm, job, deadline):
        slurm.ask_update(job, excluded=already)
        slurm.ask_update(job, start_now=True)
        notes.append(f"node not excluded: no other node would do ({NOWHERE})")
    return Done(detail="; ".join(["requeued", *notes]))


def _settled(slurm: Primitives, job: JobId, deadline: float) -> Snapshot:
    """The job as soon as it is not COMPLETING: only then Slurm says what it was ended by. A job that its user has
    cancelled, or whose time was up, would be taken back all the same (22.05)."""
    wait = _FIRST_POLL
    while (now := slurm.snapshot(job)).state == "COMPLETING" and time.monotonic() < deadline:
        time.sleep(wait)
        wait = min(wait * 1.5, _SLOWEST_POLL)
    return now


def _fits_nowhere(slurm: Primitives, job: JobId, deadline: float) -> bool:
    """Whether Slurm now says that no node at all fits, which would leave the job pending for ever."""
    until = min(deadline, time.monotonic() + _WATCH)
    while (now := slurm.snapshot(job)).state == "PENDING" and time.monotonic() < until:
        if now.reason not in _UNDECIDED:
            return now.reason == NOWHERE
        time.sleep(_FIRST_POLL * 2)
    return False


def _exclusions(slurm: Primitives, job: JobId, node: NodeName | None, notes: list[str]) -> tuple[str, str]:
    """The list that there is, and that which is wanted; the latter is empty when there is nothing to change."""
    if node is None:
        return "", ""
    try:
        already = slurm.excluded(job)
        if not _NODES.match(already):
            raise SlurmError(f"job {job}", "excludes nodes in a form that we do not know", repr(already)[:80])
    except SlurmError as error:
        notes.append(f"node not excluded: {error}")
        return "", ""
    return already, merged(already, node)


def _account(slurm: Primitives, job: JobId, comment: str, notes: list[str]) -> str:
    """The AdminComment with ours in it; empty when what stands there could not be kept."""
    try:
        return account_text.beside(slurm.admin_comment(job), comment)
    except SlurmError as error:
        notes.append(f"no comment: {error}")
        return ""


def _exclude_and_comment(slurm: Primitives, job: JobId, comment: str, excluded: str, notes: list[str]) -> str:
    """Both in one call, or at least the comment; the list that is in force if it was changed, else nothing."""
    answer = slurm.ask_update(job, comment=comment, excluded=excluded or None)
    if isinstance(answer, Done):
        return excluded
    notes.append(f"{'node not excluded' if excluded else 'no comment'}: {answer.reason}")
    if excluded and comment:
        again = slurm.ask_update(job, comment=comment)
        if isinstance(again, Refused):
            notes.append(f"no comment: {again.reason}")
    return ""
