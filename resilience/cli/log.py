"""`mpsr log`: the journal of a node or of many, or the recovery log of one job.

An admin reads the journal. A user, who may not, reads the log of an own job with -j: it lies beside the job's output
file, written as the user by the job's own supervisors. Torn lines are left out and counted.
"""

import argparse
import json
import math
import os
import stat
import sys
import time
from typing import TextIO

from resilience.adapters.slurm import slurm_commands
from resilience.adapters.slurm.scontrol import Scontrol
from resilience.cli import named_job, over_nodes
from resilience.config import settings
from resilience.config.node_name import node_name
from resilience.contract import exit_code, path
from resilience.model.errors import ConfigError, ResilienceError
from resilience.model.ids import JobId
from resilience.model.records.journal import Entry
from resilience.model.records.words import printable
from resilience.model.settings import Settings
from resilience.parse import recovery_log
from resilience.ports import JobInfo
from resilience.report import around, journal_lines


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Print the journal of a node, which only admins may read. A user prints the recovery log of one of their own jobs "
        "with -j."
    )
    named_job.add(
        parser, "only what is about this job, on its nodes: 4711, 4711_3 (a task of an array), 4711+1 (a component)"
    )
    parser.add_argument("--incident", metavar="ID", help="only what is about this incident")
    parser.add_argument("--since", metavar="TIME", help="10m, 2h, 1d, or an ISO 8601 time")
    parser.add_argument(
        "--around",
        action="store_true",
        help="with a job, an incident or a time: also all that belongs to their incidents",
    )
    parser.add_argument("--json", action="store_true", help="the records as they are, one JSON object a line")
    over_nodes.add(parser)
    parser.add_argument("--node", help="Slurm's name of the node (default: this one)")
    parser.add_argument("--journal", metavar="FILE", help="another journal file")
    parser.add_argument("--config", metavar="FILE", help="another mpsr.yaml")


def run(arguments: argparse.Namespace) -> int:
    chosen = settings.find(arguments.config).settings
    earliest = journal_lines.since(arguments.since, time.time()) if arguments.since else 0.0
    filtered = arguments.json or arguments.incident or arguments.since or arguments.around
    if arguments.around and not (arguments.job or arguments.incident or arguments.since):
        raise ConfigError("--around", "needs --job, --incident or --since")
    wanted = named_job.numbers(arguments.job, chosen) if arguments.job else ()
    if where := over_nodes.target(arguments, chosen, wanted, admins=True):
        return _of_many(arguments, chosen, where)
    try:
        file = arguments.journal or journal_path(chosen, arguments.node)
    except ConfigError:
        if not wanted or filtered:
            raise
        return _own(chosen, wanted)  # which journal is meant is not clear, which job's log is
    if wanted and not arguments.journal and not os.access(file, os.R_OK):
        if filtered:
            raise ConfigError("log", "only the journal can be filtered, and it is for admins", file)
        return _own(chosen, wanted)
    read = read_both(file) if arguments.around else journal_lines.read(file)
    if arguments.around:
        since = earliest or math.inf
        picked = around.belonging(read.entries, jobs=wanted, incident=arguments.incident or "", since=since)
    else:
        picked = [entry for entry in read.entries if _matches(entry, earliest, arguments.incident, wanted)]
    for entry in picked:
        print(json.dumps(entry.values) if arguments.json else journal_lines.listing(entry))
    note_skipped(read, file)
    return exit_code("ok")


def _matches(entry: Entry, earliest: float, incident: str | None, jobs: tuple[JobId, ...]) -> bool:
    if entry.wall < earliest or (incident and entry.record.incident != incident):
        return False
    return not jobs or not entry.jobs().isdisjoint(jobs)


def words(*, job: str = "", incident: str = "", since: str = "", around: bool = False) -> list[str]:
    """The command that prints a node's records."""
    given = {"--job": job, "--incident": incident, "--since": since}
    options = [word for option, value in given.items() if value for word in (option, value)]
    return ["log", "--json", *options, *["--around"] * around]


def _of_many(arguments: argparse.Namespace, chosen: Settings, where: over_nodes.Target) -> int:
    job = arguments.job.text if arguments.job else ""
    command = words(job=job, incident=arguments.incident or "", since=arguments.since or "", around=arguments.around)
    found = over_nodes.ask_records(where, chosen, lambda node: [*command, "--node", node])
    rows = [(entry.wall, node, entry) for node, read in found.answers.items() for entry in read.entries]
    width = max(map(len, found.answers), default=0)
    for _, node, entry in sorted(rows, key=lambda row: row[0]):
        if arguments.json:
            print(json.dumps({**entry.values, "node": node}))
        else:
            print(f"{node:<{width}} {journal_lines.listing(entry)}")
    for node, read in found.answers.items():
        note_skipped(read, node)
    return found.tell(exit_code("ok"))


def read_both(file: str) -> journal_lines.Read:
    """A journal with what logrotate, or its writer, moved away last and nobody has compressed yet."""
    read = journal_lines.read(file)
    if os.path.exists(rotated := f"{file}.1"):
        older = journal_lines.read(rotated)
        note_skipped(older, rotated)
        read.entries[:0] = older.entries
    return read


def journal_path(chosen: Settings, named: str | None) -> str:
    """The journal of a node."""
    return path("journal", log=chosen.paths.log, node=node_name(named, chosen.paths.log))


def note_skipped(read: journal_lines.Read, file: str) -> None:
    if read.skipped:
        print(f"mpsr: {file}: lines that are no record were left out: {read.skipped}", file=sys.stderr)


def _own(chosen: Settings, jobs: tuple[JobId, ...]) -> int:
    """The recovery logs of jobs, with the caller's own rights."""
    picked = slurm_commands.pick(chosen)
    try:
        for job in jobs:
            info = picked.slurm.job(job)
            files = places(info)
            shown = [_shown(file) for file in files]
            if not any(shown):
                print(f"mpsr: job {job}: {_without(chosen, info, files[0])}", file=sys.stderr)
    finally:
        picked.close()
    return exit_code("ok")


def places(info: JobInfo) -> tuple[str, ...]:
    """Where a job's supervisors may have put its recovery log."""
    home = os.path.join(os.path.expanduser("~"), recovery_log.name(info.job))
    return tuple(dict.fromkeys((*recovery_log.places(info.stdout, info.workdir, info.job), home)))


def open_recovery_log(file: str) -> TextIO:
    """A recovery log for reading. Raises OSError, and ResilienceError for what the supervisors do not write: others may write
    the directory of the job's output, too."""
    fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode) or os.geteuid() not in (0, info.st_uid):
        os.close(fd)
        hint = "the tasks' standard error has the lines"
        raise ResilienceError(file, "is not a plain file of this user", f"uid {info.st_uid}", hint=hint)
    return open(fd, encoding="utf-8", errors="replace")


def _shown(file: str) -> bool:
    """Print a recovery log; False when there is none."""
    try:
        with open_recovery_log(file) as stream:
            for line in stream:
                print(printable(line.rstrip("\n")))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ResilienceError(printable(file), "cannot be read", error.strerror or error) from error
    return True


def _without(chosen: Settings, info: JobInfo, file: str) -> str:
    """What can be said of a job that has no recovery log."""
    timeout = chosen.slurm.timeout
    slurm = Scontrol(program=chosen.paths.scontrol, timeout=timeout, requeue_timeout=timeout)
    if comment := printable(slurm.admin_comment(info.job)):
        return f"no recovery log that can be seen here ({printable(file)}); its AdminComment says: {comment}"
    return f"nothing had to be recovered so far (no {printable(file)})"
