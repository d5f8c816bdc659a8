"""Work that would take too long for one reactor turn, done in slices: one slice a turn, round robin.

However many links bring such work, a turn takes longer by one slice, and each of them gets its share.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ces.link.schedule import Step

T = TypeVar("T")


class Sliced(Protocol):
    """Work in slices."""

    def slice(self) -> bool:
        """Do a slice of it. Returns whether more can be done."""

    def broke(self) -> None:
        """An error in this program while it did that: it costs whose work it is, and no other."""

    def __hash__(self) -> int: ...


class Slices:
    """All work of one side that is done in slices.

    :param clock: the reactor, or a test's Clock.
    """

    def __init__(self, clock: IReactorTime, log: Logger) -> None:
        self._waiting: dict[Sliced, None] = {}
        self._step = Step(clock, self._next, "work in slices", log)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, work: Sliced) -> None:
        """Do a slice of this in each turn that is its turn, until nothing of it is left."""
        self._waiting[work] = None
        if not self._step.waits:
            self._step.within(0)

    def remove(self, work: Sliced) -> None:
        """Nothing of this is to be done any more."""
        self._waiting.pop(work, None)

    def finish(self, steps: Generator[None, None, T]) -> Deferred[T]:
        """Do this step by step, the first one now. Fires with what it returns, or fails as it does. To cancel
        is to do no more of it.
        """
        done: Deferred[T] = Deferred(lambda _: self.remove(work))
        work = _Steps(steps, done)
        if work.slice():
            self.add(work)
        return done

    def _next(self) -> float | None:
        if self._waiting:
            work = next(iter(self._waiting))
            del self._waiting[work]
            try:
                more = work.slice()
            except Exception:
                work.broke()
                more = False
            if more:
                self._waiting[work] = None
        return 0 if self._waiting else None


class _Steps(Generic[T]):
    """The steps of a generator."""

    def __init__(self, steps: Generator[None, None, T], done: Deferred[T]) -> None:
        self._steps = steps
        self._done = done

    def slice(self) -> bool:
        try:
            next(self._steps)
        except StopIteration as end:
            self._done.callback(end.value)
        except Exception:
            self._done.errback(Failure())
        else:
            return True
        return False

    def broke(self) -> None:
        """Who waits for it has heard it."""
