"""Where things stand in the pictures of a report: bars and timelines as numbers that page.html.j2 puts into SVG. Pure.

A timeline's axis is logarithmic from a millisecond on: decisions take milliseconds, rebuilt servers seconds, requeues minutes.
Marks of a lane that would touch share one sign with the numbers of all.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from resilience.report.timeline import Mark, Period, Timeline

WIDTH = 860
_GUTTER = 190
_RIGHT = 36
_ROW = 26
_BAR = 22
_UNIT = 0.001
"""Seconds below which the axis is linear."""
_TICKS = (0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0)
_APART = 15
"""Pixels between two signs that can be told apart."""
_LABEL = 25
"""Characters that fit left of a lane."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    x: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    x: float
    y: float
    kind: str
    label: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    x: float
    y: float
    width: float
    kind: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneRow:
    y: float
    label: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    height: float
    rows: tuple[LaneRow, ...]
    stretches: tuple[Stretch, ...]
    signs: tuple[Sign, ...]
    ticks: tuple[Tick, ...]
    left: float = _GUTTER
    right: float = WIDTH - _RIGHT


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    y: float
    label: str
    name: str
    width: float
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    height: float
    bars: tuple[Bar, ...]
    left: float = _GUTTER


def seconds(value: float) -> str:
    """`4.8 ms`, `1.20 s`, `3 min 20 s`."""
    if value < 1:
        return f"{value * 1000:.1f} ms" if value < 0.1 else f"{value * 1000:.0f} ms"
    if value < 120:
        return f"{value:.2f} s"
    return f"{value / 3600:.1f} h" if value >= 7200 else f"{value // 60:.0f} min {value % 60:.0f} s"


def timeline(made: Timeline) -> Picture:
    span = WIDTH - _GUTTER - _RIGHT
    full = math.log1p(made.length / _UNIT)

    def x(at: float) -> float:
        return round(_GUTTER + span * math.log1p(max(at, 0) / _UNIT) / full, 1)

    places = {lane: 20 + number * _ROW for number, lane in enumerate(made.lanes)}
    rows = tuple(LaneRow(y=y, label=_short(lane), name=lane) for lane, y in places.items())
    stretches = tuple(_stretch(one, x(one.start), x(one.end), places[one.lane]) for one in made.spans)
    signs = [
        sign for lane, y in places.items() for sign in _signs([(x(m.at), m) for m in made.marks if m.lane == lane], y)
    ]
    ticks = [Tick(x=x(0), label="0")]
    for at in _TICKS:
        if at <= made.length * 1.001 and x(at) - ticks[-1].x > 46:
            ticks.append(Tick(x=x(at), label=_tick(at)))
    return Picture(
        height=20 + len(rows) * _ROW + 26, rows=rows, stretches=stretches, signs=tuple(signs), ticks=tuple(ticks)
    )


def _stretch(span: Period, start: float, end: float, y: float) -> Stretch:
    title = f"{span.lane}: {span.text}, {seconds(span.end - span.start)}"
    return Stretch(x=start, y=y, width=max(end - start, 2), kind=span.kind, title=title)


def _signs(marks: list[tuple[float, Mark]], y: float) -> list[Sign]:
    groups: list[list[tuple[float, Mark]]] = []
    for x, mark in marks:
        if groups and x - groups[-1][0][0] < _APART:
            groups[-1].append((x, mark))
        else:
            groups.append([(x, mark)])
    rank = ("bad", "decided", "rejected", "told", "good", "seen", "plain")
    found = []
    for number, group in enumerate(groups):
        first, last = group[0][1].number, group[-1][1].number
        room = (groups[number + 1][0][0] if number + 1 < len(groups) else WIDTH) - group[0][0]
        label = (
            str(first) if len(group) == 1 else f"{first}, {last}" if len(group) == 2 else f"{first} +{len(group) - 1}"
        )
        found.append(
            Sign(
                x=group[0][0],
                y=y,
                kind=min((mark.kind for _, mark in group), key=rank.index),
                label=label if room > 9 + 6 * len(label) else str(first) if room > 14 else "",
                title="\n".join(f"{mark.number}: {mark.text}" for _, mark in group),
            )
        )
    return found


def bars(values: Mapping[str, float], unit: str = "") -> Bars:
    """Horizontal bars, one below the other, each with its value written at its end."""
    most = max([*values.values(), 0]) or 1
    room = WIDTH - _GUTTER - 90
    made = tuple(
        Bar(
            y=6 + number * _BAR,
            label=_short(name),
            name=name,
            width=round(max(room * value / most, 1.5 if value else 0), 1),
            value=f"{value:g}{unit}",
        )
        for number, (name, value) in enumerate(values.items())
    )
    return Bars(height=10 + len(made) * _BAR, bars=made)


def _short(text: str) -> str:
    return text if len(text) <= _LABEL else f"{text[: _LABEL - 9]}…{text[-8:]}"


def _tick(at: float) -> str:
    return f"{at * 1000:g} ms" if at < 1 else f"{at:g} s" if at < 60 else f"{at / 60:g} min"
