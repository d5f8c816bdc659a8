"""The send queue of a link: what waits, what is in flight, what is to be retransmitted, and the gap.

Pure. Owns the order in which records are sent and the bound on all of it; does not know how they are written
or to whom. The way of a run::

    pending -> settled -> take() -> in flight -> acknowledge() -> done
                 |                     |
              evicted                resume(), restart() -> retransmit -> take() again

Routing appends runs to `pending`: one list append is the whole cost of a delivery until the batch is written.
`settle` enforces the bound; the owner calls it at least once per reactor turn, so a queue exceeds its limit
by at most what one turn brings in.

Invariants, which each method keeps::

    acknowledged <= sent
    in flight  = records acknowledged + 1 .. sent, in order
    retransmit = what a cut connection may have lost, in order; sent before everything that waits
    in flight and retransmit take up at most half the limit (one batch more when a batch is larger than that)

Records have no numbers on the wire: both sides count them, from 1, in each session (docs/protocol.md section
5). A queue that is not `numbered` (ces.1) keeps nothing: what is taken counts as done at once.

When too much waits, the oldest is evicted, records with priority last. Evicted records are counted, and `gap`
says how many of them the other side has not been told of.

Cost: one tuple for each batch written, one comparison for each acknowledgement and batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

import ces
from ces.model.patterns import Rooms
from ces.model.wire import Run

Priority = Callable[[Run], Run | None]
"""Of a run that is about to be evicted, the records that outlive the others: the run itself, a run with some
of its records, or None.
"""

Batch = tuple[int, int, int, list[Run]]
"""(records, bytes, gap in front of them, the runs)"""

NOTHING: tuple[int, list[Run]] = (0, [])

BARE = 32
"""At most this many gaps are in flight with nothing behind them. Further ones wait for the next record."""

ROOMS = 32
"""A queue counts evicted records by room for at most this many rooms."""

HIGH_WATER, LOW_WATER = 8, 32
"""A queue is congested when 1/`HIGH_WATER` of its limit waits, drained when at most 1/`LOW_WATER` does."""


class OutOfStep(ces.Error, ValueError):
    """The other side claims to have received what was not sent, or less than it had acknowledged."""


class Watcher(Protocol):
    """Is told what becomes of each run of a queue: a spool on disk, an application that waits for it."""

    def done(self, runs: list[Run]) -> None:
        """These runs need no more care: acknowledged, or written where nobody acknowledges."""

    def evicted(self, run: Run) -> None:
        """This run was dropped."""

    def cut(self, run: Run, rest: Run) -> None:
        """Some records of this run were dropped or are done; `rest` is left, in its place."""


class Tally:
    """The bytes of all queues that share it, in `bytes`. `pending` is counted once it is settled."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes = 0


class SendQueue:
    """Runs for one link, at most `limit` bytes of them from one turn to the next.

    :param limit: bytes of records.
    :param priority: which records are evicted last.
    :param tally: counts the bytes of this queue among those of others.
    :param watcher: is told what becomes of each run.
    """

    __slots__ = (
        "_bare",
        "_gaps",
        "_in_flight",
        "_preferred",
        "_settled",
        "_watcher",
        "acknowledged",
        "dropped",
        "dropped_rooms",
        "gap",
        "in_flight_bytes",
        "limit",
        "numbered",
        "pending",
        "priority",
        "retransmit",
        "sent",
        "settled_bytes",
        "taken",
        "tally",
    )

    def __init__(
        self,
        limit: int,
        priority: Priority | None = None,
        tally: Tally | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self.limit = limit
        self.priority = priority
        self.tally = tally or Tally()
        self._watcher = watcher
        self.pending: list[Run] = []
        self._settled: deque[Run] | None = None
        self._preferred: deque[Run] | None = None
        self.settled_bytes = 0
        """Bytes of what is settled; 0 only when nothing is, since every record weighs something."""
        self.numbered = False
        self.sent = 0
        self.acknowledged = 0
        self._in_flight: deque[tuple[int, Batch]] = deque()  # each with the number of its last record
        self.retransmit: list[Batch] = []  # the next one last
        self.in_flight_bytes = 0
        """Bytes of what is in flight or to be retransmitted."""
        self._gaps = 0
        """Gaps that the other side was surely told of in this session."""
        self._bare = 0
        """Gaps that were sent last, with nothing behind them."""
        self.gap = 0
        """Records evicted that the other side has not been told of."""
        self.dropped = 0
        """Records evicted so far."""
        self.dropped_rooms: dict[bytes, int] | None = None
        """How many of them were for which room, for the first `ROOMS` rooms."""
        self.taken = 0
        """Records taken for the first time so far."""

    # -- what it holds ---------------------------------------------------------------------------------------

    @property
    def waits(self) -> bool:
        """Whether anything is to be sent."""
        return bool(self.pending or self.settled_bytes or self.retransmit or self.gap)

    @property
    def unsent(self) -> bool:
        """Whether any record waits that was never sent."""
        return bool(self.pending or self.settled_bytes)

    @property
    def shut(self) -> bool:
        """Whether what is in flight fills its half of the limit: nothing more may be sent for now."""
        return self.numbered and 2 * self.in_flight_bytes >= self.limit and not self.retransmit

    @property
    def congested(self) -> bool:
        """Whether more waits than the high water mark."""
        return HIGH_WATER * self.settled_bytes >= self.limit

    @property
    def drained(self) -> bool:
        """Whether at most as much waits as the low water mark."""
        return LOW_WATER * self.settled_bytes <= self.limit

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait and were never sent."""
        return self.settled_bytes + sum([run.weight for run in self.pending])

    @property
    def size(self) -> int:
        """Bytes that wait, are in flight, or are to be retransmitted."""
        return self.waiting_bytes + self.in_flight_bytes

    @property
    def records(self) -> int:
        """How many records wait and were never sent."""
        return sum(run.count for run in self._waiting())

    @property
    def unacknowledged(self) -> int:
        """Records in flight or to be retransmitted."""
        return self.sent - self.acknowledged + sum(records for records, _, _, _ in self.retransmit)

    @property
    def latest(self) -> Batch | None:
        """What was taken last, if it is in flight."""
        return self._in_flight[-1][1] if self._in_flight else None

    # -- the bound -------------------------------------------------------------------------------------------

    def settle(self) -> int:
        """Count in what was appended to `pending`, and evict what exceeds the limit.

        :return: how many records were evicted, for the caller to report.
        """
        self._count_in()
        return self.evict(self.settled_bytes + self.in_flight_bytes - self.limit)

    def evict(self, excess: int) -> int:
        """Evict the oldest of what waits, until `excess` bytes are gone; records with priority last.

        :return: how many records were evicted.
        """
        lost = 0
        while excess > 0 and (self._settled or self._preferred):
            if self._settled:
                run = self._settled.popleft()
                kept = None if self.priority is None else self.priority(run)
                if kept is not None:
                    self._preferred = self._preferred or deque()
                    self._preferred.append(kept)
            else:
                assert self._preferred
                run, kept = self._preferred.popleft(), None
            if kept is not run:
                size = run.weight - (kept.weight if kept is not None else 0)
                records = run.count - (kept.count if kept is not None else 0)
                self.settled_bytes -= size
                self.tally.bytes -= size
                excess -= size
                lost += records
                self._note(run, kept)
                if self._watcher is not None:
                    if kept is None:
                        self._watcher.evicted(run)
                    else:
                        self._watcher.cut(run, kept)
        self.dropped += lost
        self.gap += lost
        return lost

    def discard(self, may: Rooms) -> int:
        """Discard what waits for rooms that are not in `may`. No gap is announced: the other side is to know
        nothing of them. What is in flight stays until `resume` or `restart`: then call this again.

        :return: how many records were discarded, for the caller to report.
        """
        before = self.dropped
        self.pending[:] = self._within(self.pending, may)
        settled = 0
        for queue in (self._settled, self._preferred):
            if queue:
                stay = self._within(queue, may)
                queue.clear()
                queue.extend(stay)
                settled += sum([run.weight for run in stay])
        self.tally.bytes += settled - self.settled_bytes
        self.settled_bytes = settled
        batches, self.retransmit = self.retransmit, []
        for _, size, gap, runs in batches:
            stay = self._within(runs, may)
            left = sum([run.weight for run in stay])
            self._release(size - left)
            if gap or stay:
                self.retransmit.append((sum([run.count for run in stay]), left, gap, stay))
        return self.dropped - before

    def _within(self, runs: Iterable[Run], may: Rooms) -> list[Run]:
        stay: list[Run] = []
        for run in runs:
            parts = run.apart()
            if all(part.room in may for part in parts):
                stay.append(run)
                continue
            for part in parts:
                if part.room in may:
                    stay.append(part)
                else:
                    self.dropped += part.count
                    self._note(part, None)
        return stay

    def _note(self, run: Run, kept: Run | None) -> None:
        rooms = self.dropped_rooms = {} if self.dropped_rooms is None else self.dropped_rooms
        stay = {} if kept is None else kept.by_room()
        for room, records in run.by_room().items():
            if room in rooms or len(rooms) < ROOMS:
                rooms[room] = rooms.get(room, 0) + records - stay.get(room, 0)

    def _count_in(self) -> None:
        if self.pending:
            if self._settled is None:
                self._settled = deque()
            self._settled.extend(self.pending)
            size = sum([run.weight for run in self.pending])
            self.settled_bytes += size
            self.tally.bytes += size
            self.pending.clear()

    # -- what is sent ----------------------------------------------------------------------------------------

    def take(self, budget: int) -> tuple[int, list[Run]]:
        """What is to be sent next: the gap to announce, and the runs that follow it.

        :param budget: bytes; at least one run is taken if any may be sent.
        """
        if self.retransmit:
            batch = records, size, gap, runs = self.retransmit.pop()
            self._release(size)
        elif not self.numbered:
            gap, self.gap = self.gap, 0
            runs, records, size = self._take(budget)
            batch = records, size, gap, runs
        else:
            room = (self.limit >> 1) - self.in_flight_bytes
            if room <= 0 or (self._bare >= BARE and not self.unsent):
                return NOTHING
            gap, self.gap = self.gap, 0
            runs, records, size = self._take(budget if budget < room else room)
            batch = records, size, gap, runs
        self.sent += records
        if not self.numbered:
            self.acknowledged = self.sent
            if self._watcher is not None:
                self._watcher.done(runs)
        elif records:
            self._bare = 0
            self._keep(batch)
        elif gap:
            self._bare += 1
            self._keep(batch)
        return gap, runs

    def take_as(self, batch: Batch) -> bool:
        """Take the batch that another queue has taken, if exactly that is to be sent next: both share it.

        :param batch: without a gap. :return: whether it was taken.
        """
        records, size, _, runs = batch
        if self.pending != runs or self.settled_bytes or self.gap or self.retransmit or not self.numbered:
            return False
        if 2 * (self.in_flight_bytes + size) > self.limit:
            return False
        self.pending.clear()
        self.taken += records
        self.sent += records
        self._bare = 0
        self._keep(batch)
        return True

    def _keep(self, batch: Batch) -> None:
        self._in_flight.append((self.sent, batch))
        self.in_flight_bytes += batch[1]
        self.tally.bytes += batch[1]

    def _release(self, size: int) -> None:
        self.in_flight_bytes -= size
        self.tally.bytes -= size

    def _take(self, budget: int) -> tuple[list[Run], int, int]:
        """Remove the oldest runs that wait, at least one if any does, and as many more as `budget` holds.

        :return: the runs, how many records they are and how many bytes.
        """
        size = records = 0
        if self.pending and not self.settled_bytes:
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
            for queue in (self._preferred, self._settled):
                while queue and (not taken or size + queue[0].weight <= budget):
                    run = queue.popleft()
                    size += run.weight
                    records += run.count
                    taken.append(run)
                if queue:
                    break
            self.settled_bytes -= size
            self.tally.bytes -= size
        self.taken += records
        return taken, records, size

    # -- what the other side says ----------------------------------------------------------------------------

    def acknowledge(self, number: int) -> None:
        """The other side has taken responsibility for the first `number` records.

        :raises OutOfStep: when that cannot be.
        """
        if not self.acknowledged <= number <= self.sent:
            raise self._out_of_step(number)
        self.acknowledged = number
        in_flight = self._in_flight
        freed = 0
        while in_flight and in_flight[0][0] <= number:
            batch = in_flight[0][1]
            if not batch[3] and in_flight[0][0] == number:
                break  # a gap with nothing behind it: the other side may have said this before it came
            in_flight.popleft()
            if batch[2]:
                self._gaps += 1
            freed += batch[1]
            if self._watcher is not None:
                self._watcher.done(batch[3])
        if freed:
            self.in_flight_bytes -= freed
            self.tally.bytes -= freed

    def resume(self, received: int, gaps: int | None = None) -> None:
        """The connection was cut. The other side had `received` records: the rest is retransmitted.

        :param gaps: how many gaps it was told of in this session. None when it does not say: then one that
            may not have arrived is announced again.
        :raises OutOfStep: when that cannot be.
        """
        if not self.acknowledged <= received <= self.sent:
            raise self._out_of_step(received)
        announced = self._gaps + sum(1 for _, batch in self._in_flight if batch[2])
        if gaps is not None and not self._gaps <= gaps <= announced:
            raise OutOfStep(f"{gaps} is not between {self._gaps} and {announced} gaps announced")
        self.acknowledge(received)
        if gaps is not None:
            self._told(gaps)
        self._rewind()
        self.sent = received

    def _told(self, gaps: int) -> None:
        """The other side was told of the first `gaps` gaps: they are not announced again."""
        for place, (end, (records, size, gap, runs)) in enumerate(self._in_flight):
            if self._gaps >= gaps:
                return
            if gap:
                self._gaps += 1
                self._in_flight[place] = (end, (records, size, 0, runs))

    def restart(self, numbered: bool) -> None:
        """A new session begins: what the other side did not acknowledge in the old one is retransmitted.

        :param numbered: whether the other side acknowledges in it.
        """
        self._rewind()
        self.numbered = numbered
        self.sent = self.acknowledged = self._gaps = 0

    def delivered(self) -> None:
        """All that was sent has arrived: the connection was closed in good order and read to its end."""
        self.acknowledge(self.sent)
        self._gaps += sum(1 for _, batch in self._in_flight if batch[2])
        self._in_flight.clear()

    def _rewind(self) -> None:
        """What is not acknowledged is to be retransmitted."""
        self._bare = 0
        if self._in_flight:
            end, (records, size, _, runs) = self._in_flight[0]
            received = records - (end - self.acknowledged)
            if received > 0:
                received_runs, rest = _split(runs, received)
                left = sum(run.weight for run in rest)
                self._release(size - left)
                self._in_flight[0] = (end, (records - received, left, 0, rest))
                if self._watcher is not None:
                    self._watcher.done(received_runs)
                    split = runs[len(received_runs)]
                    if rest[0] is not split:
                        self._watcher.cut(split, rest[0])
        self.retransmit += [batch for _, batch in reversed(self._in_flight) if batch[2] or batch[3]]
        self._in_flight.clear()

    def _out_of_step(self, number: int) -> OutOfStep:
        return OutOfStep(
            f"{number} is not between {self.acknowledged} acknowledged and {self.sent} sent records"
        )

    # -- for another queue -----------------------------------------------------------------------------------

    def take_all(self) -> list[Run]:
        """Remove everything, in order, for another queue: it does not count as taken or dropped."""
        self.resume(self.acknowledged)
        batches = self.retransmit[::-1]
        self.retransmit.clear()
        self._release(self.in_flight_bytes)
        runs = [run for batch in batches for run in batch[3]] + self._waiting()
        self._settled = self._preferred = None
        self.pending.clear()
        self.tally.bytes -= self.settled_bytes
        self.settled_bytes = 0
        return runs

    def _waiting(self) -> list[Run]:
        return [*(self._preferred or ()), *(self._settled or ()), *self.pending]


def _split(runs: list[Run], records: int) -> tuple[list[Run], list[Run]]:
    """The runs that hold the first `records` records, and the rest."""
    for place, run in enumerate(runs):
        if records < run.count:
            rest = runs[place:]
            if records:
                rest[0] = run.without_first(records)
            return runs[:place], rest
        records -= run.count
    return runs, []
