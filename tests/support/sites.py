"""Serving links on a real port, and what dials it: for what memory hides (producers, timeouts, buffers)."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import ClientCreator, Protocol
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Request

from ces.config.link import LinkSettings
from ces.link.link import Link
from ces.link.serving import LinkResource, ServingFactory
from ces.model.address import Address
from ces.model.wire import CES1, CES2
from ces.ops.http import BoundedSite, make_site
from ces.uplink.uplink import Uplink
from tests.support.links import Lines, Recorder, make_side


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Let the reactor turn until `condition` holds, for so many seconds at the most."""
    deadline = monotonic() + seconds

    def look() -> None:
        if condition():
            looping.stop()
        assert monotonic() < deadline, "what is waited for does not come"

    looping = LoopingCall(look)
    await looping.start(0)


class Root(Resource):
    """A site's root that has links at ``/connect/messenger``."""

    def __init__(self, resource: LinkResource) -> None:
        super().__init__()
        self._resource = resource

    def getChild(self, path: bytes, request: Request) -> Any:
        return self if path == b"connect" else self._resource


class Served:
    """A site on a port of its own, and what dials it.

    owner, side: of the serving links. caller, callers: of those that dial.
    """

    def __init__(self, reactor: Any, settings: LinkSettings | None = None) -> None:
        self.reactor = reactor
        self.lines = Lines()
        self.owner, self.caller = Recorder("served"), Recorder("dialled")
        self.side = make_side(reactor, settings, self.lines)
        self.callers = make_side(reactor, settings, self.lines)
        self.factory = ServingFactory(self.owner, self.side, "messenger", reactor)
        self.site: BoundedSite = make_site(
            Root(LinkResource(self.factory)),
            reactor,
            self.side.settings,
            refused=lambda what, why: self.lines.append(why),
            timeout=60,
        )
        self.port: IListeningPort = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self.uplinks: list[Uplink] = []

    @property
    def number(self) -> int:
        """The number of the port."""
        return self.port.getHost().port  # type: ignore[attr-defined,no-any-return]

    def uplink(self, dialect: str = CES2, **more: Any) -> Uplink:
        """An uplink to the port, which has not dialled."""
        more.setdefault("window", 120.0)
        address = Address("ws", "127.0.0.1", self.number)
        uplink = Uplink(
            self.caller, self.callers, address, "/connect/messenger", "messenger", self.reactor, **more
        )
        if dialect == CES1:
            uplink.factory.protocols = []
        self.uplinks.append(uplink)
        return uplink

    async def dial(self, dialect: str = CES2) -> tuple[Link, Link]:
        """Dial; the dialling and the serving link, both joined."""
        uplink = self.uplink(dialect)
        links = len(self.owner.links)
        uplink.dial()
        await until(lambda: uplink.connected and len(self.owner.links) > links)
        assert uplink.link is not None
        return uplink.link, self.owner.links[-1]

    async def connect(self) -> Peer:
        """A bare connection to the port."""
        peer: Peer = await ClientCreator(self.reactor, Peer).connectTCP("127.0.0.1", self.number)
        return peer

    async def close(self) -> None:
        """End all of it."""
        for uplink in self.uplinks:
            await uplink.stop()
        await self.side.end_all()
        await self.port.stopListening()


class Peer(Protocol):
    """The other side, byte by byte."""

    def __init__(self) -> None:
        self.received = b""
        self.lost: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.lost.callback(None)
