"""`mpsr report JOB|INCIDENT|--since TIME`: one self-contained HTML page of what happened, with pictures.

An admin's report comes from the node's journal. A user's report of their own job comes from the records beside its output,
mpsr-<job>.jsonl, read with the user's own rights. The page replaces the file of that name whole, never through a link, and is its
owner's alone: a journal names the jobs of all users.
"""

import argparse
import os
import sys
import time

from resilience.adapters.linux.guarded_files import write_whole
from resilience.adapters.slurm import slurm_commands
from resilience.cli.log import journal_path, note_skipped, places
from resilience.config import settings
from resilience.contract import exit_code
from resilience.model.errors import ConfigError, ResilienceError, UnknownJob
from resilience.model.ids import JobId
from resilience.model.records.told import records_file
from resilience.model.settings import Settings
from resilience.report import journal_lines, overview, timeline
from resilience.report.page import Page, render

_OWN = (
    "These are the records of one job, which say nothing of sightings, servers and other jobs. Admins make the whole report, from "
    "the node's journal."
)


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write one self-contained HTML page: an incident as a timeline, a job with its incidents, or a span of time with all figures. "
        "Admins report from the node's journal. A user's report of their own job comes from the records beside its output."
    )
    parser.add_argument("what", nargs="?", metavar="JOB|INCIDENT", help="a job's number, or an incident's id")
    parser.add_argument("--since", metavar="TIME", help="all incidents since then: 10m, 2h, 1d, or an ISO 8601 time")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="file to write, - for standard output (default: mpsr-WHAT.html)"
    )
    parser.add_argument("--node", help="Slurm's name of the node (default: this one)")
    parser.add_argument("--journal", metavar="FILE", help="another journal file, or the records of a job")
    parser.add_argument("--config", metavar="FILE", help="another mpsr.yaml")


def run(arguments: argparse.Namespace) -> int:
    if (arguments.what is None) == (arguments.since is None):
        raise ConfigError("report", "give a job, an incident, or --since")
    chosen = settings.find(arguments.config).settings
    now = time.time()
    what = str(arguments.what or "")
    job = JobId(int(what)) if what.isascii() and what.isdigit() and len(what) < 12 else None
    earliest = journal_lines.since(arguments.since, now) if arguments.since else 0.0
    file, own = _records(chosen, arguments, job)
    read = journal_lines.read(file)
    note_skipped(read, file)
    if (
        not own and not arguments.journal and os.path.exists(rotated := f"{file}.1")
    ):  # logrotate's last, not compressed yet
        older = journal_lines.read(rotated)
        note_skipped(older, rotated)
        read.entries[:0] = older.entries
    page = _page(read, what, job, earliest, arguments.since, file, now)
    if own or not any(entry.event == "incident.opened" for entry in read.entries):
        page = Page(
            title=page.title, source=file, made=now, overview=page.overview, timelines=page.timelines, notes=(_OWN,)
        )
    text = render(page)
    if arguments.output == "-":
        sys.stdout.buffer.write(text.encode())  # the page says that it is UTF-8, whatever the locale is
        return exit_code("ok")
    target = arguments.output or f"mpsr-{what or 'since'}.html"
    try:
        write_whole(target, text, mode=0o600)
    except OSError as error:
        raise ResilienceError(target, "cannot be written", error.strerror or error) from error
    print(target)
    return exit_code("ok")


def _records(chosen: Settings, arguments: argparse.Namespace, job: JobId | None) -> tuple[str, bool]:
    """The file to read, and whether it holds one job's records only."""
    if arguments.journal:
        return str(arguments.journal), False
    try:
        file = journal_path(chosen, arguments.node)
    except ConfigError:
        if job is None:
            raise
        file = ""
    if job is None or (file and os.access(file, os.R_OK)):
        return file, False
    picked = slurm_commands.pick(chosen)
    try:
        info = picked.slurm.job(job)
    except UnknownJob as error:
        hint = f"its records lie beside its output: mpsr report {job} --journal DIRECTORY/mpsr-{job}.jsonl"
        raise ResilienceError(f"job {job}", "is not known to Slurm any more", error, hint=hint) from error
    finally:
        picked.close()
    files = [records_file(place) for place in places(info)]
    for records in filter(os.path.exists, files):
        return records, True
    raise ResilienceError(f"job {job}", "nothing had to be recovered so far", f"no {files[0]}")


def _page(
    read: journal_lines.Read, what: str, job: JobId | None, earliest: float, span: str | None, file: str, now: float
) -> Page:
    if span is not None:
        told = overview.build(read.entries, since=earliest)
        names = [fault.incident for fault in told.faults]
        title = f"GPU faults since {journal_lines.when(earliest)[:19]}Z"
    elif job is not None:
        told = overview.of_job(read.entries, job)
        if not any(job in entry.jobs() for entry in read.entries):
            raise ResilienceError(
                f"job {job}", "is not in the journal", file, hint="it may have run on another node: --node NODE"
            )
        names = [fault.incident for fault in told.faults]
        title = f"Job {job}"
    else:
        told, names, title = None, [what], f"Incident {what}"
    drawn = timeline.latest(read.entries, names)
    if told is None and not drawn:
        raise ResilienceError(
            f"incident {what}", "is not in the journal", file, hint="incidents of this node: mpsr log"
        )
    return Page(title=title, source=file, made=now, overview=told, timelines=drawn)
