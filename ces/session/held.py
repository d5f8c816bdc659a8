"""A queue for events that wait for a repeater, limited in bytes and time (docs/protocol.md section 6)."""

from __future__ import annotations

from collections import deque

from ces.model.patterns import EVERY, Rooms
from ces.model.wire import Run


class Held:
    """A queue of runs. When it is full, the oldest runs are evicted.

    Every method that takes the time first drops expired runs.

    :param limit: limit of the queue, in bytes.
    :param seconds: timeout of each run, in seconds.
    """

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit = limit
        self.seconds = seconds
        self._runs: deque[tuple[float, Run]] = deque()
        self.bytes = 0
        self.dropped = 0
        """Records dropped so far, evicted or expired."""

    def __bool__(self) -> bool:
        return bool(self._runs)

    @property
    def records(self) -> int:
        """The number of queued records."""
        return sum(run.count for _, run in self._runs)

    def put(self, run: Run, now: float) -> list[Run]:
        """Queue a run. Returns the runs that were dropped."""
        self._runs.append((now + self.seconds, run))
        self.bytes += run.weight
        return self.expire(now)

    def expire(self, now: float) -> list[Run]:
        """Drop the runs that have expired or are above the limit. Returns them."""
        dropped = []
        while self._runs and (self._runs[0][0] <= now or self.bytes > self.limit):
            _, run = self._runs.popleft()
            self.bytes -= run.weight
            self.dropped += run.count
            dropped.append(run)
        return dropped

    def expires(self) -> float | None:
        """The time at which the oldest run expires; None when the queue is empty."""
        return self._runs[0][0] if self._runs else None

    def take(self, now: float, may: Rooms = EVERY) -> list[Run]:
        """Remove and return the runs that have not expired.

        :param may: the rooms that are taken. The others stay, as long as they would have.
        """
        self.expire(now)
        if may.everything:
            taken = [run for _, run in self._runs]
            self._runs.clear()
        else:
            apart = [(expires, part) for expires, run in self._runs for part in run.apart()]
            taken = [run for _, run in apart if run.room in may]
            self._runs = deque((expires, run) for expires, run in apart if run.room not in may)
        self.bytes = sum(run.weight for _, run in self._runs)
        return taken
