"""The sweep: who is asked when, and what it costs when nothing is due."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import Logger

from ces.link.keepalive import Keepalive


class Watched:
    """Something that is due every `period` seconds, and writes down when it was asked."""

    def __init__(self, period: float | None) -> None:
        self.period = period
        self.asked: list[float] = []
        self.due_bucket: int | None = None

    def due(self, now: float) -> float | None:
        self.asked.append(now)
        return None if self.period is None else now + self.period


def test_each_is_asked_when_it_is_due_and_not_before() -> None:
    clock = Clock()
    keepalive = Keepalive(clock, Logger())
    often, seldom = Watched(10.0), Watched(25.0)
    keepalive.watch(often)
    keepalive.watch(seldom)
    for _ in range(60):
        clock.advance(1)
    assert often.asked == [0, 10, 20, 30, 40, 50, 60]
    assert seldom.asked == [0, 25, 50]


def test_none_is_asked_before_a_fraction_of_a_second_has_passed() -> None:
    clock = Clock()
    keepalive = Keepalive(clock, Logger())
    watched = Watched(10.5)
    keepalive.watch(watched)
    for _ in range(44):
        clock.advance(0.25)
    assert watched.asked == [0, 11]


def test_ten_thousand_that_are_idle_cost_one_delayed_call() -> None:
    clock = Clock()
    keepalive = Keepalive(clock, Logger())
    many = [Watched(30.0) for _ in range(10_000)]
    for watched in many:
        keepalive.watch(watched)
        assert len(clock.getDelayedCalls()) == 1
    for _ in range(29):
        clock.advance(1)
    assert all(watched.asked == [0] for watched in many)
    clock.advance(1)
    assert all(watched.asked == [0, 30] for watched in many)
    assert len(clock.getDelayedCalls()) == 1


def test_nothing_is_left_when_none_is_watched() -> None:
    clock = Clock()
    keepalive = Keepalive(clock, Logger())
    one, other = Watched(10.0), Watched(20.0)
    keepalive.watch(one)
    keepalive.watch(other)
    keepalive.unwatch(one)
    keepalive.unwatch(one)
    assert len(clock.getDelayedCalls()) == 1
    keepalive.unwatch(other)
    assert clock.getDelayedCalls() == []
    assert keepalive.seconds() == 0


def test_one_that_is_never_due_again_is_forgotten() -> None:
    clock = Clock()
    keepalive = Keepalive(clock, Logger())
    watched = Watched(5.0)
    keepalive.watch(watched)
    watched.period = None
    clock.advance(5)
    assert (watched.asked, watched.due_bucket, clock.getDelayedCalls()) == ([0, 5], None, [])


def test_one_that_is_due_sooner_moves_the_sweep() -> None:
    clock = Clock()
    keepalive = Keepalive(clock, Logger())
    late, soon = Watched(30.0), Watched(3.0)
    keepalive.watch(late)
    keepalive.watch(soon)
    clock.advance(3)
    assert soon.asked == [0, 3]
    keepalive.unwatch(soon)
    clock.advance(27)
    assert late.asked == [0, 30]


def test_one_that_another_ends_in_the_same_sweep_is_not_asked() -> None:
    clock = Clock()
    keepalive = Keepalive(clock, Logger())
    one, other = Watched(10.0), Watched(10.0)

    class Ending(Watched):
        def due(self, now: float) -> float | None:
            if self.asked:
                keepalive.unwatch(other)
            return super().due(now)

    keepalive.watch(Ending(10.0))
    keepalive.watch(other)
    keepalive.watch(one)
    clock.advance(10)
    assert (other.asked, other.due_bucket, one.asked) == ([0], None, [0, 10])


def test_a_clock_that_leaps_asks_each_once() -> None:
    clock = Clock()
    keepalive = Keepalive(clock, Logger())
    watched = Watched(10.0)
    keepalive.watch(watched)
    clock.advance(1000)
    assert watched.asked == [0, 1000]


def test_a_finer_grain_asks_sooner() -> None:
    clock = Clock()
    keepalive = Keepalive(clock, Logger(), grain=0.25)
    watched = Watched(10.5)
    keepalive.watch(watched)
    for _ in range(84):
        clock.advance(0.25)
    assert watched.asked == [0, 10.5, 21]
