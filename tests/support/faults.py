"""A proxy that injects network faults: cuts, silence, delay, single bytes, answers of its own.

`Proxy` (on Twisted) listens on a free loopback port and passes every connection on to a server. A `Pipe` is
one such pair of connections. Faults have names (`FAULTS`, `REFUSALS`). All randomness comes from a seed.
"""

from __future__ import annotations

import random
import struct
import time
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

FAULTS = ("reset", "close", "mid-frame", "silence", "one-way silence", "delay", "crumbs", "half-open")
"""The faults of a connection. ``delay`` and ``crumbs`` (one byte at a time) do not end it."""

REFUSALS = ("502", "503", "504")
"""The faults of a proxy whose server is away: it cuts a connection, and for up to `REFUSED` seconds answers
each handshake by itself.
"""

DELAY = 0.3
REFUSED = (0.5, 2.0)

NGINX = (
    "HTTP/1.1 %s\r\nServer: nginx\r\nContent-Type: text/html\r\nContent-Length: %d\r\n"
    "Connection: %s\r\n\r\n%s"
)
HAPROXY = "HTTP/1.0 %s\r\nCache-Control: no-cache\r\nConnection: close\r\nContent-Type: text/html\r\n\r\n%s"
BODY = "<html><body><h1>%s</h1>\nThe server is temporarily unable to service your request.\n</body></html>\n"
REASONS = {"502": "Bad Gateway", "503": "Service Unavailable", "504": "Gateway Timeout"}


def refusals(status: str) -> list[bytes]:
    """What proxies answer: with a length, and they close or not; or without one, and they close."""
    line = f"{status} {REASONS[status]}"
    body = BODY % line
    nginx = [NGINX % (line, len(body), connection, body) for connection in ("close", "keep-alive")]
    return [answer.encode() for answer in (*nginx, HAPROXY % (line, body))]


class Refusal(Protocol):
    """Answers a handshake instead of the server. One answer leaves the connection open, as nginx does."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._read = b""

    def dataReceived(self, data: bytes) -> None:
        before, self._read = self._read, self._read + data
        if b"\r\n\r\n" in self._read and b"\r\n\r\n" not in before:
            self.transport.write(self._answer)
            if b"keep-alive" not in self._answer:
                self.transport.loseConnection()

    def abort(self) -> None:
        """Reset the connection."""
        if self.transport is not None:
            self.transport.abortConnection()


class End(Protocol):
    """One end of a pipe."""

    def __init__(self, pipe: Pipe) -> None:
        self.pipe = pipe
        self.early: list[bytes] | None = []  # data to write once it is connected
        self.held: list[bytes] = []  # data that it has read and will pass on later
        self.mute = False
        self.limit: int | None = None
        self.late = False
        self.open = False

    def connectionMade(self) -> None:
        self.open = True
        self.transport.setTcpNoDelay(True)
        early, self.early = self.early or [], None
        for data in early:
            self.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        if self.mute:
            return
        if self.late:
            self.held.append(data)
            return
        self.pass_on(data)

    def pass_on(self, data: bytes) -> None:
        other = self.pipe.other(self)
        if self.limit is not None:
            data, self.limit = data[: self.limit], max(0, self.limit - len(data))
            if not self.limit:
                other.write(data)
                self.pipe.reset()
                return
        other.write(data)

    def write(self, data: bytes) -> None:
        if self.open:
            self.transport.write(data)
        elif self.early is not None:
            self.early.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.open = False
        self.pipe.lost(self)

    def abort(self) -> None:
        """Reset the connection. Data under way is lost."""
        if self.open:
            self.transport.getHandle().setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abortConnection()


class Pipe:
    """A client's connection to the proxy, and the proxy's connection to the server."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.client, self.server = End(self), End(self)
        self.half_open = False
        self.dead = False

    def other(self, end: End) -> End:
        return self.server if end is self.client else self.client

    def lost(self, end: End) -> None:
        self.dead = True
        self.proxy.pipes.pop(self, None)
        other = self.other(end)
        if self.half_open:
            return  # the other side must not notice
        if other.open:
            other.transport.loseConnection()

    def reset(self) -> None:
        self.dead = True
        self.client.abort()
        self.server.abort()

    def fault(self, name: str) -> None:
        """Inject the fault `name`."""
        chance, clock = self.proxy.random, self.proxy.reactor
        if name == "reset":
            self.reset()
        elif name == "close":
            self.dead = True
            for end in (self.client, self.server):
                if end.open:
                    end.transport.loseConnection()
        elif name == "mid-frame":
            chance.choice((self.client, self.server)).limit = chance.randrange(1, 400)
        elif name in ("silence", "half-open"):
            self.client.mute = self.server.mute = self.dead = True
            if name == "half-open":
                self.half_open = True
                chance.choice((self.client, self.server)).abort()
        elif name == "one-way silence":
            chance.choice((self.client, self.server)).mute = self.dead = True
        elif name == "delay":
            end = chance.choice((self.client, self.server))
            end.late = True
            clock.callLater(DELAY, self._late, end)
        elif name == "crumbs":
            end = chance.choice((self.client, self.server))
            end.late = True
            clock.callLater(DELAY / 2, self._crumbs, end)
        elif name in REFUSALS:
            self.proxy.refuse(name, chance.uniform(*REFUSED))
            self.reset()
        else:
            raise ValueError(f"there is no fault {name!r}")

    def _late(self, end: End) -> None:
        held, end.held, end.late = end.held, [], False
        for data in held:
            end.pass_on(data)

    def _crumbs(self, end: End) -> None:
        data, end.held, end.late = b"".join(end.held), [], False
        for at in range(len(data)):
            end.pass_on(data[at : at + 1])


class Proxy(Factory):
    """Listens, and passes connections on to ``127.0.0.1:port``.

    pipes: the open pipes.
    refused: how many connections it has answered by itself.
    """

    noisy = False

    def __init__(self, port: int, seed: int, reactor: Any) -> None:
        self.random = random.Random(seed)
        self.reactor = reactor
        self.pipes: dict[Pipe, None] = {}
        self.refused = 0
        self._refusing: tuple[float, str] = (0.0, "")
        self._refusals: list[Refusal] = []
        self._server = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        self._ends: list[Pipe] = []
        self._listening = reactor.listenTCP(0, self, interface="127.0.0.1")
        self.port: int = self._listening.getHost().port

    def refuse(self, status: str, seconds: float) -> None:
        """Answer every new connection with this status, for so many seconds."""
        self._refusing = (time.monotonic() + seconds, status)

    @property
    def refusing(self) -> bool:
        return time.monotonic() < self._refusing[0]

    def buildProtocol(self, addr: object) -> Protocol:
        if self.refusing:
            refusal = Refusal(self.random.choice(refusals(self._refusing[1])))
            self._refusals.append(refusal)
            self.refused += 1
            return refusal
        pipe = Pipe(self)
        self.pipes[pipe] = None
        self._ends.append(pipe)
        factory = Factory.forProtocol(Protocol)
        factory.noisy = False
        factory.buildProtocol = lambda addr: pipe.server  # type: ignore[method-assign,assignment,return-value]
        connecting = self._server.connect(factory)
        connecting.addErrback(lambda failure: pipe.client.abort())
        return pipe.client

    def strike(self, faults: tuple[str, ...] = FAULTS) -> str | None:
        """Inject a random fault into a random open pipe. Returns its name, or None without an open pipe."""
        living = [pipe for pipe in self.pipes if not pipe.dead and pipe.client.open and pipe.server.open]
        if not living:
            return None
        fault = self.random.choice(faults)
        self.random.choice(living).fault(fault)
        return fault

    async def stop(self) -> None:
        """Stop listening and reset all connections."""
        stopping: Deferred[None] | None = self._listening.stopListening()
        if stopping is not None:
            await stopping
        for pipe in self._ends:
            pipe.reset()
        for refusal in self._refusals:
            refusal.abort()
