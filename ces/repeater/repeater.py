"""The repeater: takes events from outside to its hub, and from its hub out to the targets of the routes.

Owns the links (inbound ones, and the one to the hub), the routes and the pool of targets; does not know
sockets, HTTP or files. The two ways of an event::

    outside link, POST /send, link to a target -> insert(runs) -> spool -> turn -> one write to the hub
    hub -> received(link, runs) -> routes.targets(room) -> pool.put(target, run) -> turn -> one write each

What came from the hub never goes back to it, and what is inserted goes to the hub alone.
"""

from __future__ import annotations

from typing import Any

from treq.client import HTTPClient
from twisted.logger import Logger

from ces.link.link import Link, Owner, Refused
from ces.link.side import Side
from ces.model.routing import HUB, RepeaterRoutes
from ces.model.wire import Run
from ces.repeater.hub_link import HubLink
from ces.repeater.idle import Idle
from ces.repeater.inbound import OUTSIDE
from ces.repeater.link_target import ITSELF
from ces.repeater.link_target import KIND as TARGET
from ces.repeater.outbound import Pool
from ces.repeater.routes_file import Routes
from ces.repeater.settings import RepeaterSettings
from ces.repeater.undelivered import Undelivered
from ces.session.life import NORMAL


class Repeater(Owner):
    """One repeater, without its ports.

    :param name: its id: how targets know it.
    :param node: identifies the running process.
    :param client: for HTTP targets.
    """

    def __init__(
        self,
        name: str,
        node: str,
        settings: RepeaterSettings,
        reactor: Any,
        client: HTTPClient,
        log: Logger | None = None,
    ) -> None:
        self.name = name
        self.node = node
        self.settings = settings
        self.log = log or Logger(namespace="ces.repeater")
        self.side: Side[Link] = Side(settings, reactor, self.log)
        self.hub = HubLink(self, self.side, settings, reactor)
        undelivered = Undelivered(settings.undelivered_bytes)
        self.pool = Pool(name, node, self.side, settings, client, reactor, undelivered, self.received)
        self.received_records = {kind: 0 for kind in (HUB, OUTSIDE, TARGET)}
        self.unrouted = 0
        """Records from the hub that no route is for."""
        self._routes = RepeaterRoutes({})
        self._patterns: Routes = {}
        self._inbound: dict[Link, None] = {}
        self._idle: Idle[Link] = Idle(settings.idle_ttl, reactor, _close_idle, self.log)

    def start(self) -> None:
        """Dial the hub.

        :raises ces.uplink.spool_file.SpoolError: when the spool on disk cannot be used.
        """
        self.hub.start()

    async def stop(self) -> None:
        """Send what waits, within the drain timeout, and end every link. What is not sent then is dropped,
        but for what is for the hub and on disk.
        """
        await self.side.drain()
        self.side.end_served()
        await self.hub.stop()
        # Nothing more comes from the hub: what has come goes out.
        await self.side.drain(lambda: bool(self.pool.waiting))
        gone = self.pool.stop()
        await self.side.end_all()
        await gone
        self.side.say_totals()

    def route(self, routes: Routes) -> None:
        """Send events along these routes from now on; no link is dropped for it."""
        self._patterns = routes
        self._routes = RepeaterRoutes(routes)
        self.pool.route(url for urls in routes.values() for url in urls)

    # -- links come and go (`ces.link.link.Owner`) ---------------------------------------------------------

    def admit(self, kind: str, node: str, instance: str, serving: bool) -> Link | None:
        """Anyone but this repeater itself."""
        if node == self.node:
            raise Refused(ITSELF)
        return None

    def joined(self, link: Link) -> None:
        """A link of any kind came."""
        if link.kind == OUTSIDE:
            self._inbound[link] = None
            self._idle.used(link)
        self.side.limited.info(
            f"{link.kind} joined", "{link} joined, speaking {dialect}", link=link.name, dialect=link.dialect
        )

    def detached(self, link: Link) -> None:
        """A link has no connection."""
        self._idle.forget(link)
        self.side.limited.info(
            f"{link.kind} detached",
            "{link} has no connection: {reason}",
            link=link.name,
            reason=link.ended,
        )

    def attached(self, link: Link, fresh: bool) -> None:
        """A link has a connection again."""
        if link.kind == OUTSIDE:
            self._idle.used(link)
        self.side.limited.info(f"{link.kind} attached", "{link} is back", link=link.name)

    def left(self, link: Link, undelivered: list[Run]) -> None:
        """A link left."""
        self._inbound.pop(link, None)
        self._idle.forget(link)
        self.side.limited.info(
            f"{link.kind} left", "{link} left: {reason}", link=link.name, reason=link.ended
        )

    # -- the ways of an event ----------------------------------------------------------------------------

    def received(self, link: Link, runs: list[Run]) -> None:
        """Records came on a link."""
        if link.kind == HUB:
            self._send_out(runs)
            return
        if link in self._inbound and link.connected:
            self._idle.used(link)
        self.insert(runs, link.kind)
        congested = self.side.pressure.congested
        if congested:
            size = sum(run.weight for run in runs)
            self.side.pressure.fed(link, [hub for hub in congested if hub.kind == HUB], size)

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
        self.side.turn.took(sum([run.size for run in runs]))

    # -- what it shows -----------------------------------------------------------------------------------

    @property
    def inbound(self) -> int:
        """How many links from outside are connected."""
        return sum(link.connected for link in self._inbound)

    def visitors(self) -> list[Link]:
        """The links from outside that are connected, the oldest first."""
        return [link for link in self._inbound if link.connected]

    @property
    def routes(self) -> Routes:
        """The routes in force."""
        return self._patterns


def _close_idle(link: Link) -> None:
    link.end(NORMAL, "idle")
