"""A report as one HTML page: no script, no link that leaves the page, pictures as inline SVG. Pure but for its own template.

Text of the journal is text of users' programs too: jinja2 escapes all of it, and the page's own policy lets a browser load and run
nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import jinja2

from resilience.metrics.saved import BRIEF
from resilience.report import drawing
from resilience.report.journal_lines import when
from resilience.report.overview import Overview
from resilience.report.timeline import Timeline


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    title: str
    source: str
    """Where the records come from."""
    made: float
    overview: Overview | None
    timelines: tuple[Timeline, ...]
    notes: tuple[str, ...] = ()
    """What is missing, and why."""
    compared: tuple[tuple[str, str, str, str], ...] = ()
    """Of a replay: incident, what, and two decisions that differ."""


def render(page: Page) -> str:
    world = jinja2.Environment(
        loader=jinja2.PackageLoader("resilience.report", "."),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    world.filters.update(when=when, seconds=drawing.seconds, bars=drawing.bars, picture=drawing.timeline, ids=_ids)
    left = len(page.overview.faults) - len(page.timelines) if page.overview is not None else 0
    notes = page.notes
    if left > 0:
        notes = (*notes, f"Only the latest {len(page.timelines)} of {left + len(page.timelines)} incidents are drawn.")
    return world.get_template("page.html.j2").render(
        page=page, notes=notes, shown=page.timelines, brief=BRIEF, width=drawing.WIDTH
    )


def _ids(timelines: Iterable[Timeline]) -> frozenset[str]:
    return frozenset(one.incident for one in timelines)
