"""Generates hostile input from a seed: what one connection sends, and how it must end. Pure, no sockets.

A `Plan` is everything that one connection does: an opening, inputs, and its own end. An *input* is one frame,
one message with its fragments, or one HTTP request. `make_link` makes a plan for a WebSocket link, and
`tests.stress.hostile_http` makes one for other requests. The plan's fate says what the server must do::

    STAYS    no input ends the link: a ping after the last input is answered
    ENDS     only the last input ends the link: a ping before it is answered
    EITHER   the link may end or not; the plan is over when the server has read all of it
    ANSWERS  HTTP: as many answers as requests, none of them a server error
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.stress.differential import LIMIT, USUAL, VIOLATIONS
from tests.support.links import UPGRADE, frame

STAYS, ENDS, EITHER, ANSWERS = "stays", "ends", "either", "answers"
CLOSE, AWAY, FIN, RESET = "close", "away", "fin", "reset"
LAST = b"the last"
"""The payload of the ping at the end."""

Known = Sequence[tuple[str, str]]
"""Sessions of earlier connections: (id, node)."""


@dataclass(frozen=True)
class Plan:
    """What one connection does.

    role: ``hub`` or ``repeater``.
    opening: a WebSocket upgrade; empty for HTTP.
    inputs: number of inputs in `data`.
    last: index in `data` at which the last input begins.
    pieces: number of writes for `data`.
    deaf: whether the client reads nothing until it has written everything.
    rude: whether the client leaves a close frame unanswered.
    eager: whether the client sends without waiting for the answer to the opening.
    ending: how the client ends a connection that the server leaves open.
    """

    role: str
    fate: str
    opening: bytes
    data: bytes
    inputs: int
    last: int = 0
    node: str = ""
    pieces: int = 1
    deaf: bool = False
    rude: bool = False
    eager: bool = False
    ending: str = CLOSE


ROOMS = tuple(f"HOSTILE-{number}" for number in range(8))
PLACES = ("R/x", "/x", "%C3%9C/x", "ITB-1108/ITB-1108-D1", "R" * 255 + "/" + "x" * 255)


def make_link(rng: random.Random, known: Known = ()) -> Plan:
    """Make the plan of one link."""
    role = "repeater" if rng.random() < 0.3 else "hub"
    kind = "outside" if role == "repeater" else rng.choice(("messenger", "messenger", "repeater", "hub"))
    path = f"/connect/{rng.choice(PLACES)}" if role == "repeater" else f"/connect/{kind}"
    dialect = rng.choice(("ces.1", "ces.2", "ces.2"))
    offer = b"Sec-WebSocket-Protocol: ces.2\r\n" if dialect == "ces.2" else b""
    opening = (UPGRADE % offer).replace(b"/connect/messenger", path.encode(), 1)
    node = f"hostile-{rng.getrandbits(48):x}"
    fate = rng.choices((STAYS, ENDS, EITHER), (50, 30, 20))[0]
    inputs: list[bytes] = []
    if dialect == "ces.2":
        said = {"node": node, "session": None, "received": 0}
        if fate == EITHER and rng.random() < 0.6:
            said |= _claim(rng, known)
        elif rng.random() < 0.1:
            said |= {"session": f"{rng.getrandbits(96):x}", "received": rng.choice((0, 1, 2**62))}
        inputs.append(_text({"hello": said}))
    if fate == ENDS and rng.random() < 0.15 and dialect == "ces.2":
        inputs = [rng.choice(BAD_FIRST)(rng)]
    else:
        if fate != EITHER or rng.random() < 0.5:  # else a hundred bad records without a good one end the link
            inputs.append(good(rng, dialect))
        choices = harmless(kind, dialect)
        inputs += [rng.choice(choices)(rng) for _ in range(rng.choice((0, 5, 15, 30, 60)))]
        if fate == ENDS:
            inputs.append(rng.choice(DEADLY + (DEADLY_CES2 if dialect == "ces.2" else ()))(rng))
        elif fate == EITHER:
            inputs += [rng.choice(VIOLATIONS)(rng, True) for _ in range(rng.randrange(1, 4))]
    data = b"".join(inputs)
    if fate == EITHER and rng.random() < 0.1:
        data = data[: rng.randrange(len(data) + 1)]
    return Plan(
        role,
        fate,
        opening,
        data,
        len(inputs),
        last=sum(map(len, inputs[:-1])),
        node=node,
        pieces=rng.choice((1, 1, 1, 3, 20)),
        deaf=rng.random() < 0.1,
        rude=rng.random() < 0.01,
        eager=rng.random() < 0.05,
        ending=rng.choice((CLOSE, CLOSE, AWAY, FIN, RESET)),
    )


def _claim(rng: random.Random, known: Known) -> dict[str, object]:
    """A claim to another connection's session, or to one that does not exist."""
    id, node = rng.choice(known) if known else ("f" * 24, "nobody")
    counts = (0, 0, 1, 3, 256, 2**31, 2**63 - 1)
    claim: dict[str, object] = {"session": id, "received": rng.choice(counts)}
    if rng.random() < 0.6:
        claim["node"] = node
    return claim


def _text(message: object) -> bytes:
    return frame(1, message if isinstance(message, bytes) else json.dumps(message).encode())


def good(rng: random.Random, dialect: str = "ces.1") -> bytes:
    """A good record, for the links of hubs and repeaters."""
    return frame(2, b'%b\n{"key":"power","value":"on"}\n' % rng.choice(ROOMS).encode())


def _fixed(make: Callable[[bytes], bytes], *payloads: bytes) -> Callable[[random.Random], bytes]:
    return lambda rng: make(rng.choice(payloads))


def _binary(payload: bytes) -> bytes:
    return frame(2, payload)


def _noise(rng: random.Random) -> bytes:
    return _binary(rng.randbytes(rng.choice((1, 7, 60, 125, 126, 1000))))


def _nearly(rng: random.Random) -> bytes:
    """A batch of good records with some bytes replaced."""
    batch = bytearray(
        b"".join(b'%b\n{"n":%d}\n' % (rng.choice(ROOMS).encode(), n) for n in range(rng.randrange(1, 9)))
    )
    for _ in range(rng.randrange(1, 4)):
        batch[rng.randrange(len(batch))] = rng.choice(b'\n\n{}"\x00\xff* \r\x7f')
    return _binary(bytes(batch[: rng.randrange(1, len(batch) + 1)]))


def _deep(rng: random.Random) -> bytes:
    depth = rng.choice((50, 999, 3500))
    event = rng.choice((b'{"a":', b'{"affected-room":', b'{"a":[')) * depth + rng.choice((b"", b"}" * depth))
    return _binary(rng.choice((b"", b"R\n", b"R\n\n")) + event + rng.choice((b"", b"\n")))


def _fragments(rng: random.Random) -> bytes:
    """One message in fragments, some empty, with pings between them."""
    parts = [frame(2, rng.choice((b"", b"R", b"\n{")), fin=False)]
    for _ in range(rng.randrange(1, 30)):
        parts.append(frame(0, rng.choice((b"", b"x", b"}", b"\n")), fin=False))
        if rng.random() < 0.1:
            parts.append(frame(rng.choice((9, 10)), b"between"))
    return b"".join(parts) + frame(0, b"}\n")


def _usual(rng: random.Random) -> bytes:
    return rng.choice(USUAL)(rng, True)


def _many(rng: random.Random) -> bytes:
    """A message with very many records."""
    return _binary(rng.choice((b"\n", b"R\n{}\n", b"R\n[]\n", b"{}\n", b"\n\n{")) * rng.choice((300, 5000)))


def _rooms(rng: random.Random) -> bytes:
    """A good subscription change."""
    rooms = rng.sample((*ROOMS, "", "*", "Ü", "x" * 255), rng.randrange(4))
    return _text({"rooms": rooms, "create": rng.random() < 0.7, "x": None})


VALUES = (
    b"null", b"true", b"false", b"0", b"-1", b"-0", b"0.5", b"1e999", b"-1e400", b"1e-999", b"NaN",
    b"Infinity", b"9" * 17 + b"x", b"9" * 5000, b"18446744073709551616", b"-9223372036854775809", b'"1"',
    b'""', b'"\\ud800"', b'"\\u0000"', b'"' + b"x" * 5000 + b'"', b"[]", b"[[]]", b"[null]", b'["a",1]',
    b"{}", b'{"":{}}', b"[" * 2000, b'{"lost":', b'{"lost":-1}', b'{"lost":"1"}', b'{"lost":9e99}',
    b'{"code":"x","reason":1}', b'{"code":null}', b'{"code":1,"reason":null}',
    b'{"code":1e30,"reason":"x"}', b'["*","*","{"]', b'["\\n"]', b'["' + b"R" * 256 + b'"]',
)  # fmt: skip
KEYS = (b"ack", b"gap", b"error", b"rooms", b"create", b"hello", b"", b"x", b"ack ", b"\\u0061ck")


def _wrong(rng: random.Random) -> bytes:
    """A control message with values of wrong types, in any combination. It is never a good hello, because the
    link has already had one.
    """
    count = rng.choice((1, 1, 1, 2, 3))
    pairs = [(rng.choice(KEYS), rng.choice(VALUES)) for _ in range(count)]
    text = (
        b"{"
        + b",".join(b'"%b":%b' % pair for pair in pairs)
        + rng.choice((b"}", b"}", b"}", b"", b"}}", b"} "))
    )
    return frame(1, text)


def _gap(rng: random.Random) -> bytes:
    return _text({"gap": {"lost": rng.choice((0, 1, 10**6, 2**63 - 1))}})


def _error(rng: random.Random) -> bytes:
    reason = rng.choice(
        ("", "x" * 5000, "line\r\nline\n\ttraceback", "{0} {x} {log_format} %s", "\x1b[31m", "\u2028")
    )
    return _text({"error": {"code": rng.choice((0, -1, 4400, 2**62)), "reason": reason}})


_ODD_TEXTS = _fixed(
    _text, b"", b" ", b"{", b"}", b"[]", b'"x"', b"null", b"0", b"{}", b'{"ack":0}', b'{"ack": 0}',
    b'{"ack":00}', b'{"ack":-0}', b'{"ack":0,"ack":0}', b'\xef\xbb\xbf{}', b"\x00", "über".encode(),
    b'{"rooms":' * 400, b"[" * 60_000, b'{"a":"%b"}' % (b"\\ud83d" * 500),
)  # fmt: skip
_ODD_RECORDS = _fixed(
    _binary, b"", b"\n", b"\n\n", b"no line feed", b"R\n", b"R\n{", b"R\n[]\n", b"R\n{}\n\n",
    b"R\r\n{}\r\n", b"*\n{}\n", b"{}\n{}\n", b"\x00\n{}\n", b"R\x00\n{\x00}\n", b"\xff\n{}\n",
    b"\xed\xa0\x80\n{}\n", b"R" * 255 + b"\n{}\n", b"R" * 256 + b"\n{}\n", b"R" * 60_000 + b"\n{}\n",
    b"\xc2\x85\n{}\n", b"\xe2\x80\xa8\n{}\n", b"R\n{\xff\xfe}\n", b"R\n \t{\n\n\n}\n \n",
    b"R\n\xef\xbb\xbf{}\n", b'R\n{"a":1e999,"a":}\n', b"\n{}\n", b"{}", b'{"key":"bare"}', b"{\xff}",
    b'{"affected-room":{"roomID":"*"}}', b'{"affected-room":{"roomID":5}}',
    b'{"affected-room":{"roomID":"\\u0000"}}', b'{"affected-room":{"roomID":"\\ud800"}}',
    b'{"affected-room":[]}', b'{"target-device":{"roomID":"' + b"x" * 300 + b'"}}', b" " * 60_000,
    b"R\n{" + b" " * 60_000, b"\n" * 60_000, b"R\n{" + b"\n" * 30_000 + b"}",
)  # fmt: skip


def harmless(kind: str, dialect: str) -> tuple[Callable[[random.Random], bytes], ...]:
    """Makers of input that does not end the link, even if it is refused."""
    records = (_noise, _nearly, _nearly, _deep, _fragments, _usual, _many, good, _ODD_RECORDS, _ODD_RECORDS)
    texts = (_wrong, _wrong, _wrong, _wrong, _gap, _error, _ODD_TEXTS, _ODD_TEXTS, _rooms)
    return records + texts if kind == "messenger" or dialect == "ces.2" else records + texts[:1] + texts[-3:]


def _violation(name: str) -> Callable[[random.Random], bytes]:
    made = next(make for make in VIOLATIONS if make.__name__ == name)
    return lambda rng: made(rng, True)


DEADLY = (
    _violation("_close"),
    _violation("_reserved_bits"),
    _violation("_reserved_opcode"),
    _violation("_wrong_masking"),
    _violation("_oversize"),
    _violation("_fragmented_control"),
    _violation("_long_control"),
    _violation("_stray_continuation"),
    _fixed(_text, b"\xff", b"a\xc3", b"\xed\xa0\x80", b'{"rooms":["\xff"]}'),
    lambda rng: frame(1, b'{"a', fin=False) + frame(0, b"\xc3", fin=False) + frame(0, b"(", fin=False),
    lambda rng: frame(2, b"x" * (LIMIT - 5), fin=False) + frame(0, b"x" * 6),
    lambda rng: frame(rng.choice((1, 2)), b"abc", fin=False) + frame(rng.choice((1, 2)), b"abc"),
    lambda rng: (
        bytes([0x82, 0xFF]) + rng.choice((LIMIT + 1, 2**31, 2**63 - 1, 2**63)).to_bytes(8, "big") + bytes(9)
    ),
    lambda rng: b"\x82\xfe\x00\x05" + bytes(4) + b"R\n{}\n",
    # None of these begins like a frame that could still be completed.
    lambda rng: rng.choice((b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 20, b"\x16\x03\x01" + bytes(20))),
)
"""Input for which RFC 6455 requires the link to be closed, and close frames."""

DEADLY_CES2 = (
    lambda rng: _text({"hello": {"node": "second", "session": None, "received": 0}}),
    _fixed(_text, b'{"ack":999999999}', b'{"ack":999999999999999999}', b'{"ack":9223372036854775807}'),
)

BAD_FIRST = (
    good,
    _rooms,
    _gap,
    _error,
    _ODD_RECORDS,
    _fixed(
        _text, b"", b"{", b'{"ack":0}', b'{"hello":{}}', b'{"hello":null}', b'{"hello":[]}',
        b'{"hello":' * 5000, b'{"hello":{"node":""}}', b'{"hello":{"node":"two words"}}',
        b'{"hello":{"node":"x\\n"}}', b'{"hello":{"node":null}}', b'{"hello":{"node":"\\ud800"}}',
        b'{"hello":{"node":"%b"}}' % (b"x" * 129), b'{"hello":{"node":"x","session":5}}',
        b'{"hello":{"node":"x","session":"%b"}}' % (b"s" * 129), b'{"hello":{"node":"x","received":-1}}',
        b'{"hello":{"node":"x","received":1.5}}', b'{"hello":{"node":"x","received":"1"}}',
        b'{"hello":{"node":"x"},"ack":-1}', b'{"hello":{"node":"x","received":9223372036854775808}}',
        b'{"hello":{"node":"x","resumed":1}}', b'{"hello":{"node":"x","window":"long"}}',
        b'{"hello":{"node":"x","window":1e999}}',
    ),
)  # fmt: skip
"""Input that must not be the first on a ces.2 link."""
