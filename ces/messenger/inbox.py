"""What has arrived and was not asked for yet: bounded in bytes, read record by record.

Pure: no Twisted, no clock, no logging. Runs go in as they came (one append for a whole batch) and are taken
apart only when they are read.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from ces.model.wire import Run


class Received(NamedTuple):
    """One record as it came: the room's id, UTF-8 as all of the wire, and the event's JSON."""

    room: bytes
    event: bytes


class Inbox:
    """Records in the order in which they came. What does not fit pushes out the oldest, a run at a time.

    :param limit: bytes of records; the run that came last stays even if it is larger.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.dropped = 0
        """Records pushed out so far."""
        self.bytes = 0
        self._runs: deque[Run] = deque()
        self._room = b""
        self._events: list[bytes] = []  # of the run that is being read, the next one last

    def __bool__(self) -> bool:
        return bool(self._events or self._runs)

    def __len__(self) -> int:
        return len(self._events) + sum(run.count for run in self._runs)

    def put(self, run: Run) -> int:
        """Add a run; how many records it pushed out."""
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
        """Remove the oldest record; there must be one."""
        if not self._events:
            run = self._runs.popleft()
            self.bytes -= run.weight
            self._room = run.room
            self._events = run.events[::-1]
            self.bytes += self._weight()
        event = self._events.pop()
        self.bytes -= len(self._room) + len(event) + 2
        return Received(self._room, event)

    def _finish(self) -> None:
        """Forget the rest of the run that is being read."""
        self.bytes -= self._weight()
        self._events = []

    def _weight(self) -> int:
        return sum(len(event) for event in self._events) + len(self._events) * (len(self._room) + 2)
