"""Finds items, such as links, that have not been used for a while.

All items have the same timeout, so they expire in the order of their last use. Cost: a use moves one entry to
the end of an ordered dict. One delayed call waits for the first entry; none is pending when nothing is
watched.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

T = TypeVar("T", bound=Hashable)


class Idle(Generic[T]):
    """Calls back once for each item that has not been used for `ttl` seconds, and forgets the item.

    Memory: one entry for each watched item.

    :param ttl: the timeout, in seconds.
    :param unused: callback; gets the item. It may call `used` for it, which starts watching it again.
    """

    def __init__(self, ttl: float, clock: IReactorTime, unused: Callable[[T], None]) -> None:
        self._ttl = ttl
        self._clock = clock
        self._unused = unused
        self._last: OrderedDict[T, float] = OrderedDict()
        self._call: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._last)

    def used(self, item: T) -> None:
        """Record a use of `item`. The first use starts watching it."""
        self._last[item] = self._clock.seconds()
        self._last.move_to_end(item)
        if self._call is None:
            self._call = self._clock.callLater(self._ttl, self._look)

    def forget(self, item: T) -> None:
        """Stop watching `item`."""
        self._last.pop(item, None)
        if not self._last and self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        self._call = None
        now = self._clock.seconds()
        expired = []
        for item, last in self._last.items():
            if last + self._ttl > now:
                break
            expired.append(item)
        for item in expired:
            del self._last[item]
        if self._last:
            wait = next(iter(self._last.values())) + self._ttl - now
            self._call = self._clock.callLater(wait, self._look)
        for item in expired:
            self._unused(item)
