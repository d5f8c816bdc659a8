"""`Idle`: what has not been used for a while is told of once."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import Logger

from ces.repeater.idle import Idle


def test_what_is_not_used_for_the_time_is_told_of_once_and_no_call_is_left() -> None:
    clock, out = Clock(), []
    idle: Idle[str] = Idle(5, clock, out.append, Logger())
    idle.used("a")
    clock.advance(3)
    idle.used("b")
    clock.advance(1.9)
    assert out == []
    clock.advance(0.1)
    assert out == ["a"]
    clock.advance(3)
    assert out == ["a", "b"]
    assert clock.getDelayedCalls() == []


def test_each_use_begins_the_time_anew() -> None:
    clock, out = Clock(), []
    idle: Idle[str] = Idle(5, clock, out.append, Logger())
    for _ in range(4):
        idle.used("a")
        clock.advance(4)
    assert out == []
    clock.advance(1)
    assert out == ["a"]


def test_what_is_forgotten_is_not_told_of() -> None:
    clock, out = Clock(), []
    idle: Idle[str] = Idle(5, clock, out.append, Logger())
    idle.used("a")
    idle.used("b")
    idle.forget("a")
    idle.forget("a")
    clock.advance(5)
    assert out == ["b"]
    idle.used("c")
    idle.forget("c")
    assert clock.getDelayedCalls() == []


def test_what_is_used_while_it_is_told_of_is_watched_anew() -> None:
    clock = Clock()
    times: list[float] = []

    def unused(item: str) -> None:
        times.append(clock.seconds())
        if len(times) < 3:
            idle.used(item)

    idle: Idle[str] = Idle(5, clock, unused, Logger())
    idle.used("a")
    clock.pump([1] * 30)
    assert times == [5, 10, 15]
    assert len(idle) == 0
