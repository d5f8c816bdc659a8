"""Counts which of the sent events have arrived.

Does not know how events travel, and has no clock. Events are compared as bytes, which hubs do not change.
"""

from __future__ import annotations

from collections import OrderedDict, deque

__all__ = ["Ledger"]


class Ledger:
    """Counts the events that were sent, seen, seen twice, or are missing.

    :param timeout: seconds after which an unseen event counts as missing. It may still arrive.
    :param bound: limit of outstanding events, and of seen events that are remembered to detect duplicates.
        Above it the oldest are forgotten; a forgotten outstanding event stays missing.
    """

    def __init__(self, *, timeout: float = 3.0, bound: int = 100_000) -> None:
        self._timeout = timeout
        self._bound = bound
        self._outstanding: OrderedDict[bytes, deque[float]] = OrderedDict()
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._forgotten = 0
        self.sent_count = 0
        self.seen_count = 0
        """Events of ours that have arrived, counted once for each time that they were sent."""
        self.twice_count = 0
        self.foreign_count = 0
        """Events that arrived although we did not send them."""

    def sent(self, event: bytes, now: float) -> None:
        """Record that an event was sent."""
        self.sent_count += 1
        self._outstanding.setdefault(event, deque(maxlen=self._bound)).append(now)
        if len(self._outstanding) > self._bound:
            self._forgotten += len(self._outstanding.popitem(last=False)[1])

    def seen(self, event: bytes) -> None:
        """Record that an event has arrived."""
        times = self._outstanding.get(event)
        if times is None:
            if event in self._seen:
                self.twice_count += 1
            else:
                self.foreign_count += 1
            return
        self.seen_count += 1
        times.popleft()
        if not times:
            del self._outstanding[event]
        self._seen[event] = None
        if len(self._seen) > self._bound:
            self._seen.popitem(last=False)

    def missing(self, now: float) -> int:
        """The number of events that were sent longer than the timeout ago and have not been seen."""
        late = self._forgotten
        for times in self._outstanding.values():
            waiting = sum(sent <= now - self._timeout for sent in times)
            if not waiting:
                break  # entries are in order of their first sending, so the rest is newer
            late += waiting
        return late

    @property
    def outstanding(self) -> int:
        """The number of events that have not been seen, recent ones included."""
        return self.sent_count - self.seen_count
