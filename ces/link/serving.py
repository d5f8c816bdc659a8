"""The serving end: from an HTTP request that asks for an upgrade to a link.

Until it has its link, a connection keeps the place that it had in the entrance of the port
(`ces.ops.entrance`). So handshakes without a hello are bounded with all others who are not known yet, and a
link that comes back is heard by a server that is full.

Owns the factory of serving connections, which decides what link each of them gets, and the resource that
hands a transport from twisted.web to it; does not know which paths exist. In ces.2 (docs/protocol.md section
5)::

    hello with a session that is kept here  -> its link, resumed, if it is of the same principal
    hello with none, or one that is gone    -> the owner admits it: a new link
    ... and there are too many links        -> closed with 4429; in ces.1 refused with 503 before
    ... to the link that its process has    -> offered the session of that link; then as above
    ... and the owner does not              -> refused: answered with a hello, then closed with 4409
"""

from __future__ import annotations

import secrets
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from autobahn.twisted.resource import WebSocketResource
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from msgspec import UNSET
from twisted.internet.interfaces import IReactorCore
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.iweb import IRequest

from ces.access.principal import ANYONE, Login
from ces.link.connection import Connection
from ces.link.link import Link, Owner, Read, Refused, read_by_dialect
from ces.link.side import Side
from ces.model.control import Hello
from ces.model.wire import CES2
from ces.ops.entrance import Place
from ces.ops.shown import hide_token
from ces.session.life import NOT_ALLOWED, PROTOCOL_ERROR, REPLACED, TOO_FAST, State
from ces.session.queue import OutOfStep
from ces.session.session import Session

if TYPE_CHECKING:
    from ces.ops.http import BoundedChannel  # at run time it would bring the global reactor to messengers

AGENT = 100
"""Limit of the characters that are kept of a User-Agent."""

RETRY_AFTER = 30
"""Seconds after which a client that finds no room is told to try again."""


class ServingConnection(Connection, WebSocketServerProtocol):
    """The end that was dialled: frames come masked and go unmasked, so that links share encoded bytes."""

    serving = True
    offered = ""
    """The session that the other side was offered last."""
    _place: Place | None = None
    """Its place in the entrance, until it has a link."""

    def keep_place(self, place: Place) -> None:
        """It has its place in the entrance from now on, until it has a link or is gone."""
        if self.link is not None or self.life is State.CLOSED:
            place.leave()
            return
        place.evict = self._evict
        place.waits()
        self._place = place

    def _evict(self) -> None:
        self.drop("a newer connection took its place: it had not said hello, or was closing")

    def begin(self, link: Link, session: Session, resumed: bool) -> None:
        self._leave_place()
        super().begin(link, session, resumed)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._leave_place()
        super().connectionLost(reason)

    def _leave_place(self) -> None:
        if self._place is not None:
            self._place.leave()
            self._place = None

    def onConnect(self, request: Any) -> str | None:
        # Not request.path, which lacks what follows a ";".
        self.path = self.http_request_uri.partition("?")[0]
        self.agent = self.http_headers.get("user-agent", "")[:AGENT]
        if CES2 in request.protocols:
            self.dialect = CES2
            return CES2
        return None

    def failHandshake(self, reason: str, code: int = 400, responseHeaders: Any = None) -> None:
        self.handshake_failed(reason)
        super().failHandshake(reason, code, responseHeaders)

    def sendHttpErrorResponse(self, code: int, reason: str, responseHeaders: Any = None) -> None:
        """Say why in the body, where it is looked for; Autobahn has a status line alone, of any length."""
        body = f"This is no good WebSocket handshake: {reason[:200]}.".encode()
        head = [f"HTTP/1.1 {code} {HTTPStatus(code).phrase}", "Content-Type: text/plain; charset=utf-8"]
        head += [f"Content-Length: {len(body)}", "Connection: close"]
        head += [f"{name}: {value}" for name, value in responseHeaders or ()]
        self.sendData("\r\n".join([*head, "\r\n"]).encode() + body)


class ServingFactory(WebSocketServerFactory):
    """Builds the serving connections of one kind, and gives each its link (`ces.link.connection.Opener`).

    :param owner: of the links.
    :param kind: of the links: what the dialling side is.
    :param read: how messages become runs.
    """

    protocol = ServingConnection
    noisy = False

    def __init__(
        self, owner: Owner, side: Side[Link], kind: str, reactor: IReactorCore, read: Read | None = None
    ) -> None:
        super().__init__(reactor=reactor, server="")
        self.opener = self
        self.owner = owner
        self.side = side
        self.kind = kind
        self._read = read or read_by_dialect()
        limit = side.settings.message_limit
        self.setProtocolOptions(
            versions=[13],
            webStatus=False,
            failByDrop=False,
            maxFramePayloadSize=limit,
            maxMessagePayloadSize=limit,
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
            allowNullOrigin=True,
        )

    def hello(self, connection: Connection) -> Hello:
        """A serving side does not speak first."""
        raise AssertionError("a serving connection was asked for its first hello")

    def opened(self, connection: Connection, hello: Hello | None) -> None:
        """Give the connection its link, offer it a session, or refuse it."""
        assert isinstance(connection, ServingConnection)
        if hello is not None and hello.session:
            kept = self.side.sessions.get(hello.session)
            if (
                kept is not None
                and (kept.node, kept.kind) == (hello.node, self.kind)
                and _same(connection, kept)
            ):
                self._resume(connection, kept, hello)
                return
        session = Session(secrets.token_hex(12) if hello is not None else "")  # nobody can guess it
        try:
            link = self.owner.admit(self.kind, connection.node, connection.instance, serving=True)
        except Refused as refused:
            # The peer learns from the hello which hub it has a link to already.
            if hello is not None:
                self._answer(connection, Session(), resumed=False)
            connection.end(REPLACED, str(refused))
            return
        if link is not None and not _same(connection, link):
            self.side.refuse(
                "rights", f"{connection.login.principal.name} came with the node {connection.node} of another"
            )
            if hello is not None:
                self._answer(connection, Session(), resumed=False)
            connection.end(NOT_ALLOWED, "this node is another's")
            return
        if hello is not None and link is not None and self._may_offer(connection, link):
            connection.tell(
                Hello(self.owner.node, link.session.id, instance=self.owner.instance, offered=True)
            )
            return
        if link is None:
            # Without a hello, who asked for the upgrade was told before (`refusal`).
            full = self.side.no_room(connection.host) if hello is not None else None
            if full is not None:
                connection.end(TOO_FAST, full)
                return
            window = self.side.settings.session_window
            link = Link(self.owner, self.side, self.kind, self._read, window=window)
        if hello is not None:
            self._answer(connection, session, resumed=False)
        connection.begin(link, session, resumed=False)

    def _may_offer(self, connection: ServingConnection, link: Link) -> bool:
        """Whether the process that has dialled has a session with this one, which it did not name."""
        session = link.session.id
        if not session or session == connection.offered or not self.owner.instance:
            return False
        connection.offered = session
        return bool(connection.instance) and connection.instance == link.instance

    def _resume(self, connection: Connection, link: Link, hello: Hello) -> None:
        try:
            link.prepare(hello)
        except OutOfStep as fault:
            if link.connection is None:
                connection.end(PROTOCOL_ERROR, f"the session is gone: {fault}")
                link.end(PROTOCOL_ERROR, f"it was resumed out of step: {fault}")
            else:  # a hello that a later one has overtaken on its way
                connection.end(PROTOCOL_ERROR, f"the session goes on without it: {fault}")
            return
        if self.side.overfull and link.connection is not None:
            link.connection.abort()
        self._answer(connection, link.session, resumed=True)
        connection.begin(link, link.session, resumed=True)

    def _answer(self, connection: Connection, session: Session, resumed: bool) -> None:
        window = self.side.settings.session_window if session.id else 0
        counts = connection.changes is not None
        connection.tell(
            Hello(
                self.owner.node,
                session.id or None,
                session.report(),
                resumed,
                window,
                changes=session.changes if counts else UNSET,
                gaps=session.gaps if counts else UNSET,
                instance=self.owner.instance or UNSET,
            )
        )

    def carried(self, connection: Connection) -> None:
        """Nothing depends on it here."""

    def lost(self, connection: Connection) -> None:
        """Nothing depends on it here."""


def _same(connection: Connection, link: Link) -> bool:
    """Whether a connection may get a link: one of its own principal, or one that this side has dialled."""
    return link.login.principal.name in ("", connection.login.principal.name)


def refusal(request: IRequest, side: Side[Link]) -> tuple[int, str] | None:
    """Why `request` gets no link, as an HTTP status and a sentence; None when it gets one."""
    fault = _upgrade_fault(request)
    if fault is not None:
        return fault
    offered = ",".join(request.requestHeaders.getRawHeaders("sec-websocket-protocol", []))
    if CES2 in [name.strip() for name in offered.split(",")]:
        return None  # it may be a link that comes back: only its hello says so
    full = side.no_room(getattr(request.getClientAddress(), "host", ""))
    if full is not None:
        request.setHeader("Retry-After", str(RETRY_AFTER))
        return 503, full
    return None


def _upgrade_fault(request: IRequest) -> tuple[int, str] | None:
    """What keeps `request` from being an upgrade to WebSocket, as far as Autobahn does not find it.

    Autobahn gets a request that is made anew: of HTTP/1.1, and with one line for each header. It would take a
    body for frames, any spelling of the version, and two lines of one header for one.
    """
    headers = request.requestHeaders
    upgrade = ",".join(headers.getRawHeaders("upgrade", [])).lower()
    if "websocket" not in [token.strip() for token in upgrade.split(",")]:
        sentence = "This path speaks WebSocket: connect with a WebSocket client (Upgrade: websocket)."
        return _upgrade_required(request, sentence)
    if cast(Any, request).clientproto != b"HTTP/1.1":  # RFC 9110 section 7.8
        return _upgrade_required(request, "HTTP/1.0 has no WebSocket: connect with HTTP/1.1.")
    if request.method != b"GET":  # RFC 6455 section 4.1
        request.setHeader("Allow", "GET")
        return 405, "A WebSocket handshake is a GET."
    if headers.getRawHeaders("sec-websocket-version", []) != ["13"]:  # RFC 6455 section 4.2.2
        request.setHeader("Sec-WebSocket-Version", "13")
        sentence = "This path speaks version 13 of WebSocket: send one line Sec-WebSocket-Version: 13."
        return _upgrade_required(request, sentence)
    if headers.hasHeader("transfer-encoding") or headers.getRawHeaders("content-length", ["0"]) != ["0"]:
        return 400, "A WebSocket handshake has no body."
    return None


def _upgrade_required(request: IRequest, sentence: str) -> tuple[int, str]:
    """A 426, which names the protocol in Upgrade, and Upgrade in Connection (RFC 9110 section 7.8)."""
    request.setHeader("Upgrade", "websocket")
    said = request.responseHeaders.getRawHeaders("connection", [])
    request.setHeader("Connection", ", ".join([*said, "Upgrade"]))
    return 426, sentence


class _ForLogin:
    """Builds the connections of one principal."""

    def __init__(self, factory: ServingFactory, login: Login, lasts: float | None) -> None:
        self._factory = factory
        self._login = login
        self._lasts = lasts

    def buildProtocol(self, addr: Any) -> Any:
        connection: Any = self._factory.buildProtocol(addr)
        connection.login, connection.lasts = self._login, self._lasts
        return connection


class LinkResource(WebSocketResource):
    """Hands the transport of an upgrade request to a new serving link.

    :param login: who asks for the upgrade.
    :param lasts: for how many more seconds that is good; None for ever.
    """

    def __init__(self, factory: ServingFactory, login: Login = ANYONE, lasts: float | None = None) -> None:
        super().__init__(_ForLogin(factory, login, lasts))

    def render(self, request: Request) -> object:
        # Autobahn gets the headers again, and keeps them as long as the connection lives.
        hide_token(cast(IRequest, request))
        # The HTTP channel stays registered as the transport's producer otherwise, and the link could not
        # become it.
        transport: Any = request.channel.transport
        if transport is not None:
            transport.unregisterProducer()
        place = cast("BoundedChannel", request.channel).release()
        answer = super().render(request)
        connection = _protocol_on(transport)
        if place is not None:
            connection.keep_place(place)
        # What came behind the request is the link's. The channel would keep it for a next request that never
        # comes, and once it keeps enough it stops reading for good.
        early = request.channel.clearLineBuffer()
        if early and not transport.disconnecting:
            connection.dataReceived(early)
        # Channel and request refer to each other, and nothing will ever say that this request is done.
        request.channel.requests.clear()
        return answer


def _protocol_on(transport: Any) -> ServingConnection:
    """What Autobahn has put on a transport; with TLS, that is a protocol of its own in between."""
    if isinstance(transport, ProtocolWrapper):
        return cast(ServingConnection, transport.wrappedProtocol)
    if isinstance(transport.protocol, ProtocolWrapper):
        return cast(ServingConnection, transport.protocol.wrappedProtocol)
    return cast(ServingConnection, transport.protocol)
