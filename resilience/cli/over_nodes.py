"""`--nodes` and `--job` of the commands: which nodes are meant, what they answer, and which of them do not.

What crosses the wire is a command's own --json, read back as the type that made it. A node that does not answer, or not in that
form, is named on standard error with the reason, and the exit status is `no_answer`: what is shown is then not the whole.
"""

import argparse
import os
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from resilience.adapters.slurm import sacct
from resilience.adapters.slurm.scontrol import Scontrol
from resilience.config.node_name import node_name
from resilience.contract import exit_code
from resilience.model.errors import ConfigError, ResilienceError, WireError
from resilience.model.ids import JobId
from resilience.model.records.words import printable
from resilience.model.settings import Settings
from resilience.parse import answers, hostlist
from resilience.report import journal_lines

T = TypeVar("T")
_RUNNING = ("RUNNING", "SUSPENDED")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    nodes: tuple[str, ...]
    job: JobId | None = None
    """A running job of the caller's on them: Slurm gives nobody, root included, a step in another user's job."""


@dataclass(slots=True)
class NodeAnswers(Generic[T]):
    answers: dict[str, T] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    """Node → why it has not answered."""

    def tell(self, status: int) -> int:
        """Name the nodes that did not answer; the exit status: `status` when all did."""
        reasons: dict[str, list[str]] = {}
        for node, why in self.missing.items():
            reasons.setdefault(why, []).append(node)
        for why, nodes in reasons.items():
            print(f"mpsr: {hostlist.folded(nodes)}: {why}", file=sys.stderr)
        return exit_code("no_answer") if self.missing else status


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--nodes", metavar="LIST", help="ask these nodes, such as gpu[01-64], and show what they answer"
    )


def target(
    arguments: argparse.Namespace, chosen: Settings, jobs: Collection[JobId], *, admins: bool, here_too: bool = True
) -> Target | None:
    """The nodes that are to be asked; None where the files of this one are meant.

    A job that ran on this node alone, or one whose nodes Slurm does not tell, is looked for here; not `here_too`: such a one is an
    error. `admins`: what is asked for is told to admins only, so other users' look for their job stays here, too. Raises ConfigError.
    """
    here = getattr(arguments, "node", None) or getattr(arguments, "journal", None)
    if arguments.nodes:
        if here:
            raise ConfigError("--nodes", "cannot be given with --node or --journal", here)
        return Target(nodes=tuple(hostlist.nodes(arguments.nodes, "--nodes")))
    if here or (admins and os.geteuid() != 0):
        return None
    nodes: list[str] = []
    running = None
    for job in jobs:
        state, listed = _placed(job, chosen)
        nodes += hostlist.nodes(listed, f"job {job}") if listed else []
        running = job if state in _RUNNING else running
    if jobs and not nodes and not here_too:
        raise ConfigError(f"job {min(jobs)}", "Slurm does not say where it ran", hint="give --nodes LIST")
    local = None
    with suppress(ConfigError):
        local = node_name(None, chosen.paths.run)
    if not set(nodes) - {local}:
        return None
    return Target(nodes=tuple(dict.fromkeys(nodes)), job=running if os.geteuid() != 0 else None)


def _placed(job: JobId, chosen: Settings) -> tuple[str, str]:
    """A job's state and list of nodes, empty where neither slurmctld nor the accounting tells."""
    slurm = Scontrol(program=chosen.paths.scontrol, timeout=chosen.slurm.timeout, requeue_timeout=chosen.slurm.timeout)
    with suppress(ResilienceError):
        return slurm.placed(job)
    with suppress(ResilienceError):
        return "", sacct.nodes(job, timeout=chosen.slurm.timeout)
    return "", ""


def ask(where: Target, chosen: Settings, words: Callable[[str], Sequence[str]], kind: type[T]) -> NodeAnswers[T]:
    """What the nodes' commands print as --json, one object each, whatever their exit status is."""
    return _asked(where, chosen, words, lambda out, status: answers.read(kind, out))


def ask_records(
    where: Target, chosen: Settings, words: Callable[[str], Sequence[str]]
) -> NodeAnswers[journal_lines.Read]:
    """The records that `mpsr log --json` prints on the nodes."""

    def read(out: bytes, status: int) -> journal_lines.Read:
        if status != exit_code("ok"):
            raise WireError("answer", f"exit status {status}")
        return journal_lines.collect(out.decode("utf-8", "replace").splitlines())

    return _asked(where, chosen, words, read)


def _asked(
    where: Target, chosen: Settings, words: Callable[[str], Sequence[str]], read: Callable[[bytes, int], T]
) -> NodeAnswers[T]:
    from resilience.adapters.linux.remote import gather  # 80 ms, for those who ask other nodes

    found = NodeAnswers[T]()
    replies = gather(where.nodes, lambda node: [chosen.remote.command, *words(node)], chosen, job=where.job)
    for node, reply in replies.items():
        if reply.wrong:
            found.missing[node] = reply.wrong
            continue
        try:
            found.answers[node] = read(bytes(reply.out), reply.status or 0)
        except WireError as error:
            found.missing[node] = _why(bytes(reply.err)) or str(error)
    return found


def _why(err: bytes) -> str:
    """What a command that has no answer said: our own message, else the last line."""
    lines = [printable(line.strip())[:200] for line in err.decode("utf-8", "replace").splitlines() if line.strip()]
    ours = [line.removeprefix("mpsr: ") for line in lines if line.startswith("mpsr: ")]
    return ours[0] if ours else lines[-1] if lines else ""
