"""The link to the hub, and what waits for it.

Owns the spool: one outbox that outlives the links, so that what came while the hub was away, and what an
ended link had not written, goes to the next link in order. It is bounded in bytes; what does not fit pushes
out the oldest, which is counted and told.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from ces.link.reconnect import Dialler
from ces.link.side import Side
from ces.link.turn import Memo
from ces.model.address import Address
from ces.model.outbox import Outbox
from ces.model.routing import HUB
from ces.model.session import Session
from ces.model.wire import Run

PATH = "/connect/repeater"


class HubLink:
    """Keeps a link to one hub up.

    :param side: of the repeater; its links are of the kind ``hub``, for that is at the other end.
    :param spool_bytes: how much may wait.
    """

    def __init__(self, side: Side, address: Address, spool_bytes: int, reactor: object) -> None:
        self.address = address
        self.spool = Outbox(spool_bytes, side.spare, side.tally)
        self.session = Session(self.spool)
        self.dialler = Dialler(side, address, PATH, HUB, reactor, session=self.session, failed=self._failed)
        self._side = side

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

    def put(self, runs: list[Run]) -> None:
        """Send these records to the hub, now or when it is there."""
        self.spool.pending += runs
        turn = self._side.turn
        turn.add(self)
        turn.took(runs)

    def flush(self, memo: Memo) -> None:
        """Write what waits, as far as there is a link that takes it."""
        link = self.dialler.link
        if link is not None:
            link.flush(memo)
        self._report(self.spool.settle(), "the spool is full")

    def stop(self) -> Deferred[None]:
        """Send what can be sent and end the link; fires when it is gone."""
        self.flush({})
        return self.dialler.stop()

    def give_up(self) -> None:
        """Drop what still waits: nobody will come for it."""
        lost = sum(run.count for run in self.session.take_all())
        self.spool.dropped += lost
        self._report(lost, "the repeater stops and the hub is away")

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
