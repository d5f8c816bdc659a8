"""What all links of one owner share: the owner, the limits, the sweep, the log and the counters."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ces.link.direct import Sockets
from ces.link.keepalive import Keepalive
from ces.link.owner import LinkLimits, Owner
from ces.link.pressure import Pressure
from ces.link.protocol import GOING_AWAY, Link
from ces.link.turn import Turn
from ces.ops.logging import Limited
from ces.session.outbox import Outbox, Spare, Tally
from ces.session.session import ACK_SECONDS, Session

GOODBYE = 2.0
"""So many seconds links have to close when their side goes away and what could be sent has been sent."""

REFUSED = ("links", "address", "rate", "rooms", "http", "interconnections")
"""What is refused for being too much: links in all or of one address, records or bytes a second, rooms, HTTP
connections, addresses of other hubs."""

DRAIN_STEP = 0.05
"""Seconds between two looks at whether all has been sent."""


class Side:
    """One owner's side of its links.

    :param owner: who is told what its links do.
    :param limits: of every link; `ces.uplink.reconnect.Dialler` and `ces.link.server.ServingFactory` take it
        from here.
    :param clock: the reactor or a test's Clock.
    :param spare: which records outlive others when too much waits for a link.

    malformed: malformed records and texts received so far.
    dropped: records pushed out of outboxes, or left in them when their link ended.
    missed: records that other sides dropped, as they said.
    refused: how often something was too much, by what it was (`REFUSED`).
    sessions: the serving links that are alive or detached, by the id of their session.
    detached: the links that were cut and may be resumed, oldest first.
    slow: the links that something waits for because they did not take it, the detached among them.
    pressure: who is not read from, for the sake of whom.
    """

    def __init__(
        self, owner: Owner, limits: LinkLimits, clock: IReactorTime, log: Logger, spare: Spare | None = None
    ) -> None:
        self.owner = owner
        self.limits = limits
        self.clock = clock
        self.log = log
        self.limited = Limited(log, clock)
        self.keepalive = Keepalive(clock, limits.grain)
        self.turn = Turn(clock)
        self.sockets = Sockets(log)
        self.malformed = 0
        self.dropped = 0
        self.missed = 0
        self.refused: Counter[str] = Counter(dict.fromkeys(REFUSED, 0))
        self.spare = spare
        self.pressure = Pressure(clock, limits.patience)
        self.tally = Tally()
        self.slow: dict[Link, None] = {}
        self.sessions: dict[str, Link] = {}
        self.detached: dict[Link, None] = {}
        self.ending = False
        """No link is taken any more, and none is kept."""
        self._owing: dict[Link, None] = {}
        self._owed: IDelayedCall | None = None
        self._links: dict[Link, None] = {}
        self._served: Counter[str] = Counter()
        """Serving links by the address that they come from."""
        self._all_gone: Deferred[None] | None = None

    def came(self, link: Link) -> None:
        """A connection was made, whatever comes of it."""
        self._links[link] = None
        if link.serving:
            self._served[link.host] += 1
        self.keepalive.watch(link)
        if self.ending:
            # On a connection that came before the port was closed: nothing would end it any more.
            link.transport.abortConnection()

    def went(self, link: Link) -> None:
        """A connection is gone."""
        self._links.pop(link, None)
        if link.serving:
            self._served[link.host] -= 1
            if not self._served[link.host]:
                del self._served[link.host]
        self.pressure.forget(link)
        self._owing.pop(link, None)
        if not self._owing and self._owed is not None:
            self._owed.cancel()
            self._owed = None
        self.keepalive.unwatch(link)
        if not self._links and self._all_gone is not None:
            done, self._all_gone = self._all_gone, None
            done.callback(None)

    def no_room(self, host: str) -> str | None:
        """Why no more links are served, or none from the address `host`: a sentence; None when there is room.

        To ask is to count and log a refusal.
        """
        if self._served.total() >= self.limits.links:
            self.refuse("links", f"{self.limits.links} links, the most that are served")
            return f"There are {self.limits.links} links already, the most that are served here."
        if host and self._served[host] >= self.limits.address:
            self.refuse("address", f"{self.limits.address} links from {host}, the most for one address")
            return f"There are {self.limits.address} links from {host} already, the most for one address."
        return None

    def refuse(self, what: str, why: str) -> None:
        """Something of `REFUSED` was too much: count and say so."""
        self.refused[what] += 1
        self.limited.warn(
            f"refused {what}", "refused: {why} ({total} so far)", why=why, total=self.refused[what]
        )

    def new_session(self) -> Session:
        """A session of a link that nothing is known of yet."""
        return Session(Outbox(self.limits.outbox, self.spare, self.tally))

    def new_session_id(self, link: Link) -> str:
        """The id of a session that begins with a serving link: nobody can guess it."""
        id = secrets.token_hex(12)
        self.sessions[id] = link
        return id

    def relieve(self) -> None:
        """Too much waits for all links together: the fullest give way."""
        excess = self.tally.bytes - self.limits.total
        for link in sorted(self.slow, key=_waiting, reverse=True):
            if excess <= 0:
                return
            before = self.tally.bytes
            link.shed(excess)
            excess -= before - self.tally.bytes

    def keep(self, link: Link) -> None:
        """A link was cut and may be resumed. There is a bound on those: the oldest makes room."""
        self.detached[link] = None
        if len(self.detached) > self.limits.detached:
            next(iter(self.detached)).end(GOING_AWAY, "too many links that were cut are kept")

    def owe(self, link: Link) -> None:
        """Something came on a link that is to be acknowledged within `ACK_SECONDS`."""
        if self._owed is None:
            self._owed = self.clock.callLater(ACK_SECONDS, self._acknowledge)
        self._owing[link] = None

    def _acknowledge(self) -> None:
        self._owed = None
        owing, self._owing = self._owing, {}
        for link in owing:
            link.acknowledge()

    async def drain(self, busy: Callable[[], bool] = lambda: False) -> None:
        """Take no new links, and return when nothing waits for any or is unacknowledged, after `drain`
        seconds at the latest.

        :param busy: whether the owner has anything else to wait for.
        """
        self.ending = True
        deadline = self.clock.seconds() + self.limits.drain
        while busy() or any(link.owed for link in self._links):
            left = deadline - self.clock.seconds()
            if left <= 0:
                return
            await deferLater(self.clock, min(left, DRAIN_STEP))

    async def end_all(self, reason: str = "going away") -> None:
        """End every link with 4001 and return when all are gone; those that take over `GOODBYE` s are cut."""
        self.ending = True
        for link in list(self.detached):
            link.end(GOING_AWAY, reason)
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
        for link in list(self._links):
            link.transport.abortConnection()

    def drop(self, link: Link, records: int, why: str) -> None:
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


def _waiting(link: Link) -> int:
    return link.outbox.bytes
