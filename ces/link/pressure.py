"""Backpressure: who feeds a link that cannot keep up is read more slowly, for a bounded time.

A link is *full* when an eighth of its outbox's limit waits. While it is, and takes something now and then,
whoever sends records for it is not read from; what it has to say waits in the sockets and, in the end, at its
origin. The link is waited for until it has drained, at most `patience` seconds, and no longer than `STILL`
once it takes nothing: after that it is *spent*, its oldest records give way to newer ones, and nobody waits
for it again until it has drained. So a burst is not lost, and a link that stands still holds up nobody twice.

A link that is full itself is never held: its acknowledgements are what it needs to drain.

Owns who waits for whom; does not know routes. Costs nothing while no link is full.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ces.link.direct import unsent

if TYPE_CHECKING:
    from ces.link.protocol import Link

FULL, DRAINED = 8, 32
"""A link is full when 1/`FULL` of its limit waits, and has drained when less than 1/`DRAINED` does."""

STILL = 0.5
"""A link that has taken nothing for so many seconds stands still."""

STEP = 0.05
"""Seconds between two looks at links that are full."""


def _taken(link: Link) -> tuple[int, ...]:
    """What changes when a link takes something."""
    return unsent(link.transport), link.session.acknowledged, link.outbox.taken


class _Full:
    """What is known of a full link: since when it has been so, when it last took something, who is held for
    it.
    """

    __slots__ = ("feeders", "moved", "seen", "since")

    def __init__(self, link: Link, now: float, moved: float) -> None:
        self.since = now
        self.moved = moved
        self.seen = _taken(link)
        self.feeders: dict[Link, None] = {}


class Pressure:
    """Who is held for whom, on one side.

    :param patience: seconds that a full link is waited for; 0 waits for none.

    full: the links that are waited for.
    held: the links that are not read from.
    """

    def __init__(self, clock: IReactorTime, patience: float) -> None:
        self._clock = clock
        self._patience = patience
        self.full: dict[Link, _Full] = {}
        self.held: frozenset[Link] = frozenset()
        self._spent: dict[Link, None] = {}
        self._look: IDelayedCall | None = None

    def grown(self, link: Link, stuck: float) -> None:
        """Something waits for `link`, which has taken nothing since `stuck`."""
        if FULL * link.outbox.bytes < link.outbox.limit or link in self.full or link in self._spent:
            return
        now = self._clock.seconds()
        if not self._patience or now - stuck >= STILL:
            self._spent[link] = None
        else:
            self.full[link] = _Full(link, now, stuck)
        if link in self.held:
            self._hold()
        if self._look is None:
            self._look = self._clock.callLater(STEP, self._sweep)

    def fed(self, source: Link, full: Iterable[Link]) -> None:
        """`source` has just sent something for these full links: read from it when they can take more."""
        if source in self.full:
            return
        for link in full:
            self.full[link].feeders[source] = None
        self._hold()

    def forget(self, link: Link) -> None:
        """The link has ended."""
        self._spent.pop(link, None)
        self.full.pop(link, None)
        for state in self.full.values():
            state.feeders.pop(link, None)
        self._hold()
        self._rest()

    def _sweep(self) -> None:
        now = self._clock.seconds()
        for link, state in list(self.full.items()):
            seen = _taken(link)
            if seen != state.seen:
                state.seen, state.moved = seen, now
            if DRAINED * link.outbox.bytes <= link.outbox.limit:
                del self.full[link]
            elif now - state.moved >= STILL or now - state.since >= self._patience:
                del self.full[link]
                self._spent[link] = None
        for link in [link for link in self._spent if DRAINED * link.outbox.bytes <= link.outbox.limit]:
            del self._spent[link]
        self._hold()
        self._look = self._clock.callLater(STEP, self._sweep)
        self._rest()

    def _rest(self) -> None:
        if not self.full and not self._spent and self._look is not None:
            self._look.cancel()
            self._look = None

    def _hold(self) -> None:
        """Read from whoever is held for no link any more, and from nobody who is."""
        now: set[Link] = set()
        for state in self.full.values():
            now.update(state.feeders)
        now.difference_update(self.full)
        before, self.held = self.held, frozenset(now)
        for link in before - self.held:
            link.release()
        for link in self.held - before:
            link.hold()
