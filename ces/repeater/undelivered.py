"""What targets did not get, kept to be read and sent again: bounded in bytes, the oldest pushed out.

Owns the order in which events were given up; does not know targets, clocks or the log. Each record that comes
in leaves in one of three ways, each of which is counted: it is taken to be sent again, removed by whoever
reads the list, or lost.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ces.model.wire import Run

ENTRY_BYTES = 256
"""What an entry takes up beside its texts, as it counts towards the bound."""

WHY = 200
"""A reason is kept up to so many characters: what a target says of itself has no other bound."""


class Entry(NamedTuple):
    """Records that a target did not get, given up together.

    target: its URL.
    batch: the records, strictly written, back to back: no more than `ces.model.wire.BATCH_BYTES` unless it is
        one alone.
    records: how many that is.
    when: seconds since 1970.
    why: a reason.
    """

    target: str
    room: bytes
    batch: bytes
    records: int
    when: float
    why: str

    @property
    def run(self) -> Run:
        """The records as they were routed."""
        return Run(self.room, [self.batch], self.records)

    @property
    def size(self) -> int:
        """Bytes, as they count towards the bound."""
        return len(self.room) + len(self.batch) + len(self.why) + ENTRY_BYTES


class Undelivered:
    """Entries in the order in which they came, at most `limit` bytes of them; 0 keeps none.

    bytes: how much is kept, as it counts towards the limit.
    records: how many records are kept.
    retried: records taken so far, to be sent again.
    removed: records removed so far.
    lost: records that there was no place for so far, or that were left in the end.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = self.records = 0
        self.retried = self.removed = self.lost = 0
        self._entries: deque[Entry] = deque()

    def put(self, target: str, run: Run, why: str, now: float) -> int:
        """Keep what a target did not get.

        :param now: seconds since 1970.
        :return: how many records were lost. What is larger than the limit is, and pushes out no other.
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
            while self.bytes > self.limit:
                lost += self._count_out(self._entries.popleft())
        self.lost += lost
        return lost

    def take(self, wanted: Callable[[Entry], bool]) -> list[Entry]:
        """Remove entries to send them again, oldest first.

        :param wanted: asked of each entry in order, once.
        """
        taken = self._remove(wanted)
        self.retried += sum(entry.records for entry in taken)
        return taken

    def remove(self, target: str | None = None) -> int:
        """Forget what is kept, of one target or of all; how many records that was."""
        gone = sum(entry.records for entry in self._remove(lambda entry: target in (None, entry.target)))
        self.removed += gone
        return gone

    def give_up(self) -> int:
        """Nobody will read or send it any more; how many records that was."""
        gone = self.records
        self._entries.clear()
        self.bytes = self.records = 0
        self.lost += gone
        return gone

    def newest(self, target: str | None = None) -> Iterator[tuple[Entry, bytes]]:
        """Each event with the entry that it is in, the youngest first, of one target or of all."""
        for entry in reversed(self._entries):
            if target in (None, entry.target):
                for event in reversed(entry.run.events):
                    yield entry, event

    def by_target(self) -> dict[str, int]:
        """How many records are kept, of each target that there are any of."""
        counts: Counter[str] = Counter()
        for entry in self._entries:
            counts[entry.target] += entry.records
        return dict(counts)

    def status(self) -> dict[str, int]:
        """What ``/status`` says of it; `buffer-utilization` and `buffer-capacity` are in bytes."""
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
        gone = []
        for entry in entries:
            if wanted(entry):
                self._count_out(entry)
                gone.append(entry)
            else:
                self._entries.append(entry)
        return gone

    def _count_out(self, entry: Entry) -> int:
        self.bytes -= entry.size
        self.records -= entry.records
        return entry.records
