"""The link to the hub, and what waits for it.

Owns the spool: one outbox that outlives the links, so that what came while the hub was away, and what an
ended link had not written, goes to the next link in order. It is bounded in bytes; what does not fit pushes
out the oldest, which is counted and told. Where a directory is named for it, the spool is on disk as well and
outlives the process.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from ces.link.side import Side
from ces.link.turn import Memo
from ces.model.address import Address
from ces.model.routing import HUB
from ces.model.wire import Run
from ces.session.outbox import Outbox, Spare, Tally
from ces.session.session import Session
from ces.uplink.reconnect import Dialler
from ces.uplink.spool_file import SpoolFile

PATH = "/connect/repeater"

FULL = "the spool is full"


class DiskSpool(Outbox):
    """An outbox that tells a file what becomes of its runs, while there is one."""

    __slots__ = ("file",)

    hears = True

    def __init__(self, limit: int, spare: Spare | None = None, tally: Tally | None = None) -> None:
        super().__init__(limit, spare, tally)
        self.file: SpoolFile | None = None

    def done(self, runs: list[Run]) -> None:
        if self.file is not None:
            self.file.remove(runs)

    def lost(self, run: Run) -> None:
        if self.file is not None:
            self.file.remove([run])

    def cut(self, run: Run, rest: Run) -> None:
        if self.file is not None:
            self.file.replace(run, rest)


class HubLink:
    """Keeps a link to one hub up.

    :param side: of the repeater; its links are of the kind ``hub``, for that is at the other end.
    :param spool_bytes: how much may wait.
    :param spool_dir: the directory that the spool is kept in as well; empty for none.
    """

    def __init__(
        self, side: Side, address: Address, spool_bytes: int, reactor: object, spool_dir: str = ""
    ) -> None:
        self.address = address
        self._disk = DiskSpool(spool_bytes, side.spare, side.tally) if spool_dir else None
        self.spool = Outbox(spool_bytes, side.spare, side.tally) if self._disk is None else self._disk
        self._spool_dir = spool_dir
        self.session = Session(self.spool)
        self.dialler = Dialler(side, address, PATH, HUB, reactor, session=self.session, failed=self._failed)
        self._side = side

    @property
    def file(self) -> SpoolFile | None:
        """Where the spool is on disk; None when it is not."""
        return None if self._disk is None else self._disk.file

    @property
    def links(self) -> tuple[HubLink]:
        """Itself, which is flushed with or without a link (`ces.link.turn.Batch`)."""
        return (self,)

    @property
    def away(self) -> str | None:
        """Why there is no link, as a sentence; None when there is one."""
        link = self.dialler.link
        if link is not None and link.joined:
            return None
        reason = f": {self.dialler.reason}" if self.dialler.reason else ""
        return f"there is no link to the hub at {self.address.url()}{reason}"

    def start(self) -> None:
        """Dial the hub; what an earlier process has left on disk goes to it before all else.

        :raises ces.uplink.spool_file.SpoolError: when the spool on disk cannot be used.
        """
        if self._disk is not None:
            self._use(self._disk)
        self.dialler.dial()

    def _use(self, spool: DiskSpool) -> None:
        file = SpoolFile(self._spool_dir, "repeater", self._side.clock, self._side.limited)
        found, came = file.load(Run), spool.take_all()
        if found:
            self._side.log.info(
                "{records} records for the hub were found in {path}", records=file.records, path=file.path
            )
        file.add(came)
        spool.file = file
        spool.pending += found + came
        self._report(spool.settle(), FULL)

    def put(self, runs: list[Run]) -> None:
        """Send these records to the hub, now or when it is there."""
        self.spool.pending += runs
        turn = self._side.turn
        turn.add(self)
        file = self.file
        if file is not None:
            file.add(runs)
        turn.took(runs)

    def flush(self, memo: Memo) -> None:
        """Write what waits, as far as there is a link that takes it."""
        link = self.dialler.link
        if link is not None:
            link.flush(memo)
        self._report(self.spool.settle(), FULL)

    def stop(self) -> Deferred[None]:
        """Send what can be sent and end the link; fires when it is gone."""
        self.flush(Memo())
        return self.dialler.stop()

    def give_up(self) -> None:
        """Drop what still waits and is not on disk: nobody will come for it."""
        left = self.session.take_all()
        if self._disk is not None and self._disk.file is not None:
            left = self._leave(self._disk, self._disk.file)
        lost = sum(run.count for run in left)
        self.spool.dropped += lost
        self._report(lost, "the repeater stops and the hub is away")

    def _leave(self, spool: DiskSpool, file: SpoolFile) -> list[Run]:
        """Keep what waits for the next process; what cannot be kept."""
        spool.file = None
        lost = file.close()
        if file.records:
            self._side.log.info(
                "{records} records for the hub are kept in {path}", records=file.records, path=file.path
            )
        return lost

    def status(self) -> dict[str, Any]:
        """What ``/status`` says of it; sizes in bytes."""
        link = self.dialler.link
        return {
            "address": self.address.url(),
            "state": self.dialler.state,
            "node": link.node if link is not None else "",
            "dialect": link.dialect if link is not None else "",
            "reason": self.dialler.reason,
            "buffer-utilization": self.session.size,
            "buffer-capacity": self.spool.limit,
            "sent": self.spool.taken,
            "dropped": self.spool.dropped,
            "spool-disk": None if self.file is None else self.file.status(),
        }

    def _failed(self, reason: str) -> None:
        self._side.limited.warn(
            "hub away", "the hub at {hub} is away: {reason}", hub=self.address.url(), reason=reason
        )

    def _report(self, lost: int, why: str) -> None:
        if not lost:
            return
        self._side.dropped += lost
        self._side.limited.warn(
            f"spool {why}",
            "{records} records for the hub were dropped: {why} ({total} so far)",
            records=lost,
            why=why,
            total=self.spool.dropped,
        )
