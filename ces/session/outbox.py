"""What waits for one link: bounded in bytes, taken in batches.

Owns the order of what is to be sent and the bound on it; does not know how it is written or to whom. Runs are
appended to `pending` as they are routed (one list append, the whole cost of a delivery until the batch is
written); the bound is enforced by `settle`, which its owner calls at least once per reactor turn, so that an
outbox exceeds its limit by no more than what one turn brings in.

What does not fit pushes out the oldest, but records that `spare` names outlive the others: each run is looked
at once, when its turn to be pushed out has come, and what is spared of it waits in front of all that is
younger. What was pushed out is counted, and `gap` says how much of it the other side has not been told of.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ces.model.wire import Run

Spare = Callable[[Run], Run | None]
"""Of a run that would be pushed out, what is to outlive it: the run itself, one with some of its records, or
None."""


ROOMS = 32
"""Of so many rooms an outbox remembers how much of them it dropped."""


class Tally:
    """Bytes that wait in, or are reserved for, all outboxes that share it. `pending` is counted once it is
    settled.
    """

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes = 0


class Outbox:
    """A queue of runs, at most `limit` bytes of them from one turn to the next.

    :param limit: bytes of records.
    :param spare: what outlives the rest when there is too much.
    :param tally: counts its bytes and those of others.
    """

    __slots__ = (
        "_settled",
        "_spared",
        "bytes",
        "dropped",
        "dropped_rooms",
        "gap",
        "limit",
        "pending",
        "reserved",
        "spare",
        "taken",
        "tally",
    )

    hears = False
    """Whether `done` does anything."""

    def __init__(self, limit: int, spare: Spare | None = None, tally: Tally | None = None) -> None:
        self.limit = limit
        self.spare = spare
        self.tally = tally or Tally()
        self.pending: list[Run] = []
        self._settled: deque[Run] = deque()
        self._spared: deque[Run] | None = None
        self.bytes = 0
        """Bytes of what is settled; 0 when nothing is, since every record weighs something."""
        self.reserved = 0
        """Bytes of the limit that are taken up by what was taken and may have to be sent again."""
        self.dropped = 0
        """Records pushed out so far."""
        self.dropped_rooms: dict[bytes, int] | None = None
        """How many of them were for which room, as far as there are few rooms."""
        self.gap = 0
        """Records pushed out since this was last set to 0."""
        self.taken = 0
        """Records taken so far."""

    def __bool__(self) -> bool:
        return bool(self.pending or self.bytes)

    @property
    def records(self) -> int:
        """How many records wait."""
        return sum(run.count for run in self._all())

    @property
    def size(self) -> int:
        """How many bytes wait."""
        return self.bytes + sum([run.weight for run in self.pending])

    def settle(self) -> int:
        """Count in what was appended and enforce the limit.

        :return: how many records were pushed out, for the caller to report.
        """
        self._count_in()
        return self.shed(self.bytes + self.reserved - self.limit)

    def shed(self, excess: int) -> int:
        """Push out the oldest until so many bytes are gone, first of what is not spared.

        :return: how many records that was.
        """
        lost = 0
        while excess > 0 and (self._settled or self._spared):
            if self._settled:
                run = self._settled.popleft()
                kept = None if self.spare is None else self.spare(run)
                if kept is not None:
                    self._spared = self._spared or deque()
                    self._spared.append(kept)
            else:
                assert self._spared
                run, kept = self._spared.popleft(), None
            if kept is not run:
                size = run.weight - (kept.weight if kept is not None else 0)
                records = run.count - (kept.count if kept is not None else 0)
                self.bytes -= size
                self.tally.bytes -= size
                excess -= size
                lost += records
                self._note(run.room, records)
                if kept is None:
                    self.lost(run)
                else:
                    self.cut(run, kept)
        self.dropped += lost
        self.gap += lost
        return lost

    def _note(self, room: bytes, records: int) -> None:
        rooms = self.dropped_rooms = {} if self.dropped_rooms is None else self.dropped_rooms
        if room in rooms or len(rooms) < ROOMS:
            rooms[room] = rooms.get(room, 0) + records

    def _count_in(self) -> None:
        if self.pending:
            self._settled.extend(self.pending)
            size = sum([run.weight for run in self.pending])
            self.bytes += size
            self.tally.bytes += size
            self.pending.clear()

    def reserve(self, size: int) -> None:
        """So many bytes more, or fewer, are taken up by what may have to be sent again."""
        self.reserved += size
        self.tally.bytes += size

    def take(self, budget: int) -> tuple[list[Run], int, int]:
        """Remove the oldest runs, at least one if any waits, and as many more as `budget` bytes hold.

        :return: the runs, how many records they are and how many bytes.
        """
        size = records = 0
        if self.pending and not self.bytes:
            runs = self.pending
            for place, run in enumerate(runs):
                size += run.weight
                if size > budget and place:
                    size -= run.weight
                    taken = runs[:place]
                    del runs[:place]
                    break
                records += run.count
            else:
                taken = runs[:]
                runs.clear()
        else:
            self._count_in()
            taken = []
            for queue in (self._spared, self._settled):
                while queue and (not taken or size + queue[0].weight <= budget):
                    run = queue.popleft()
                    size += run.weight
                    records += run.count
                    taken.append(run)
                if queue:
                    break
            self.bytes -= size
            self.tally.bytes -= size
        self.taken += records
        return taken, records, size

    def take_all(self) -> list[Run]:
        """Remove everything, for another outbox: it does not count as taken."""
        runs = self._all()
        self._settled.clear()
        self._spared = None
        self.pending.clear()
        self.tally.bytes -= self.bytes
        self.bytes = 0
        return runs

    def clear(self) -> int:
        """Drop everything; how many records that was."""
        runs = self.take_all()
        lost = sum(run.count for run in runs)
        self.dropped += lost
        for run in runs:
            self.lost(run)
        return lost

    def _all(self) -> list[Run]:
        return [*(self._spared or ()), *self._settled, *self.pending]

    # -- for those who want to know what becomes of a run ----------------------------------------------------

    def done(self, runs: list[Run]) -> None:
        """These runs were taken and need no more care: acknowledged, or written where nobody acknowledges."""

    def lost(self, run: Run) -> None:
        """This run was pushed out or dropped."""

    def cut(self, run: Run, rest: Run) -> None:
        """Some records of this run were pushed out, or are done; `rest` is left, in its place."""
