"""Which of the events that were sent have arrived.

Owns the count; does not know how events travel, and is told the time. An event is known by its bytes, which
hubs do not change.
"""

from __future__ import annotations

from collections import OrderedDict, deque

__all__ = ["Ledger"]


class Ledger:
    """Counts what was sent, what was seen, what was seen twice, and what is missing.

    patience: seconds after which an event that was not seen counts as missing (it may still arrive).
    bound: how many events may be outstanding, and how many that were seen are remembered to notice a second
    coming. Beyond it the oldest are given up: outstanding ones stay missing for good.
    """

    def __init__(self, *, patience: float = 3.0, bound: int = 100_000) -> None:
        self._patience = patience
        self._bound = bound
        self._outstanding: OrderedDict[bytes, deque[float]] = OrderedDict()
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._given_up = 0
        self.sent_count = 0
        self.seen_count = 0
        """Events of ours that have arrived, each counted once for each time it was sent."""
        self.twice_count = 0
        self.foreign_count = 0
        """Events that arrived and were sent by somebody else."""

    def sent(self, event: bytes, now: float) -> None:
        """An event is on its way."""
        self.sent_count += 1
        self._outstanding.setdefault(event, deque(maxlen=self._bound)).append(now)
        if len(self._outstanding) > self._bound:
            self._given_up += len(self._outstanding.popitem(last=False)[1])

    def seen(self, event: bytes) -> None:
        """An event has arrived."""
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
        """How many were sent longer than `patience` ago and have not been seen."""
        late = self._given_up
        for times in self._outstanding.values():
            waiting = sum(sent <= now - self._patience for sent in times)
            if not waiting:
                break  # they are in order of their first sending
            late += waiting
        return late

    @property
    def outstanding(self) -> int:
        """How many have not been seen, however short ago they were sent."""
        return self.sent_count - self.seen_count
