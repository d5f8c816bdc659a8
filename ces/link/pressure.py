"""Backpressure: pauses reading from publishers whose subscribers are congested, for a bounded time.

A link is *congested* when its queue is above the high water mark. While it is, and still takes something now
and then, the publishers whose records reach it are *paused*: what they have to say waits in the sockets and,
in the end, at its origin. A pause ends when the link has drained to the low water mark, after `budget`
seconds, or `STALLED` seconds after the link last took anything. In the last two cases the link is *spent*:
its oldest records are evicted, and nobody waits for it again until it has drained. So a burst is not lost,
and a link that stalls pauses nobody twice.

A link that is congested itself is never paused: it needs the acknowledgements that it reads in order to
drain.

Owns the list of paused publishers; does not know routes. Costs nothing while no link is congested.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ces.link.schedule import Step
from ces.session.queue import SendQueue

STALLED = 0.5
"""A link that has taken nothing for this time, in seconds, is stalled."""

STEP = 0.05
"""Seconds between two looks at congested links."""


class Congestible(Protocol):
    """A link, as far as backpressure knows it."""

    @property
    def queue(self) -> SendQueue: ...

    def progress(self) -> tuple[int, ...]:
        """Numbers that change whenever the link takes something."""

    def pause(self) -> None:
        """Stop reading."""

    def resume(self) -> None:
        """Read again."""

    def __hash__(self) -> int: ...


C = TypeVar("C", bound=Congestible)


class _Congested(Generic[C]):
    """A congested link: since when, when it last took something, and the publishers paused for it."""

    __slots__ = ("moved", "publishers", "seen", "since")

    def __init__(self, link: C, now: float, moved: float) -> None:
        self.since = now
        self.moved = moved
        self.seen = link.progress()
        self.publishers: dict[C, None] = {}


class Pressure(Generic[C]):
    """The congested links and the paused publishers of one side.

    :param log: for errors.
    :param budget: seconds for which publishers wait for a congested link; 0 waits for none.

    congested: the links that publishers wait for.
    paused: the links that are not read from.
    """

    def __init__(self, clock: IReactorTime, log: Logger, budget: float) -> None:
        self._clock = clock
        self._budget = budget
        self.congested: dict[C, _Congested[C]] = {}
        self.paused: frozenset[C] = frozenset()
        self._spent: dict[C, None] = {}
        self._look = Step(clock, self._sweep, "the look at congested links", log)

    def grown(self, link: C, since: float) -> None:
        """The queue of `link` has grown; the link has taken nothing since `since`."""
        if not link.queue.congested or link in self.congested or link in self._spent:
            return
        now = self._clock.seconds()
        if not self._budget or now - since >= STALLED:
            self._spent[link] = None
        else:
            self.congested[link] = _Congested(link, now, since)
        if link in self.paused:
            self._apply()
        if not self._look.waits:
            self._look.within(STEP)

    def fed(self, source: C, congested: Iterable[C]) -> None:
        """`source` has sent something for these congested links: pause it until they have drained."""
        if source in self.congested:
            return
        for link in congested:
            self.congested[link].publishers[source] = None
        self._apply()

    def forget(self, link: C) -> None:
        """The link has no connection any more."""
        if not (self.congested or self._spent):
            return
        self._spent.pop(link, None)
        self.congested.pop(link, None)
        for state in self.congested.values():
            state.publishers.pop(link, None)
        self._apply()
        if not self.congested and not self._spent:
            self._look.cancel()

    def _sweep(self) -> float | None:
        now = self._clock.seconds()
        for link, state in list(self.congested.items()):
            seen = link.progress()
            if seen != state.seen:
                state.seen, state.moved = seen, now
            if link.queue.drained:
                del self.congested[link]
            elif now - state.moved >= STALLED or now - state.since >= self._budget:
                del self.congested[link]
                self._spent[link] = None
        for link in [link for link in self._spent if link.queue.drained]:
            del self._spent[link]
        self._apply()
        return STEP if self.congested or self._spent else None

    def _apply(self) -> None:
        """Pause and resume links, so that exactly those are paused that a congested link waits for."""
        now: set[C] = set()
        for state in self.congested.values():
            now.update(state.publishers)
        now.difference_update(self.congested)
        before, self.paused = self.paused, frozenset(now)
        for link in before - self.paused:
            link.resume()
        for link in self.paused - before:
            link.pause()
