"""A network in memory: whoever dials waits until the test answers, refuses, or leaves it waiting.

`Network` is a reactor and its clock, with names of its own. `Network.dials` are the `Dial`s that wait, oldest
first. A test answers one in one of these ways::

    dial.refuse()               nobody listens there
    dial.answer("the-hub")      a serving link whose owner is a `Recorder`
    dial.meet(factory)          a serving connection of this factory: a real hub or repeater
    dial.accept(CES2)           a `Wire`, on which the test plays the hub byte by byte

`join()` links two real ends for a test that is about neither.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError, UserError
from twisted.internet.interfaces import IReactorPluggableNameResolver
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, IOPump, connect
from zope.interface import implementer

from ces.config.link import LinkSettings
from ces.link.connection import Connection
from ces.link.link import Link
from ces.link.serving import ServingFactory
from ces.model.wire import CES1, CES2
from ces.uplink.uplink import Uplink
from tests.support.links import Lines, Recorder, frame, make_side, make_uplink, read_frames, upgraded

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

ATTEMPT = 0.3
"""Seconds after which `HostnameEndpoint` goes on to the next address, or reports that none is left."""


@implementer(IReactorPluggableNameResolver)
class Network(MemoryReactorClock):
    """A reactor whose connections the test makes and breaks.

    names: the addresses of each name; one that is not there has one IPv4 address of its own.
    dials: the dials that wait for an answer, oldest first.
    meetings: the connections that are up between two real ends.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[str, list[str]] = {}
        self.dials: list[Dial] = []
        self.meetings: list[Meeting] = []
        self.nameResolver = self

    @property
    def dial(self) -> Dial:
        """The one dial that waits."""
        (dial,) = self.dials
        return dial

    def installNameResolver(self, resolver: Any) -> Any:
        raise AssertionError("a network resolves names by itself")

    def resolveHostName(self, receiver: Any, name: str, portNumber: int = 0, *more: Any, **rest: Any) -> Any:
        """Resolve a name at once (`twisted.internet.interfaces.IHostnameResolver`)."""
        receiver.resolutionBegan(None)
        for host in self.names.setdefault(name, [f"10.0.0.{len(self.names) + 1}"]):
            kind = IPv6Address if ":" in host else IPv4Address
            receiver.addressResolved(kind("TCP", host, portNumber))
        receiver.resolutionComplete()
        return receiver

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: object = None
    ) -> Any:
        name = next((name for name, hosts in self.names.items() if host in hosts), host)
        dial = Dial(self, name, host, port, factory, timeout)
        dial.connect()
        return dial

    def settle(self) -> None:
        """Move bytes until none is left, and run what is due now."""
        moved = True
        while moved:
            self.advance(0)
            moved = any([meeting.move() for meeting in list(self.meetings)])
        self.advance(0)

    def pass_time(self, seconds: float, step: float = 0.5) -> None:
        """Let time pass in steps, moving bytes after each."""
        for _ in range(round(seconds / step)):
            self.advance(step)
            self.settle()

    def redial(self) -> Dial:
        """Let time pass until somebody dials, at most a minute."""
        for _ in range(600):
            if self.dials:
                return self.dials[-1]
            self.advance(0.1)
        raise AssertionError("nobody dialled within a minute")


class Dial:
    """A dial that waits, which is the connector of whoever dialled.

    name, port: what was dialled. host: the address that the name stands for. count: how often it was asked to
    connect. timeout: seconds after which a reactor would give up. state: as a connector's.
    """

    def __init__(
        self, network: Network, name: str, host: str, port: int, factory: Any, timeout: float
    ) -> None:
        self.network, self.name, self.host, self.port = network, name, host, port
        self.factory = factory
        self.timeout = timeout
        self.count = 0
        self.state = "disconnected"

    @property
    def client(self) -> Any:
        """The client factory, whatever an endpoint has put around it."""
        return _innermost(self.factory, "Factory")

    @property
    def path(self) -> str:
        """What is dialled there."""
        return str(self.client.resource)

    def connect(self) -> None:
        if self.state != "disconnected":
            raise RuntimeError("can't connect in this state")  # as Twisted's connectors do
        self.state = "connecting"
        self.count += 1
        self.network.dials.append(self)
        self.factory.doStart()
        self.factory.startedConnecting(self)

    def stopConnecting(self) -> None:
        self._fail(UserError())

    def disconnect(self) -> None:
        self.stopConnecting()

    def getDestination(self) -> IPv4Address:
        return IPv4Address("TCP", self.host, self.port)

    def refuse(self) -> None:
        """Nobody listens there."""
        self._fail(ConnectionRefusedError("Connection refused"))

    def _fail(self, error: Exception) -> None:
        self.network.dials.remove(self)
        self.state = "disconnected"
        self.factory.clientConnectionFailed(self, Failure(error))
        self.factory.doStop()

    def lost(self, reason: Failure) -> None:
        """The connection has told its protocol that it is gone."""
        self.state = "disconnected"
        self.factory.clientConnectionLost(self, reason)
        self.factory.doStop()

    def build(self) -> tuple[Any, Connection]:
        """What the transport talks to, and the connection in it, of an answer."""
        self.state = "connected"
        self.network.dials.remove(self)
        protocol = self.factory.buildProtocol(self.getDestination())
        return protocol, _innermost(protocol, "Protocol")

    def meet(self, factory: ServingFactory, settle: bool = True) -> Meeting:
        """A serving connection of `factory` answers; both settle, or nothing moves yet."""
        return Meeting(self, factory, settle)

    def answer(
        self,
        node: str = "peer",
        dialect: str = CES2,
        kind: str = "outside",
        owner: Recorder | None = None,
        settings: LinkSettings | None = None,
    ) -> Meeting:
        """A serving link answers, whose owner is a `Recorder`; both settle."""
        owner = owner or Recorder(node)
        side = make_side(self.network, settings or LinkSettings(dial_silence_timeout=1e9))
        if dialect != CES2:
            self.client.protocols = []
        return Meeting(self, ServingFactory(owner, side, kind, self.network))

    def connected(self) -> Wire:
        """Somebody listens there, and has not answered the handshake yet."""
        return Wire(self)

    def accept(self, dialect: str = CES1) -> Wire:
        """Answer as a hub that speaks this dialect."""
        wire = self.connected()
        wire.answer(dialect)
        return wire


def _innermost(wrapper: Any, what: str) -> Any:
    """The factory or protocol inside those that an endpoint (with ``_``) and TLS have put around it."""
    while wrapped := getattr(wrapper, f"_wrapped{what}", None) or getattr(wrapper, f"wrapped{what}", None):
        wrapper = wrapped
    return wrapper


class End(FakeTransport):
    """One end of a `Meeting`. Once aborted it receives nothing more, like a real one."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()

    def bufferReceived(self, buf: bytes) -> None:
        if not self.aborted:
            super().bufferReceived(buf)


class Meeting:
    """A connection between two real ends.

    :param settle: move all bytes at once; else the test does it, with `move`.

    dialled, served: its two ends.
    owner: of the serving end.
    """

    def __init__(self, dial: Dial, factory: ServingFactory, settle: bool = True) -> None:
        self.dial, self.network = dial, dial.network
        self.owner: Any = factory.owner
        here = IPv4Address("TCP", "127.0.0.1", 40000)
        there = IPv4Address("TCP", "127.0.0.1", dial.port)
        outer, self.dialled = dial.build()
        served: Any = factory.buildProtocol(here)
        self.served: Connection = served
        client = End(outer, False, here, there)
        server = End(served, True, there, here)
        self.pump: IOPump = connect(served, server, outer, client, greet=settle)
        self.network.meetings.append(self)
        if settle:
            self.network.settle()

    @property
    def link(self) -> Link:
        """The link of the dialling end."""
        assert self.dialled.link is not None
        return self.dialled.link

    @property
    def peer(self) -> Link:
        """The link of the serving end."""
        assert self.served.link is not None
        return self.served.link

    def move(self) -> bool:
        """Move bytes; whether there were any."""
        moved = bool(self.pump.pump())
        if self.pump.clientIO.disconnected and self.pump.serverIO.disconnected:
            self.network.meetings.remove(self)
            self.dial.lost(Failure(ConnectionDone()))
            return True
        return moved

    def deliver(self, served: bool, size: int | None = None) -> None:
        """Move what is under way to one end, at most `size` bytes of it.

        :param served: to the serving end.
        """
        pump = self.pump
        source, target = (pump.clientIO, pump.serverIO) if served else (pump.serverIO, pump.clientIO)
        if source.disconnected:  # the other end has been told that the connection is gone
            return
        data = source.getOutBuffer() or b""
        now, later = data[:size], data[len(data[:size]) :]
        if later:
            source.stream.append(later)
        if now:
            target.bufferReceived(now)

    def silence(self) -> None:
        """Nothing that is written arrives any more, and nobody is told."""
        for end in (self.pump.clientIO, self.pump.serverIO):
            end.bufferReceived = lambda data: None

    def break_off(self, lost: bool) -> None:
        """The connection is about to end without a closing handshake: nothing more is written to it.

        :param lost: so is what is under way, in both directions.
        """
        for end in (self.pump.clientIO, self.pump.serverIO):
            end.disconnecting = True
            if lost:
                end.getOutBuffer()

    def cut(self) -> None:
        """End the connection without a closing handshake."""
        self.break_off(lost=False)
        self.network.settle()

    def lose(self) -> None:
        """End the connection without a closing handshake; what is under way is lost."""
        self.break_off(lost=True)
        self.network.settle()

    def end(self, code: int) -> None:
        """Close from the serving side."""
        self.served.end(code, "test")
        self.network.settle()


class Wire(StringTransport):
    """The hub's end of one connection, played by the test.

    request: the opening handshake that came.
    closes: whether this hub answers a closing handshake; it does, as ours and the fleet's do.
    written: every frame that came.
    """

    def __init__(self, dial: Dial) -> None:
        super().__init__(IPv4Address("TCP", "127.0.0.1", 7100), IPv4Address("TCP", "127.0.0.1", 40000))
        self._dial = dial
        self.alive = True
        self.closes = True
        self._answered = False
        self.written: list[tuple[int, bytes]] = []
        self._outer, self.connection = dial.build()
        self._outer.makeConnection(self)
        self.request = self.value()
        self.clear()

    def upgrade(self, dialect: str = CES2) -> None:
        """Answer the opening handshake."""
        self._answered = True
        self.connection.dataReceived(upgraded(self.request, dialect))

    def answer(self, dialect: str) -> None:
        """Answer the opening handshake, and in ces.2 the hello."""
        self.upgrade(dialect)
        if dialect == CES2:
            self.connection.dataReceived(frame(TEXT, b'{"hello":{"node":"the-hub"}}', masked=False))
        self._dial.network.settle()

    # What the dialling end does.

    def write(self, data: bytes) -> None:
        super().write(data)
        if not self._answered:
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
            self._outer.connectionLost(why)
            self._dial.lost(why)

    def close(self, payload: bytes) -> None:
        """Send a close frame, as a first word or as the answer to one, and end the connection."""
        if self.alive:
            self.connection.dataReceived(frame(CLOSE, payload, masked=False))
            self.cut(ConnectionDone())

    def send(self, *records: bytes) -> None:
        """Send each as one binary message."""
        self.connection.dataReceived(b"".join([frame(BINARY, record, masked=False) for record in records]))

    def say(self, message: object) -> None:
        """Send a text message, as JSON."""
        self.connection.dataReceived(frame(TEXT, json.dumps(message).encode(), masked=False))

    def ping(self) -> None:
        """Send a ping as the fleet's hubs do, with nothing in it."""
        self.connection.dataReceived(frame(PING, b"", masked=False))

    def texts(self) -> list[Any]:
        """What the text messages that came say, the hello excepted."""
        said = [json.loads(payload) for opcode, payload in self.written if opcode == TEXT]
        return [message for message in said if "hello" not in message]

    def messages(self) -> list[bytes]:
        """The binary messages that came."""
        return [payload for opcode, payload in self.written if opcode == BINARY]


@dataclass(eq=False)
class Linked:
    """An uplink and the serving link that it leads to.

    dialled, served: the two owners.
    """

    network: Network
    dialled: Recorder
    served: Recorder
    uplink: Uplink
    factory: ServingFactory
    meeting: Meeting
    lines: Lines

    @property
    def link(self) -> Link:
        """The link of the dialling side."""
        assert self.uplink.link is not None
        return self.uplink.link

    @property
    def peer(self) -> Link:
        """The link of the serving side."""
        (link,) = self.served.links
        return link

    def settle(self) -> None:
        """Move bytes until none is left, and run what is due now."""
        self.network.settle()

    def cut(self) -> None:
        """End the connection without a closing handshake."""
        self.meeting.cut()

    def redial(self) -> None:
        """Let time pass until it is dialled again, and answer."""
        self.network.redial()
        self.meeting = self.network.dial.meet(self.factory)


def linked(
    kind: str = "messenger",
    dialect: str = CES2,
    dialled: Recorder | None = None,
    served: Recorder | None = None,
    settings: LinkSettings | None = None,
    **uplink: Any,
) -> Linked:
    """Join a dialling and a serving link of `kind` in memory."""
    network, lines = Network(), Lines()
    dialled, served = dialled or Recorder("dialled"), served or Recorder("served")
    up = make_uplink(dialled, make_side(network, settings, lines), network, kind, dialect, **uplink)
    factory = ServingFactory(served, make_side(network, settings, lines), kind, network)
    up.dial()
    return Linked(network, dialled, served, up, factory, network.dial.meet(factory), lines)
