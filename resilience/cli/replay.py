"""`mpsr replay JOURNAL [--with mpsr.yaml]`: what would have been decided with other settings, from what was seen then.

Reads files only. The journal is judged twice, with the node's settings and with the others: a difference between the two is the
settings', a difference between the first and the journal is what the journal does not hold (resilience/replay).
"""

import argparse
import time
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from resilience.adapters.linux.guarded_files import write_whole
from resilience.cli.log import note_skipped
from resilience.config import settings
from resilience.contract import exit_code
from resilience.model.errors import ConfigError, ResilienceError
from resilience.model.options import JobOptions
from resilience.model.records.journal import Entry
from resilience.model.settings import Settings
from resilience.parse import rules
from resilience.replay import compare, script
from resilience.replay.play import Play
from resilience.report import journal_lines, overview, timeline
from resilience.report.page import Page, render

_PLAYED = (
    "Nothing on this page has happened: it is what mpsr would have decided with other settings, from the sightings of a journal. What a "
    "task is told works as it did then, or is taken to work at once."
)


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Judge the sightings of a journal again, with other settings, and print what would have been decided differently. Nothing is "
        "asked of the node, and nothing is changed."
    )
    parser.add_argument("journal", metavar="JOURNAL", help="a node's journal, or a copy of it")
    parser.add_argument(
        "--with", dest="other", metavar="FILE", help="an mpsr.yaml with other settings (default: the node's own)"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="also write a report of what would have happened, as HTML"
    )
    parser.add_argument("--all", action="store_true", help="print decisions that are the same, too")
    parser.add_argument("--config", metavar="FILE", help="another mpsr.yaml for the settings that were in force")


def run(arguments: argparse.Namespace) -> int:
    read = journal_lines.read(arguments.journal)
    note_skipped(read, arguments.journal)
    recorded = compare.decisions(read.entries)
    if not recorded:
        raise ResilienceError(
            arguments.journal, "has no incident", len(read.entries), hint="mpsr log --journal FILE lists its records"
        )
    own = settings.find(arguments.config).settings
    first = _play(read.entries, own, recorded_mode=True)
    faithful = compare.rows(recorded, compare.decisions(first))
    strange = compare.differ(faithful)
    guessed = script.write(read.entries, JobOptions(mps=True)).guessed
    same = len(faithful) - len(strange)
    again = f"judged again with the settings in force, {same} of {len(faithful)} decisions are as recorded"
    print(f"{len(recorded)} incident{'' if len(recorded) == 1 else 's'}; {again}")
    if guessed:
        print(f"  options of {guessed} jobs are not in this journal (it is of 0.1.0): the site's defaults are taken")
    if arguments.other is None:
        _table(faithful if arguments.all else strange, "recorded", "judged again")
        played, differences = first, strange
    else:
        other = settings.find(arguments.other).settings
        played = _play(read.entries, other, recorded_mode=False)
        every = compare.rows(compare.decisions(first), compare.decisions(played))
        differences = compare.differ(every)
        print(f"with {arguments.other}: {len(differences)} of {len(every)} decisions differ")
        _table(every if arguments.all else differences, "settings in force", "other settings")
    if arguments.output:
        _report(arguments.output, arguments.journal, played, differences)
    return exit_code("ok")


def _play(entries: list[Entry], chosen: Settings, *, recorded_mode: bool) -> list[Entry]:
    try:
        defaults = replace(rules.in_force({"mps": "on"}, chosen.options), mps=True)
    except ConfigError as error:
        raise ConfigError("options.defaults", "cannot hold for a job", error) from error
    return Play(script.write(entries, defaults), chosen, recorded_mode=recorded_mode).run()


def _table(rows: list[compare.Comparison], one: str, two: str) -> None:
    if not rows:
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for name in ("INCIDENT", "WHAT", one.upper(), two.upper()):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(row.incident, row.what, row.one, row.two)
    Console(highlight=False, markup=False).print(table)


def _report(target: str, journal: str, played: list[Entry], differences: list[compare.Comparison]) -> None:
    told = overview.build(played)
    names = [fault.incident for fault in told.faults]
    drawn = timeline.latest(played, names)
    page = Page(
        title="Judged again",
        source=journal,
        made=time.time(),
        overview=told,
        timelines=drawn,
        notes=(_PLAYED,),
        compared=tuple((row.incident, row.what, row.one, row.two) for row in differences),
    )
    try:
        write_whole(target, render(page), mode=0o600)
    except OSError as error:
        raise ResilienceError(target, "cannot be written", error.strerror or error) from error
    print(target)
