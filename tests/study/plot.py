"""Lines over the number of clients, as an SVG that follows the reader's light or dark theme."""

from collections.abc import Mapping, Sequence
from html import escape

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 320, 56, 210, 34, 44
_STYLE = """<style>
svg { font: 12px system-ui, sans-serif; fill: #1b1f24; background: #fff; }
.axis { stroke: #8c959f; } .grid { stroke: #d0d7de; } .line { fill: none; stroke-width: 2; }
.c0 { stroke: #0a58ca; fill: #0a58ca; } .c1 { stroke: #c4231c; fill: #c4231c; } .c2 { stroke: #1a7f37; fill: #1a7f37; }
.c3 { stroke: #7a3fc2; fill: #7a3fc2; } .c4 { stroke: #b36b00; fill: #b36b00; } .goal { stroke: #57606a; fill: #57606a; }
.goal.line { stroke-dasharray: 5 4; }
@media (prefers-color-scheme: dark) { svg { fill: #e6edf3; background: #0f1318; } .grid { stroke: #39414b; }
.c0 { stroke: #6cb0ff; fill: #6cb0ff; } .c1 { stroke: #ff7b72; fill: #ff7b72; } .c2 { stroke: #4ac26b; fill: #4ac26b; }
.c3 { stroke: #c297ff; fill: #c297ff; } .c4 { stroke: #e3a03c; fill: #e3a03c; } .goal { stroke: #9da7b1; fill: #9da7b1; } }
.line { fill: none; }
</style>"""


def lines(title: str, unit: str, xs: Sequence[int], series: Mapping[str, Sequence[float | None]], top: float) -> str:
    """One line for each of `series`, values at `xs`, which are evenly spaced; a name that begins with `goal` is dashed."""
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def x(number: int) -> float:
        return round(_LEFT + (right - _LEFT) * number / (len(xs) - 1), 1)

    def y(value: float) -> float:
        return round(bottom - (bottom - _TOP) * value / top, 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
    ]
    parts += [_STYLE, f'<text x="{_LEFT}" y="18" font-weight="bold">{escape(title)}</text>']
    for step in range(5):
        value = top * step / 4
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y(value)}" y2="{y(value)}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y(value) + 4}" text-anchor="end">{value:g}</text>')
    for number, count in enumerate(xs):
        parts.append(f'<text x="{x(number)}" y="{bottom + 18}" text-anchor="middle">{count}</text>')
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">clients of the GPU</text>')
    parts.append(f'<text x="{right + 14}" y="{_TOP - 6}">{escape(unit)}</text>')
    number = 0
    for place, (name, values) in enumerate(series.items()):
        kind = "goal" if name.startswith("goal") else f"c{number}"
        number += kind != "goal"
        points = [(x(at), y(value)) for at, value in enumerate(values) if value is not None]
        parts.append(f'<polyline class="line {kind}" points="{" ".join(f"{a},{b}" for a, b in points)}"/>')
        parts += [f'<circle class="{kind}" cx="{a}" cy="{b}" r="3"/>' for a, b in points if kind != "goal"]
        high = _TOP + 14 + 20 * place
        parts.append(f'<line class="line {kind}" x1="{right + 14}" x2="{right + 36}" y1="{high}" y2="{high}"/>')
        parts.append(f'<text x="{right + 42}" y="{high + 4}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
