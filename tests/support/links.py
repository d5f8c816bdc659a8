"""Links for tests: an owner that writes down what it is told, and pairs of links joined in memory.

`Recorder` is an owner of links (`ces.link.owner.Owner`) whose `calls` say in order what its links did.
`linked()` joins a dialling and a serving link over `twisted.test.iosim`, on a clock that only the test moves;
`Linked.settle()` moves bytes until none is left and runs what is due now. `serving()` and `dialling()` put
one link alone on a transport that keeps what is written, for a test that plays the other side byte by byte.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import LogEvent, Logger, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, IOPump, connect
from websockets.frames import apply_mask

from ces.link.owner import LinkLimits, Owner
from ces.link.protocol import Link
from ces.link.server import ServingFactory
from ces.link.side import Side
from ces.model.address import Address
from ces.model.control import SubscriptionChange
from ces.model.wire import CES1, CES2, Run
from ces.uplink.reconnect import Dialler

KEY = b"\x01\x02\x03\x04"

UPGRADE = (
    b"GET /connect/messenger HTTP/1.1\r\nHost: hub:7100\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%b\r\n"
)


ANSWER = b'{"hello":{"node":"%b","session":"s1","received":0,"resumed":false,"window":120}}'


def record(room: str, text: str = "") -> bytes:
    """A strictly written record."""
    return f'{room}\n{{"key":"{text}"}}\n'.encode()


def run(room: str, *texts: str) -> Run:
    """A run of one record for each text."""
    return Run(room.encode(), [record(room, text) for text in texts or ("",)])


def frame(opcode: int, payload: bytes, masked: bool = True, fin: bool = True, rsv: int = 0) -> bytes:
    """One frame (RFC 6455 section 5.2), with the minimal length."""
    head = bytes([fin << 7 | rsv << 4 | opcode])
    bit = 0x80 if masked else 0
    if len(payload) < 126:
        head += bytes([bit | len(payload)])
    elif len(payload) < 65536:
        head += bytes([bit | 126]) + len(payload).to_bytes(2, "big")
    else:
        head += bytes([bit | 127]) + len(payload).to_bytes(8, "big")
    return head + (KEY + apply_mask(payload, KEY) if masked else payload)


def read_frames(data: bytes) -> list[tuple[int, bytes]]:
    """(opcode, payload) of each frame in `data`, all of which must be whole and final."""
    found = []
    while data:
        assert data[0] & 0xF0 == 0x80, "a frame is fragmented or has reserved bits"
        opcode, length, at = data[0] & 0x0F, data[1] & 0x7F, 2
        if length > 125:
            size = 2 if length == 126 else 8
            length, at = int.from_bytes(data[2 : 2 + size], "big"), 2 + size
        key = b""
        if data[1] & 0x80:
            key = data[at : at + 4]
            at += 4
        payload, data = data[at : at + length], data[at + length :]
        assert len(payload) == length, "the last frame is not whole"
        found.append((opcode, apply_mask(payload, key) if key else payload))
    return found


@dataclass(eq=False)
class Recorder(Owner):
    """An owner that admits everyone but those in `refusals` (node -> reason), and writes down what it is
    told.

    fails: the names of calls that raise.
    """

    node: str = "here"
    refusals: dict[str, str] = field(default_factory=dict)
    fails: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    changes: list[SubscriptionChange] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    on_received: Callable[[Link, list[Run]], None] = lambda link, runs: None

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.fails:
            raise OwnerFailed(name)

    def admit(self, link: Link) -> str | None:
        self._called("admit")
        return self.refusals.get(link.node)

    def joined(self, link: Link) -> None:
        self.links.append(link)
        self._called("joined")

    def received(self, link: Link, runs: list[Run]) -> None:
        self.runs += runs
        self._called("received")
        self.on_received(link, runs)

    def subscribed(self, link: Link, change: SubscriptionChange) -> None:
        self.changes.append(change)
        self._called("subscribed")

    def left(self, link: Link, reason: str) -> None:
        self.links.remove(link)
        self.reasons.append(reason)
        self._called("left")

    @property
    def records(self) -> list[bytes]:
        """The records of all runs, in order."""
        return [record for run in self.runs for record in run.records]


class OwnerFailed(Exception):
    """What a `Recorder` that is to fail raises."""


class Lines(list[str]):
    """What was logged, as text. Failures go on to Twisted's log too, where they fail the test."""

    def __call__(self, event: LogEvent) -> None:
        self.append(formatEvent(event))
        if "log_failure" in event:
            globalLogPublisher(event)


def make_side(
    owner: Recorder, clock: IReactorTime, limits: LinkLimits | None = None, lines: Lines | None = None
) -> Side:
    """One owner's side, which logs to `lines`."""
    observer = Lines() if lines is None else lines
    return Side(owner, limits or LinkLimits(), clock, Logger(namespace="ces.test", observer=observer))


def make_dialler(side: Side, reactor: Any, kind: str, dialect: str = CES2, **more: Any) -> Dialler:
    """A dialler to ``hub:7100`` that offers `dialect` alone."""
    dialler = Dialler(side, Address("ws", "hub", 7100), f"/connect/{kind}", kind, reactor, **more)
    if dialect == CES1:
        dialler.protocols = []
    return dialler


@dataclass(eq=False)
class Linked:
    """A dialling link and the serving link that it leads to.

    dialled, served: the two owners.
    link, peer: the two links, `link` being the one that dialled.
    """

    clock: MemoryReactorClock
    dialled: Recorder
    served: Recorder
    link: Link
    peer: Link
    pump: IOPump
    lines: Lines

    def settle(self) -> None:
        """Move bytes until none is left, and run what is due now."""
        self.pump.flush()

    def pass_time(self, seconds: float, step: float = 1.0) -> None:
        """Let time pass in steps, moving bytes after each."""
        for _ in range(round(seconds / step)):
            self.clock.advance(step)
            self.settle()

    def cut(self) -> None:
        """End the connection without a closing handshake."""
        self.pump.clientIO.disconnecting = self.pump.serverIO.disconnecting = True
        self.settle()


def linked(
    kind: str = "messenger",
    dialect: str = CES2,
    dialled: Recorder | None = None,
    served: Recorder | None = None,
    limits: LinkLimits | None = None,
    settle: bool = True,
) -> Linked:
    """Join a dialling and a serving link of `kind` in memory, opened as far as they get by themselves."""
    clock, lines = MemoryReactorClock(), Lines()
    dialled, served = dialled or Recorder("dialled"), served or Recorder("served")
    dialler = make_dialler(make_side(dialled, clock, limits, lines), clock, kind, dialect)
    factory = ServingFactory(make_side(served, clock, limits, lines), kind, clock)
    here, there = IPv4Address("TCP", "127.0.0.1", 40000), IPv4Address("TCP", "127.0.0.1", 7100)
    link, peer = cast(Link, dialler.buildProtocol(there)), cast(Link, factory.buildProtocol(here))
    client, server = FakeTransport(link, False, here, there), FakeTransport(peer, True, there, here)
    pump = connect(peer, server, link, client, greet=settle, clock=clock)
    return Linked(clock, dialled, served, link, peer, pump, lines)


class Alone:
    """One link and the transport on which a test plays the other side.

    written: what the link wrote since it was last asked.
    """

    def __init__(self, owner: Recorder, clock: MemoryReactorClock, link: Link, lines: Lines) -> None:
        self.owner = owner
        self.clock = clock
        self.link = link
        self.lines = lines
        self.transport = StringTransport(
            IPv4Address("TCP", "127.0.0.1", 7100), IPv4Address("TCP", "127.0.0.1", 40000)
        )
        link.makeConnection(self.transport)

    def receive(self, *data: bytes) -> None:
        """Hand these bytes to the link."""
        for part in data:
            self.link.dataReceived(part)
        self.clock.advance(0)

    def send(self, opcode: int, payload: bytes) -> None:
        """One frame from the other side."""
        self.receive(frame(opcode, payload, masked=self.link.serving))

    def send_text(self, message: object) -> None:
        """One text message from the other side, as JSON."""
        self.send(1, json.dumps(message).encode())

    def flush(self) -> None:
        """The end of a reactor turn in which something was put into the link's outbox."""
        self.link.factory.side.turn.add(self.link)
        self.clock.advance(0)

    def closed_with(self) -> tuple[int, str]:
        """Code and reason of the close frame, which is the last that the link has written."""
        opcode, payload = self.frames()[-1]
        assert opcode == 8, "the link has not closed"
        return int.from_bytes(payload[:2], "big"), payload[2:].decode()

    def written(self) -> bytes:
        """What the link wrote since this was last asked."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def frames(self) -> list[tuple[int, bytes]]:
        """The frames that the link wrote since it was last asked."""
        return read_frames(self.written())

    def lose(self) -> None:
        """The connection is gone."""
        self.link.connectionLost(Failure(ConnectionDone()))


def serving(
    kind: str = "messenger",
    dialect: str = CES2,
    owner: Recorder | None = None,
    limits: LinkLimits | None = None,
    hello: str = "peer",
) -> Alone:
    """A serving link that has been dialled; in ces.2 by the node `hello`, if it is not blank."""
    clock, lines, owner = MemoryReactorClock(), Lines(), owner or Recorder()
    factory = ServingFactory(make_side(owner, clock, limits, lines), kind, clock)
    alone = Alone(owner, clock, cast(Link, factory.buildProtocol(None)), lines)
    alone.receive(UPGRADE % (b"Sec-WebSocket-Protocol: ces.2\r\n" if dialect == CES2 else b""))
    assert b"101 Switching Protocols" in alone.written()
    if dialect == CES2 and hello:
        alone.receive(frame(1, b'{"hello":{"node":"%b","session":null,"received":0}}' % hello.encode()))
        alone.written()
    return alone


def dialling(
    kind: str = "messenger",
    dialect: str = CES2,
    owner: Recorder | None = None,
    limits: LinkLimits | None = None,
    hello: str = "peer",
) -> Alone:
    """A dialling link that has been answered; in ces.2 by the node `hello`, if it is not blank."""
    clock, lines, owner = MemoryReactorClock(), Lines(), owner or Recorder()
    dialler = make_dialler(make_side(owner, clock, limits, lines), clock, kind)
    alone = Alone(owner, clock, cast(Link, dialler.buildProtocol(None)), lines)
    alone.receive(upgraded(alone.written(), dialect))
    if dialect == CES2:
        alone.written()
        if hello:
            alone.receive(frame(1, ANSWER % hello.encode(), masked=False))
    return alone


def upgraded(request: bytes, dialect: str = CES2) -> bytes:
    """The answer to an upgrade request that selects `dialect`."""
    key = request.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
    accept = b64encode(sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    chosen = b"Sec-WebSocket-Protocol: ces.2\r\n" if dialect == CES2 else b""
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n%b\r\n" % (accept, chosen)
    )
