"""A messenger for tests, on a network that only the test moves.

`Network` is clock and reactor in one; a messenger that dials on it gets a `Dial`, which the test answers
(`accept`) or not (`refuse`). What is accepted is a `Wire`, on which the test plays the hub byte by byte.
"""

from __future__ import annotations

import json
from collections.abc import Coroutine, Iterable
from datetime import UTC, datetime
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError, UserError
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import Logger
from twisted.python.failure import Failure

from ces.event import Event, Room
from ces.link.protocol import Link
from ces.messenger import Messenger
from ces.model.wire import CES1, CES2
from tests.support.links import Lines, frame, read_frames, upgraded

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
"""The present time of `make_messenger`'s messengers."""


class Network(Clock):
    """A reactor whose connections the test makes and breaks.

    dials: every connector, in the order in which they were asked for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dials: list[Dial] = []

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: object = None
    ) -> Dial:
        return self._dial(host, port, factory, secure=False)

    def connectSSL(
        self, host: str, port: int, factory: Any, context: object, timeout: float = 30, bind: object = None
    ) -> Dial:
        return self._dial(host, port, factory, secure=True)

    def _dial(self, host: str, port: int, factory: Any, secure: bool) -> Dial:
        dial = Dial(self, host, port, factory, secure)
        self.dials.append(dial)
        dial.connect()
        return dial

    @property
    def dial(self) -> Dial:
        """The newest."""
        return self.dials[-1]

    def turn(self) -> None:
        """Let a reactor turn or two pass, without time passing."""
        for _ in range(3):
            self.advance(0)

    def redial(self) -> None:
        """Let time pass until the messenger dials again, at most a minute."""
        count = self.dial.count
        for _ in range(600):
            if self.dial.count > count:
                return
            self.advance(0.1)
        raise AssertionError("it was not dialled again")


class Dial:
    """A connector. count: how often it was asked to connect. dialling: whether it is to be answered."""

    def __init__(self, network: Network, host: str, port: int, factory: Any, secure: bool) -> None:
        self.network, self.host, self.port, self.factory, self.secure = network, host, port, factory, secure
        self.count = 0
        self.dialling = False

    def connect(self) -> None:
        self.count += 1
        self.dialling = True
        self.factory.startedConnecting(self)

    def stopConnecting(self) -> None:
        self._fail(UserError())

    def refuse(self) -> None:
        """Nobody listens there."""
        self._fail(ConnectionRefusedError())

    def _fail(self, error: Exception) -> None:
        assert self.dialling
        self.dialling = False
        self.factory.clientConnectionFailed(self, Failure(error))

    def connected(self) -> Wire:
        """Somebody listens there, and has not answered the handshake yet."""
        assert self.dialling
        self.dialling = False
        return Wire(self)

    def accept(self, dialect: str = CES1) -> Wire:
        """Answer as a hub that speaks this dialect."""
        wire = self.connected()
        wire.answer(dialect)
        return wire


class Wire(StringTransport):
    """The hub's end of one connection.

    request: the opening handshake that came.
    closes: whether this hub answers a closing handshake; it does, as ours and the fleet's do.
    """

    def __init__(self, dial: Dial) -> None:
        super().__init__(IPv4Address("TCP", "127.0.0.1", 7100), IPv4Address("TCP", "127.0.0.1", 40000))
        self._dial = dial
        self.alive = True
        self.closes = True
        self.written: list[tuple[int, bytes]] = []
        """Every frame that came."""
        self.link: Link = dial.factory.buildProtocol(self.getPeer())
        self.link.makeConnection(self)
        self.request = self.value()
        self.clear()

    def answer(self, dialect: str) -> None:
        """Answer the opening handshake, and in ces.2 the hello."""
        self.link.dataReceived(upgraded(self.request, dialect))
        if dialect == CES2:
            self.link.dataReceived(frame(TEXT, b'{"hello":{"node":"the-hub"}}', masked=False))
        self._dial.network.turn()

    # What the messenger's end does.

    def write(self, data: bytes) -> None:
        super().write(data)
        if b"HTTP/1.1" in data:
            return
        frames = read_frames(data)
        self.clear()
        self.written += frames
        if self.closes and any(opcode == CLOSE for opcode, _ in frames):
            self._dial.network.callLater(0, self.close, frames[-1][1])

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def abortConnection(self) -> None:
        self.cut()

    def loseConnection(self) -> None:
        self._dial.network.callLater(0, self.cut, ConnectionDone())

    # What the test lets the hub do.

    def cut(self, error: Exception | None = None) -> None:
        """Break the connection."""
        if self.alive:
            self.alive = False
            why = Failure(error or ConnectionLost())
            self.link.connectionLost(why)
            self._dial.factory.clientConnectionLost(self._dial, why)

    def close(self, payload: bytes) -> None:
        """Send a close frame, as a first word or as the answer to one, and end the connection."""
        if self.alive:
            self.link.dataReceived(frame(CLOSE, payload, masked=False))
            self.cut(ConnectionDone())

    def send(self, *records: bytes) -> None:
        """Send each as one binary message."""
        self.link.dataReceived(b"".join([frame(BINARY, record, masked=False) for record in records]))

    def ping(self) -> None:
        """Send a ping as the fleet's hubs do, with nothing in it."""
        self.link.dataReceived(frame(PING, b"", masked=False))

    def texts(self) -> list[Any]:
        """What the text messages that came say, the hello excepted."""
        said = [json.loads(payload) for opcode, payload in self.written if opcode == TEXT]
        return [message for message in said if "hello" not in message]

    def messages(self) -> list[bytes]:
        """The binary messages that came."""
        return [payload for opcode, payload in self.written if opcode == BINARY]


class Told:
    """What one Deferred came to: `result`, `error` or neither, and it `fired` or has not."""

    def __init__(self, deferred: Deferred[Any]) -> None:
        self.fired = False
        self.result: Any = None
        self.error: BaseException | None = None
        deferred.addCallbacks(self._callback, self._errback)

    def _callback(self, result: Any) -> None:
        self.fired, self.result = True, result

    def _errback(self, failure: Failure) -> None:
        self.fired, self.error = True, failure.value


def run_coroutine(coroutine: Coroutine[Any, Any, Any]) -> Told:
    """Start it."""
    return Told(Deferred.fromCoroutine(coroutine))


def make_messenger(
    network: Network, rooms: Any = (), *, lines: Lines | None = None, address: str = "ws://hub", **more: Any
) -> Messenger:
    """A messenger that logs to `lines`."""
    log = Logger(namespace="ces.test", observer=Lines() if lines is None else lines)
    return Messenger(address, rooms, reactor=network, log=log, node="me", now=lambda: NOW, **more)


def connected(
    rooms: Any = (), dialect: str = CES1, network: Network | None = None, **more: Any
) -> tuple[Messenger, Wire, Network]:
    """A messenger with a link, the hub's end of it, and the network."""
    network = network or Network()
    messenger = make_messenger(network, rooms, **more)
    messenger.connect()
    return messenger, network.dial.accept(dialect), network


def event(key: str, room: str = "ITB-1108") -> Event:
    """An event that is told from others by its key."""
    return Event(
        timestamp="2026-11-23T07:59:59Z",
        affected_room=Room.of(room) if room else Room(),
        key=key,
        value="on",
    )


def record(key: str, room: str = "ITB-1108") -> bytes:
    """The record of `event(key, room)` as it is strictly written."""
    return b"%b\n%b\n" % (room.encode(), event(key, room).to_json())
