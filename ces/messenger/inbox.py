"""The inbox: records that have arrived and that nobody has received yet. Bounded in bytes.

Pure: no Twisted, no clock, no logging.

Cost: one append for each run. A run is split into records only when it is read.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from ces.model.wire import Run


class Received(NamedTuple):
    """A record: the event's JSON and the room's id, both as the bytes that arrived (UTF-8)."""

    event: bytes
    room: bytes


class Inbox:
    """Records in the order of their arrival. A full inbox drops the oldest run.

    :param limit: limit in bytes. The newest run stays even when it alone is larger.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.dropped = 0
        """Number of records dropped so far."""
        self.bytes = 0
        self._runs: deque[Run] = deque()
        self._room = b""
        self._events: list[bytes] = []  # the rest of the run that is being read, in reverse order

    def __bool__(self) -> bool:
        return bool(self._events or self._runs)

    def __len__(self) -> int:
        return len(self._events) + sum(run.count for run in self._runs)

    def put(self, run: Run) -> int:
        """Add a run. Return the number of records dropped for it."""
        self._runs.append(run)
        self.bytes += run.weight
        lost = 0
        while self.bytes > self.limit and (self._events or len(self._runs) > 1):
            if self._events:
                lost += len(self._events)
                self._finish()
            else:
                oldest = self._runs.popleft()
                self.bytes -= oldest.weight
                lost += oldest.count
        self.dropped += lost
        return lost

    def take(self) -> Received:
        """Remove the oldest record and return it. The inbox must not be empty."""
        if not self._events:
            run = self._runs.popleft()
            self.bytes -= run.weight
            self._room = run.room
            self._events = run.events[::-1]
            self.bytes += self._weight()
        event = self._events.pop()
        self.bytes -= len(self._room) + len(event) + 2
        return Received(event, self._room)

    def _finish(self) -> None:
        """Drop the rest of the run that is being read."""
        self.bytes -= self._weight()
        self._events = []

    def _weight(self) -> int:
        return sum(len(event) for event in self._events) + len(self._events) * (len(self._room) + 2)
