"""`mpsr report JOB|INCIDENT|--since TIME`: one self-contained HTML page of what happened, with pictures.

An admin's report comes from the node's journal. A user's report of their own job comes from the records beside its output,
mpsr-<job>.jsonl, read with the user's own rights. The page replaces the file of that name whole, never through a link, and is its
owner's alone: a journal names the jobs of all users.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from resilience.adapters.linux.guarded_files import write_whole
from resilience.adapters.slurm import slurm_commands
from resilience.cli import named_job, over_nodes
from resilience.cli.log import journal_path, note_skipped, places, read_both, words
from resilience.config import settings
from resilience.contract import exit_code
from resilience.model.errors import ConfigError, ResilienceError, UnknownJob
from resilience.model.ids import JobId
from resilience.model.records.told import records_file
from resilience.model.settings import Settings
from resilience.parse.hostlist import folded
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
    named_job.add(parser, "ask the nodes of this job, and report it where nothing else is named")
    over_nodes.add(parser)
    parser.add_argument("--node", help="Slurm's name of the node (default: this one)")
    parser.add_argument("--journal", metavar="FILE", help="another journal file, or the records of a job")
    parser.add_argument("--config", metavar="FILE", help="another mpsr.yaml")


def run(arguments: argparse.Namespace) -> int:
    what = str(arguments.what or (arguments.job.text if arguments.job and not arguments.since else ""))
    if bool(what) == bool(arguments.since):
        raise ConfigError("report", "give a job, an incident, or --since")
    chosen = settings.find(arguments.config).settings
    now = time.time()
    jobs = named_job.numbers(arguments.job, chosen) if arguments.job else _number(what)
    named = _number(what) if arguments.what else jobs if what else ()
    if len(named) > 1:
        raise ConfigError(f"job {what}", "means several jobs", ", ".join(map(str, named)), hint="give one number")
    job = next(iter(named), None)
    earliest = journal_lines.since(arguments.since, now) if arguments.since else 0.0
    status = exit_code("ok")
    if where := over_nodes.target(arguments, chosen, jobs, admins=True):
        found = over_nodes.ask_records(where, chosen, _command(what, job, arguments.since))
        if (status := found.tell(status)) and not found.answers:
            return status
        source = f"the journals of {folded(found.answers)}"
        page = _page(found.answers, what, job, earliest, arguments.since, source, now)
        page = replace(page, notes=tuple(f"{node} did not answer: {why}" for node, why in found.missing.items()))
    else:
        file, own = _records(chosen, arguments, job)
        read = journal_lines.read(file) if own or arguments.journal else read_both(file)
        note_skipped(read, file)
        page = _page({file: read}, what, job, earliest, arguments.since, file, now)
        if own or not any(entry.event == "incident.opened" for entry in read.entries):
            page = replace(page, notes=(_OWN,))
    text = render(page)
    if arguments.output == "-":
        sys.stdout.buffer.write(text.encode())  # the page says that it is UTF-8, whatever the locale is
        return status
    target = arguments.output or f"mpsr-{what or 'since'}.html"
    try:
        write_whole(target, text, mode=0o600)
    except OSError as error:
        raise ResilienceError(target, "cannot be written", error.strerror or error) from error
    print(target)
    return status


def _number(what: str) -> tuple[JobId, ...]:
    """The job that a report is of; none where it is of an incident."""
    return (JobId(int(what)),) if what.isascii() and what.isdigit() and len(what) < 12 else ()


def _command(what: str, job: JobId | None, since: str | None) -> Callable[[str], list[str]]:
    """What a node is asked for."""
    if since:
        command = words(since=since, around=True)
    else:
        command = words(job=what, around=True) if job is not None else words(incident=what, around=True)
    return lambda node: [*command, "--node", node]


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
    reads: Mapping[str, journal_lines.Read],
    what: str,
    job: JobId | None,
    earliest: float,
    span: str | None,
    file: str,
    now: float,
) -> Page:
    """A page of one journal or of many; the clocks of two nodes are never compared."""
    told = None
    if span is not None:
        told = overview.merged(overview.build(read.entries, since=earliest) for read in reads.values())
        title = f"GPU faults since {journal_lines.when(earliest)[:19]}Z"
    elif job is not None:
        mine = [read for read in reads.values() if any(job in entry.jobs() for entry in read.entries)]
        told = overview.merged(overview.of_job(read.entries, job) for read in mine)
        if not mine:
            hint = "it may have run on another node: --nodes LIST"
            raise ResilienceError(f"job {job}", "is not in the journal", file, hint=hint)
        title = f"Job {job}"
    else:
        title = f"Incident {what}"
    names = [what] if told is None else [fault.incident for fault in told.faults][-timeline.MOST :]
    drawn = sorted(
        (one for read in reads.values() for one in timeline.latest(read.entries, names)), key=lambda one: one.began
    )
    if told is None and not drawn:
        hint = "incidents of this node: mpsr log; others: --nodes LIST"
        raise ResilienceError(f"incident {what}", "is not in the journal", file, hint=hint)
    return Page(title=title, source=file, made=now, overview=told, timelines=tuple(drawn))
