"""One side of a session: what was sent and what was received, acknowledged, sent again (docs/protocol.md
section 5).

Owns the counts of both directions and what was sent and is not acknowledged; does not know links, clocks or
text. Records have no numbers on the wire: both sides count the records in binary messages, from 1. The
invariants, which each method keeps::

    acknowledged <= sent
    kept   = the records acknowledged + 1 .. sent, in order       (bytes of them: within half the outbox's
    limit) again  = what a cut link may have lost, in order: follows `sent`, and stands before all of the
    outbox

A session without an id keeps nothing: what is taken counts as done at once. That is a ces.1 link.

Cost: one tuple per batch written, one comparison per acknowledgement and batch.
"""

from __future__ import annotations

from collections import deque

import ces
from ces.model.wire import Run
from ces.session.outbox import Outbox

ACK_RECORDS = 256
ACK_BYTES = 256 * 1024
ACK_SECONDS = 0.1
"""An acknowledgement is due after so much, whichever comes first."""

Batch = tuple[int, int, int, list[Run]]
"""(records, bytes, gap in front of them, the runs)"""

NOTHING: tuple[int, list[Run]] = (0, [])


class OutOfStep(ces.Error, ValueError):
    """The other side claims to have received what was not sent, or less than it had acknowledged."""


class Session:
    """What one side knows of a session, its first sending included.

    :param outbox: what has not been sent yet. What is kept counts against its limit.
    """

    __slots__ = (
        "_fresh",
        "_kept",
        "acknowledged",
        "again",
        "id",
        "outbox",
        "received",
        "reported",
        "sent",
    )

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.id = ""
        self.sent = 0
        self.acknowledged = 0
        self.received = 0
        self.reported = 0
        """How much of `received` the other side has been told."""
        self._fresh = 0
        self._kept: deque[tuple[int, Batch]] = deque()  # each with the number of its last record
        self.again: list[Batch] = []  # the next one last

    # -- out -------------------------------------------------------------------------------------------------

    @property
    def kept(self) -> int:
        """Bytes that were sent, or are to be sent again, and are not acknowledged."""
        return self.outbox.reserved

    @property
    def waits(self) -> bool:
        """Whether anything is to be sent."""
        return bool(self.outbox or self.again or self.outbox.gap)

    @property
    def shut(self) -> bool:
        """Whether so much is unacknowledged that nothing more may be sent."""
        return bool(self.id) and 2 * self.outbox.reserved >= self.outbox.limit and not self.again

    @property
    def size(self) -> int:
        """Bytes that wait, are kept, or are to be sent again."""
        return self.outbox.size + self.kept

    @property
    def unacknowledged(self) -> int:
        """Records that were sent, or are to be sent again, and are not acknowledged."""
        return self.sent - self.acknowledged + sum(records for records, _, _, _ in self.again)

    def take(self, budget: int) -> tuple[int, list[Run]]:
        """What is to be sent next: a gap to announce, and the runs that follow it."""
        outbox = self.outbox
        if self.again:
            batch = records, size, gap, runs = self.again.pop()
            outbox.reserve(-size)
        elif not self.id:
            gap, outbox.gap = outbox.gap, 0
            runs, records, size = outbox.take(budget)
        else:
            room = (outbox.limit >> 1) - outbox.reserved
            if room <= 0:
                return NOTHING
            gap, outbox.gap = outbox.gap, 0
            runs, records, size = outbox.take(budget if budget < room else room)
            batch = records, size, gap, runs
        self.sent += records
        if not self.id:
            self.acknowledged = self.sent
            outbox.done(runs)
        elif records:
            self._keep(batch)
        elif gap:
            last = self._kept[-1] if self._kept else None
            if last is not None and last[0] == self.sent and not last[1][3]:
                # Gaps with nothing behind them: nothing else would bound their number.
                self._kept[-1] = (self.sent, (0, 0, last[1][2] + gap, []))
            else:
                self._keep(batch)
        return gap, runs

    @property
    def latest(self) -> Batch | None:
        """What was taken last, if it is kept."""
        return self._kept[-1][1] if self._kept else None

    def take_as(self, batch: Batch) -> bool:
        """Take what another session has taken, if that and nothing else is to be sent next: they share it,
        and what has to be found out about it is known.

        :param batch: without a gap. :return: whether it was taken.
        """
        outbox = self.outbox
        records, size, _, runs = batch
        if outbox.pending != runs or outbox.bytes or outbox.gap or self.again or not self.id:
            return False
        if 2 * (outbox.reserved + size) > outbox.limit:
            return False
        outbox.pending.clear()
        outbox.taken += records
        self.sent += records
        self._keep(batch)
        return True

    def _keep(self, batch: Batch) -> None:
        # Here and in `acknowledge` not `Outbox.reserve`: every write and acknowledgement comes by.
        self._kept.append((self.sent, batch))
        self.outbox.reserved += batch[1]
        self.outbox.tally.bytes += batch[1]

    def acknowledge(self, number: int) -> None:
        """The other side has taken responsibility for the first `number` records.

        :raises OutOfStep: when that cannot be.
        """
        if not self.acknowledged <= number <= self.sent:
            raise OutOfStep(self._out_of_step(number))
        self.acknowledged = number
        kept = self._kept
        outbox = self.outbox
        freed = 0
        while kept and kept[0][0] <= number:
            batch = kept.popleft()[1]
            freed += batch[1]
            if outbox.hears:
                outbox.done(batch[3])
        if freed:
            outbox.reserved -= freed
            outbox.tally.bytes -= freed

    def resume(self, received: int) -> None:
        """The link was cut and the other side had received so many records: the rest is to be sent again.

        :raises OutOfStep: when that cannot be.
        """
        if not self.acknowledged <= received <= self.sent:
            raise OutOfStep(self._out_of_step(received))
        announced = [batch for end, batch in self._kept if end == received and not batch[3]]
        self.acknowledge(received)
        if self._kept:
            end, (records, size, _, runs) = self._kept[0]
            if end - records < received:
                received_runs, rest = _split(runs, records - (end - received))
                left = sum(run.weight for run in rest)
                self.outbox.reserve(left - size)
                self._kept[0] = (end, (end - received, left, 0, rest))
                self.outbox.done(received_runs)
                split = runs[len(received_runs)]
                if rest[0] is not split:
                    self.outbox.cut(split, rest[0])
        self._rewind()
        # A gap with nothing behind it: nobody knows whether it arrived.
        self.again += announced
        self.sent = received
        self.reported = self.received
        self._fresh = 0

    def restart(self, id: str) -> None:
        """A new session, whose other side knows nothing of the old one: what it did not acknowledge is to be
        sent again.

        :param id: "" for a link without sessions.
        """
        self._rewind()
        self.id = id
        self.sent = self.acknowledged = self.received = self.reported = self._fresh = 0

    def _out_of_step(self, number: int) -> str:
        return f"{number} is not between {self.acknowledged} acknowledged and {self.sent} sent records"

    def _rewind(self) -> None:
        self.again += [batch for _, batch in reversed(self._kept)]
        self._kept.clear()

    def delivered(self) -> None:
        """The link was closed in good order, which says that all that was sent has arrived."""
        self.acknowledge(self.sent)

    def take_sent(self) -> list[Run]:
        """Remove what was sent and not acknowledged, in order."""
        runs = [run for _, batch in self._kept for run in batch[3]]
        self.outbox.reserve(-sum([batch[1] for _, batch in self._kept]))
        self._kept.clear()
        self.acknowledged = self.sent
        return runs

    def take_waiting(self) -> list[Run]:
        """Remove what is to be sent, for the first time or again, in order."""
        runs = [run for _, _, _, batch in reversed(self.again) for run in batch]
        self.outbox.reserve(-sum([size for _, size, _, _ in self.again]))
        self.again.clear()
        return runs + self.outbox.take_all()

    def take_all(self) -> list[Run]:
        """Remove everything, in order: for another session."""
        return self.take_sent() + self.take_waiting()

    # -- in --------------------------------------------------------------------------------------------------

    def took(self, records: int, size: int) -> bool:
        """Responsibility was taken for records that came; whether they are to be acknowledged now."""
        self.received += records
        self._fresh += size
        return self.received - self.reported >= ACK_RECORDS or self._fresh >= ACK_BYTES

    @property
    def unreported(self) -> bool:
        """Whether anything that came is to be acknowledged."""
        return self.received != self.reported

    def report(self) -> int:
        """The number to acknowledge, which counts as told from now on."""
        self.reported = self.received
        self._fresh = 0
        return self.received


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
