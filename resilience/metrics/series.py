"""The values of all metrics, and their text in Prometheus's format 0.0.4, which node_exporter's textfile collector reads.

The format: https://prometheus.io/docs/instrumenting/exposition_formats/. Without timestamps: that collector refuses
them. Labels take only the values of their family (`families.py`); any other word counts as `other`, so that there is
an upper bound to the number of series whatever a journal says.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field

from resilience import catalog
from resilience.metrics.families import FAMILIES, NO_XID, OTHER, Family, Kind, Label

_UUID = re.compile(r"(?:GPU|MIG)-[0-9A-Za-z-]{1,64}\Z")


@dataclass(slots=True)
class _Histogram:
    counts: list[int]
    """Of each bucket, +Inf last; not cumulative."""
    total: float = 0.0


@dataclass(slots=True)
class _Values:
    plain: dict[tuple[str, ...], float] = field(default_factory=dict)
    spread: dict[tuple[str, ...], _Histogram] = field(default_factory=dict)


class Series:
    def __init__(self) -> None:
        self._values: dict[str, _Values] = {}
        for family in FAMILIES.values():
            values = self._values[family.name] = _Values()
            for labels in family.first():
                if family.kind is Kind.HISTOGRAM:
                    values.spread[labels] = _empty(family)
                else:
                    values.plain[labels] = 0

    def add(self, name: str, *labels: object, by: int = 1) -> None:
        """Count."""
        key = _key(FAMILIES[name], labels)
        plain = self._values[name].plain
        plain[key] = plain.get(key, 0) + by

    def set(self, name: str, value: float, *labels: object) -> None:
        self._values[name].plain[_key(FAMILIES[name], labels)] = value

    def observe(self, name: str, seconds: float, *labels: object) -> None:
        family = FAMILIES[name]
        spread = self._values[name].spread.setdefault(_key(family, labels), _empty(family))
        spread.counts[bisect_left(family.buckets, seconds)] += 1
        spread.total += seconds

    def text(self) -> str:
        return "".join(f"{line}\n" for family in FAMILIES.values() for line in self._lines(family))

    def _lines(self, family: Family) -> Iterator[str]:
        values = self._values[family.name]
        yield f"# HELP {family.name} {_escaped(family.help)}"
        yield f"# TYPE {family.name} {family.kind.value}"
        names = [label.name for label in family.labels]
        for key, value in values.plain.items():
            yield f"{family.name}{_labels(names, key)} {_number(value)}"
        for key, spread in values.spread.items():
            below = 0
            for bound, count in zip([*map(_number, family.buckets), "+Inf"], spread.counts, strict=True):
                below += count
                yield f"{family.name}_bucket{_labels([*names, 'le'], (*key, bound))} {below}"
            yield f"{family.name}_sum{_labels(names, key)} {_number(spread.total)}"
            yield f"{family.name}_count{_labels(names, key)} {below}"


def _empty(family: Family) -> _Histogram:
    return _Histogram(counts=[0] * (len(family.buckets) + 1))


def _key(family: Family, labels: tuple[object, ...]) -> tuple[str, ...]:
    return tuple(_word(label, value) for label, value in zip(family.labels, labels, strict=True))


def _word(label: Label, value: object) -> str:
    """A label's value, one of those that it may have."""
    if label.name == "xid":
        if value is None:
            return NO_XID
        return str(value) if type(value) is int and value in catalog.xids() else OTHER
    text = value if isinstance(value, str) else OTHER
    known = text in label.values if label.values else _UUID.match(text) is not None
    return text if known else OTHER


def _labels(names: list[str], values: tuple[str, ...]) -> str:
    pairs = ",".join(f'{name}="{value}"' for name, value in zip(names, values, strict=True))
    return f"{{{pairs}}}" if pairs else ""


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
