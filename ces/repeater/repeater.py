"""The repeater: takes events from outside to its hub, and from its hub out to the targets of the routes.

Owns the links (inbound ones, the one to the hub, and through its pool those to targets) and the routes;
does not know sockets, HTTP or files. The two ways of an event::

    outside link, POST /send, link to a target -> insert(runs) -> spool -> turn -> one write to the hub
    hub -> received(link, runs) -> routes.targets(room) -> pool.put(target, run) -> turn -> one write each

What came from the hub never goes back to it, and what is inserted goes to the hub alone.
"""

from __future__ import annotations

from typing import Any

from treq.client import HTTPClient
from twisted.logger import Logger

from ces.link.owner import LinkLimits, Owner
from ces.link.protocol import NORMAL, Link
from ces.link.shown import trouble
from ces.link.side import Side
from ces.model.address import Address
from ces.model.control import SubscriptionChange
from ces.model.routing import HUB, RepeaterRoutes
from ces.model.wire import Run
from ces.repeater.hub_link import HubLink
from ces.repeater.idle import Idle
from ces.repeater.inbound import OUTSIDE, place_of
from ces.repeater.link_target import KIND as TARGET
from ces.repeater.outbound import Pool
from ces.repeater.routes_file import Routes
from ces.repeater.target import TargetLimits
from ces.repeater.undelivered import Undelivered
from ces.session.outbox import Spare

ITSELF = "this repeater and that one are the same: it would talk to itself"


class Repeater(Owner):
    """One repeater, without its ports.

    :param name: its id: how targets know it.
    :param node: identifies the running process.
    :param hub: where its hub is.
    :param client: for HTTP targets.
    :param spool_bytes: how much may wait for the hub.
    :param spool_dir: the directory that this is kept in as well; empty for none.
    :param undelivered_bytes: how much is kept of what targets did not get.
    :param spare: which records outlive others when too much waits.
    """

    def __init__(
        self,
        name: str,
        node: str,
        hub: Address,
        reactor: Any,
        client: HTTPClient,
        limits: LinkLimits | None = None,
        target_limits: TargetLimits | None = None,
        spool_bytes: int = 8 * 1024 * 1024,
        undelivered_bytes: int = 1024 * 1024,
        log: Logger | None = None,
        spare: Spare | None = None,
        spool_dir: str = "",
    ) -> None:
        self.name = name
        self.node = node
        self.log = log or Logger(namespace="ces.repeater")
        self.side = Side(self, limits or LinkLimits(), reactor, self.log, spare)
        bounds = target_limits or TargetLimits()
        self.hub = HubLink(self.side, hub, spool_bytes, reactor, spool_dir)
        self.pool = Pool(name, self.side, bounds, client, reactor, Undelivered(undelivered_bytes))
        self.received_records = {kind: 0 for kind in (HUB, OUTSIDE, TARGET)}
        self.unrouted = 0
        """Records from the hub that no route is for."""
        self._routes = RepeaterRoutes({})
        self._patterns: Routes = {}
        self._inbound: dict[Link, None] = {}
        self._idle: Idle[Link] = Idle(bounds.idle_ttl, reactor, _close_idle)

    def start(self) -> None:
        """Dial the hub.

        :raises ces.uplink.spool_file.SpoolError: when the spool on disk cannot be used.
        """
        self.hub.start()

    async def stop(self) -> None:
        """Send what waits, within the time for that, and end every link; what is not sent then is dropped,
        but for what is for the hub and on disk.
        """
        await self.side.drain(lambda: bool(self.pool.waiting))
        gone = [self.hub.stop(), self.pool.stop()]
        await self.side.end_all()
        for done in gone:
            await done
        self.hub.give_up()

    def route(self, routes: Routes) -> None:
        """Send events along these routes from now on; no link is dropped for it."""
        self._patterns = routes
        self._routes = RepeaterRoutes(routes)
        self.pool.route(url for urls in routes.values() for url in urls)

    # -- links come and go (`ces.link.owner.Owner`) ------------------------------------------------------

    def admit(self, link: Link) -> str | None:
        """Anyone but this repeater itself."""
        return ITSELF if link.node == self.node else None

    def joined(self, link: Link) -> None:
        """A link of any kind came."""
        if link.kind == OUTSIDE:
            self._inbound[link] = None
            self._idle.used(link)
        self.side.limited.info(
            f"{link.kind} joined", "{link} joined, speaking {dialect}", link=link.name, dialect=link.dialect
        )

    def subscribed(self, link: Link, change: SubscriptionChange) -> None:
        """Nothing: who is connected to a repeater gets what the routes say."""

    def keeps(self, link: Link) -> bool:
        """A link from outside that was cut may be resumed; the others this repeater has dialled itself."""
        self._idle.forget(link)
        return link.kind == OUTSIDE

    def resumed(self, old: Link, new: Link, fresh: bool) -> None:
        """A link from outside is back."""
        self._inbound.pop(old, None)
        self._idle.forget(old)
        self.joined(new)

    def left(self, link: Link, reason: str) -> None:
        """A link went."""
        if link.kind == OUTSIDE:
            self._inbound.pop(link, None)
            self._idle.forget(link)
        elif link.kind == TARGET:
            self.pool.left(link)
        self.side.limited.info(f"{link.kind} left", "{link} left: {reason}", link=link.name, reason=reason)

    # -- the ways of an event ----------------------------------------------------------------------------

    def received(self, link: Link, runs: list[Run]) -> None:
        """Records came on a link."""
        if link.kind == HUB:
            self._send_out(runs)
            return
        if link.kind == TARGET:
            self.pool.received(link)
        elif link in self._inbound:
            self._idle.used(link)
        self.insert(runs, link.kind)
        if self.side.pressure.full:
            self.side.pressure.fed(link, [full for full in self.side.pressure.full if full.kind == HUB])

    def insert(self, runs: list[Run], kind: str = OUTSIDE) -> None:
        """Give records to the hub.

        :param kind: of the link that they came on; what comes by HTTP is from outside as well.
        """
        self.received_records[kind] += sum([run.count for run in runs])
        self.hub.put(runs)

    def _send_out(self, runs: list[Run]) -> None:
        put = self.pool.put
        for run in runs:
            self.received_records[HUB] += run.count
            targets = self._routes.targets(run.room)
            for url in targets:
                put(url, run)
            if not targets:
                self.unrouted += run.count
        self.side.turn.took(runs)

    # -- what it shows -----------------------------------------------------------------------------------

    @property
    def inbound(self) -> int:
        """How many links from outside there are."""
        return len(self._inbound)

    def status(self) -> dict[str, Any]:
        """The state of the hub link, of the routes, of each target and of each inbound link."""
        return {
            "id": self.name,
            "hub": self.hub.status(),
            "routes": self._patterns,
            "targets": self.pool.status(),
            "undelivered": self.pool.undelivered.status(),
            "inbound": [_visitor(link) for link in self._inbound],
            "received": self.received_records,
            "unrouted": self.unrouted,
            **trouble(self.side),
        }


def _close_idle(link: Link) -> None:
    link.end(NORMAL, "idle")


def _visitor(link: Link) -> dict[str, Any]:
    room, name = place_of(link.path)
    return {
        "id": name,
        "room": room,
        "peer": link.peer,
        "dialect": link.dialect,
        "received": link.records_in,
        "malformed": link.malformed,
    }
