"""`mpsr log`: the journal of a node, or the recovery log of one job.

An admin reads the journal. A user, who may not, reads the log of an own job with -j: it lies beside the job's output
file, written as the user by the job's own supervisors. Torn lines are left out and counted.
"""

import argparse
import json
import os
import stat
import sys
import time
from typing import TextIO

from resilience.adapters.slurm import slurm_commands
from resilience.config import settings
from resilience.config.node_name import node_name
from resilience.contract import exit_code, path
from resilience.model.errors import ConfigError, ResilienceError
from resilience.model.ids import JobId
from resilience.model.records.words import printable
from resilience.model.settings import Settings
from resilience.report import journal_lines


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Print the journal of a node, which only admins may read. A user prints the recovery log of one of their own jobs "
        "with -j."
    )
    parser.add_argument("-j", "--job", type=int, metavar="JOB", help="only what is about this job")
    parser.add_argument("--incident", metavar="ID", help="only what is about this incident")
    parser.add_argument("--since", metavar="TIME", help="10m, 2h, 1d, or an ISO 8601 time")
    parser.add_argument("--json", action="store_true", help="the records as they are, one JSON object a line")
    parser.add_argument("--node", help="Slurm's name of the node (default: this one)")
    parser.add_argument("--journal", metavar="FILE", help="another journal file")
    parser.add_argument("--config", metavar="FILE", help="another mpsr.yaml")


def run(arguments: argparse.Namespace) -> int:
    chosen = settings.find(arguments.config).settings
    earliest = journal_lines.since(arguments.since, time.time()) if arguments.since else 0.0
    filtered = arguments.json or arguments.incident or arguments.since
    try:
        file = arguments.journal or journal_path(chosen, arguments.node)
    except ConfigError:
        if arguments.job is None or filtered:
            raise
        return _own(chosen, JobId(arguments.job))  # which journal is meant is not clear, which job's log is
    if arguments.job is not None and not arguments.journal and not os.access(file, os.R_OK):
        if filtered:
            raise ConfigError("log", "only the journal can be filtered, and it is for admins", file)
        return _own(chosen, JobId(arguments.job))
    read = journal_lines.read(file)
    for entry in read.entries:
        if entry.wall < earliest or (arguments.incident and entry.record.incident != arguments.incident):
            continue
        if arguments.job is not None and arguments.job not in entry.jobs():
            continue
        print(json.dumps(entry.values, ensure_ascii=False) if arguments.json else journal_lines.listing(entry))
    note_skipped(read, file)
    return exit_code("ok")


def journal_path(chosen: Settings, named: str | None) -> str:
    """The journal of a node."""
    return path("journal", log=chosen.paths.log, node=node_name(named, chosen.paths.log))


def note_skipped(read: journal_lines.Read, file: str) -> None:
    if read.skipped:
        print(f"mpsr: {file}: lines that are no record were left out: {read.skipped}", file=sys.stderr)


def recovery_log(stdout: str, workdir: str, job: JobId) -> str:
    """Where a job's own log lies: beside its output file, or in its working directory when it has none."""
    return os.path.join(os.path.dirname(stdout) if stdout else workdir, f"mpsr-{job}.log")


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


def _own(chosen: Settings, job: JobId) -> int:
    """The recovery log of a job, with the caller's own rights."""
    picked = slurm_commands.pick(chosen)
    try:
        info = picked.slurm.job(job)
    finally:
        picked.close()
    file = recovery_log(info.stdout, info.workdir, job)
    try:
        with open_recovery_log(file) as stream:
            for line in stream:
                print(printable(line.rstrip("\n")))
    except FileNotFoundError:
        where = printable(file)
        print(f"mpsr: job {job}: nothing had to be recovered so far (no {where})", file=sys.stderr)
    except OSError as error:
        raise ResilienceError(printable(file), "cannot be read", error.strerror or error) from error
    return exit_code("ok")
