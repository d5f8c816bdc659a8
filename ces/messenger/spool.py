"""What was sent and is not the hub's responsibility yet.

An outbox that outlives links. Each send has a Deferred, which its run bears
(`ces.messenger.sendable.Sending`). With a file (`ces.uplink.spool_file`) it outlives the process, too.

Owns what waits and who waits for it; does not know links. Deferreds fire in a turn of their own, never while
a link takes records: what they lead to may well be another send or the end of the link.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from ces.messenger.sendable import Sending
from ces.messenger.waiting import Dropped, Kept, Waiting
from ces.model.wire import Run
from ces.session.outbox import Outbox
from ces.uplink.spool_file import SpoolFile


class Spool(Outbox):
    """Runs of one record, at most `limit` bytes of them at any time; what does not fit pushes out the oldest.

    :param limit: bytes of records.
    :param waits: how many `emptied` may wait at a time.
    :param clock: calls back when a turn has ended.
    :param lost: told how many records were dropped, once per turn.
    """

    __slots__ = (
        "_call",
        "_clock",
        "_emptied",
        "_gone",
        "_handed",
        "_kept",
        "_lost",
        "_put",
        "file",
        "records_left",
        "waiting",
    )

    hears = True

    def __init__(self, limit: int, waits: int, clock: IReactorTime, lost: Callable[[int], None]) -> None:
        super().__init__(limit)
        self.waiting = 0
        """Bytes that wait or are not acknowledged."""
        self._put = 0
        self.records_left = 0
        """Records that have left: done, dropped, or kept in a file."""
        self.file: SpoolFile | None = None
        """Where what waits is kept as well."""
        self._clock = clock
        self._lost = lost
        self._handed: list[Deferred[None]] = []
        self._gone: list[Deferred[None]] = []
        self._kept: list[Deferred[None]] = []
        self._emptied: Waiting[None, int] = Waiting(waits)
        self._call: IDelayedCall | None = None

    @property
    def records(self) -> int:
        """How many records wait or are not acknowledged."""
        return self._put - self.records_left

    def put(self, run: Sending) -> Deferred[None]:
        """Let a run wait; fires when it is done, fails with `Dropped` when it never will be.

        The failure of a Deferred that nobody looks at is not logged as unhandled.
        """
        if self.file is not None:
            self.file.add([run])
        return self._wait(run)

    def restore(self, file: SpoolFile) -> int:
        """Use this file from now on, and let wait what it holds; how many records that is.

        :raises ces.uplink.spool_file.SpoolError: when it cannot be read.
        """
        found = file.load(Sending)
        self.file = file
        for run in found:
            self._wait(run)
        return len(found)

    def _wait(self, run: Sending) -> Deferred[None]:
        run.answer = sent = Deferred[None]()
        self._put += 1
        self.pending.append(run)
        self.waiting += run.weight
        if self.waiting > self.limit:
            self.settle()
        return sent

    def emptied(self) -> Deferred[None]:
        """Fires when as many records as have been put so far have left.

        :raises TooManyWaiting: when too many wait for it.
        """
        if not self.records:
            return succeed(None)
        return self._emptied.wait(self._put)

    def done(self, runs: list[Run]) -> None:
        for run in runs:
            self._leave(run, self._handed)

    def lost(self, run: Run) -> None:
        self._leave(run, self._gone)

    def close(self, unacknowledged: list[Run]) -> int:
        """Drop what waits and what was sent in vain, or leave it in the file, and tell everyone at once.

        :return: how many records the file keeps.
        """
        left = unacknowledged + self.take_all()
        file, self.file = self.file, None
        lost = set(left if file is None else file.close())
        for run in left:
            if run in lost:
                self.dropped += 1
                self.lost(run)
            else:
                self._leave(run, self._kept)
        if self._call is not None:
            self._call.cancel()
            self._tell()
        return len(left) - len(lost)

    def _leave(self, run: Run, to: list[Deferred[None]]) -> None:
        """A record has left, in the way that `to` stands for."""
        assert isinstance(run, Sending)
        if self.file is not None:
            self.file.remove([run])
        self.records_left += 1
        self.waiting -= run.weight
        to.append(run.answer)
        if self._call is None:
            self._call = self._clock.callLater(0, self._tell)

    def _tell(self) -> None:
        self._call = None
        handed, self._handed = self._handed, []
        gone, self._gone = self._gone, []
        kept, self._kept = self._kept, []
        if gone:
            self._lost(len(gone))
        for sent in gone:
            fail_unless_ignored(sent, Dropped("the event was dropped before it could be sent"))
        for sent in kept:
            fail_unless_ignored(sent, Kept("the messenger was closed; the event is kept on disk"))
        for sent in handed:
            sent.callback(None)
        while self._emptied and self._emptied.first() <= self.records_left:
            self._emptied.pop().callback(None)


def fail_unless_ignored(deferred: Deferred[None], error: Exception) -> None:
    """Fire with an error that whoever looks gets, now or later, and that nobody hears of who does not."""
    failure = Failure(error)
    deferred.errback(failure)
    if deferred.result is failure:
        # To read the result, as `await` does, is Twisted's way of saying that the failure has been seen.
        with suppress(type(error)):
            next(iter(deferred))
