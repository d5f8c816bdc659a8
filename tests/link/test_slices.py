"""Work in slices: one a turn, round robin, and an error costs only whose work it is."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from twisted.logger import Logger

from ces.link.slices import Slices
from tests.support.links import Lines
from tests.support.turns import TurnClock


class Work:
    """So many slices, which write their name."""

    def __init__(self, name: str, slices: int, done: list[str], fails: bool = False) -> None:
        self.name, self.left, self.done, self.fails = name, slices, done, fails

    def slice(self) -> bool:
        if self.fails:
            raise OSError(self.name)
        self.done.append(self.name)
        self.left -= 1
        return self.left > 0

    def broke(self) -> None:
        self.done.append(f"{self.name} broke")


@pytest.fixture
def clock():
    return TurnClock()


@pytest.fixture
def slices(clock):
    return Slices(clock, Logger(namespace="ces.test", observer=Lines()))


def test_each_turn_does_one_slice_of_one_after_another(clock, slices):
    done: list[str] = []
    for name, count in (("a", 3), ("b", 1), ("c", 2)):
        slices.add(Work(name, count, done))
    found = []
    while slices:
        clock.turn()
        found.append("".join(done))
    assert found == ["a", "ab", "abc", "abca", "abcac", "abcaca"]
    clock.advance(1)
    assert not clock.getDelayedCalls()


def test_an_error_costs_only_whose_work_it_is(clock, slices):
    done: list[str] = []
    slices.add(Work("a", 1, done, fails=True))
    slices.add(Work("b", 2, done))
    for _ in range(4):
        clock.turn()
    assert done == ["a broke", "b", "b"]


def test_what_is_removed_is_done_no_more(clock, slices):
    done: list[str] = []
    a, b = Work("a", 9, done), Work("b", 1, done)
    slices.add(a)
    slices.add(b)
    clock.turn()
    slices.remove(a)
    slices.remove(a)
    clock.turn()
    clock.turn()
    assert done == ["a", "b"]


def counting(to: int, done: list[int]) -> Generator[None, None, str]:
    for number in range(to):
        done.append(number)
        yield
    return "done"


def test_steps_end_with_what_they_return(clock, slices):
    done: list[int] = []
    results: list[object] = []
    slices.finish(counting(2, done)).addBoth(results.append)
    assert (done, results) == ([0], [])
    clock.turn()
    clock.turn()
    assert (done, results) == ([0, 1], ["done"])


def test_steps_that_are_few_end_at_once(slices):
    results: list[object] = []
    slices.finish(counting(0, [])).addBoth(results.append)
    assert results == ["done"]
    assert not slices


def failing() -> Generator[None, None, None]:
    yield
    raise OSError("no")


def test_steps_that_fail_tell_who_waits(clock, slices):
    waiting = slices.finish(failing())
    clock.turn()
    errors: list[object] = []
    waiting.addErrback(lambda failure: errors.append(failure.check(OSError)))
    assert errors == [OSError]


def test_steps_that_are_cancelled_stop(clock, slices):
    done: list[int] = []
    waiting = slices.finish(counting(5, done))
    waiting.addErrback(lambda failure: None)
    waiting.cancel()
    clock.turn()
    assert done == [0]
    assert not slices
