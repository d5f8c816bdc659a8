"""The serving end: from an HTTP request that asks for an upgrade to a link.

Owns the factory of serving links and the resource that hands a transport from twisted.web to it; does not
know which paths exist.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from autobahn.twisted.resource import WebSocketResource
from autobahn.twisted.websocket import WebSocketServerFactory
from twisted.internet.interfaces import IReactorCore
from twisted.web.http import Request
from twisted.web.iweb import IRequest

from ces.link.ends import ServingLink
from ces.link.protocol import Link
from ces.link.side import Side
from ces.model.wire import CES1, KnownRooms, Run, read_ces1, read_ces2
from ces.session.session import Session

if TYPE_CHECKING:
    from ces.ops.http import BoundedChannel  # at run time it would bring the global reactor to messengers

RETRY_AFTER = 30
"""Seconds after which who finds no room is told to try again."""

Read = Callable[[Link, list[bytes], list[str]], list[Run]]
"""Turns the messages of one read into runs; what is wrong with any goes to the list of faults."""


def read_by_dialect() -> Read:
    """Read what the link's dialect says, with a memory of good rooms of its own."""
    known = KnownRooms()

    def read(link: Link, messages: list[bytes], faults: list[str]) -> list[Run]:
        return (read_ces1 if link.dialect == CES1 else read_ces2)(messages, known, faults)

    return read


class ServingFactory(WebSocketServerFactory):
    """Builds the serving links of one kind.

    :param kind: of the links: what the dialling side is.
    :param read: how the links' messages become runs.
    """

    protocol = ServingLink
    noisy = False
    session: Session | None = None

    def __init__(self, side: Side, kind: str, reactor: IReactorCore, read: Read | None = None) -> None:
        super().__init__(reactor=reactor, server="")
        self.side = side
        self.kind = kind
        self.read = read or read_by_dialect()
        self.setProtocolOptions(
            versions=[13],
            webStatus=False,
            failByDrop=False,
            maxFramePayloadSize=side.limits.message,
            maxMessagePayloadSize=side.limits.message,
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
            allowNullOrigin=True,
        )

    def link_joined(self, link: Link) -> None:
        """A link carries records now."""

    def carried(self) -> None:
        """A link has carried its first record."""

    def link_kept(self, link: Link) -> None:
        """A link was cut and its owner keeps it."""

    def predecessor(self) -> Link | None:
        """The kept link whose place a new one takes, other than by its session's id."""
        return None

    def link_lost(self, link: Link) -> None:
        """A link's connection is gone."""


def refusal(request: IRequest, side: Side) -> tuple[int, str] | None:
    """Why `request` gets no link, as an HTTP status and a sentence; None when it gets one."""
    fault = upgrade_fault(request)
    if fault is not None:
        request.setHeader("Upgrade", "websocket")
        return 426, fault
    full = side.no_room(getattr(request.getClientAddress(), "host", ""))
    if full is not None:
        request.setHeader("Retry-After", str(RETRY_AFTER))
        return 503, full
    return None


def upgrade_fault(request: IRequest) -> str | None:
    """What keeps `request` from being a WebSocket upgrade, a sentence for a 426; None when nothing does."""
    upgrade = (request.getHeader("upgrade") or "").lower()
    if "websocket" not in [token.strip() for token in upgrade.split(",")]:
        return "This path speaks WebSocket: connect with a WebSocket client (Upgrade: websocket)."
    return None


class LinkResource(WebSocketResource):
    """Hands the transport of an upgrade request to a new serving link."""

    def render(self, request: Request) -> object:
        # The HTTP channel stays registered as the transport's producer otherwise, and the link could not
        # become it.
        transport: Any = request.channel.transport
        if transport is not None:
            transport.unregisterProducer()
        answer = super().render(request)
        cast("BoundedChannel", request.channel).release()
        # What came behind the request is the link's. The channel would keep it for a next request that never
        # comes, and once it keeps enough it stops reading for good.
        early = request.channel.clearLineBuffer()
        if early and not transport.disconnecting:
            transport.protocol.dataReceived(early)
        # Channel and request refer to each other, and nothing will ever say that this request is done.
        request.channel.requests.clear()
        return answer
