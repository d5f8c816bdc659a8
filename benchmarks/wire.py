"""What the load says and counts, per protocol: ces.1, ces.2, NATS (TCP and WebSocket) and MQTT 3.1.1.

Pure: bytes in, bytes and counts out. What is sent is made once, before the measurement. What is received is
counted by its size, which is known because every delivery of a run has the same. A counter looks at the head
of the last delivery of each read: were anything else between (a ping, a lost byte), it would not stand there,
and the read is then walked item by item. So the count is exact and costs next to nothing per delivery.

Room names of one run have the same length, so that all deliveries have the same size.
"""

from __future__ import annotations

import json
import os
from typing import ClassVar, Protocol

STAMP = b"0" * 16
"""Stands in an event for the time at which it is sent, in nanoseconds."""


def event(size: int, room: str = "ITB-0000") -> bytes:
    """A v2 event of exactly `size` bytes; its value is `STAMP` and `data` fills it up.

    :raises ValueError: when no event is that small.
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
    """So many events of a size, no two of them equal: `first` and the numbers behind it are their values."""
    sample = event(size, room)
    return [sample.replace(STAMP, b"%016d" % number) for number in range(first, first + count)]


def frame(payload: bytes, opcode: int = 2, key: bytes | None = None) -> bytes:
    """One final WebSocket frame (RFC 6455 section 5.2), masked when there is a key."""
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
    """A client's frame: the key is random, as RFC 6455 section 5.3 asks, and drawn when the frame is made."""
    return frame(payload, opcode, os.urandom(4))


def frame_head(data: bytes | memoryview, at: int) -> tuple[int, int, int]:
    """(opcode, bytes of head, bytes of payload) of the frame at `at`; (0, 0, 0) when more is needed."""
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

    answers: what must be sent back (to pings); whoever sends it empties it.
    synced: how many answers to `Speech.sync` have come.
    farewell: why the server ends the connection, or what it finds wrong; empty while all is well.
    texts: what it has said in text messages.
    """

    answers: bytes
    synced: int
    farewell: str
    texts: list[bytes]

    def feed(self, data: memoryview) -> int:
        """How many deliveries became whole with `data`."""


class Controls:
    """Ends, pings and pongs of WebSocket; the base of what counts on one."""

    def __init__(self) -> None:
        self.answers = b""
        self.synced = 0
        self.farewell = ""
        self.texts: list[bytes] = []

    def control(self, opcode: int, payload: bytes) -> None:
        """Take a frame that holds no delivery."""
        if opcode == 8:
            self.farewell = f"closed with {int.from_bytes(payload[:2], 'big')} {payload[2:]!r}"
        elif opcode == 9:
            self.answers += masked(payload, 10)
        elif opcode == 10:
            self.synced += 1
        else:
            self.texts.append(payload)


class Fixed(Controls):
    """Deliveries of one size, each beginning with `head`; anything else is left to `other`."""

    def __init__(self, head: bytes, size: int) -> None:
        super().__init__()
        self.head = head
        self.size = size
        self.rest = b""

    def other(self, data: bytes, at: int) -> int:
        """Take what begins at `at` and is no delivery: its bytes, 0 when not all of it is there."""
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
    """The lines that nats-server sends."""

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
    """The packets that an MQTT broker sends; all of them but PUBLISH are short."""

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
    """A stream in WebSocket frames of any size: walks their heads and counts their payload.

    :param size: bytes of one delivery. :param lines: counts instead, where the payload is a stream of lines.
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
    """A member's end of a ces.2 session: what was delivered is acknowledged (docs/protocol.md section 5).

    keeps: whether the other side keeps a session; without one nothing is acknowledged.
    due: whether an acknowledgement is due now, and not only within `ACK_SECONDS`.
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
        """Whether anything is not acknowledged."""
        return self.keeps and self._found != self._acknowledged

    @property
    def due(self) -> bool:
        return self.keeps and self._found - self._acknowledged >= self._soon

    def acknowledgement(self) -> bytes:
        """The text."""
        self._acknowledged = self._found
        return b'{"ack":%d}' % self._found


ACK_RECORDS, ACK_BYTES, ACK_SECONDS = 256, 256 * 1024, 0.1
"""After so much an acknowledgement is due."""


class Speech:
    """How one protocol is spoken by a client.

    tail: bytes of a message behind the event, at its end.
    greeted, answered, confirmed: how many answers follow the opening, a `sync` and a subscription.
    """

    name: ClassVar[str]
    tail: ClassVar[int]
    greeted: ClassVar[int] = 0
    answered: ClassVar[int] = 1
    confirmed: ClassVar[int] = 0
    path: ClassVar[str] = ""
    subprotocol: ClassVar[str] = ""

    def opening(self, number: int) -> bytes:
        """What is said first, once the connection (and its WebSocket) is open."""
        return b""

    def sync(self) -> bytes:
        """A question that is answered when everything before it has been dealt with."""
        return masked(b"", 9)

    def subscribe(self, rooms: list[str]) -> bytes:
        """Subscribe to rooms."""
        return masked(json.dumps({"rooms": rooms, "create": True}).encode(), 1)

    def publish(self, room: str, events: list[bytes]) -> bytes:
        """The events, as they are written in one go."""
        raise NotImplementedError

    def counter(self, room: str, event: bytes) -> Counter:
        """Counts deliveries of such an event to such a room."""
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
    """The NATS client protocol; a room is a subject."""

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
    """The same in WebSocket frames."""

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
    """MQTT 3.1.1 at QoS 0; a room is a topic."""

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
    """Nothing but the bytes of the event: for the relay, which has neither rooms nor questions."""

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
    """A record as docs/protocol.md section 2 has it."""
    return b"%b\n%b\n" % (room.encode(), event)


def text(value: str) -> bytes:
    """A string of MQTT."""
    return len(value).to_bytes(2, "big") + value.encode()


def mqtt(head: int, body: bytes) -> bytes:
    """A packet of MQTT: head, remaining length, body."""
    left, length = len(body), b""
    while left >= 128:
        length, left = length + bytes((left % 128 | 128,)), left // 128
    return bytes((head,)) + length + bytes((left,)) + body
