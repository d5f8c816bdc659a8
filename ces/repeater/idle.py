"""Which links have not been used for a while.

All have the same patience, so the order of last use is the order in which they run out: to note a use moves
one entry to the end, and one delayed call waits for the entry in front. Nothing is pending when nothing is
watched.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

T = TypeVar("T", bound=Hashable)


class Idle(Generic[T]):
    """Tells of what has not been used for `ttl` seconds, once, and forgets it.

    Bounded by what is watched: each item has one entry until it runs out or is forgotten.

    :param unused: told the item; it may be used again at once, and then is watched anew.
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
        """`item` is in use now; it is watched from its first use on."""
        self._last[item] = self._clock.seconds()
        self._last.move_to_end(item)
        if self._call is None:
            self._call = self._clock.callLater(self._ttl, self._look)

    def forget(self, item: T) -> None:
        """Watch `item` no more."""
        self._last.pop(item, None)
        if not self._last and self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        self._call = None
        now = self._clock.seconds()
        out = []
        for item, last in self._last.items():
            if last + self._ttl > now:
                break
            out.append(item)
        for item in out:
            del self._last[item]
        if self._last:
            wait = next(iter(self._last.values())) + self._ttl - now
            self._call = self._clock.callLater(wait, self._look)
        for item in out:
            self._unused(item)
