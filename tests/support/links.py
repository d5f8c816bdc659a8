"""Links for tests: an owner that records its calls, pairs of links connected in memory, and single
connections.

`Recorder` is an owner of links (`ces.link.link.Owner`). Its `calls` list what its links did, in order.
`linked()` connects a dialling and a serving link over `tests.support.network`, on a clock that only the test
moves. `serving()` and `dialling()` create a single connection on a transport that keeps what is written. The
test then plays the other side byte by byte.
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
from websockets.frames import apply_mask

from ces.config.link import LinkSettings
from ces.link.connection import Connection
from ces.link.link import Link, Owner, Refused
from ces.link.serving import ServingFactory
from ces.link.side import Side
from ces.model.address import Address
from ces.model.control import Gap, SubscriptionChange
from ces.model.wire import CES1, CES2, Run
from ces.uplink.uplink import Uplink

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
    """One frame (RFC 6455 section 5.2), with the minimal length encoding."""
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
    """The opcode and payload of each frame in `data`. All frames must be whole and final."""
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
    """An owner that records its calls and admits every link, except those of nodes in `refusals`.

    refusals: reasons by node.
    fails: the names of calls that raise.
    """

    node: str = "here"
    instance: str = ""
    refusals: dict[str, str] = field(default_factory=dict)
    fails: set[str] = field(default_factory=set)
    places: dict[str, Link] = field(default_factory=dict)
    """The links that connections of some nodes get."""
    calls: list[str] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    """Those that have joined and not left."""
    runs: list[Run] = field(default_factory=list)
    changes: list[SubscriptionChange] = field(default_factory=list)
    gaps: list[int] = field(default_factory=list)
    fresh: list[bool] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    undelivered: list[bytes] = field(default_factory=list)
    on_received: Callable[[Link, list[Run]], None] = lambda link, runs: None

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.fails:
            raise OwnerFailed(name)

    def admit(self, kind: str, node: str, instance: str, serving: bool) -> Link | None:
        self._called("admit")
        if node in self.refusals:
            raise Refused(self.refusals[node], self.places.get(node))
        return self.places.get(node)

    def joined(self, link: Link) -> None:
        self.links.append(link)
        self._called("joined")

    def received(self, link: Link, runs: list[Run]) -> None:
        self.runs += runs
        self._called("received")
        self.on_received(link, runs)

    def told(self, link: Link, message: SubscriptionChange | Gap) -> None:
        if isinstance(message, Gap):
            self.gaps.append(message.lost)
        else:
            self.changes.append(message)
        self._called("told")

    def detached(self, link: Link) -> None:
        self._called("detached")

    def attached(self, link: Link, fresh: bool) -> None:
        self.fresh.append(fresh)
        self._called("attached")

    def left(self, link: Link, undelivered: list[Run]) -> None:
        self.links.remove(link)
        self.reasons.append(link.ended)
        self.undelivered += [record for run in undelivered for record in run.records]
        self._called("left")

    @property
    def records(self) -> list[bytes]:
        """The records of all runs, in order."""
        return [record for run in self.runs for record in run.records]


class OwnerFailed(Exception):
    """Raised by the calls of a `Recorder` that are in its `fails`."""


class Lines(list[str]):
    """The logged lines. Failures are passed on to Twisted's log, where they fail the test."""

    def __call__(self, event: LogEvent) -> None:
        self.append(formatEvent(event))
        if "log_failure" in event:
            globalLogPublisher(event)


def make_side(
    clock: IReactorTime, settings: LinkSettings | None = None, lines: Lines | None = None
) -> Side[Link]:
    """A side. It logs to `lines`."""
    observer = Lines() if lines is None else lines
    return Side(settings or LinkSettings(), clock, Logger(namespace="ces.test", observer=observer))


def make_uplink(
    owner: Owner, side: Side[Link], reactor: Any, kind: str = "messenger", dialect: str = CES2, **more: Any
) -> Uplink:
    """An uplink to ``hub:7100`` that offers only `dialect`, and keeps its link for good."""
    if not more.keys() & {"queue", "window"}:
        more["queue"] = side.new_queue()
    uplink = Uplink(owner, side, Address("ws", "hub", 7100), f"/connect/{kind}", kind, reactor, **more)
    if dialect == CES1:
        uplink.factory.protocols = []
    return uplink


class Alone:
    """One connection and its transport. The test plays the other side.

    written: what the connection wrote since it was last asked.
    """

    def __init__(
        self, owner: Recorder, clock: MemoryReactorClock, connection: Connection, lines: Lines
    ) -> None:
        self.owner = owner
        self.clock = clock
        self.connection = connection
        self.lines = lines
        self.transport = StringTransport(
            IPv4Address("TCP", "127.0.0.1", 7100), IPv4Address("TCP", "127.0.0.1", 40000)
        )
        connection.makeConnection(self.transport)

    @property
    def link(self) -> Link:
        """The link that the connection has got."""
        assert self.connection.link is not None
        return self.connection.link

    @property
    def side(self) -> Side[Link]:
        return self.connection.opener.side

    def receive(self, *data: bytes) -> None:
        """Pass these bytes to the connection."""
        for part in data:
            self.connection.dataReceived(part)
        self.clock.advance(0)

    def send(self, opcode: int, payload: bytes) -> None:
        """Receive one frame from the other side."""
        self.receive(frame(opcode, payload, masked=self.connection.serving))

    def send_text(self, message: object) -> None:
        """Receive one text message from the other side, as JSON."""
        self.send(1, json.dumps(message).encode())

    def flush(self) -> None:
        """End a reactor turn in which runs were put into the link's queue."""
        self.side.turn.add(self.link)
        self.clock.advance(0)

    def closed_with(self) -> tuple[int, str]:
        """The code and reason of the close frame, which must be the last frame that the connection wrote."""
        opcode, payload = self.frames()[-1]
        assert opcode == 8, "the connection has not closed"
        return int.from_bytes(payload[:2], "big"), payload[2:].decode()

    def written(self) -> bytes:
        """The bytes that the connection wrote since the last call."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def frames(self) -> list[tuple[int, bytes]]:
        """The frames that the connection wrote since the last call."""
        return read_frames(self.written())

    def lose(self) -> None:
        """Lose the connection."""
        self.connection.connectionLost(Failure(ConnectionDone()))


def accepted(
    kind: str = "messenger",
    owner: Recorder | None = None,
    settings: LinkSettings | None = None,
    side: Side[Link] | None = None,
) -> Alone:
    """A serving connection on which nothing has come yet.

    :param side: of another connection, when both belong to one side.
    """
    clock = MemoryReactorClock() if side is None else cast(MemoryReactorClock, side.clock)
    lines, owner = Lines(), owner or Recorder()
    factory = ServingFactory(owner, side or make_side(clock, settings, lines), kind, clock)
    return Alone(owner, clock, cast(Connection, factory.buildProtocol(None)), lines)


def serving(
    kind: str = "messenger",
    dialect: str = CES2,
    owner: Recorder | None = None,
    settings: LinkSettings | None = None,
    hello: str = "peer",
    side: Side[Link] | None = None,
) -> Alone:
    """A serving connection after the handshake. In ces.2 the node `hello` has said hello, if not blank."""
    alone = accepted(kind, owner, settings, side)
    alone.receive(UPGRADE % (b"Sec-WebSocket-Protocol: ces.2\r\n" if dialect == CES2 else b""))
    assert b"101 Switching Protocols" in alone.written()
    if dialect == CES2 and hello:
        alone.receive(frame(1, b'{"hello":{"node":"%b","session":null,"received":0}}' % hello.encode()))
        alone.written()
    return alone


def requested(
    kind: str = "messenger", owner: Recorder | None = None, settings: LinkSettings | None = None
) -> Alone:
    """A dialling connection that waits for the answer to its opening handshake."""
    clock, lines, owner = MemoryReactorClock(), Lines(), owner or Recorder()
    uplink = make_uplink(owner, make_side(clock, settings, lines), clock, kind)
    return Alone(owner, clock, cast(Connection, uplink.factory.buildProtocol(None)), lines)


def dialling(
    kind: str = "messenger",
    dialect: str = CES2,
    owner: Recorder | None = None,
    settings: LinkSettings | None = None,
    hello: str = "peer",
) -> Alone:
    """A dialling connection after the handshake. In ces.2 the node `hello` has answered, if not blank."""
    alone = requested(kind, owner, settings)
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
