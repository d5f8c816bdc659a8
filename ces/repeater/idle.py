"""Finds items, such as links, that have not been used for a while.

All items have the same timeout, so they expire in the order of their last use. Cost: a use moves one entry to
the end of an ordered dict. One delayed call waits for the first entry; none is pending when nothing is
watched.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ces.link.schedule import Step

T = TypeVar("T", bound=Hashable)


class Idle(Generic[T]):
    """Calls back once for each item that has not been used for `ttl` seconds, and forgets the item.

    Memory: one entry for each watched item.

    :param ttl: the timeout, in seconds.
    :param log: for errors.
    :param unused: callback; gets the item. It may call `used` for it, which starts watching it again.
    """

    def __init__(self, ttl: float, clock: IReactorTime, unused: Callable[[T], None], log: Logger) -> None:
        self._ttl = ttl
        self._clock = clock
        self._unused = unused
        self._last: OrderedDict[T, float] = OrderedDict()
        self._log = log
        self._looking = Step(clock, self._look, "the look at what is not used", log)

    def __len__(self) -> int:
        return len(self._last)

    def used(self, item: T) -> None:
        """Record a use of `item`. The first use starts watching it."""
        self._last[item] = self._clock.seconds()
        self._last.move_to_end(item)
        if not self._looking.waits:
            self._looking.within(self._ttl)

    def forget(self, item: T) -> None:
        """Stop watching `item`."""
        self._last.pop(item, None)
        if not self._last:
            self._looking.cancel()

    def _look(self) -> float | None:
        now = self._clock.seconds()
        expired = []
        for item, last in self._last.items():
            if last + self._ttl > now:
                break
            expired.append(item)
        for item in expired:
            del self._last[item]
        for item in expired:
            try:
                self._unused(item)
            except Exception:  # the others are not to wait for ever
                self._log.failure("unexpected error with what was not used: {item}", item=item)
        return next(iter(self._last.values())) + self._ttl - now if self._last else None
