"""Builds the answer to ``GET /metrics`` in the Prometheus text format 0.0.4."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

Labels: TypeAlias = tuple[tuple[str, str], ...]
"""Label names and values, for example ``(("kind", "hub"),)``. All values of a metric use the same names."""


class Metric(NamedTuple):
    """One metric. Its type is ``counter`` or ``gauge``. It has one value, or a value per label set."""

    help: str
    type: str
    value: float | Mapping[Labels, float]


Counters: TypeAlias = Callable[[], Mapping[str, tuple[str, str, float | Mapping[Labels, float]]]]
"""Called at each scrape. Returns a :class:`Metric`, or a tuple of the same form, by metric name."""


class Metrics:
    """The metrics of one application and of its process, in a separate registry."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def collect(self) -> Iterator[Family]:
        """The current metrics. The registry calls this."""
        for name, metric in self._counters().items():
            yield _family(name, Metric(*metric))

    def exposition(self) -> bytes:
        """The body of an answer to ``GET /metrics``. Its content type is `CONTENT_TYPE`."""
        return generate_latest(self._registry)


def _family(name: str, metric: Metric) -> Family:
    values = metric.value if isinstance(metric.value, Mapping) else {(): metric.value}
    names = [label for label, _ in next(iter(values), ())]
    kind = CounterMetricFamily if metric.type == "counter" else GaugeMetricFamily
    family = kind(name, metric.help, labels=names)
    for labels, value in values.items():
        family.add_metric([text for _, text in labels], value)
    return family
