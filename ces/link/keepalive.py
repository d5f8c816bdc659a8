"""One sweep for all links: pings, silence and handshake deadlines, without a timer per link.

A link says when it is next due (`due(now)` does what is due and returns the next time), and stands in the
bucket of that second. The sweep visits only the buckets whose second has come, so that 10,000 idle links that
ping every 30 s cost 333 visits a second and nothing else.
"""

from __future__ import annotations

from math import ceil
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Watched(Protocol):
    """A link, as far as the sweep knows it."""

    due_bucket: int | None

    def due(self, now: float) -> float | None:
        """Do what is due at `now`; the time at which to ask again, None for never."""


class Keepalive:
    """The sweep.

    :param clock: a reactor or a test's Clock. One delayed call is pending while links are watched, none
        otherwise.
    :param grain: the width of a bucket, in seconds: a link may be asked so much later than it is due.
    """

    def __init__(self, clock: IReactorTime, grain: float = 1.0) -> None:
        self._clock = clock
        self.seconds = clock.seconds
        """The time on the clock."""
        self._grain = grain
        self._buckets: dict[int, dict[Watched, None]] = {}
        self._call: IDelayedCall | None = None
        self._next = 0

    def watch(self, link: Watched) -> None:
        """Ask `link` when it is due, now and from then on."""
        when = link.due(self._clock.seconds())
        self.unwatch(link)  # after `due`, which may have led back here
        if when is None:
            return
        bucket = ceil(when / self._grain)
        link.due_bucket = bucket
        self._buckets.setdefault(bucket, {})[link] = None
        self._schedule(bucket)

    def unwatch(self, link: Watched) -> None:
        """Ask `link` no more."""
        bucket = link.due_bucket
        if bucket is None:
            return
        link.due_bucket = None
        links = self._buckets.get(bucket)
        if links is not None:
            links.pop(link, None)
            if not links:
                del self._buckets[bucket]
        if not self._buckets and self._call is not None:
            self._call.cancel()
            self._call = None

    def _schedule(self, bucket: int) -> None:
        if self._call is not None:
            if bucket >= self._next:
                return
            self._call.cancel()
        self._next = bucket
        self._call = self._clock.callLater(
            max(0.0, bucket * self._grain - self._clock.seconds()), self._sweep
        )

    def _sweep(self) -> None:
        self._call = None
        reached = self._next  # the clock may have rounded the wait down
        for bucket in sorted(bucket for bucket in self._buckets if bucket <= reached):
            for link in list(self._buckets.get(bucket, ())):
                if link.due_bucket == bucket:  # and not unwatched by what another link did
                    self.watch(link)
        if self._buckets:
            self._schedule(min(self._buckets))
