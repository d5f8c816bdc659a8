"""What all links of one owner share: the owner, the limits, the sweep, the log and the counters."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ces.link.keepalive import Keepalive
from ces.link.owner import LinkLimits, Owner
from ces.link.protocol import GOING_AWAY, Link
from ces.link.turn import Turn
from ces.ops.logging import Limited

GOODBYE = 2.0
"""So many seconds links have to close when their side goes away."""


class Side:
    """One owner's side of its links.

    :param owner: who is told what its links do.
    :param limits: of every link; `ces.link.reconnect.Dialler` and `ces.link.server.ServingFactory` take it
        from here.
    :param clock: the reactor or a test's Clock.

    malformed: malformed records and texts received so far.
    dropped: records pushed out of outboxes, or left in them when their link ended.
    """

    def __init__(self, owner: Owner, limits: LinkLimits, clock: IReactorTime, log: Logger) -> None:
        self.owner = owner
        self.limits = limits
        self.clock = clock
        self.log = log
        self.limited = Limited(log, clock)
        self.keepalive = Keepalive(clock, limits.grain)
        self.turn = Turn(clock)
        self.malformed = 0
        self.dropped = 0
        self._links: dict[Link, None] = {}
        self._all_gone: Deferred[None] | None = None
        self._over = False

    def came(self, link: Link) -> None:
        """A connection was made, whatever comes of it."""
        self._links[link] = None
        self.keepalive.watch(link)
        if self._over:
            # On a connection that came before the port was closed: nothing would end it any more.
            link.transport.abortConnection()

    def went(self, link: Link) -> None:
        """A connection is gone."""
        self._links.pop(link, None)
        self.keepalive.unwatch(link)
        if not self._links and self._all_gone is not None:
            done, self._all_gone = self._all_gone, None
            done.callback(None)

    async def end_all(self, reason: str = "going away") -> None:
        """End every link with 4001 and return when all are gone; those that take over `GOODBYE` s are cut."""
        for link in list(self._links):
            link.end(GOING_AWAY, reason)
        if not self._links:
            return
        done = self._all_gone = Deferred()
        cut = self.clock.callLater(GOODBYE, self._cut)
        await done
        if cut.active():
            cut.cancel()

    def _cut(self) -> None:
        self._over = True
        for link in list(self._links):
            link.transport.abortConnection()

    def drop(self, link: Link, records: int, why: str = "its outbox is full") -> None:
        """`records` that were meant for `link` are lost: count and say so."""
        self.dropped += records
        self.limited.warn(
            f"dropped {why}",
            "{records} records for {link} were dropped: {why} ({total} so far)",
            records=records,
            link=link.name,
            why=why,
            total=self.dropped,
        )
