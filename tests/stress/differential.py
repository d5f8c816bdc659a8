"""Compares our fast frame parser with Autobahn's: the same bytes, cut anywhere, must have the same outcome.

A `Stream` is what a peer sends: frames, good and bad, cut into reads. `outcome` plays one to a connection and
says what came of it: every message in order, what the connection wrote, how it stands at the end. `compare`
plays it through the connection's own `consumeData` and through Autobahn's, on either end.

`python -m tests.stress.differential N SEED` compares N random streams. The test suite compares a few
thousand.
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

from autobahn.websocket.protocol import WebSocketProtocol
from twisted.internet.testing import MemoryReactorClock
from websockets.frames import apply_mask

from ces.config.link import LinkSettings
from ces.link.connection import Connection
from ces.link.dialling import DiallingConnection
from ces.link.serving import ServingConnection, ServingFactory
from ces.model.wire import Run
from tests.support.links import KEY, UPGRADE, Alone, Lines, Recorder, frame, make_side, make_uplink, upgraded

LIMIT = 70_000
"""Limit of a message, in bytes. It is above 65,535, so that good frames have all three length encodings."""


@dataclass(frozen=True)
class Stream:
    """The bytes that a peer sends.

    serving: whether they are played to a serving connection.
    reads: the bytes, as they arrive.
    """

    serving: bool
    reads: tuple[bytes, ...]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a stream."""

    messages: list[bytes]
    written: list[tuple[int, bytes]]
    state: int
    closed: tuple[int | None, str]
    dropped: bool


class AutobahnServing(ServingConnection):
    """A serving connection that reads Autobahn's way."""

    def consumeData(self) -> None:
        WebSocketProtocol.consumeData(self)


class AutobahnDialling(DiallingConnection):
    """A dialling connection that reads Autobahn's way."""

    def consumeData(self) -> None:
        WebSocketProtocol.consumeData(self)


def outcome(stream: Stream, fast: bool) -> Outcome:
    """Play `stream` to an open ces.1 connection of kind hub, on which every message is one of records."""
    messages: list[bytes] = []

    def read(dialect: str, path: str, payloads: list[bytes], faults: list[str]) -> list[Run]:
        messages.extend(payloads)
        return []

    clock = MemoryReactorClock()
    owner, side = Recorder(), make_side(clock, LinkSettings(message_limit=LIMIT))
    factory: Any
    if stream.serving:
        factory = ServingFactory(owner, side, "hub", clock, read=read)
        factory.protocol = ServingConnection if fast else AutobahnServing
    else:
        factory = make_uplink(owner, side, clock, "hub", read=read).factory
        factory.protocol = DiallingConnection if fast else AutobahnDialling
    alone = Alone(owner, clock, cast(Connection, factory.buildProtocol(None)), Lines())
    connection, transport = alone.connection, alone.transport
    alone.receive(UPGRADE % b"" if stream.serving else upgraded(alone.written(), "ces.1"))
    alone.written()
    for data in stream.reads:
        if transport.disconnecting:
            break
        connection.dataReceived(data)
    closed = (connection.code, connection.ended)
    result = Outcome(messages, alone.frames(), connection.state, closed, transport.disconnecting)
    alone.lose()
    return result


def compare(stream: Stream) -> None:
    """Check that both parsers have the same outcome."""
    fast, slow = outcome(stream, True), outcome(stream, False)
    assert fast == slow, f"{stream}\nfast: {fast}\nslow: {slow}"


SIZES = (0, 1, 2, 7, 40, 124, 125, 126, 127, 128, 300)
LARGE_SIZES = (65_534, 65_535, 65_536, LIMIT - 1, LIMIT, LIMIT + 1)
TEXTS = (b"", b"a", "über".encode(), "\U0001f50a".encode(), b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xf0\x9f")
CLOSES = (
    b"",
    b"\x03",
    b"\x03\xe8",
    b"\x03\xe8bye",
    b"\x03\xed",
    b"\x03\xe8\xff",
    b"\x0f\xa1draining",
    b"\x13\x88",
)


def make_stream(rng: random.Random) -> Stream:
    """A random stream of mostly good frames. About half of the streams contain violations."""
    serving = rng.random() < 0.5
    bad = rng.choice((0.0, 0.0, 0.05, 0.3))
    parts = []
    for _ in range(rng.randrange(1, 12)):
        make = rng.choice(VIOLATIONS) if rng.random() < bad else rng.choice(USUAL)
        parts.append(make(rng, serving))
    data = b"".join(parts)
    if rng.random() < 0.25:
        data = data[: rng.randrange(len(data) + 1)]
    return Stream(serving, tuple(cut(rng, data)))


def cut(rng: random.Random, data: bytes) -> list[bytes]:
    """Cut `data` into reads of random size, none of them empty."""
    if len(data) < 200 and rng.random() < 0.2:
        return [data[at : at + 1] for at in range(len(data))]
    marks = sorted({0, len(data), *(rng.randrange(len(data) + 1) for _ in range(rng.randrange(8)))})
    return [data[start:end] for start, end in pairwise(marks)]


def _binary(rng: random.Random, serving: bool) -> bytes:
    return frame(2, _payload(rng, rng.choice(SIZES)), serving)


def _binaries(rng: random.Random, serving: bool) -> bytes:
    return b"".join(_binary(rng, serving) for _ in range(rng.randrange(1, 6)))


def _large(rng: random.Random, serving: bool) -> bytes:
    return frame(2, _payload(rng, rng.choice(LARGE_SIZES[:-1])), serving)


def _text(rng: random.Random, serving: bool) -> bytes:
    return frame(1, rng.choice(TEXTS[:4]), serving)


def _control(rng: random.Random, serving: bool) -> bytes:
    return frame(rng.choice((9, 10)), _payload(rng, rng.choice((0, 0, 4, 125))), serving)


def _fragmented(rng: random.Random, serving: bool) -> bytes:
    count = rng.randrange(2, 5)
    parts = []
    for number in range(count):
        opcode = rng.choice((1, 2)) if number == 0 else 0
        parts.append(frame(opcode, b"x" * rng.choice(SIZES), serving, fin=number == count - 1))
        if rng.random() < 0.4:
            parts.append(_control(rng, serving))
    return b"".join(parts)


def _fragmented_text(rng: random.Random, serving: bool) -> bytes:
    text = rng.choice(TEXTS) + rng.choice(TEXTS)
    at = rng.randrange(len(text) + 1)
    return frame(1, text[:at], serving, fin=False) + frame(0, text[at:], serving)


def _close(rng: random.Random, serving: bool) -> bytes:
    return frame(8, rng.choice(CLOSES), serving)


def _reserved_bits(rng: random.Random, serving: bool) -> bytes:
    return frame(rng.choice((1, 2, 9)), b"abc", serving, rsv=rng.randrange(1, 8))


def _reserved_opcode(rng: random.Random, serving: bool) -> bytes:
    return frame(rng.choice((3, 4, 5, 6, 7, 11, 12, 13, 14, 15)), b"abc", serving)


def _wrong_masking(rng: random.Random, serving: bool) -> bytes:
    return frame(rng.choice((2, 2, 1, 8, 9)), _payload(rng, rng.choice(SIZES)), not serving)


def _long_length(rng: random.Random, serving: bool) -> bytes:
    """A length that is encoded in more bytes than necessary."""
    payload = _payload(rng, rng.choice(SIZES))
    size, code = rng.choice(((2, 126), (8, 127)))
    head = bytes([0x82, serving << 7 | code]) + len(payload).to_bytes(size, "big")
    return head + (KEY + apply_mask(payload, KEY) if serving else payload)


def _oversize(rng: random.Random, serving: bool) -> bytes:
    return frame(rng.choice((1, 2)), b"x" * (LIMIT + 1), serving)


def _endless(rng: random.Random, serving: bool) -> bytes:
    length = rng.choice((LIMIT + 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1))
    return bytes([0x82, serving << 7 | 127]) + length.to_bytes(8, "big") + KEY * serving + b"x" * 50


def _large_in_fragments(rng: random.Random, serving: bool) -> bytes:
    return frame(2, b"x" * (LIMIT - 5), serving, fin=False) + frame(0, b"x" * rng.choice((5, 6)), serving)


def _fragmented_control(rng: random.Random, serving: bool) -> bytes:
    return frame(rng.choice((8, 9, 10)), b"", serving, fin=False)


def _long_control(rng: random.Random, serving: bool) -> bytes:
    return frame(rng.choice((8, 9, 10)), b"x" * 126, serving)


def _stray_continuation(rng: random.Random, serving: bool) -> bytes:
    return frame(0, b"abc", serving, fin=rng.random() < 0.5)


def _unfinished(rng: random.Random, serving: bool) -> bytes:
    """The first fragment of a message. Further fragments may be missing."""
    return frame(rng.choice((1, 2)), b"abc", serving, fin=False)


def _garbage(rng: random.Random, serving: bool) -> bytes:
    return bytes(rng.randrange(256) for _ in range(rng.randrange(1, 20)))


def _payload(rng: random.Random, size: int) -> bytes:
    return bytes([rng.randrange(256)]) * size


USUAL = (_binary, _binary, _binaries, _binaries, _large, _text, _control, _control, _fragmented)
VIOLATIONS = (
    _close,
    _close,
    _fragmented_text,
    _reserved_bits,
    _reserved_opcode,
    _wrong_masking,
    _long_length,
    _oversize,
    _endless,
    _large_in_fragments,
    _fragmented_control,
    _long_control,
    _stray_continuation,
    _unfinished,
    _garbage,
)


def main(count: int, seed: int) -> None:
    """Compare `count` random streams. Each depends only on `seed` and its number, so it can be reproduced."""
    for number in range(count):
        compare(make_stream(random.Random(f"{seed} {number}")))
        if number % 10_000 == 9_999:
            print(f"{number + 1} streams, all the same", flush=True)
    print(f"{count} streams from seed {seed}: the two ways are the same")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
