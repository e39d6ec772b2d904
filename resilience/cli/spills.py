"""`mpsr spills`: spilled state on disk that jobs have left behind, and with --clean taking away that of jobs that are over.

Without a directory it goes through this node's records of what was kept for a job's next run (root's alone). With
directories it looks there for spills of the caller's own jobs: `.mpsr-<job>` (the default place) or `<job>` (below
paths.spill). A job is over when Slurm says so, or does not know it any more; without Slurm's answer nothing is removed.
"""

import argparse
import os
import re
import sys
import time

from resilience.adapters.gpu.nvml import NvmlGpus
from resilience.adapters.linux.clock import SystemClock
from resilience.adapters.linux.journal import JournalFile
from resilience.adapters.slurm.scontrol import Scontrol
from resilience.config import settings
from resilience.config.node_name import node_name
from resilience.contract import exit_code, path
from resilience.hooks import leftovers
from resilience.hooks.node import build
from resilience.model.errors import ConfigError, ResilienceError
from resilience.model.ids import JobId
from resilience.model.records.words import printable
from resilience.model.settings import Settings
from resilience.report import journal_lines
from resilience.state import leftover

_OWN = re.compile(r"(?:\.mpsr-)?([1-9]\d{0,9})\Z", re.ASCII)
_ANY_RUN = 1 << 32
"""No run of a job has this number: whatever the job's state says counts."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List spilled state that jobs have left on disk: from the records of this node (root), or in the directories given, "
        "where a user finds the state of their own jobs."
    )
    parser.add_argument(
        "directory", nargs="*", metavar="DIRECTORY", help="where own jobs ran or spilled (default: this node's records)"
    )
    parser.add_argument("--clean", action="store_true", help="remove what belongs to jobs that are over")
    parser.add_argument("--older-than", metavar="AGE", help="with directories: only what is untouched for 10m, 2h, 1d")
    parser.add_argument("--node", help="Slurm's name of the node (default: this one)")
    parser.add_argument("--config", metavar="FILE", help="another mpsr.yaml")


def run(arguments: argparse.Namespace) -> int:
    chosen = settings.find(arguments.config).settings
    if not arguments.directory:
        if arguments.older_than:
            raise ConfigError("--older-than", "needs a directory", arguments.older_than)
        return _records(chosen, arguments.node, clean=arguments.clean)
    now = time.time()
    until = journal_lines.since(arguments.older_than, now) if arguments.older_than else now
    slurm = Scontrol(program=chosen.paths.scontrol, timeout=chosen.slurm.timeout, requeue_timeout=chosen.slurm.timeout)
    found = [one for directory in arguments.directory for one in _own(directory, until)]
    return _all_done([_one(slurm, *one, clean=arguments.clean) for one in found])


def _records(chosen: Settings, named: str | None, *, clean: bool) -> int:
    """This node's records."""
    if os.geteuid() != 0:
        raise ResilienceError("spills", "only root sees the node's records", f"uid {os.geteuid()}", hint=_HINT)
    name = node_name(named, chosen.paths.log)
    clock = SystemClock()
    journal = JournalFile(path("journal", log=chosen.paths.log, node=name), clock)
    node = build(name, os.environ, chosen, gpus=NvmlGpus, clock=clock, journal=journal)
    records = node.spills.all()
    if not clean:
        for asked, record in records:
            age = (clock.wall() - asked) / 3600
            where = printable(", ".join(record.directories))
            print(f"job {record.job} of uid {record.uid}, asked about {age:.1f} h ago: {where}")
        return exit_code("ok")
    good = True
    for record, outcome in leftovers.sweep(node, most=len(records), rest=0.0):
        print(f"job {record.job} of uid {record.uid}: {printable(outcome)}")
        good = good and outcome in ("removed", leftovers.KEPT)
    return exit_code("ok" if good else "failed")


_HINT = "name the directories where your jobs ran: mpsr spills DIRECTORY..."


def _own(directory: str, until: float) -> list[tuple[str, JobId]]:
    """Spill directories of the caller's jobs, not touched after `until`."""
    found: list[tuple[str, JobId]] = []
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError as error:
        raise ResilienceError(directory, "cannot be read", error.strerror or error) from error
    for entry in entries:
        named = _OWN.match(entry.name)
        if not named or not entry.is_dir(follow_symlinks=False) or not leftover.count(entry.path, int(named[1])):
            continue
        if entry.stat(follow_symlinks=False).st_mtime <= until:
            found.append((os.path.abspath(entry.path), JobId(int(named[1]))))
    return found


def _one(slurm: Scontrol, directory: str, job: JobId, *, clean: bool) -> bool:
    """Tell, and remove when that is wanted and the job is over; whether that went well."""
    try:
        over = slurm.over(job, _ANY_RUN)
    except ResilienceError as error:
        print(f"{directory}: kept: {error}", file=sys.stderr)
        return not clean
    left = leftover.clear(directory, job) if over and clean else []
    state = "removed" if over and clean else "its job is over" if over else leftovers.KEPT
    print(f"{directory}: {'; '.join(left) or state}")
    return not left


def _all_done(outcomes: list[bool]) -> int:
    return exit_code("ok" if all(outcomes) else "failed")
