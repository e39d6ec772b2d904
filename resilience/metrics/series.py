"""The values of all metrics, and their text for node_exporter's textfile collector.

prometheus-client writes the text; the values are ours, handed over as its "custom collector". Its own Counter and
Histogram would add `_created` series and show a gauge that has no value yet. No timestamps: node_exporter refuses them.
Labels take only the values of their family (`families.py`); any other word counts as `other`, so that there is an upper
bound to the number of series whatever a journal says.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import assert_never

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from resilience import catalog
from resilience.metrics.families import FAMILIES, NO_XID, OTHER, Family, Label, MetricKind

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


class Series(Collector):
    def __init__(self) -> None:
        self._values: dict[str, _Values] = {}
        for family in FAMILIES.values():
            values = self._values[family.name] = _Values()
            for labels in family.first():
                if family.kind is MetricKind.HISTOGRAM:
                    values.spread[labels] = _empty(family)
                else:
                    values.plain[labels] = 0

    def add(self, name: str, *labels: object, by: float = 1) -> None:
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
        return generate_latest(self).decode()

    def collect(self) -> Iterator[Metric]:
        """Every family as prometheus-client takes it, also one without a series."""
        for family in FAMILIES.values():
            yield _metric(family, self._values[family.name])


def _metric(family: Family, values: _Values) -> Metric:
    labels = [label.name for label in family.labels]
    match family.kind:
        case MetricKind.COUNTER | MetricKind.GAUGE:
            kind = CounterMetricFamily if family.kind is MetricKind.COUNTER else GaugeMetricFamily
            plain = kind(family.name, family.help, labels=labels)
            for key, value in values.plain.items():
                plain.add_metric(key, value)
            return plain
        case MetricKind.HISTOGRAM:
            spread = HistogramMetricFamily(family.name, family.help, labels=labels)
            bounds = [*(f"{bound:g}" for bound in family.buckets), "+Inf"]
            for key, histogram in values.spread.items():
                buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
                spread.add_metric(key, buckets, histogram.total)
            return spread
        case _:
            assert_never(family.kind)


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
