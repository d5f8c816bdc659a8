"""Hostile input, made from a seed: what one connection sends, and how it must end.

A `Plan` is everything that one connection does: an opening, inputs, and its own end. An *input* is one frame,
one message with its fragments, or one HTTP request. `make_plan` draws one; pure, no sockets. Its fate says
what a server must make of it::

    STAYS    nothing in it ends the link: a ping behind the last input is answered
    ENDS     the last input ends it, and none before
    EITHER   whether it ends is open; it is over when the server has read all of it
    ANSWERS  HTTP: as many answers as requests, none of them a failure of the server
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.differential import LIMIT, USUAL, VIOLATIONS
from tests.links import UPGRADE, frame

STAYS, ENDS, EITHER, ANSWERS = "stays", "ends", "either", "answers"
CLOSE, AWAY, FIN, RESET = "close", "away", "fin", "reset"
LAST = b"the last"
"""What the ping behind the last input bears."""

Known = Sequence[tuple[str, str]]
"""Sessions that others have had: (id, node)."""


@dataclass(frozen=True)
class Plan:
    """What one connection does.

    role: ``hub`` or ``repeater``.
    opening: a WebSocket upgrade; none for HTTP.
    inputs: how many of them are in `data`.
    last: where in `data` the last one begins.
    pieces: `data` is written in so many.
    deaf: nothing is read until all has been written.
    rude: a close is not answered.
    eager: the answer to the opening is not waited for.
    ending: how the client ends what the server left open.
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


def make_plan(rng: random.Random, known: Known = ()) -> Plan:
    """One connection's."""
    return _http(rng) if rng.random() < 0.12 else _link(rng, known)


# -- links ---------------------------------------------------------------------------------------------------

ROOMS = tuple(f"HOSTILE-{number}" for number in range(8))
PLACES = ("R/x", "/x", "%C3%9C/x", "ITB-1108/ITB-1108-D1", "R" * 255 + "/" + "x" * 255)


def _link(rng: random.Random, known: Known) -> Plan:
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
        good = fate != EITHER or rng.random() < 0.5  # without it a hundred faults end the link
        if good:
            inputs.append(_good(rng, dialect))
        choices = _harmless(kind, dialect)
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
    """Somebody's session, or one that nobody has."""
    id, node = rng.choice(known) if known else ("f" * 24, "nobody")
    counts = (0, 0, 1, 3, 256, 2**31, 2**63 - 1)
    claim: dict[str, object] = {"session": id, "received": rng.choice(counts)}
    if rng.random() < 0.6:
        claim["node"] = node
    return claim


def _text(message: object) -> bytes:
    return frame(1, message if isinstance(message, bytes) else json.dumps(message).encode())


def _good(rng: random.Random, dialect: str = "ces.1") -> bytes:
    """A good record. To a repeater's links from outside too."""
    return frame(2, b'%b\n{"key":"power","value":"on"}\n' % rng.choice(ROOMS).encode())


def _fixed(make: Callable[[bytes], bytes], *payloads: bytes) -> Callable[[random.Random], bytes]:
    return lambda rng: make(rng.choice(payloads))


def _binary(payload: bytes) -> bytes:
    return frame(2, payload)


def _noise(rng: random.Random) -> bytes:
    return _binary(rng.randbytes(rng.choice((1, 7, 60, 125, 126, 1000))))


def _nearly(rng: random.Random) -> bytes:
    """A batch of good records, some bytes of which are others."""
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
    """Very many records in one message."""
    return _binary(rng.choice((b"\n", b"R\n{}\n", b"R\n[]\n", b"{}\n", b"\n\n{")) * rng.choice((300, 5000)))


def _rooms(rng: random.Random) -> bytes:
    """A subscription change that is good."""
    rooms = rng.sample((*ROOMS, "", "*", "Ü", "x" * 255), rng.randrange(4))
    return _text({"rooms": rooms, "create": rng.random() < 0.7, "x": None})


def _value(rng: random.Random) -> bytes:
    return rng.choice(VALUES)


VALUES = (
    *(
        b"null",
        b"true",
        b"false",
        b"0",
        b"-1",
        b"-0",
        b"0.5",
        b"1e999",
        b"-1e400",
        b"1e-999",
        b"NaN",
        b"Infinity",
    ),
    *(
        b"9" * 17 + b"x",
        b"9" * 5000,
        b"18446744073709551616",
        b"-9223372036854775809",
        b'"1"',
        b'""',
        b'"\\ud800"',
    ),
    *(
        b'"\\u0000"',
        b'"' + b"x" * 5000 + b'"',
        b"[]",
        b"[[]]",
        b"[null]",
        b'["a",1]',
        b"{}",
        b'{"":{}}',
        b"[" * 2000,
    ),
    *(
        b'{"lost":',
        b'{"lost":-1}',
        b'{"lost":"1"}',
        b'{"lost":9e99}',
        b'{"code":"x","reason":1}',
        b'{"code":null}',
    ),
    *(
        b'{"code":1,"reason":null}',
        b'{"code":1e30,"reason":"x"}',
        b'["*","*","{"]',
        b'["\\n"]',
        b'["' + b"R" * 256 + b'"]',
    ),
)
KEYS = (b"ack", b"gap", b"error", b"rooms", b"create", b"hello", b"", b"x", b"ack ", b"\\u0061ck")


def _wrong(rng: random.Random) -> bytes:
    """A control message with values of wrong types, in every combination. A hello among them is a second one,
    so none is good.
    """
    count = rng.choice((1, 1, 1, 2, 3))
    pairs = [(rng.choice(KEYS), rng.choice(VALUES)) for _ in range(count)]
    pairs = [(key, b"[]" if key == b"error" and value == b"{}" else value) for key, value in pairs]
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
    _text, b"", b" ", b"{", b"}", b"[]", b'"x"', b"null", b"0", b"{}", b'{"ack":0}', b'{"ack": 0}', b'{"ack":00}',
    b'{"ack":-0}', b'{"ack":0,"ack":0}', b'\xef\xbb\xbf{}', b"\x00", "über".encode(), b'{"rooms":' * 400, b"[" * 60_000,
    b'{"a":"%b"}' % (b"\\ud83d" * 500),
)  # fmt: skip
_ODD_RECORDS = _fixed(
    _binary, b"", b"\n", b"\n\n", b"no line feed", b"R\n", b"R\n{", b"R\n[]\n", b"R\n{}\n\n", b"R\r\n{}\r\n", b"*\n{}\n",
    b"{}\n{}\n", b"\x00\n{}\n", b"R\x00\n{\x00}\n", b"\xff\n{}\n", b"\xed\xa0\x80\n{}\n", b"R" * 255 + b"\n{}\n",
    b"R" * 256 + b"\n{}\n", b"R" * 60_000 + b"\n{}\n", b"\xc2\x85\n{}\n", b"\xe2\x80\xa8\n{}\n", b"R\n{\xff\xfe}\n",
    b"R\n \t{\n\n\n}\n \n", b"R\n\xef\xbb\xbf{}\n", b'R\n{"a":1e999,"a":}\n', b"\n{}\n", b"{}", b'{"key":"bare"}', b"{\xff}",
    b'{"affected-room":{"roomID":"*"}}', b'{"affected-room":{"roomID":5}}', b'{"affected-room":{"roomID":"\\u0000"}}',
    b'{"affected-room":{"roomID":"\\ud800"}}', b'{"affected-room":[]}', b'{"target-device":{"roomID":"' + b"x" * 300 + b'"}}',
    b" " * 60_000, b"R\n{" + b" " * 60_000, b"\n" * 60_000, b"R\n{" + b"\n" * 30_000 + b"}",
)  # fmt: skip


def _harmless(kind: str, dialect: str) -> tuple[Callable[[random.Random], bytes], ...]:
    """What is refused, if it is, without an end to the link."""
    records = (_noise, _nearly, _nearly, _deep, _fragments, _usual, _many, _good, _ODD_RECORDS, _ODD_RECORDS)
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
    # Only what does not begin like a frame that could grow.
    lambda rng: rng.choice((b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 20, b"\x16\x03\x01" + bytes(20))),
)
"""What RFC 6455 has a link closed for; and a close."""

DEADLY_CES2 = (
    lambda rng: _text({"hello": {"node": "second", "session": None, "received": 0}}),
    _fixed(_text, b'{"ack":999999999}', b'{"ack":999999999999999999}', b'{"ack":9223372036854775807}'),
)

BAD_FIRST = (
    _good,
    _rooms,
    _gap,
    _error,
    _ODD_RECORDS,
    _fixed(
        _text, b"", b"{", b'{"ack":0}', b'{"hello":{}}', b'{"hello":null}', b'{"hello":[]}', b'{"hello":' * 5000,
        b'{"hello":{"node":""}}', b'{"hello":{"node":"two words"}}', b'{"hello":{"node":"x\\n"}}', b'{"hello":{"node":null}}',
        b'{"hello":{"node":"\\ud800"}}', b'{"hello":{"node":"%b"}}' % (b"x" * 129), b'{"hello":{"node":"x","session":5}}',
        b'{"hello":{"node":"x","session":"%b"}}' % (b"s" * 129), b'{"hello":{"node":"x","received":-1}}',
        b'{"hello":{"node":"x","received":1.5}}', b'{"hello":{"node":"x","received":"1"}}', b'{"hello":{"node":"x"},"ack":-1}',
        b'{"hello":{"node":"x","received":9223372036854775808}}', b'{"hello":{"node":"x","resumed":1}}',
        b'{"hello":{"node":"x","window":"long"}}', b'{"hello":{"node":"x","window":1e999}}',
    ),
)  # fmt: skip
"""What a link of ces.2 cannot begin with."""


# -- HTTP ----------------------------------------------------------------------------------------------------


def _http(rng: random.Random) -> Plan:
    role = rng.choice(("hub", "repeater"))
    requests = [rng.choice(REQUESTS)(rng) for _ in range(rng.choice((0, 1, 5, 20)))]
    if rng.random() < 0.5:
        # It says that no other follows, so that the end of the connection ends the answers.
        requests.append(_request("GET /health", "Connection: close"))
        return Plan(role, ANSWERS, b"", b"".join(requests), len(requests), pieces=rng.choice((1, 1, 7)))
    requests = requests[:5]
    requests.append(rng.choice(BAD_REQUESTS)(rng))
    data = b"".join(requests)
    if rng.random() < 0.1:
        data = data[: rng.randrange(len(data) + 1)]
    return Plan(
        role, EITHER, b"", data, len(requests), pieces=rng.choice((1, 1, 7)), ending=rng.choice((FIN, RESET))
    )


def _request(line: str, *headers: str, body: bytes = b"") -> bytes:
    head = [f"{line} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def _path(rng: random.Random) -> bytes:
    odd = (
        "/",
        "//",
        "/.",
        "/../etc/passwd",
        "/%",
        "/%00",
        "/%zz",
        "/%ff",
        "/a;b?c=d&e",
        "/?" + "q=1&" * 500,
        "/\x80",
        "*",
    )
    more = (
        "/" + "x" * 8000,
        "/connect",
        "/connect/",
        "/connect/x",
        "/connect/messenger",
        "/connect/%2e/%2e",
        "/connect//x",
    )
    api = (
        "/status",
        "/health",
        "/metrics",
        "/log-level",
        "/interconnect",
        "/event",
        "/send",
        "/interconnect/",
        "/log-level/",
    )
    return _request(f"{rng.choice(METHODS)} {rng.choice((*odd, *more, *api))}")


METHODS = (
    "GET",
    "GET",
    "POST",
    "PUT",
    "DELETE",
    "PATCH",
    "OPTIONS",
    "TRACE",
    "FOO",
    "get",
    "X" * 300,
)
"""Without HEAD, whose answers do not say where they end, and CONNECT."""


def _api(rng: random.Random) -> bytes:
    return rng.choice(
        (
            _request("PUT /log-level/" + rng.choice(("loud", "%00", "INFO", "%F0%9F%94%8A", "x" * 1000))),
            _request(
                "DELETE /interconnect/" + rng.choice(("x", "%00", "ftp://x", "::", "127.0.0.1:1", "x" * 1000))
            ),
            _request(
                "POST /interconnect/"
                + rng.choice(("%20", "-x", "a..b", "hub:0", "hub:99999", "[::", "u:p@h", "%ff"))
            ),
            _request(
                "GET /connect/hub",
                "Upgrade: websocket",
                "Content-Type: " + "x" * 900,
                "Connection: keep-alive",
            )
            if rng.random() < 0.0
            else _request("GET /status", "Accept: " + "*/*, " * 200, "Range: bytes=0-0", "If-None-Match: *"),
        )
    )


def _posted(rng: random.Random) -> bytes:
    body = rng.choice(
        (
            b"", b"{", b"[", b"null", b"0", b'"x"', b"\xff", b"\x00", b"{}", b"[]", b"[{}]", b"[{},[]]", b"[" * 60_000,
            b'{"a":' * 20_000, b"[%b]" % b",".join([b"{}"] * 12_000), b'{"affected-room":{"roomID":"*"}}', b'{"key":"\\ud800"}',
            b'{"affected-room":{"roomID":"\\ud800"}}', b'{"affected-room":{"roomID":"\\n"}}', b'{"affected-room":5}',
            b'{"affected-room":{"roomID":"%b"}}' % (b"x" * 256), b'{"a":"%b"}' % (b"x" * LIMIT), b'\xef\xbb\xbf{}', b"{}{}",
            b'{"key":"power","affected-room":{"roomID":"HOSTILE-1"}}', b"[%b]" % b",".join([b'{"key":"x"}'] * 50),
            rng.randbytes(rng.choice((1, 20, 500))), b"9" * 5000, b"-", b"1e999", b"{\n\n}", b'{"a":1,}',
        )
    )  # fmt: skip
    path = rng.choice(("/event", "/send"))
    if rng.random() < 0.5:
        kind = rng.choice(
            (
                "application/json",
                "application/x-www-form-urlencoded",
                "multipart/form-data; boundary=x",
                "\x80",
            )
        )
        return _request(f"POST {path}", f"Content-Type: {kind}", body=body)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    step = rng.choice((1 + len(body) // 3, 4000, 70_000))
    chunks = [body[at : at + step] for at in range(0, len(body), step)]
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


REQUESTS = (_path, _path, _api, _posted, _posted)
"""Requests that keep to HTTP, whatever they ask for: each has its answer."""


def _raw(*requests: bytes) -> Callable[[random.Random], bytes]:
    return lambda rng: rng.choice(requests)


def _headers(rng: random.Random) -> bytes:
    count, size = rng.choice(((600, 3), (1, 20_000), (1, 16_384), (400, 39), (1, 60_000), (100, 3000)))
    return _request("GET /health", *(f"X-{number}: {'x' * size}" for number in range(count)))


def _length(rng: random.Random) -> bytes:
    length = rng.choice(
        (
            b"-1",
            b"+1",
            b"0x10",
            b"1 1",
            b"1, 1",
            b"",
            b"9" * 30,
            b"9" * 5000,
            b"1_0",
            b"\xb2",
            b"99999999",
            b"1.0",
        )
    )
    return b"POST /event HTTP/1.1\r\nHost: x\r\nContent-Length: " + length + b"\r\n\r\n{}"


def _chunks(rng: random.Random) -> bytes:
    head = b"POST /event HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: " + rng.choice(
        (
            b"chunked",
            b"chunked",
            b"chunked",
            b"chunked",
            b"gzip, chunked",
            b"identity",
            b"x",
            b"chunked, chunked",
            b"Chunked ",
        )
    )
    head += rng.choice((b"", b"", b"\r\nContent-Length: 5", b"\r\nTransfer-Encoding: chunked")) + b"\r\n\r\n"
    return head + rng.choice(
        (
            b"zz\r\n{}\r\n0\r\n\r\n", b"-1\r\n{}", b"0x2\r\n{}\r\n0\r\n\r\n", b"2\r\n{}XX0\r\n\r\n", b"f" * 20 + b"\r\n{}", b"f" * 5000,
            b"2;" + b"x" * 5000 + b"\r\n{}\r\n0\r\n\r\n", b"\r\n\r\n", b"2\n{}\n0\n\n", b"2\r\n{}\r\n0\r\n" + b"T: x\r\n" * 9000 + b"\r\n",
            b"2\r\n{}\r\n0\r\nbad trailer\r\n\r\n", b"1\r\n{\r\n" * 5000, b"ffffff\r\n" + b" " * 5000, b"2 \r\n{}\r\n0\r\n\r\n",
        )
    )  # fmt: skip


def _upgrades(rng: random.Random) -> bytes:
    """An opening handshake in which something is wrong."""
    path = rng.choice(
        (b"/connect/messenger", b"/connect/hub", b"/connect/R/x", b"/connect/*/x", b"/connect/toaster")
    )
    request = (UPGRADE % rng.choice((b"", b"Sec-WebSocket-Protocol: ces.2\r\n"))).replace(
        b"/connect/messenger", path, 1
    )
    old, new = rng.choice(
        (
            (b"Key:", b"Kex:"), (b"==", b""), (b"dGhlIHNhbXBsZSBub25jZQ==", b"x" * 5000), (b": 13", b": " + b"9" * 5000),
            (b": 13", b": -13"), (b": 13", b": 13, 8"), (b"Connection: Upgrade", b"Connection: close"), (b"hub:7100", b"hub:x"),
            (b"hub:7100", b"\xff"), (b"Host: hub:7100\r\n", b""), (b"GET", b"POST"), (b"HTTP/1.1", b"HTTP/1.0"),
            (b"\r\n\r\n", b"\r\nOrigin: http://[\r\n\r\n"), (b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: a,,a,\xff\r\n\r\n"),
            (b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate; x=\xff; server_max_window_bits=99\r\n\r\n"),
            (b"\r\n\r\n", b"\r\nSec-WebSocket-Key: again\r\n\r\n"), (b"\r\n\r\n", b"\r\nContent-Length: 4\r\n\r\nbody"),
            (b"\r\n\r\n", b"\r\nOrigin: null\r\nX: " + b"y" * 15_000 + b"\r\n\r\n"), (b"websocket", b"websocket, h2c"),
            (b" HTTP", b"?x=%ff&y HTTP"), (b" HTTP", b"#f HTTP"), (b" HTTP", b";p HTTP"), (b"Sec", b"\x00Sec"),
        )
    )  # fmt: skip
    return request.replace(old, new, 1) + rng.choice((b"", b"", _good(rng), b"\x00" * 50))


BAD_REQUESTS = (
    _headers,
    _length,
    _length,
    _chunks,
    _chunks,
    _upgrades,
    _upgrades,
    _upgrades,
    lambda rng: rng.randbytes(rng.randrange(1, 300)),
    _raw(
        b"\r\n" * 500, b"GET\r\n\r\n", b"GET /\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1 x\r\n\r\n", b" / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\n\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"GET / HTTP/1.1\r\n: empty\r\n\r\n", b"GET \x00 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n folded: x\r\n\r\n", b"GET / HTTP/1.1\r\nX: y\r\n\tfolded\r\n\r\n", b"GET / HTTP/1.1\r\nX : y\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: \x00\r\n\r\n", b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", b"x" * 60_000,
        b"G\x80T / HTTP/1.1\r\n\r\n", b"CONNECT x:1 HTTP/1.1\r\n\r\n", b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", b"HEAD /status HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://x/health HTTP/1.1\r\n\r\n", b"GET http://[/ HTTP/1.1\r\n\r\n", b"GET //x/health HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 3, b"PUT /log-level/%ff HTTP/1.1\r\nExpect: 100-continue\r\n\r\n",
        b"POST /event HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}", b"POST /event HTTP/1.1\r\nExpect: x\r\n\r\n",
        b"POST /event HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=\xff\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /event HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
        b"POST /event HTTP/1.1\r\nContent-Length: 9000000\r\n\r\n" + b" " * 200_000,
        b"GET / HTTP/1.1\r\nAuthorization: Basic \xff\r\nCookie: " + b"a=b;" * 3000 + b"\r\n\r\n",
    ),
)  # fmt: skip
"""Requests that break HTTP, or end it."""
