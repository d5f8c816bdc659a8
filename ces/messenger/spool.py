"""The spool: events that the application has sent and that the hub has not acknowledged yet.

An outbox that outlives links. The run of each `send` carries its Deferred (`ces.messenger.sendable.Sending`).
With a file (`ces.uplink.spool_file`) the spool outlives the process, too.

Owns the events that wait and the Deferreds of those who wait for them; does not know links. Deferreds fire in
a later reactor turn, never while a link takes records: their callbacks may send again, or close the link.
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
    """Runs of one record. A full spool drops the oldest.

    :param limit: limit in bytes.
    :param waits: limit for the number of Deferreds that `emptied` has handed out and that wait.
    :param clock: schedules a call after the reactor turn.
    :param lost: called with the number of dropped records, once per turn.
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
        """Bytes that wait or are in flight."""
        self._put = 0
        self.records_left = 0
        """Number of records that have left: done, dropped, or kept in a file."""
        self.file: SpoolFile | None = None
        """Holds the same events on disk; None without a spool directory."""
        self._clock = clock
        self._lost = lost
        self._handed: list[Deferred[None]] = []
        self._gone: list[Deferred[None]] = []
        self._kept: list[Deferred[None]] = []
        self._emptied: Waiting[None, int] = Waiting(waits)
        self._call: IDelayedCall | None = None

    @property
    def records(self) -> int:
        """Number of records that wait or are in flight."""
        return self._put - self.records_left

    def put(self, run: Sending) -> Deferred[None]:
        """Add a run. Fires when the run is done; fails with `Dropped` or `Kept` when it will not be sent.

        A failure that nobody handles is not logged.
        """
        if self.file is not None:
            self.file.add([run])
        return self._wait(run)

    def restore(self, file: SpoolFile) -> int:
        """Use this file from now on, and add the runs in it. Return the number of its records.

        :raises ces.uplink.spool_file.SpoolError: when the file cannot be read.
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
        """Fires when every record added so far has left.

        :raises TooManyWaiting: when the limit of waiting Deferreds is reached.
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
        """Empty the spool at once: each event stays in the file, or is dropped when there is none.

        :param unacknowledged: the runs in flight.
        :return: number of records that stay in the file.
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
        """Count a record that has left, and add its Deferred to the list of its outcome."""
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
    """Fail a Deferred. Its failure is not logged as unhandled when nobody handles it."""
    failure = Failure(error)
    deferred.errback(failure)
    if deferred.result is failure:
        # Twisted counts a failure as handled when the result has been read, as `await` does.
        with suppress(type(error)):
            next(iter(deferred))
