"""The protocols of the load: ces.1, ces.2, NATS (TCP and WebSocket) and MQTT 3.1.1.

Pure: bytes in, bytes and counts out. Messages are prepared before the measurement. Deliveries are counted by
size, because all deliveries of a run have the same size (its rooms have names of equal length). For each read
a counter checks the head of the last delivery. If anything else came in between (a ping, a lost byte), the
head is in another place, and the counter walks the read item by item. The count is therefore exact, and costs
almost nothing per delivery.
"""

from __future__ import annotations

import json
import os
from typing import ClassVar, Protocol

STAMP = b"0" * 16
"""Placeholder in an event for the time at which it is sent, in nanoseconds."""


def event(size: int, room: str = "ITB-0000") -> bytes:
    """A v2 event of exactly `size` bytes. Its value is `STAMP`, and its data is padding.

    :raises ValueError: when `size` is too small.
    """
    building = room.split("-")[0]
    tags = ["core-state", "user-generated"] if size >= 330 else []
    told = {
        "generating-system": f"{room}-CP1",
        "timestamp": "2026-11-23T08:00:00Z",
        "event-tags": tags,
        "target-device": {"buildingID": building, "roomID": room, "deviceID": f"{room}-D1"},
        "affected-room": {"buildingID": building, "roomID": room},
        "key": "power",
        "value": STAMP.decode(),
        "user": "",
        "data": "",
    }
    if size < 330:
        told = {"key": "power", "value": STAMP.decode(), "data": ""}
    short = size - len(json.dumps(told, separators=(",", ":")))
    if short < 0:
        raise ValueError(f"no event is as small as {size} bytes")
    told["data"] = "x" * short
    return json.dumps(told, separators=(",", ":")).encode()


def events(size: int, room: str, count: int, first: int = 0) -> list[bytes]:
    """Make `count` different events of `size` bytes. Their values are numbers from `first` on."""
    sample = event(size, room)
    return [sample.replace(STAMP, b"%016d" % number) for number in range(first, first + count)]


def frame(payload: bytes, opcode: int = 2, key: bytes | None = None) -> bytes:
    """One final WebSocket frame (RFC 6455 section 5.2), masked if there is a key."""
    size, bit = len(payload), 0 if key is None else 0x80
    if size < 126:
        head = bytes((0x80 | opcode, bit | size))
    elif size < 65536:
        head = bytes((0x80 | opcode, bit | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, bit | 127)) + size.to_bytes(8, "big")
    if key is None:
        return head + payload
    mask = int.from_bytes((key * (size // 4 + 1))[:size], "big")
    return head + key + (int.from_bytes(payload, "big") ^ mask).to_bytes(size, "big")


def masked(payload: bytes, opcode: int = 2) -> bytes:
    """A client's frame, with a random key (RFC 6455 section 5.3)."""
    return frame(payload, opcode, os.urandom(4))


def frame_head(data: bytes | memoryview, at: int) -> tuple[int, int, int]:
    """Opcode, header length and payload length of the frame at `at`; (0, 0, 0) for an incomplete header."""
    left = len(data) - at
    if left < 2:
        return 0, 0, 0
    size, head = data[at + 1] & 0x7F, 2
    if size >= 126:
        head = 4 if size == 126 else 10
        if left < head:
            return 0, 0, 0
        size = int.from_bytes(data[at + 2 : at + head], "big")
    if data[at + 1] & 0x80:
        head += 4
    return data[at] & 0x0F, head, size


class Counter(Protocol):
    """Counts the deliveries in a stream of bytes.

    answers: bytes to send back, such as pongs. The caller sends and clears them.
    synced: number of received answers to `Speech.sync`.
    farewell: the server's reason for closing the connection, or its error; empty otherwise.
    texts: received text messages.
    """

    answers: bytes
    synced: int
    farewell: str
    texts: list[bytes]

    def feed(self, data: memoryview) -> int:
        """The number of deliveries that `data` completes."""


class Controls:
    """Handles WebSocket control frames and text messages. The base class of counters on a WebSocket."""

    def __init__(self) -> None:
        self.answers = b""
        self.synced = 0
        self.farewell = ""
        self.texts: list[bytes] = []

    def control(self, opcode: int, payload: bytes) -> None:
        """Handle a frame that is not a delivery."""
        if opcode == 8:
            self.farewell = f"closed with {int.from_bytes(payload[:2], 'big')} {payload[2:]!r}"
        elif opcode == 9:
            self.answers += masked(payload, 10)
        elif opcode == 10:
            self.synced += 1
        else:
            self.texts.append(payload)


class Fixed(Controls):
    """Counts deliveries of one size that begin with `head`. `other` handles everything else."""

    def __init__(self, head: bytes, size: int) -> None:
        super().__init__()
        self.head = head
        self.size = size
        self.rest = b""

    def other(self, data: bytes, at: int) -> int:
        """Handle an item at `at` that is not a delivery. Returns its size, or 0 when it is incomplete."""
        opcode, head, size = frame_head(data, at)
        if not head or at + head + size > len(data):
            return 0
        self.control(opcode, data[at + head : at + head + size])
        return head + size

    def feed(self, data: memoryview) -> int:
        rest, size, head, have = self.rest, self.size, self.head, len(data)
        start = size - len(rest) if rest else 0
        if have >= start and rest.startswith(head[: len(rest)]):
            whole, tail = divmod(have - start, size)
            end = have - tail
            begun = data[end : end + len(head)]
            if begun == head[: len(begun)] and (
                not whole or data[end - size : end - size + len(head)] == head
            ):
                self.rest = bytes(data[end:])
                return whole + (1 if rest else 0)
        return self._walk(rest + bytes(data))

    def _walk(self, data: bytes) -> int:
        at = found = 0
        while at < len(data):
            if data.startswith(self.head, at):
                step = self.size if at + self.size <= len(data) else 0
                found += 1 if step else 0
            else:
                step = self.other(data, at)
            if not step:
                break
            at += step
        self.rest = data[at:]
        return found


class NatsLines(Fixed):
    """Counts the messages in the lines of nats-server."""

    def other(self, data: bytes, at: int) -> int:
        end = data.find(b"\r\n", at)
        if end < 0:
            return 0
        line = data[at:end]
        if line == b"PING":
            self.answers += b"PONG\r\n"
        elif line == b"PONG":
            self.synced += 1
        elif line.startswith(b"-ERR"):
            self.farewell = line.decode()
        elif not line.startswith((b"INFO", b"+OK")):
            self.farewell = f"an unknown line: {line[:80]!r}"
        return end + 2 - at


class MqttPackets(Fixed):
    """Counts the PUBLISH packets of an MQTT broker. All other packets are short."""

    def other(self, data: bytes, at: int) -> int:
        if len(data) < at + 2 or len(data) < at + 2 + data[at + 1]:
            return 0
        kind = data[at] >> 4
        if kind == 9:
            self.synced += 1
        elif kind not in (2, 13):
            self.farewell = f"an unknown packet: {data[at : at + 16]!r}"
        return 2 + data[at + 1]


class Framed(Controls):
    """Counts deliveries in WebSocket frames of any size by their payload.

    :param size: bytes of one delivery.
    :param lines: the counter for the payload, if the payload is a stream of lines.
    """

    def __init__(self, size: int, lines: NatsLines | None = None) -> None:
        super().__init__()
        self._size = size
        self._lines = lines
        self._left = self._bytes = self._found = 0
        self._rest = b""

    def feed(self, data: memoryview) -> int:
        if self._rest:
            data, self._rest = memoryview(self._rest + bytes(data)), b""
        at, end, before = 0, len(data), self._found
        while at < end:
            if not self._left:
                opcode, head, size = frame_head(data, at)
                if not head or (opcode != 2 and at + head + size > end):
                    self._rest = bytes(data[at:])
                    break
                at += head
                if opcode != 2:
                    self.control(opcode, bytes(data[at : at + size]))
                    at += size
                    continue
                self._left = size
            take = min(self._left, end - at)
            self._take(data[at : at + take])
            self._left -= take
            at += take
        return self._found - before

    def _take(self, payload: memoryview) -> None:
        if self._lines is None:
            self._bytes += len(payload)
            self._found = self._bytes // self._size
            return
        self._found += self._lines.feed(payload)
        self.synced, self.farewell = self._lines.synced, self._lines.farewell
        if self._lines.answers:
            self.answers += masked(self._lines.answers)
            self._lines.answers = b""


class Session(Framed):
    """The receiving end of a ces.2 session, which acknowledges deliveries (docs/protocol.md section 5).

    keeps: whether the other side keeps a session. Without one there are no acknowledgements.
    due: whether an acknowledgement is due now. Otherwise it is due within `ACK_SECONDS`.
    """

    keeps = False

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._acknowledged = 0
        self._soon = min(ACK_RECORDS, max(1, ACK_BYTES // size))

    def control(self, opcode: int, payload: bytes) -> None:
        if opcode == 1 and payload.startswith(b'{"ack"'):
            return
        if opcode == 1 and payload.startswith(b'{"gap"'):
            self.farewell = f"it dropped something: {payload!r}"
        if opcode == 1 and payload.startswith(b'{"hello"'):
            self.keeps = json.loads(payload)["hello"].get("session") is not None
        super().control(opcode, payload)

    @property
    def owes(self) -> bool:
        """Whether there are unacknowledged deliveries."""
        return self.keeps and self._found != self._acknowledged

    @property
    def due(self) -> bool:
        return self.keeps and self._found - self._acknowledged >= self._soon

    def acknowledgement(self) -> bytes:
        """The text of an acknowledgement of all deliveries."""
        self._acknowledged = self._found
        return b'{"ack":%d}' % self._found


ACK_RECORDS, ACK_BYTES, ACK_SECONDS = 256, 256 * 1024, 0.1
"""An acknowledgement is due after this number of records or bytes, or after this time in seconds."""


class Speech:
    """The client's side of one protocol.

    tail: number of bytes in a message after the event.
    greeted, answered, confirmed: number of answers to the opening, to a `sync` and to a subscription.
    """

    name: ClassVar[str]
    tail: ClassVar[int]
    greeted: ClassVar[int] = 0
    answered: ClassVar[int] = 1
    confirmed: ClassVar[int] = 0
    path: ClassVar[str] = ""
    subprotocol: ClassVar[str] = ""

    def opening(self, number: int) -> bytes:
        """The first bytes to send on an open connection (or WebSocket)."""
        return b""

    def sync(self) -> bytes:
        """A request that the server answers after it has handled everything before."""
        return masked(b"", 9)

    def subscribe(self, rooms: list[str]) -> bytes:
        """A subscription to rooms."""
        return masked(json.dumps({"rooms": rooms, "create": True}).encode(), 1)

    def publish(self, room: str, events: list[bytes]) -> bytes:
        """The bytes that publish events in one write."""
        raise NotImplementedError

    def counter(self, room: str, event: bytes) -> Counter:
        """A counter for deliveries of events like `event` to rooms like `room`."""
        raise NotImplementedError


class Ces1(Speech):
    """ces.1: one record per message."""

    name, tail, path = "ces.1", 1, "/connect/messenger"

    def publish(self, room: str, events: list[bytes]) -> bytes:
        return b"".join([masked(record(room, event)) for event in events])

    def counter(self, room: str, event: bytes) -> Counter:
        delivery = frame(record(room, event))
        return Fixed(delivery[: frame_head(delivery, 0)[1]], len(delivery))


class Ces2(Speech):
    """ces.2: all records in one message."""

    name, tail, path, subprotocol = "ces.2", 1, "/connect/messenger", "ces.2"

    def opening(self, number: int) -> bytes:
        return masked(b'{"hello":{"node":"load-%d","session":null,"received":0}}' % number, 1)

    def publish(self, room: str, events: list[bytes]) -> bytes:
        return masked(b"".join([record(room, event) for event in events]))

    def counter(self, room: str, event: bytes) -> Counter:
        return Session(len(record(room, event)))


class Nats(Speech):
    """The NATS client protocol. A room is a subject."""

    name, tail, greeted = "nats", 2, 1

    def opening(self, number: int) -> bytes:
        return b'CONNECT {"verbose":false,"pedantic":false,"tls_required":false,"echo":true}\r\nPING\r\n'

    def sync(self) -> bytes:
        return b"PING\r\n"

    def subscribe(self, rooms: list[str]) -> bytes:
        return b"".join(b"SUB %b 1\r\n" % room.encode() for room in rooms)

    def publish(self, room: str, events: list[bytes]) -> bytes:
        return b"".join([b"PUB %b %d\r\n%b\r\n" % (room.encode(), len(event), event) for event in events])

    def counter(self, room: str, event: bytes) -> Counter:
        return NatsLines(b"MSG ", len(b"MSG %b 1 %d\r\n%b\r\n" % (room.encode(), len(event), event)))


class NatsWebSocket(Nats):
    """The NATS client protocol in WebSocket frames."""

    name, path = "nats-ws", "/"

    def opening(self, number: int) -> bytes:
        return masked(super().opening(number))

    def sync(self) -> bytes:
        return masked(super().sync())

    def subscribe(self, rooms: list[str]) -> bytes:
        return masked(super().subscribe(rooms))

    def publish(self, room: str, events: list[bytes]) -> bytes:
        return masked(super().publish(room, events))

    def counter(self, room: str, event: bytes) -> Counter:
        lines = super().counter(room, event)
        assert isinstance(lines, NatsLines)
        return Framed(lines.size, lines)


class Mqtt(Speech):
    """MQTT 3.1.1 at QoS 0. A room is a topic."""

    name, tail, answered, confirmed = "mosquitto", 0, 0, 1

    def opening(self, number: int) -> bytes:
        return mqtt(0x10, text("MQTT") + bytes((4, 2, 0, 0)) + text(f"load-{number}"))

    def sync(self) -> bytes:
        return b""

    def subscribe(self, rooms: list[str]) -> bytes:
        return mqtt(0x82, b"\x00\x01" + b"".join(text(room) + b"\x00" for room in rooms))

    def publish(self, room: str, events: list[bytes]) -> bytes:
        return b"".join([mqtt(0x30, text(room) + event) for event in events])

    def counter(self, room: str, event: bytes) -> Counter:
        delivery = self.publish(room, [event])
        return MqttPackets(delivery[: len(delivery) - len(text(room) + event)], len(delivery))


class Raw(Speech):
    """The bytes of events only, for the relay, which has no rooms and no requests."""

    name, tail, answered = "relay", 0, 0

    def subscribe(self, rooms: list[str]) -> bytes:
        return b""

    def sync(self) -> bytes:
        return b""

    def publish(self, room: str, events: list[bytes]) -> bytes:
        return b"".join(events)

    def counter(self, room: str, event: bytes) -> Counter:
        return Fixed(event[:4], len(event))


def record(room: str, event: bytes) -> bytes:
    """A strictly written record (docs/protocol.md section 2)."""
    return b"%b\n%b\n" % (room.encode(), event)


def text(value: str) -> bytes:
    """An MQTT string."""
    return len(value).to_bytes(2, "big") + value.encode()


def mqtt(head: int, body: bytes) -> bytes:
    """An MQTT packet: head, remaining length, body."""
    left, length = len(body), b""
    while left >= 128:
        length, left = length + bytes((left % 128 | 128,)), left // 128
    return bytes((head,)) + length + bytes((left,)) + body
