"""HTTP connections to a small application with the common routes, byte for byte and without sockets."""

from __future__ import annotations

from typing import NamedTuple

from klein import Klein
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from ces.access.table import Open
from ces.config.link import LinkSettings
from ces.ops.answers import json_answer, text
from ces.ops.gate import Gate
from ces.ops.http import add_common_routes, make_site
from ces.ops.logging import LogLevels
from ces.ops.views import Views, ready


class Answer(NamedTuple):
    code: int
    headers: dict[str, str]
    body: bytes

    @property
    def sentence(self) -> str:
        return self.body.decode()


def answer(raw: bytes) -> Answer:
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    if "content-length" in headers:
        body = body[: int(headers["content-length"])]
    return Answer(int(status.split()[1]), headers, body)


class Connection:
    """One HTTP connection to a small application with the common routes."""

    def __init__(self, body_limit: int = 1000, **settings: int) -> None:
        self.clock = Clock()
        self.refused: list[str] = []
        self.levels = LogLevels()
        self.sick: str | None = None
        self.slow: Deferred[bytes] = Deferred()
        self.views = Views(self.clock, lambda what, why: self.refused.append(why), self.clock.seconds)
        app = Klein()
        app.route("/echo", methods=["POST"], endpoint="echo")(
            lambda request: text(request, 200, request.content.read().decode())
        )
        app.route("/form", methods=["POST"], endpoint="form")(
            lambda request: json_answer(request, len(request.args))
        )
        app.route("/json", endpoint="json")(lambda request: json_answer(request, {"a": 1}, 202))
        app.route("/fails", endpoint="fails")(lambda request: 1 / 0)
        app.route("/slow", endpoint="slow")(lambda request: self.slow)
        add_common_routes(
            app,
            Gate(Open(), lambda what, why: None),
            bin="ces-test",
            clock=self.clock,
            levels=self.levels,
            views=self.views,
            info=lambda: ready({"nexus": 1}),
            counters=lambda: {"ces_test": ("A test.", "counter", 3)},
            sick=lambda: self.sick,
        )
        self.site = make_site(
            app.resource(),
            self.clock,
            LinkSettings(**settings),
            refused=lambda what, why: self.refused.append(why),
            body_limit=body_limit,
        )
        self.site.doStart()
        self.app = app
        self.connect()

    def connect(self) -> None:
        self.channel = self.site.buildProtocol(None)
        self.transport = StringTransport(peerAddress=IPv4Address("TCP", "127.0.0.1", 50000))
        self.transport.abortConnection = self.transport.loseConnection
        self.channel.makeConnection(self.transport)

    def feed(self, raw: bytes) -> bytes:
        """Let these bytes arrive; what was written for them."""
        self.transport.clear()
        self.channel.dataReceived(raw)
        return self.transport.value()

    def send(self, raw: bytes) -> Answer:
        return answer(self.feed(raw))

    def ask(self, method: str, path: str, body: bytes = b"", headers: str = "") -> Answer:
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        head = f"{method} {path} HTTP/1.1\r\nHost: test\r\n{length}{headers}\r\n"
        return self.send(head.encode("latin-1") + body)


class Narrow(StringTransport):
    """A transport that asks its producer to pause when more is written than has been read, as TCP's do."""

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.producer is not None and len(self.value()) > 2**16 and not self.paused:
            self.paused = True
            self.producer.pauseProducing()

    paused = False

    def read_all(self) -> int:
        size = len(self.value())
        self.clear()
        self.paused = False
        self.producer.resumeProducing()
        return size
