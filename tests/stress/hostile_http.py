"""Generates hostile requests from a seed: malformed HTTP, and valid HTTP with odd content.

The counterpart of `tests.stress.hostile` for requests: `make_requests` makes the `Plan` of one connection.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.stress.differential import LIMIT
from tests.stress.hostile import ANSWERS, EITHER, FIN, RESET, Plan, good
from tests.support.links import UPGRADE


def make_requests(rng: random.Random) -> Plan:
    """Make the plan of one connection: valid requests only, or some of these and a malformed one."""
    role = rng.choice(("hub", "repeater"))
    requests = [rng.choice(REQUESTS)(rng) for _ in range(rng.choice((0, 1, 5, 20)))]
    if rng.random() < 0.5:
        # It asks the server to close the connection, so that the answers end.
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
    return _request(f"{rng.choice(METHODS)} {rng.choice(PATHS)}")


PATHS = (
    *(
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
        "*",
    ),
    *("/\x80", "/" + "x" * 8000, "/connect", "/connect/", "/connect/x", "/connect/%2e/%2e", "/connect//x"),
    *("/links", "/links?sort=in&limit=9", "/rooms", "/rooms?prefix=%ff&after=", "/rooms?limit=0&link=x"),
    *("/status", "/health", "/metrics", "/log-level", "/interconnect", "/event", "/send", "/undelivered"),
    *(
        "/undelivered/retry",
        "/undelivered/retry?target=%ff",
        "/undelivered?limit=x",
        "/undelivered?limit=9999999",
    ),
    *("/undelivered?target=http://x&target=y", "/interconnect/"),
)
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
    "pOsT",
    "X" * 300,
)
"""Without CONNECT, and without HEAD, whose answers have no body despite their Content-Length."""


def _api(rng: random.Random) -> bytes:
    return rng.choice(
        (
            _request("PUT /log-level/" + rng.choice(("loud", "%00", "INFO", "%F0%9F%94%8A", "x" * 1000))),
            _request(
                "DELETE /interconnect/"
                + rng.choice(("", "", "address/", "node/", "Node/"))
                + rng.choice(("x", "%00", "ftp://x", "::", "127.0.0.1:1", "x" * 1000))
            ),
            _request(
                "POST /interconnect/"
                + rng.choice(("%20", "-x", "a..b", "hub:0", "hub:99999", "[::", "u:p@h", "%ff"))
            ),
            _request("GET /status", "Accept: " + "*/*, " * 200, "Range: bytes=0-0", "If-None-Match: *"),
        )
    )


def _posted(rng: random.Random) -> bytes:
    body = rng.choice(
        (
            b"", b"{", b"[", b"null", b"0", b'"x"', b"\xff", b"\x00", b"{}", b"[]", b"[{}]", b"[{},[]]",
            b"[" * 60_000, b'{"a":' * 20_000, b"[%b]" % b",".join([b"{}"] * 12_000),
            b'{"affected-room":{"roomID":"*"}}', b'{"key":"\\ud800"}',
            b'{"affected-room":{"roomID":"\\ud800"}}', b'{"affected-room":{"roomID":"\\n"}}',
            b'{"affected-room":5}', b'{"affected-room":{"roomID":"%b"}}' % (b"x" * 256),
            b'{"a":"%b"}' % (b"x" * LIMIT), b'\xef\xbb\xbf{}', b"{}{}",
            b'{"key":"power","affected-room":{"roomID":"HOSTILE-1"}}',
            b"[%b]" % b",".join([b'{"key":"x"}'] * 50), rng.randbytes(rng.choice((1, 20, 500))),
            b"9" * 5000, b"-", b"1e999", b"{\n\n}", b'{"a":1,}',
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
"""Makers of valid HTTP requests. The server must answer each."""


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
            b"zz\r\n{}\r\n0\r\n\r\n", b"-1\r\n{}", b"0x2\r\n{}\r\n0\r\n\r\n", b"2\r\n{}XX0\r\n\r\n",
            b"f" * 20 + b"\r\n{}", b"f" * 5000, b"2;" + b"x" * 5000 + b"\r\n{}\r\n0\r\n\r\n", b"\r\n\r\n",
            b"2\n{}\n0\n\n", b"2\r\n{}\r\n0\r\n" + b"T: x\r\n" * 9000 + b"\r\n",
            b"2\r\n{}\r\n0\r\nbad trailer\r\n\r\n", b"1\r\n{\r\n" * 5000, b"ffffff\r\n" + b" " * 5000,
            b"2 \r\n{}\r\n0\r\n\r\n",
        )
    )  # fmt: skip


def _upgrades(rng: random.Random) -> bytes:
    """An opening handshake with a fault."""
    path = rng.choice(
        (b"/connect/messenger", b"/connect/hub", b"/connect/R/x", b"/connect/*/x", b"/connect/toaster")
    )
    request = (UPGRADE % rng.choice((b"", b"Sec-WebSocket-Protocol: ces.2\r\n"))).replace(
        b"/connect/messenger", path, 1
    )
    old, new = rng.choice(
        (
            (b"Key:", b"Kex:"), (b"==", b""), (b"dGhlIHNhbXBsZSBub25jZQ==", b"x" * 5000),
            (b": 13", b": " + b"9" * 5000), (b": 13", b": -13"), (b": 13", b": 13, 8"),
            (b"Connection: Upgrade", b"Connection: close"), (b"hub:7100", b"hub:x"), (b"hub:7100", b"\xff"),
            (b"Host: hub:7100\r\n", b""), (b"GET", b"POST"), (b"HTTP/1.1", b"HTTP/1.0"),
            (b"\r\n\r\n", b"\r\nOrigin: http://[\r\n\r\n"),
            (b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: a,,a,\xff\r\n\r\n"),
            (b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate; x=\xff; bits=99\r\n\r\n"),
            (b"\r\n\r\n", b"\r\nSec-WebSocket-Key: again\r\n\r\n"),
            (b"\r\n\r\n", b"\r\nContent-Length: 4\r\n\r\nbody"),
            (b"\r\n\r\n", b"\r\nOrigin: null\r\nX: " + b"y" * 15_000 + b"\r\n\r\n"),
            (b"websocket", b"websocket, h2c"), (b" HTTP", b"?x=%ff&y HTTP"), (b" HTTP", b"#f HTTP"),
            (b" HTTP", b";p HTTP"), (b"Sec", b"\x00Sec"),
        )
    )  # fmt: skip
    return request.replace(old, new, 1) + rng.choice((b"", b"", good(rng), b"\x00" * 50))


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
        b"\r\n" * 500, b"GET\r\n\r\n", b"GET /\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1 x\r\n\r\n", b" / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\n\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"GET / HTTP/1.1\r\n: empty\r\n\r\n",
        b"GET \x00 HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n folded: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: y\r\n\tfolded\r\n\r\n", b"GET / HTTP/1.1\r\nX : y\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: \x00\r\n\r\n", b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", b"x" * 60_000, b"G\x80T / HTTP/1.1\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\n\r\n", b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"HEAD /status HTTP/1.1\r\nHost: x\r\n\r\n", b"GET http://x/health HTTP/1.1\r\n\r\n",
        b"GET http://[/ HTTP/1.1\r\n\r\n", b"GET //x/health HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 3,
        b"PUT /log-level/%ff HTTP/1.1\r\nExpect: 100-continue\r\n\r\n",
        b"POST /event HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /event HTTP/1.1\r\nExpect: x\r\n\r\n",
        b"POST /event HTTP/1.1\r\nContent-Type: multipart/x; boundary=\xff\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /event HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
        b"POST /event HTTP/1.1\r\nContent-Length: 9000000\r\n\r\n" + b" " * 200_000,
        b"GET / HTTP/1.1\r\nAuthorization: Basic \xff\r\nCookie: " + b"a=b;" * 3000 + b"\r\n\r\n",
    ),
)  # fmt: skip
"""Makers of requests that violate HTTP or end the connection."""
