"""Backpressure: pauses reading from publishers whose subscribers are congested, so that a burst is not lost.

A link is *congested* when its queue is above the high water mark. While it is, and drains, the publishers who
fill it are *paused*: what they have to say waits in the sockets and, in the end, at its origin. A pause ends
when the link has drained to the low water mark.

Nobody is held up for long by one who is slow:

- A publisher is paused only when it has put more than its share into the queue since it became congested:
  of half the queue's limit, divided by those who feed it (`FEEDERS` at least). A publisher that
  sends little is never paused, and a burst from very many publishers at once still fits.
- A link is *spent* when it has taken nothing for `STALLED` seconds, when it drains so slowly that it would
  take longer than the budget, when it has been congested for the budget, or when publishers have been paused
  for it for `HELD` seconds of the last minute. Then nobody waits for it, and its oldest records are evicted
  when its queue is full, until it has drained and behaved: for `BARRED` seconds, twice as long each time, for
  a minute at most.
- A publisher that was paused for `HELD` seconds of the last minute, for whomever, is not paused again.

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
"""A link that has taken nothing for this time, in seconds, is stalled. After this time, a pace is known."""

STEP = 0.05
"""Seconds between two looks at congested links."""

FEEDERS = 16
"""The share of a publisher is as if at least so many fed the link."""

MINUTE, HELD = 60.0, 45.0
"""Of the last minute, publishers are paused for one link, and one publisher is paused, for at most `HELD`
seconds.
"""

BARRED, BARRED_MOST = 1.0, 60.0
"""Seconds for which nobody waits for a link that was spent, once it has drained: the first time, and at most.
"""

FORGIVEN = 600.0
"""Seconds after which it counts as the first time again."""


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


class Held:
    """How many of the last 60 seconds: those of this minute, and what is left of the minute before."""

    __slots__ = ("_before", "_start", "_this")

    def __init__(self) -> None:
        self._start = self._this = self._before = 0.0

    def add(self, seconds: float, now: float) -> None:
        self._turn(now)
        self._this += seconds

    def of_last_minute(self, now: float) -> float:
        self._turn(now)
        return self._this + self._before * (1 - (now - self._start) / MINUTE)

    def _turn(self, now: float) -> None:
        if now - self._start >= MINUTE:
            self._before = self._this if now - self._start < 2 * MINUTE else 0.0
            self._this = 0.0
            self._start = now - (now - self._start) % MINUTE


class _Record:
    """What is remembered of a link.

    held_others, was_held: for how long publishers were paused for it, and it was paused for others.
    barred_until: nobody waits for it before.
    barred: for how long it was barred the last time, in seconds.
    """

    __slots__ = ("barred", "barred_until", "held_others", "was_held")

    def __init__(self) -> None:
        self.held_others = Held()
        self.was_held = Held()
        self.barred_until = self.barred = 0.0

    def bar(self, now: float) -> None:
        """It was spent, and has drained."""
        first = not self.barred or now - self.barred_until >= FORGIVEN
        self.barred = BARRED if first else min(2 * self.barred, BARRED_MOST)
        self.barred_until = now + self.barred

    def forgotten(self, now: float) -> bool:
        """Whether there is nothing to remember."""
        idle = not (self.held_others.of_last_minute(now) or self.was_held.of_last_minute(now))
        return idle and (not self.barred or now - self.barred_until >= FORGIVEN)


class _Congested(Generic[C]):
    """A congested link: since when, when it last took something, how much it was fed since, and by whom."""

    __slots__ = ("at_first", "fed", "moved", "publishers", "seen", "since")

    def __init__(self, link: C, now: float, moved: float) -> None:
        self.since = now
        self.moved = moved
        self.seen = link.progress()
        self.at_first = link.queue.settled_bytes
        self.fed: dict[C, int] = {}
        self.publishers: dict[C, None] = {}
        """Those that are paused for it."""

    def is_slow(self, link: C, now: float, budget: float) -> bool:
        """Whether it drains so slowly that it would take longer than the budget."""
        left = link.queue.settled_bytes
        drained = self.at_first + sum(self.fed.values()) - left
        return left * (now - self.since) > budget * drained


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
        self._spent: dict[C, bool] = {}
        """The links that nobody waits for until they have drained, and whether to bar them then."""
        self._records: dict[C, _Record] = {}
        self._looked = 0.0
        self._look = Step(clock, self._sweep, "the look at congested links", log)

    def grown(self, link: C, since: float) -> None:
        """The queue of `link` has grown; the link has taken nothing since `since`."""
        if not link.queue.congested or link in self.congested or link in self._spent:
            return
        now = self._clock.seconds()
        if not (self.congested or self._spent):
            self._looked = now
            self._look.within(STEP)
        if not self._budget or self._is_barred(link, now):
            self._spent[link] = False
        elif now - since >= STALLED:
            self._spent[link] = True
        else:
            self.congested[link] = _Congested(link, now, since)
        if link in self.paused:
            self._apply()

    def _is_barred(self, link: C, now: float) -> bool:
        record = self._records.get(link)
        return record is not None and (
            now < record.barred_until or record.held_others.of_last_minute(now) >= HELD
        )

    def fed(self, source: C, congested: Iterable[C], size: int) -> None:
        """`source` has sent something for these congested links: pause it until they have drained, if that is
        more than its share.

        :param size: its bytes.
        """
        if source in self.congested:
            return
        record = self._records.get(source)
        if record is not None and record.was_held.of_last_minute(self._clock.seconds()) >= HELD:
            return
        more = False
        for link in congested:
            state = self.congested[link]
            state.fed[source] = fed = state.fed.get(source, 0) + size
            if 2 * fed * max(FEEDERS, len(state.fed)) > link.queue.limit:
                state.publishers[source] = None
                more = True
        if more:
            self._apply()

    def forget(self, link: C) -> None:
        """The link has no connection any more."""
        if not (self.congested or self._spent):
            return
        if link in self._spent:
            self._drained(link, self._clock.seconds())
        self.congested.pop(link, None)
        for state in self.congested.values():
            state.fed.pop(link, None)
            state.publishers.pop(link, None)
        self._apply()

    def left(self, link: C) -> None:
        """The link is over."""
        self.forget(link)
        self._records.pop(link, None)
        if not (self.congested or self._spent or self._records):
            self._look.cancel()

    def _sweep(self) -> float | None:
        now = self._clock.seconds()
        since, self._looked = now - self._looked, now
        for link in self.paused:
            self._record(link).was_held.add(since, now)
        for link, state in list(self.congested.items()):
            record = self._records.get(link)
            if state.publishers:
                record = self._record(link)
                record.held_others.add(since, now)
            seen = link.progress()
            if seen != state.seen:
                state.seen, state.moved = seen, now
            if link.queue.drained:
                del self.congested[link]
            elif (
                now - state.moved >= STALLED
                or now - state.since >= self._budget
                or (now - state.since >= STALLED and state.is_slow(link, now, self._budget))
                or (record is not None and record.held_others.of_last_minute(now) >= HELD)
            ):
                del self.congested[link]
                self._spent[link] = True
        for link in [link for link in self._spent if link.queue.drained]:
            self._drained(link, now)
        for link in self.paused:
            if self._record(link).was_held.of_last_minute(now) >= HELD:
                for state in self.congested.values():
                    state.publishers.pop(link, None)
        self._apply()
        if self.congested or self._spent:
            return STEP
        for link in [link for link, record in self._records.items() if record.forgotten(now)]:
            del self._records[link]
        return MINUTE if self._records else None

    def _drained(self, link: C, now: float) -> None:
        if self._spent.pop(link):
            self._record(link).bar(now)

    def _record(self, link: C) -> _Record:
        record = self._records.get(link)
        if record is None:
            record = self._records[link] = _Record()
        return record

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
