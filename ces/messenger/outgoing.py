"""What the application has sent and the hub has not acknowledged yet.

The run of each `send` carries its Deferred (`ces.messenger.sendable.Sending`). The queue, and its copy on
disk, are those of `ces.uplink.spool.Spool`, which tells this module what becomes of each run.

Owns the Deferreds of those who wait; does not know links. Deferreds fire in a later reactor turn, never while
a link takes records: their callbacks may send again, or close the link.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from ces.link.link import Link
from ces.link.side import Side
from ces.messenger.sendable import Sending
from ces.messenger.waiting import Dropped, Kept, Waiting
from ces.model.wire import Run
from ces.uplink.spool import Spool


class Outgoing:
    """Runs of one record on their way to the hub. A full spool drops the oldest.

    :param limit: limit for the spool in bytes.
    :param folder: directory of the spool on disk; empty for none.
    :param waits: limit for the number of Deferreds that `emptied` has handed out and that wait.
    :param lost: called with the number of dropped records, once per turn.
    """

    def __init__(
        self,
        side: Side[Link],
        limit: int,
        folder: str | os.PathLike[str],
        waits: int,
        lost: Callable[[int], None],
    ) -> None:
        self.spool = Spool(side, limit, "messenger", folder, Sending, self)
        self.queue = self.spool.queue
        self.waiting = 0
        """Bytes that wait or are in flight."""
        self._put = 0
        self.records_left = 0
        """Number of records that have left: done, dropped, or kept on disk."""
        self._clock = side.clock
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

    def open(self) -> None:
        """Use the spool on disk, if there is to be one, and send what it holds.

        :raises ces.uplink.spool_file.SpoolError: when it cannot be used.
        """
        for run in self.spool.open():
            assert isinstance(run, Sending)
            self._count(run)
        self._bound()

    def put(self, run: Sending) -> Deferred[None]:
        """Add a run. Fires when the run is done; fails with `Dropped` or `Kept` when it will not be sent.

        A failure that nobody handles is not logged.
        """
        self.spool.add([run])
        sent = self._count(run)
        self.queue.pending.append(run)
        self._bound()
        return sent

    def _count(self, run: Sending) -> Deferred[None]:
        run.answer = sent = Deferred[None]()
        self._put += 1
        self.waiting += run.weight
        return sent

    def _bound(self) -> None:
        if self.waiting > self.queue.limit:
            self.queue.settle()

    def emptied(self) -> Deferred[None]:
        """Fires when every record added so far has left.

        :raises TooManyWaiting: when the limit of waiting Deferreds is reached.
        """
        if not self.records:
            return succeed(None)
        return self._emptied.wait(self._put)

    def done(self, runs: list[Run]) -> None:
        """The hub has acknowledged these runs (`ces.session.queue.Watcher`)."""
        for run in runs:
            self._leave(run, self._handed)

    def evicted(self, run: Run) -> None:
        """The spool was full."""
        self._leave(run, self._gone)

    def cut(self, run: Run, rest: Run) -> None:
        """A run here has one record, and is not cut."""

    def close(self) -> None:
        """Empty the spool at once: each event stays on disk, or is dropped when there is none."""
        left = self.queue.take_all()
        lost = set(self.spool.close(left))
        for run in left:
            if run in lost:
                self.queue.dropped += 1
                self._leave(run, self._gone)
            else:
                self._leave(run, self._kept)
        if self._call is not None:
            self._call.cancel()
            self._tell()

    def _leave(self, run: Run, to: list[Deferred[None]]) -> None:
        """Count a record that has left, and add its Deferred to the list of its outcome."""
        assert isinstance(run, Sending)
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
