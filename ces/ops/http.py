"""What the HTTP sides of hub and repeater share: a bounded site, plain answers and the routes of every role.

=============================  ===========================================================================
``GET /status``                the envelope of `ces.ops.status`
``GET /health``                200 "ok"
``GET /log-level``             the level's name
``PUT /log-level/{level}``     change it while running; 400 with a sentence when there is no such level
``GET /metrics``               the counters, for Prometheus
=============================  ===========================================================================

Whatever goes wrong is answered with one plain sentence, never with a page of HTML or a traceback.

Importing Klein imports Twisted's global reactor: who wants another one installs it first, as twistd does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any, cast

import msgspec
from klein import Klein
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
from ces.ops.logging import LogLevels
from ces.ops.metrics import CONTENT_TYPE, Counters, Metrics
from ces.ops.status import envelope

BODY_LIMIT = 8 * 2**20
"""Bytes of the largest request body, unless told otherwise."""

HEADER_LIMIT = 16 * 2**10
"""Bytes of the largest head of a request, unless told otherwise."""

CONNECTIONS = 1000
"""So many connections at a time, unless told otherwise."""

REQUEST_TIMEOUT = 60.0
"""Seconds that a request may take to come and to be answered, however it trickles."""

IDLE_TIMEOUT = 10.0
"""Seconds that a connection may be silent within a request or between two, unless told otherwise."""


def text(request: IRequest, code: int, sentence: str) -> bytes:
    """Answer with one sentence; the result is what a Klein route returns."""
    return _answer(request, code, "text/plain; charset=utf-8", sentence.encode("utf-8", "backslashreplace"))


def json_answer(request: IRequest, obj: object, code: int = 200, indent: bool = True) -> bytes:
    """Answer with JSON; the result is what a Klein route returns.

    :param indent: for people. What others wrote is left as it is: indented, what is nested deeply has many
        times the size.
    """
    body = msgspec.json.encode(obj)
    if indent:
        body = msgspec.json.format(body, indent=2)
    return _answer(request, code, "application/json", body + b"\n")


def _answer(request: IRequest, code: int, content_type: str, body: bytes) -> bytes:
    request.setResponseCode(code)
    request.setHeader("Content-Type", content_type)
    request.setHeader("Content-Length", str(len(body)))
    return body


class BoundedRequest(Request):
    """A request whose body is bounded and whose path and method are texts.

    A body that is too large is answered with 413 at once. The rest of it is read and thrown away, for a
    connection closed with unread data takes the answer with it, but not without an end: after as much again
    it is cut.
    """

    content: BytesIO
    postpath: list[bytes]
    _received = 0
    _refused = False

    def gotLength(self, length: int | None) -> None:
        """The head is complete; None means a chunked body."""
        self.content = BytesIO()
        if length is not None and length > self._limit:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        """A part of the body has come."""
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
        else:
            super().requestReceived(command, path, version)

    def render(self, resrc: IResource) -> None:
        """Answer, once what Klein would stumble over is out of the way."""
        self.setHeader("Server", "ces")
        try:
            self.method.decode("ascii")
            b"/".join(self.postpath).decode("utf-8")
        except UnicodeDecodeError:
            self.write(text(self, 400, "The method is not ASCII or the path is not UTF-8."))
            self.finish()
        else:
            super().render(resrc)

    def getRequestHostname(self) -> bytes:
        """A constant: no route depends on the Host header, and Klein fails with a traceback on an odd one."""
        return b"ces"

    @property
    def _limit(self) -> int:
        return cast(BoundedSite, cast(Any, self.channel).site).body_limit

    def _refuse(self) -> None:
        self._refused = True
        self.content = BytesIO()
        # After this answer there is nothing to continue to.
        self.requestHeaders.removeHeader("Expect")
        body = text(self, 413, f"The body is larger than {self._limit} bytes, the most that is taken here.")
        self.setHeader("Connection", "close")
        self.setHeader("Server", "ces")
        # Not through Request.write and finish: to Twisted a request that is finished has been read.
        self.channel.persistent = False
        self.channel.writeHeaders(b"HTTP/1.1", b"413", b"Request Entity Too Large", self.responseHeaders)
        self.channel.write(body)


class BoundedChannel(HTTPChannel):
    """A connection of HTTP/1.1: one of so many, with so much time for each request."""

    site: BoundedSite
    _deadline: IDelayedCall | None = None
    _behind: Request | None = None
    """The request whose answer is to be read before the next one gets any."""

    def connectionMade(self) -> None:
        """Take a place, if there is one."""
        super().connectionMade()
        self.totalHeadersSize = self.site.header_limit
        self._deadline = self.callLater(REQUEST_TIMEOUT, self.forceAbortClient)
        if not self.site.enter(self):
            body = f"There are {self.site.connections} HTTP connections already, the most that are taken."
            head = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n"
            more = f"Content-Length: {len(body)}\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
            cast(ITransport, self.transport).write((head + more + body).encode())
            self.persistent = False
            self.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        """Nothing that comes on a connection without a place matters."""
        if self in self.site.channels:
            super().dataReceived(data)

    def pauseProducing(self) -> None:
        """An answer is not read: read no more requests, as Twisted does when it is not written at once."""
        super().pauseProducing()
        self._networkProducer.pauseProducing()

    def resumeProducing(self) -> None:
        """What was written has been passed on: go on."""
        super().resumeProducing()
        if self._behind is not None:
            request, self._behind = self._behind, None
            self.requestDone(request)

    def requestDone(self, request: Request) -> None:
        """The next request has its own time. It waits until this answer has been passed on: Twisted would
        answer all that one read brought, thousands, whatever waits to be written.
        """
        if self.persistent and self._waitingForTransport:
            self._behind = request
            return
        super().requestDone(request)
        if self._deadline is not None and self._deadline.active():
            self._deadline.reset(REQUEST_TIMEOUT)

    def release(self) -> None:
        """This is no HTTP connection any more."""
        self.site.channels.discard(self)
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Give the place back."""
        self.release()
        super().connectionLost(reason)

    def headerReceived(self, line: bytes) -> bool:
        """One header line, whole. Content-Length must be a number that Python reads: beyond 4300 digits int()
        raises.
        """
        name, colon, value = line.partition(b":")
        if name.lower() == b"content-length" and len(value) > 20 and value.strip(b" \t").isdigit():
            line = name + colon + b"9" * 18
        return cast(bool, super().headerReceived(line))


class BoundedSite(Site):
    """A site with bounds on connections, heads and bodies, and without an access log.

    channels: the connections that have a place.
    """

    # Twisted's own choice is a proxy that may also speak HTTP/2, which WebSocket links cannot come through.
    protocol = cast(Any, BoundedChannel)
    noisy = False

    def __init__(
        self,
        resource: IResource,
        reactor: IReactorTime,
        body_limit: int,
        timeout: float,
        header_limit: int,
        connections: int,
        refused: Callable[[str], None],
    ) -> None:
        # A posted event is JSON whatever its Content-Type says (curl says that it is a form).
        super().__init__(
            resource, BoundedRequest, timeout=timeout, reactor=reactor, parsePOSTFormSubmission=False
        )
        self.body_limit = body_limit
        self.header_limit = header_limit
        self.connections = connections
        self.channels: set[BoundedChannel] = set()
        self._refused = refused

    def enter(self, channel: BoundedChannel) -> bool:
        """Give a connection a place; False when none is left."""
        if len(self.channels) >= self.connections:
            self._refused(f"{self.connections} HTTP connections, the most that are taken")
            return False
        self.channels.add(channel)
        return True

    def startFactory(self) -> None:
        """Nothing to do: without an access log there is no clock to keep for its time stamps."""

    def stopFactory(self) -> None:
        """Nothing to undo."""

    def log(self, request: HTTPRequest) -> None:
        """Nothing: monitoring asks every few seconds."""


def make_site(
    resource: IResource,
    reactor: IReactorTime,
    *,
    body_limit: int = BODY_LIMIT,
    timeout: float = IDLE_TIMEOUT,
    header_limit: int = HEADER_LIMIT,
    connections: int = CONNECTIONS,
    refused: Callable[[str], None] = lambda why: None,
) -> Site:
    """A factory that serves `resource`, for a listening port.

    :param body_limit: bytes of the largest body; 413 beyond.
    :param timeout: seconds that a connection may be silent within a request or between two.
    :param header_limit: bytes of the largest head of a request; 400 beyond.
    :param connections: so many at a time, not counting those that have become links; 503 beyond.
    :param refused: told of each that is refused.
    """
    return BoundedSite(resource, reactor, body_limit, timeout, header_limit, connections, refused)


def add_common_routes(
    app: Klein,
    *,
    bin: str,
    clock: IReactorTime,
    levels: LogLevels,
    info: Callable[[], Mapping[str, object]],
    counters: Counters,
    sick: Callable[[], str | None] = lambda: None,
) -> None:
    """Give `app` the routes of every role and its answers to what goes wrong.

    Call it after the role's own error handlers have been added, since it answers every exception.

    :param bin: the program's name in the status, for example ``ces-hub``; its uptime is counted from now.
    :param info: the ``info`` of the status.
    :param counters: the metrics.
    :param sick: why the role cannot do its work, as a sentence; None when it can.
    """
    started = clock.seconds()
    metrics = Metrics(counters)

    def status(request: IRequest) -> bytes:
        uptime = clock.seconds() - started
        return json_answer(request, envelope(bin, ces.__version__, uptime, info(), sick()))

    def health(request: IRequest) -> bytes:
        return text(request, 200, "ok")

    def scrape(request: IRequest) -> bytes:
        return _answer(request, 200, CONTENT_TYPE, metrics.exposition())

    def log_level(request: IRequest) -> bytes:
        return text(request, 200, levels.level)

    def set_log_level(request: IRequest, level: str) -> bytes:
        try:
            levels.set(level.lower())
        except ValueError as error:
            return text(request, 400, f"{error}.")
        return text(request, 200, levels.level)

    app.route("/status", methods=["GET"])(status)
    app.route("/health", methods=["GET"])(health)
    app.route("/metrics", methods=["GET"])(scrape)
    app.route("/log-level", methods=["GET"])(log_level)
    app.route("/log-level/<level>", methods=["PUT"])(set_log_level)
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
        return text(request, 500, "Something is wrong here, not with the request; the log says what.")

    app.handle_errors(HTTPException)(refuse)
    app.handle_errors(Exception)(fail)
