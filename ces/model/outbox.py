"""What waits for one link: bounded in bytes, taken in batches.

Owns the order of what is to be sent and the bound on it; does not know how it is written or to whom. Runs are
appended to `pending` as they are routed (one list append, the whole cost of a delivery until the batch is
written); the bound is enforced by `settle`, which its owner calls at least once per reactor turn, so that an
outbox exceeds its limit by no more than what one turn brings in.

What does not fit pushes out the oldest, and what was pushed out is counted.
"""

from __future__ import annotations

from collections import deque

from ces.model.wire import Run


class Outbox:
    """A queue of runs, at most `limit` bytes of them from one turn to the next.

    :param limit: bytes of records.
    """

    __slots__ = ("_settled", "bytes", "dropped", "limit", "pending", "taken")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.pending: list[Run] = []
        self._settled: deque[Run] = deque()
        self.bytes = 0
        """Bytes of what is settled."""
        self.dropped = 0
        """Records pushed out so far."""
        self.taken = 0
        """Records taken so far."""

    def __bool__(self) -> bool:
        return bool(self.pending or self._settled)

    @property
    def records(self) -> int:
        """How many records wait."""
        return sum(run.count for run in self._settled) + sum(run.count for run in self.pending)

    @property
    def size(self) -> int:
        """How many bytes wait."""
        return self.bytes + sum([run.size for run in self.pending])

    def settle(self) -> int:
        """Count in what was appended and enforce the limit.

        :return: how many records were pushed out, for the caller to report.
        """
        self._count_in()
        lost = 0
        while self.bytes > self.limit and self._settled:
            run = self._settled.popleft()
            self.bytes -= run.size
            lost += run.count
        self.dropped += lost
        return lost

    def _count_in(self) -> None:
        if self.pending:
            self._settled.extend(self.pending)
            self.bytes += sum([run.size for run in self.pending])
            self.pending.clear()

    def take(self, budget: int) -> list[Run]:
        """Remove the oldest runs, at least one if any waits, and as many more as `budget` bytes hold."""
        if self.pending and not self._settled:
            runs = self.pending
            size = 0
            count = 0
            for run in runs:
                size += run.size
                if size > budget and count:
                    break
                count += 1
            taken = runs[:count]
            del runs[:count]
        else:
            self._count_in()
            taken = []
            size = 0
            while self._settled and (not taken or size + self._settled[0].size <= budget):
                run = self._settled.popleft()
                size += run.size
                taken.append(run)
            self.bytes -= size
        self.taken += sum([run.count for run in taken])
        return taken

    def take_all(self) -> list[Run]:
        """Remove everything, for another outbox: it does not count as taken."""
        runs = [*self._settled, *self.pending]
        self._settled.clear()
        self.pending.clear()
        self.bytes = 0
        return runs

    def clear(self) -> int:
        """Drop everything; how many records that was."""
        lost = sum(run.count for run in self.take_all())
        self.dropped += lost
        return lost
