"""Steps: one delayed call at a time, and an error costs nothing but the step itself."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import Logger

from ces.link.keepalive import Keepalive
from ces.link.schedule import AGAIN, Step
from ces.link.turn import Memo, Turn
from tests.support.logged import LoggedFailures


class Failed(Exception):
    """What a step raises here."""


def test_a_step_that_raises_is_logged_and_done_again(logged_failures: LoggedFailures) -> None:
    clock, done = Clock(), []

    def do() -> float | None:
        done.append(clock.seconds())
        if len(done) == 1:
            raise Failed
        return 5.0 if len(done) == 2 else None

    step = Step(clock, do, "the test", Logger())
    step.within(1)
    clock.advance(1)
    clock.advance(AGAIN)
    clock.advance(5)
    assert done == [1, 1 + AGAIN, 6 + AGAIN]
    assert not step.waits
    assert len(logged_failures.flush(Failed)) == 1


def test_of_two_times_the_earlier_one_counts_and_there_is_one_call() -> None:
    clock, done = Clock(), []
    step = Step(clock, lambda: done.append(clock.seconds()), "the test", Logger())
    for seconds in (5, 3, 4):
        step.within(seconds)
    assert len(clock.calls) == 1
    clock.advance(3)
    clock.advance(10)
    assert done == [3]
    step.within(1)
    step.cancel()
    step.cancel()
    clock.advance(2)
    assert done == [3]


class Part:
    """A link of a turn and of the sweep, which may fail."""

    due_bucket: int | None = None

    def __init__(self, fails: bool) -> None:
        self.fails = fails
        self.flushed = self.visited = 0
        self.broken = False

    @property
    def links(self) -> tuple[Part]:
        return (self,)

    def flush(self, memo: Memo) -> None:
        if self.fails:
            raise Failed
        self.flushed += 1

    def due(self, now: float) -> float | None:
        self.visited += 1
        if self.fails and self.visited == 2:
            raise Failed
        return now + 1

    def broke(self) -> None:
        self.broken = True


@pytest.mark.parametrize("place", range(3))
def test_a_link_that_cannot_be_flushed_keeps_no_other_from_it(place: int) -> None:
    clock = Clock()
    turn = Turn(clock, Logger())
    parts = [Part(fails=number == place) for number in range(3)]

    class Group:
        links = tuple(parts)

    turn.add(Group())
    clock.advance(0)
    assert [part.flushed for part in parts] == [int(number != place) for number in range(3)]
    assert [part.broken for part in parts] == [number == place for number in range(3)]


@pytest.mark.parametrize("place", range(3))
def test_a_link_that_fails_when_it_is_due_keeps_no_other_from_being_visited(place: int) -> None:
    clock = Clock()
    keepalive = Keepalive(clock, Logger())
    parts: list[Any] = [Part(fails=number == place) for number in range(3)]
    for part in parts:
        keepalive.watch(part)
    for _ in range(4):
        clock.advance(1)
    assert [part.visited for part in parts] == [2 if number == place else 5 for number in range(3)]
    assert [part.broken for part in parts] == [number == place for number in range(3)]
