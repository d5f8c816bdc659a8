"""The HTTP parts that hub and repeater share: a site with limits, and the common routes.

===========================  ========  ===================================================================
``GET /status``              status    the envelope of `ces.ops.status`
``GET /health``              anyone    200 "ok"
``GET /livez``               anyone    200 "ok", also when too many requests are answered for any other one
``GET /log-level``           status    the level's name
``PUT /log-level/{level}``   admin     change the level at run time; 400 with a sentence for an unknown level
``GET /metrics``             metrics   the counters, for Prometheus
===========================  ========  ===================================================================

The second column is the kind that the principal who asks must have (`ces.ops.gate`).

Status and metrics are views (`ces.ops.views`): bounded, built in slices, shared by all who ask.

Every error is answered with one plain sentence, never with an HTML page or a traceback.

Importing Klein imports Twisted's global reactor. To use another reactor, install it first, as twistd does.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from http import HTTPStatus
from io import BytesIO
from typing import Any, cast

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.http import Request as HTTPRequest
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource
from twisted.web.server import Request, Site
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

import ces
from ces.access.principal import ADMIN, METRICS, STATUS
from ces.config.link import LinkSettings
from ces.model.host import parse_host
from ces.model.posted import MalformedEvent
from ces.ops.answers import text
from ces.ops.browsers import Guard
from ces.ops.descriptors import WHAT_TO_DO, limit
from ces.ops.entrance import Entrance, Place
from ces.ops.gate import OF_ANYONE, Gate, Guarded
from ces.ops.logging import LogLevels
from ces.ops.metrics import CONTENT_TYPE, Counters, Metrics
from ces.ops.query import QueryError
from ces.ops.status import envelope
from ces.ops.views import Build, Busy, Views, ready

_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]*)(.*)")
"""A request target in absolute form (RFC 9112 section 3.2.2): authority, and path with query."""

FOR_BROWSERS = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
)
"""Said with each answer: it is kept nowhere, it is no page that runs or loads anything or may stand in
another one, and it is what its type says, whatever a peer has put into a name (CVE-2021-32718).
"""

BODY_LIMIT = 8 * 2**20
"""Default limit of a request body, in bytes."""

METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH")
"""The methods of HTTP (RFC 9110 section 9, RFC 5789), as they are written: case counts. Others get 501."""

HEAD_TIMEOUT = 10.0
"""Timeout for receiving the head of a request, in seconds, from its first byte (of the first one: from the
start of the connection). Slow progress does not extend it."""

REQUEST_TIMEOUT = 60.0
"""Timeout for receiving a request's body and for answering, in seconds. Slow progress does not extend it."""

RETRY_AFTER = 1
"""Seconds after which a client is told to try again when too many requests are answered."""

LIVE = b"/livez"
"""The path that is answered whatever else is going on."""

LINGER, LINGER_BYTES = 1.0, 2**20
"""Seconds and bytes for which a connection is still read after an answer that ends it: to close a connection
with unread data destroys the answer."""

IDLE_TIMEOUT = 10.0
"""Default timeout for a silent connection, within a request or between two, in seconds."""


class BoundedRequest(Request):
    """A request with a limited body, a known method and a decodable path.

    A body above the limit is answered with 413 at once. The rest of it is read and discarded, because closing
    a connection with unread data destroys the answer. After twice the limit the connection is aborted.
    """

    content: BytesIO
    postpath: list[bytes]
    _received = 0
    _refused = False
    _host_fault: str | None = None

    @property
    def refused(self) -> bool:
        """Whether it was answered with 413 before its body was complete."""
        return self._refused

    def gotLength(self, length: int | None) -> None:
        """The head is complete. `length` is None for a chunked body."""
        self.content = BytesIO()
        if length is not None and length > self._limit:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        """A part of the body has arrived."""
        self._received += len(data)
        if self._refused:
            if self._received > 2 * self._limit:
                self.channel.forceAbortClient()
        elif self._received > self._limit:
            self._refuse()
        else:
            self.content.write(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """The body is complete."""
        if self._refused:
            self.channel.loseConnection()
            return
        self._host_fault = self._judge_host(version)
        absolute = _ABSOLUTE.fullmatch(path)
        if absolute is not None:
            path = self._origin_form(*absolute.groups())
        super().requestReceived(command, path, version)

    def finish(self) -> None:
        """The answer is complete."""
        super().finish()
        self._let_go()

    def connectionLost(self, reason: Failure) -> None:
        """The connection is closed before the answer is complete."""
        super().connectionLost(reason)
        self._let_go()

    def _let_go(self) -> None:
        """Refer to the transport no more. Klein leaves each request in a reference cycle (a closure that
        refers to itself), which would keep what the transport has not sent until the cycle is collected.
        """
        self.transport = self.producer = None

    def _judge_host(self, version: bytes) -> str | None:
        """What is wrong with the Host header (RFC 9112 section 3.2), as a sentence; None when nothing is."""
        hosts = self.requestHeaders.getRawHeaders(b"host", [])
        if len(hosts) > 1:
            return "The request has more than one Host header."
        if not hosts:
            return "The request has no Host header." if version == b"HTTP/1.1" else None
        host = hosts[0].decode("latin-1")
        return f"The Host header {host[:100]!r} is not valid." if parse_host(host) is None else None

    def _origin_form(self, authority: bytes, rest: bytes) -> bytes:
        """Reduce an absolute target to its path and query. Its authority counts as the Host header."""
        host = parse_host(authority.decode("latin-1"))
        if host is None or not host.name:
            self._host_fault = self._host_fault or "The target of the request names no valid host."
        self.requestHeaders.setRawHeaders(b"host", [authority])
        return rest if rest.startswith(b"/") else b"/" + rest

    def render(self, resrc: IResource) -> None:
        """Answer the request, unless it is refused before Klein sees it."""
        self.setHeader("Server", "ces")
        for name, value in FOR_BROWSERS:
            self.setHeader(name, value)
        refused = self._refusal()
        if refused is None:
            super().render(resrc)
        else:
            self.write(text(self, *refused))
            self.finish()

    def _refusal(self) -> tuple[int, str] | None:
        """The status and the sentence with which the request is refused, whatever its path; or None."""
        if self._host_fault is not None:
            return 400, self._host_fault
        if self.method not in METHODS:  # Klein takes a method in any case, which proxies and filters do not
            return 501, f"There is no method {self.method[:20].decode('ascii', 'replace')!r}."
        try:
            b"/".join(self.postpath).decode("utf-8")
        except UnicodeDecodeError:
            return 400, "The path is not UTF-8."
        fault = self._site.guard.fault(self)
        if fault is not None:
            self._site.refused("browsers", fault.removesuffix("."))
            return 403, fault
        if self._site.entrance.busy and self.path != LIVE and not self._asks_for_an_upgrade:
            limit = self._site.entrance.limit
            self._site.refused("http", f"{limit} HTTP requests are answered already, which is the limit")
            self.setHeader("Retry-After", str(RETRY_AFTER))
            return 503, f"There are {limit} HTTP requests that are being answered, which is the limit."
        return None

    @property
    def _asks_for_an_upgrade(self) -> bool:
        """Whether it becomes a WebSocket, or is answered at once with what keeps it from that."""
        return self.requestHeaders.hasHeader(b"upgrade") and self.path.startswith(b"/connect/")

    def getRequestHostname(self) -> bytes:
        """A constant. No route depends on the Host header, and Klein raises on a malformed one."""
        return b"ces"

    @property
    def _site(self) -> BoundedSite:
        return cast(BoundedSite, cast(Any, self.channel).site)

    @property
    def _limit(self) -> int:
        return self._site.body_limit

    def _refuse(self) -> None:
        self._refused = True
        self.content = BytesIO()
        # The answer is final, so "100 Continue" must not follow it.
        self.requestHeaders.removeHeader("Expect")
        body = text(self, 413, f"The body is larger than {self._limit} bytes, which is the limit.")
        self.setHeader("Connection", "close")
        self.setHeader("Server", "ces")
        # Not through Request.write and finish: Twisted takes a finished request for a fully read one.
        self.channel.persistent = False
        self.channel.writeHeaders(b"HTTP/1.1", b"413", b"Request Entity Too Large", self.responseHeaders)
        if cast(BoundedChannel, self.channel).method != b"HEAD":
            self.channel.write(body)


class BoundedChannel(HTTPChannel):
    """An HTTP/1.1 connection. It has a place in the site's entrance, and a timeout for each request."""

    site: BoundedSite
    method = b""
    """The method of the present request, as far as its head has come."""
    _place: Place | None = None
    _deadline: IDelayedCall | None = None
    _begun = True
    """Whether a part of the present head has come. The time for the first one runs from the start."""
    _behind: Request | None = None
    """The request whose answer the peer must read before the next request is handled."""
    _head = 0
    """Bytes of the present head, without its line ends."""
    _headers = 0
    _closing: IDelayedCall | None = None
    _discarded = 0
    """Bytes that came after the answer that ends the connection."""

    def connectionMade(self) -> None:
        """Take a place."""
        super().connectionMade()
        self.totalHeadersSize = self.MAX_LENGTH = self.site.header_limit
        self._deadline = self.callLater(HEAD_TIMEOUT, self.forceAbortClient)
        host = getattr(cast(ITransport, self.transport).getPeer(), "host", "")
        self._place = self.site.entrance.enter(host, self._evict)

    def _evict(self) -> None:
        self._place = None
        self._abort()

    def _abort(self) -> None:
        # Not in good order: the other side need not read what it was sent, and would keep its descriptor.
        cast(Any, self.transport).abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """Ignore data on a connection that has no place any more, or that an answer has ended."""
        if self._closing is not None:
            self._discarded += len(data)
            if self._discarded > LINGER_BYTES:
                self._abort()
        elif self._place is not None:
            if not self._begun:
                self._begun = True
                self._expect(HEAD_TIMEOUT)
            super().dataReceived(data)

    def _expect(self, seconds: float) -> None:
        """What is due next must have come by then."""
        if self._deadline is not None and self._deadline.active():
            self._deadline.reset(seconds)

    def lineReceived(self, line: bytes) -> None:
        """Handle one line of a head. The first one names method, target and version."""
        if self._closing is not None:
            return
        first = not self._head
        if first:
            self.method = line.partition(b" ")[0]
        self._head += len(line)
        if self._head > self.site.header_limit:
            self._too_large(first)
        else:
            super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        """One line alone is larger than a head may be."""
        if self._closing is None:
            first = not self._head
            if first:
                self.method = line.partition(b" ")[0]
            self._too_large(first)

    def rawDataReceived(self, data: bytes) -> None:
        """Handle a part of a body."""
        if self._closing is None:
            super().rawDataReceived(data)

    def allHeadersReceived(self) -> None:
        """The head is complete."""
        self._begun = True
        self._expect(REQUEST_TIMEOUT)
        super().allHeadersReceived()

    def allContentReceived(self) -> None:
        """The request is complete."""
        self._head = self._headers = 0
        if self._place is not None:
            self._place.is_answered()
        super().allContentReceived()

    def _too_large(self, first: bool) -> None:
        limit = self.site.header_limit
        if not first:
            self._end(431, f"The head of the request is larger than {limit} bytes, which is the limit.")
        elif self.method in METHODS:
            self._end(414, f"The target of the request is longer than a head may be, {limit} bytes.")
        else:
            self._respondToBadRequestAndDisconnect()

    def _respondToBadRequestAndDisconnect(self) -> None:
        # Twisted answers with a bare status line, and closes while there may be more to read.
        self._end(400, "This is no request of HTTP/1.1 (RFC 9112).")

    def _end(self, code: int, sentence: str) -> None:
        """Answer with one sentence, read no further request, and close when the peer has had time to read."""
        if self._closing is not None:
            return
        self.persistent = False
        self.setTimeout(None)
        self._closing = self.callLater(LINGER, self.loseConnection)
        if self.requests and cast(BoundedRequest, self.requests[-1]).refused:
            return  # it has its answer
        body = sentence.encode()
        head = [f"HTTP/1.1 {code} {HTTPStatus(code).phrase}", "Server: ces"]
        head += [
            "Content-Type: text/plain; charset=utf-8",
            f"Content-Length: {len(body)}",
            "Connection: close",
        ]
        cast(ITransport, self.transport).write("\r\n".join([*head, "\r\n"]).encode())
        if self.method != b"HEAD":
            cast(ITransport, self.transport).write(body)

    def pauseProducing(self) -> None:
        """The peer does not read its answers: stop reading requests from it."""
        super().pauseProducing()
        self._networkProducer.pauseProducing()
        if self._place is not None:
            self._place.waits()

    def resumeProducing(self) -> None:
        """The transport has taken the answer: continue with the next request."""
        super().resumeProducing()
        if self._waitingForTransport:
            return  # it was given the next piece of the answer
        if self._behind is not None:
            request, self._behind = self._behind, None
            self.requestDone(request)
        elif self._handlingRequest and self._place is not None:
            self._place.is_answered()

    def requestDone(self, request: Request) -> None:
        """Start the timeout of the next request, once the transport has taken this answer.

        Without the wait, Twisted would answer all pipelined requests of one read (there may be thousands)
        although nothing is written.
        """
        if self.persistent and self._waitingForTransport:
            self._behind = request
            return
        if self._place is not None:
            self._place.waits()
        self._begun = False
        self._expect(REQUEST_TIMEOUT)
        super().requestDone(request)

    def release(self) -> Place | None:
        """Stop the timeouts. Call it when the connection closes or becomes a WebSocket.

        :return: its place, which is the caller's from now on; None if it has none any more.
        """
        for call in (self._deadline, self._closing):
            if call is not None and call.active():
                call.cancel()
        place, self._place = self._place, None
        return place

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is closed."""
        place = self.release()
        if place is not None:
            place.leave()
        super().connectionLost(reason)

    def headerReceived(self, line: bytes) -> bool:
        """Handle one header. Shortens an overlong Content-Length: int() raises beyond 4300 digits."""
        self._headers += 1
        if self._headers > self.maxHeaders:
            self._end(431, f"The head of the request has more than {self.maxHeaders} headers.")
            return False
        name, colon, value = line.partition(b":")
        if name.lower() == b"content-length" and len(value) > 20 and value.strip(b" \t").isdigit():
            line = name + colon + b"9" * 18
        return cast(bool, super().headerReceived(line))


class BoundedSite(Site):
    """A site with limits on connections, heads and bodies, and without an access log.

    entrance: the places of its connections.
    guard: judges requests of web pages.
    refused: callback for what is refused; see `make_site`.
    """

    # Twisted's default channel may also speak HTTP/2, which cannot be upgraded to WebSocket.
    protocol = cast(Any, BoundedChannel)
    noisy = False

    def __init__(
        self,
        resource: IResource,
        reactor: IReactorTime,
        settings: LinkSettings,
        body_limit: int,
        timeout: float,
        refused: Callable[[str, str], None],
        machine: str,
    ) -> None:
        # A posted event is JSON even if its Content-Type says otherwise (curl sends that of a form).
        super().__init__(
            resource, BoundedRequest, timeout=timeout, reactor=reactor, parsePOSTFormSubmission=False
        )
        self.body_limit = body_limit
        self.header_limit = settings.header_limit
        self.entrance = Entrance(settings.http_connections, refused, reactor)
        self.guard = Guard(settings, machine)
        self.refused = refused

    def make_room(self) -> bool:
        """There is no descriptor for a newcomer: evict one connection. Returns whether one gave way."""
        why = f"a connection: the process may have {limit()} descriptors, and none is left"
        self.refused("descriptors", f"{why}. {WHAT_TO_DO}")
        return self.entrance.make_room(1, "no descriptor is left") > 0

    def room(self) -> int:
        """How many newcomers there are places for now."""
        return self.entrance.room()

    def startFactory(self) -> None:
        """Does nothing. Twisted would start a timer for the time stamps of its access log."""

    def stopFactory(self) -> None:
        """Does nothing, as `startFactory` has started nothing."""

    def log(self, request: HTTPRequest) -> None:
        """Does nothing. Monitoring sends a request every few seconds."""


def make_site(
    resource: IResource,
    reactor: IReactorTime,
    settings: LinkSettings,
    *,
    refused: Callable[[str, str], None],
    body_limit: int = BODY_LIMIT,
    timeout: float = IDLE_TIMEOUT,
    machine: str = "",
) -> BoundedSite:
    """A factory that serves `resource`. The caller listens with it on a port.

    :param settings: `header_limit` limits a request's head, in bytes (431 above it), and `http_connections`
        the requests that are answered at a time (503 above it) and, with `ces.ops.entrance.RESERVE` more, the
        connections that are no links (above it another one is evicted). `allow_origin` and `allow_host`
        say which web pages may change something (`ces.ops.browsers`; 403 for others).
    :param refused: callback for each connection that was evicted (``idle``), and for each request that was
        refused as one too many (``http``) or one of a web page (``browsers``); gets the word and the reason.
    :param body_limit: limit of a request's body, in bytes; 413 above it.
    :param timeout: timeout for a silent connection, within a request or between two, in seconds.
    :param machine: the name of this machine; by default what the system says.
    """
    machine = machine or socket.gethostname()
    return BoundedSite(resource, reactor, settings, body_limit, timeout, refused, machine)


def add_common_routes(
    app: Klein,
    gate: Gate,
    *,
    bin: str,
    clock: IReactorTime,
    levels: LogLevels,
    views: Views,
    info: Callable[[], Build],
    counters: Counters,
    sick: Callable[[], str | None] = lambda: None,
) -> None:
    """Add the common routes and the error answers to `app`.

    Call it after the role has added its own error handlers, because it handles every exception. The uptime in
    the status counts from this call.

    :param gate: judges who asks.
    :param bin: the program's name in the status, for example ``ces-hub``.
    :param views: answers with what is built in slices.
    :param info: begins to build the ``info`` of the status, a mapping.
    :param counters: returns the metrics.
    :param sick: returns why the role cannot do its work, as a sentence, or None when it can.
    """
    started = clock.seconds()
    metrics = Metrics(counters)

    def build_status() -> Build:
        uptime = clock.seconds() - started
        built = yield from info()
        return envelope(bin, ces.__version__, uptime, built, sick())

    def status(request: IRequest) -> Deferred[None]:
        return views.answer(request, "status", build_status)

    def health(request: IRequest) -> bytes:
        return text(request, 200, "ok")

    def scrape(request: IRequest) -> Deferred[None]:
        return views.answer(
            request, "metrics", lambda: ready(None), lambda _: metrics.exposition(), CONTENT_TYPE
        )

    def log_level(request: IRequest) -> bytes:
        return text(request, 200, levels.level)

    def set_log_level(request: IRequest, level: str) -> bytes:
        try:
            levels.set(level.lower())
        except ValueError as error:
            return text(request, 400, f"{error}.")
        return text(request, 200, levels.level)

    route = Guarded(app, gate).route
    route("/status", "GET", STATUS, status)
    route("/health", "GET", OF_ANYONE, health)
    route(LIVE.decode(), "GET", OF_ANYONE, health)
    route("/metrics", "GET", METRICS, scrape)
    route("/log-level", "GET", STATUS, log_level)
    route("/log-level/<level>", "PUT", ADMIN, set_log_level)
    _add_faults(app, levels.logger("ces.http"))


def _add_faults(app: Klein, log: Logger) -> None:
    def refuse(request: IRequest, failure: Failure) -> bytes:
        fault = cast(HTTPException, failure.value)
        path = cast(Any, request).path.decode("ascii", "replace")[:200]
        match fault:
            case NotFound():
                sentence = f"There is nothing at {path}."
            case MethodNotAllowed():
                allowed = ", ".join(sorted(fault.valid_methods or ()))
                request.setHeader("Allow", allowed)
                sentence = f"{path} does not take {request.method.decode('ascii')}; it takes {allowed}."
            case _:
                sentence = f"The request for {path} cannot be served: {fault.name}."
        return text(request, fault.code or 500, sentence)

    def fail(request: IRequest, failure: Failure) -> bytes:
        log.failure("{method} {path} failed", failure, method=request.method, path=cast(Any, request).path)
        return text(request, 500, "Internal error: the log has the details.")

    def malformed(request: IRequest, failure: Failure) -> bytes:
        return text(request, 400, str(failure.value))

    def busy(request: IRequest, failure: Failure) -> bytes:
        request.setHeader("Retry-After", str(RETRY_AFTER))
        return text(request, 503, f"{failure.value}: try again.")

    app.handle_errors(HTTPException)(refuse)
    app.handle_errors(Busy)(busy)
    app.handle_errors(QueryError, MalformedEvent)(malformed)
    app.handle_errors(Exception)(fail)
