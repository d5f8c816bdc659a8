"""``GET /metrics``: counters as Prometheus reads them (text format 0.0.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

Labels: TypeAlias = tuple[tuple[str, str], ...]
"""Label names and values, for example ``(("kind", "hub"),)``; the same names throughout one metric."""


class Metric(NamedTuple):
    """One metric: what it counts, ``counter`` or ``gauge``, and its value or one for each set of labels."""

    help: str
    type: str
    value: float | Mapping[Labels, float]


Counters: TypeAlias = Callable[[], Mapping[str, tuple[str, str, float | Mapping[Labels, float]]]]
"""Metric name to :class:`Metric` (or a tuple like it), read at each scrape."""


class Metrics:
    """The metrics of one application and of its process, in a registry of their own."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def collect(self) -> Iterator[Family]:
        """The metrics as they are now (called by the registry)."""
        for name, metric in self._counters().items():
            yield _family(name, Metric(*metric))

    def exposition(self) -> bytes:
        """The body of an answer to ``GET /metrics``; its type is `CONTENT_TYPE`."""
        return generate_latest(self._registry)


def _family(name: str, metric: Metric) -> Family:
    values = metric.value if isinstance(metric.value, Mapping) else {(): metric.value}
    names = [label for label, _ in next(iter(values), ())]
    kind = CounterMetricFamily if metric.type == "counter" else GaugeMetricFamily
    family = kind(name, metric.help, labels=names)
    for labels, value in values.items():
        family.add_metric([text for _, text in labels], value)
    return family
