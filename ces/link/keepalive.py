"""Pings, silence timeouts and handshake deadlines of all links, without a timer per link.

`due(now)` of a link does what is due and returns the time of its next call. The link waits in the bucket of
that second, and a sweep visits each bucket in its second.

Cost: 10,000 idle links that ping every 30 s take 333 visits a second.
"""

from __future__ import annotations

from math import ceil
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ces.link.schedule import Step


class Watched(Protocol):
    """The part of a link that the sweep uses."""

    due_bucket: int | None

    def due(self, now: float) -> float | None:
        """Do what is due at `now`. Returns the time of the next call, or None for none."""

    def broke(self) -> None:
        """An error in this program while it did that: it costs this link, and no other."""


class Keepalive:
    """Calls `due` of each watched link in time.

    :param clock: the reactor, or a test's Clock. One delayed call is pending while links are watched,
        otherwise none.
    :param log: for errors.
    :param grain: width of a bucket, in seconds. `due` may be called late by up to this time.
    """

    def __init__(self, clock: IReactorTime, log: Logger, grain: float = 1.0) -> None:
        self._clock = clock
        self.seconds = clock.seconds
        """The clock's current time, in seconds."""
        self._grain = grain
        self._buckets: dict[int, dict[Watched, None]] = {}
        self._step = Step(clock, self._sweep, "the sweep of links", log)
        self._next = 0

    def watch(self, link: Watched) -> None:
        """Start watching `link`. Calls its `due` now and whenever it is due."""
        when = link.due(self._clock.seconds())
        self.unwatch(link)  # after `due`, which may itself have called `watch`
        if when is None:
            return
        bucket = ceil(when / self._grain)
        link.due_bucket = bucket
        self._buckets.setdefault(bucket, {})[link] = None
        self._schedule(bucket)

    def unwatch(self, link: Watched) -> None:
        """Stop watching `link`."""
        bucket = link.due_bucket
        if bucket is None:
            return
        link.due_bucket = None
        links = self._buckets.get(bucket)
        if links is not None:
            links.pop(link, None)
            if not links:
                del self._buckets[bucket]
        if not self._buckets:
            self._step.cancel()

    def _schedule(self, bucket: int) -> None:
        if not self._step.waits or bucket < self._next:
            self._next = bucket
            self._step.within(self._until(bucket))

    def _until(self, bucket: int) -> float:
        return max(0.0, bucket * self._grain - self._clock.seconds())

    def _sweep(self) -> float | None:
        reached = self._next  # not from the clock, which may have rounded the delay down
        for bucket in sorted(bucket for bucket in self._buckets if bucket <= reached):
            for link in list(self._buckets.get(bucket, ())):
                if link.due_bucket != bucket:  # an earlier link's `due` has unwatched or moved it
                    continue
                try:
                    self.watch(link)
                except Exception:
                    self.unwatch(link)
                    link.broke()
        self._step.cancel()
        if not self._buckets:
            return None
        self._next = min(self._buckets)
        return self._until(self._next)
