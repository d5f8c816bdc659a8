"""Events that wait for a repeater: bounded in bytes and in time (docs/protocol.md section 6)."""

from __future__ import annotations

from collections import deque

from ces.model.wire import Run


class Held:
    """Runs in the order in which they came, each for at most `seconds`, at most `limit` bytes of them.

    What does not fit pushes out the oldest. Every method that takes the time first drops what is too old.
    """

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit = limit
        self.seconds = seconds
        self._runs: deque[tuple[float, Run]] = deque()
        self.bytes = 0
        self.dropped = 0
        """Records dropped so far, for want of space or of time."""

    def __bool__(self) -> bool:
        return bool(self._runs)

    @property
    def records(self) -> int:
        """How many records wait."""
        return sum(run.count for _, run in self._runs)

    def put(self, run: Run, now: float) -> list[Run]:
        """Hold a run; what was dropped for it."""
        self._runs.append((now + self.seconds, run))
        self.bytes += run.weight
        return self.expire(now)

    def expire(self, now: float) -> list[Run]:
        """Drop what is too old or too much; the runs that were."""
        lost = []
        while self._runs and (self._runs[0][0] <= now or self.bytes > self.limit):
            _, run = self._runs.popleft()
            self.bytes -= run.weight
            self.dropped += run.count
            lost.append(run)
        return lost

    def expires(self) -> float | None:
        """When the oldest will be too old; None when nothing is held."""
        return self._runs[0][0] if self._runs else None

    def take(self, now: float) -> list[Run]:
        """All that is held and not too old."""
        self.expire(now)
        runs = [run for _, run in self._runs]
        self._runs.clear()
        self.bytes = 0
        return runs
