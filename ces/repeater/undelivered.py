"""The dead letters (``/undelivered``): records that targets did not get, kept to be read and sent again.

The queue is limited in bytes and evicts its oldest entries. Does not know targets, clocks or the log. Each
record leaves in one of three ways, and each way is counted: it is retried, removed on request, or lost.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ces.model.wire import Run

ENTRY_BYTES = 256
"""Bytes that an entry counts for in the limit, in addition to its texts."""

WHY = 200
"""Limit of a reason's length, in characters. A target's own error text may be of any length."""


class Entry(NamedTuple):
    """Records that a target did not get, all for one room.

    target: the target's URL.
    batch: strictly written records, back to back. At most `ces.model.wire.BATCH_BYTES` long, unless it is a
        single record.
    records: the number of records.
    when: when they became undelivered, in seconds since 1970.
    why: the reason.
    """

    target: str
    room: bytes
    batch: bytes
    records: int
    when: float
    why: str

    @property
    def run(self) -> Run:
        """The records as a run."""
        return Run(self.room, [self.batch], self.records)

    @property
    def size(self) -> int:
        """Bytes that the entry counts for in the limit."""
        return len(self.room) + len(self.batch) + len(self.why) + ENTRY_BYTES


class Undelivered:
    """A queue of entries.

    :param limit: limit in bytes; 0 keeps no entries.

    bytes: current size, as it counts towards the limit.
    records: current number of records.
    retried: records that have left to be sent again.
    removed: records that have been removed on request.
    lost: records that did not fit or were evicted, and those that were left at shutdown.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = self.records = 0
        self.retried = self.removed = self.lost = 0
        self._entries: deque[Entry] = deque()
        self._records_of: Counter[str] = Counter()

    def put(self, target: str, run: Run, why: str, now: float) -> int:
        """Add a run that a target did not get.

        :param target: the target's URL.
        :param why: the reason.
        :param now: seconds since 1970.
        :return: the number of records that were lost. An entry above the limit is lost and evicts no other.
        """
        lost = 0
        one_each = run.count == len(run.parts)
        for part in run.parts:
            count = 1 if one_each else part.count(b"\n") // 2
            entry = Entry(target, run.room, part, count, now, why[:WHY])
            if entry.size > self.limit:
                lost += count
                continue
            self._entries.append(entry)
            self.bytes += entry.size
            self.records += count
            self._records_of[target] += count
            while self.bytes > self.limit:
                lost += self._count_out(self._entries.popleft())
        self.lost += lost
        return lost

    def take(self, wanted: Callable[[Entry], bool]) -> list[Entry]:
        """Remove entries to send them again, oldest first.

        :param wanted: called once for each entry, in order; whether to remove it.
        """
        taken = self._remove(wanted)
        self.retried += sum(entry.records for entry in taken)
        return taken

    def remove(self, target: str | None = None) -> int:
        """Remove the entries of one target, or of all. Returns the number of records."""
        removed = sum(entry.records for entry in self._remove(lambda entry: target in (None, entry.target)))
        self.removed += removed
        return removed

    def give_up(self) -> int:
        """Count all records as lost and remove them, at shutdown. Returns their number."""
        lost = self.records
        self._entries.clear()
        self._records_of.clear()
        self.bytes = self.records = 0
        self.lost += lost
        return lost

    def newest(self, target: str | None = None) -> Iterator[tuple[Entry, bytes]]:
        """The events of one target, or of all, newest first, each with its entry."""
        for entry in reversed(self._entries):
            if target in (None, entry.target):
                for event in reversed(entry.run.events):
                    yield entry, event

    def by_target(self) -> dict[str, int]:
        """The number of records for each target that has any."""
        return dict(self._records_of)

    def status(self) -> dict[str, int]:
        """The state as ``/status`` shows it. `buffer-utilization` and `buffer-capacity` are in bytes."""
        return {
            "records": self.records,
            "buffer-utilization": self.bytes,
            "buffer-capacity": self.limit,
            "retried": self.retried,
            "removed": self.removed,
            "lost": self.lost,
        }

    def _remove(self, wanted: Callable[[Entry], bool]) -> list[Entry]:
        entries, self._entries = self._entries, deque()
        removed = []
        for entry in entries:
            if wanted(entry):
                self._count_out(entry)
                removed.append(entry)
            else:
                self._entries.append(entry)
        return removed

    def _count_out(self, entry: Entry) -> int:
        self.bytes -= entry.size
        self.records -= entry.records
        self._records_of[entry.target] -= entry.records
        if not self._records_of[entry.target]:
            del self._records_of[entry.target]
        return entry.records
