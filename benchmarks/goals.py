"""The goals, and the medians and ratios of samples. Pure.

The samples of one run::

    results["samples"][ROW][PEER] = [numbers of round 1, numbers of round 2...]
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Samples = Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]

HUB = "ces.2"
"""The peer name for rows that measure only our software."""


@dataclass(frozen=True)
class Goal:
    """The goal for one number of one row.

    limit: the ratio to the peer `against`, or the number itself when `against` is empty.
    at_least: whether `limit` is a minimum; otherwise it is a maximum.
    """

    row: str
    peer: str
    metric: str
    limit: float
    against: str = ""
    at_least: bool = True


def _rates(row: str, limits: Mapping[tuple[str, str], float]) -> list[Goal]:
    return [Goal(row, peer, "per_cpu", limit, against) for (peer, against), limit in limits.items()]


GOALS: tuple[Goal, ...] = (
    *_rates(
        "fan-out",
        {("ces.2", "nats"): 1.3, ("ces.1", "nats"): 0.6, ("ces.2", "plain"): 12, ("ces.1", "plain"): 6},
    ),
    *_rates("campus", {("ces.2", "nats"): 1.3, ("ces.1", "nats"): 0.7}),
    *_rates(
        "20-to-20",
        {("ces.2", "nats"): 0.5, ("ces.1", "nats"): 0.2, ("ces.2", "plain"): 12, ("ces.1", "plain"): 6},
    ),
    *_rates(
        "1-to-1",
        {("ces.2", "nats"): 0.7, ("ces.1", "nats"): 0.2, ("ces.2", "plain"): 14, ("ces.1", "plain"): 5},
    ),
    *(
        Goal("latency", peer, metric, 1.5, "nats", at_least=False)
        for peer in ("ces.2", "ces.1")
        for metric in ("p50_ms", "p99_ms")
    ),
    *_rates("hub-to-hub", {("ces.2", "plain"): 5, ("ces.1", "plain"): 5}),
    # Half of the relay's rate: the hub unmasks, checks and frames an event of 256 KiB, the relay does
    # nothing.
    Goal("size-262144", "ces.2", "bytes_per_s", 0.5, "relay"),
    Goal("idle", HUB, "bytes_each", 20_000, at_least=False),
    Goal("idle-tls", HUB, "bytes_each", 50_000, at_least=False),
    Goal("growth", HUB, "kept", 0.8),
    Goal("subscribing", HUB, "seconds", 10, at_least=False),
    Goal("leaving", HUB, "stall_ms", 50, at_least=False),
    Goal("messenger-receives", HUB, "per_cpu", 150_000),
    Goal("messenger-sends", HUB, "per_cpu", 100_000),
    Goal("repeater", HUB, "per_cpu", 100_000),
    Goal("messenger-imports", HUB, "seconds", 0.5, at_least=False),
)


@dataclass(frozen=True)
class Verdict:
    """The result for a goal.

    value: the ratio or the number; None when it was not measured.
    lost: number of lost deliveries.
    """

    goal: Goal
    value: float | None
    lost: float = 0.0

    @property
    def met(self) -> bool:
        """Whether the goal was reached and no delivery was lost."""
        if self.value is None or self.lost:
            return False
        return self.value >= self.goal.limit if self.goal.at_least else self.value <= self.goal.limit


def median(samples: Samples, row: str, peer: str, metric: str) -> float | None:
    """The median of the rounds; None when there is no such sample."""
    values = [sample[metric] for sample in samples.get(row, {}).get(peer, ()) if metric in sample]
    return statistics.median(values) if values else None


def ratio(samples: Samples, row: str, peer: str, against: str, metric: str) -> float | None:
    """The ratio of two medians of the same run; None when one of them is missing."""
    value, other = median(samples, row, peer, metric), median(samples, row, against, metric)
    return value / other if value is not None and other else None


def paired(samples: Samples, row: str, peer: str, against: str, metric: str) -> list[float]:
    """The ratios of two peers in each round: they were measured next to each other."""
    peers = samples.get(row, {})
    rounds = zip(peers.get(peer, ()), peers.get(against, ()), strict=False)
    return [one[metric] / other[metric] for one, other in rounds if other.get(metric)]


def lost(samples: Samples, row: str, peer: str) -> float:
    """The number of lost deliveries in all rounds."""
    return sum(sample.get("lost", 0.0) for sample in samples.get(row, {}).get(peer, ()))


def judge(samples: Samples, goals: Sequence[Goal] = GOALS) -> list[Verdict]:
    """The verdict on each goal."""
    return [
        Verdict(
            goal,
            ratio(samples, goal.row, goal.peer, goal.against, goal.metric)
            if goal.against
            else median(samples, goal.row, goal.peer, goal.metric),
            lost(samples, goal.row, goal.peer),
        )
        for goal in goals
    ]
