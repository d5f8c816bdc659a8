"""What was sent and has not been handed to a link yet.

An outbox that outlives links. Each send has a Deferred, and records leave in the order in which they came,
whichever way they leave; so the Deferreds stand in a queue beside the records, and nothing needs to say which
belongs to which.

Owns what waits and who waits for it; does not know links. Deferreds fire in a turn of their own, never while
a link takes records: what they lead to may well be another send or the end of the link.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from ces.messenger.waiting import Dropped, Waiting
from ces.model.outbox import Outbox
from ces.model.wire import Run


class Spool(Outbox):
    """Runs of one record, at most `limit` bytes of them at any time; what does not fit pushes out the oldest.

    :param limit: bytes of records.
    :param waits: how many `emptied` may wait at a time.
    :param clock: calls back when a turn has ended.
    :param lost: told how many records were dropped, once per turn.
    """

    __slots__ = ("_call", "_clock", "_emptied", "_gone", "_handed", "_lost", "_sends", "waiting")

    def __init__(self, limit: int, waits: int, clock: IReactorTime, lost: Callable[[int], None]) -> None:
        super().__init__(limit)
        self.waiting = 0
        """Bytes that wait."""
        self._clock = clock
        self._lost = lost
        self._sends: deque[Deferred[None]] = deque()
        self._handed: list[Deferred[None]] = []
        self._gone: list[Deferred[None]] = []
        self._emptied: Waiting[None, int] = Waiting(waits)
        self._call: IDelayedCall | None = None

    @property
    def records(self) -> int:
        """How many records wait."""
        return len(self._sends)

    def put(self, run: Run) -> Deferred[None]:
        """Let a run of one record wait; fires when a link has taken it, fails with `Dropped` when none will.

        The failure of a Deferred that nobody looks at is not logged as unhandled.
        """
        sent: Deferred[None] = Deferred()
        self.pending.append(run)
        self._sends.append(sent)
        self.waiting += run.size
        if self.waiting > self.limit:
            self.settle()
        return sent

    def emptied(self) -> Deferred[None]:
        """Fires when all that has been put so far waits no more, handed over or dropped.

        :raises TooManyWaiting: when too many wait for it.
        """
        if not self._sends:
            return succeed(None)
        return self._emptied.wait(self.taken + self.dropped + len(self._sends))

    def settle(self) -> int:
        lost = super().settle()
        self.waiting = self.bytes
        self._leave(lost, self._gone)
        return lost

    def take(self, budget: int) -> list[Run]:
        runs = super().take(budget)
        self.waiting -= sum([run.size for run in runs])
        self._leave(len(runs), self._handed)
        return runs

    def clear(self) -> int:
        lost = super().clear()
        self.waiting = 0
        self._leave(lost, self._gone)
        return lost

    def close(self) -> None:
        """Drop what waits and tell everyone at once."""
        self.clear()
        if self._call is not None:
            self._call.cancel()
            self._tell()

    def _leave(self, count: int, to: list[Deferred[None]]) -> None:
        """The oldest `count` records have left, in the way that `to` stands for."""
        if not count:
            return
        to += [self._sends.popleft() for _ in range(count)]
        if self._call is None:
            self._call = self._clock.callLater(0, self._tell)

    def _tell(self) -> None:
        self._call = None
        handed, self._handed = self._handed, []
        gone, self._gone = self._gone, []
        if gone:
            self._lost(len(gone))
        for sent in gone:
            fail_unless_ignored(sent, Dropped("the event was dropped before it could be sent"))
        for sent in handed:
            sent.callback(None)
        left = self.taken + self.dropped
        while self._emptied and self._emptied.first() <= left:
            self._emptied.pop().callback(None)


def fail_unless_ignored(deferred: Deferred[None], error: Exception) -> None:
    """Fire with an error that whoever looks gets, now or later, and that nobody hears of who does not."""
    failure = Failure(error)
    deferred.errback(failure)
    if deferred.result is failure:
        # To read the result, as `await` does, is Twisted's way of saying that the failure has been seen.
        with suppress(type(error)):
            next(iter(deferred))
