"""A hostile hub or target: it answers the handshake of a client that dials it, and then sends hostile input.

`HostileHub` listens on a free port of this host. A `Lure` says how to serve the next connection; without one
the connection is dropped. A `HostileTarget` makes a lure for each connection.
"""

from __future__ import annotations

import json
import random
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha1
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from websockets.frames import apply_mask

from tests.stress.differential import VIOLATIONS
from tests.stress.hostile import harmless
from tests.support.links import frame

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclass(frozen=True)
class Lure:
    """What the server sends on one connection.

    answer: the answer to the handshake. ``DIGEST`` is replaced by the key's digest.
    data: the bytes after the answer.
    """

    answer: bytes
    data: bytes


def make_lure(rng: random.Random) -> Lure:
    """Make the lure of one connection."""
    if rng.random() < 0.2:
        return Lure(rng.choice(BAD_ANSWERS), b"")
    dialect = rng.choice(("ces.1", "ces.2"))
    answer = GOOD if dialect == "ces.1" else GOOD + b"Sec-WebSocket-Protocol: ces.2\r\n"
    inputs = []
    if dialect == "ces.2":
        inputs.append(rng.choice((_hello(rng), rng.choice(BAD_HELLOS))))
    choices = harmless("hub", dialect)
    inputs += [unmasked(rng.choice(choices)(rng)) for _ in range(rng.choice((0, 5, 30)))]
    if rng.random() < 0.4:
        inputs.append(rng.choice(VIOLATIONS)(rng, False))
    return Lure(answer + b"\r\n", b"".join(inputs))


def unmasked(data: bytes) -> bytes:
    """Remove the masks from a client's frames, which makes them a server's frames."""
    made = []
    while data:
        length, at = data[1] & 127, 2
        if length > 125:
            size = 2 if length == 126 else 8
            length, at = int.from_bytes(data[2 : 2 + size], "big"), 2 + size
        key, end = data[at : at + 4], at + 4 + length
        made.append(bytes([data[0], data[1] & 127]) + data[2:at] + apply_mask(data[at + 4 : end], key))
        data = data[end:]
    return b"".join(made)


def _hello(rng: random.Random) -> bytes:
    said = {
        "node": f"lure-{rng.getrandbits(32):x}",
        "session": rng.choice((None, "", "s", "s" * 128)),
        "received": rng.choice((0, 0, 1, 2**62)),
        "resumed": rng.choice((False, False, True)),
        "window": rng.choice((0, 120, 1e300, -1)),
    }
    return frame(1, json.dumps({"hello": said}).encode(), masked=False)


GOOD = b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: DIGEST\r\n"
BAD_ANSWERS = (
    b"", b"\r\n\r\n", b"\x00" * 50, b"\xff\xfe\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1\r\n\r\n", b"HTTP/1.1 " + b"9" * 5000 + b" x\r\n\r\n",
    b"HTTP/1.1 101 x\r\n" + b"X: y\r\n" * 9000, b"HTTP/1.1 301 x\r\nLocation: http://[\r\n\r\n",
    b"HTTP/1.1 101 x\r\nno colon\r\n\r\n", b"x" * 100_000, GOOD.replace(b"DIGEST", b"wrong") + b"\r\n",
    GOOD + GOOD + b"\r\n", GOOD + b"Sec-WebSocket-Protocol: x\r\n\r\n",
    GOOD + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
    GOOD.replace(b"websocket", b"\xc3") + b"\r\n", GOOD.replace(b"1.1", b"9.9") + b"\r\n",
    GOOD.replace(b"Upgrade: w", b"Upgrade: \r\nX: w") + b"\r\n",
)  # fmt: skip
BAD_HELLOS = tuple(
    frame(1, text, masked=False)
    for text in (
        b"", b"{", b'{"hello":null}', b'{"hello":{}}', b'{"hello":{"node":5}}', b'{"hello":' * 5000,
        b'{"ack":0}', b'{"hello":{"node":"x","session":7}}', b'{"hello":{"node":"x","received":-1}}',
        b'{"rooms":["x"],"create":true}', b'{"hello":{"node":"x","session":"%b"}}' % (b"s" * 129),
        b'{"hello":{"node":"a b"}}', b'{"gap":{"lost":1}}',
    )
)  # fmt: skip


class Bait(Protocol):
    """One connection of a client that has dialled."""

    def __init__(self, lure: Lure, over: Callable[[], object]) -> None:
        self._lure, self._over = lure, over
        self._head = b""
        self._answered = False

    def dataReceived(self, data: bytes) -> None:
        self._head += data
        if not self._answered and b"\r\n\r\n" in self._head:
            self._answered = True
            key = self._head.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
            digest = b64encode(sha1(key + GUID).digest())
            self._head = b""
            self.transport.write(self._lure.answer.replace(b"DIGEST", digest) + self._lure.data)
            # The client must read to the last byte, or the input does not count.
            self.transport.loseWriteConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._over()


class HostileHub(Factory):
    """Listens, and serves connections by the lure that was laid."""

    noisy = False

    def __init__(self, reactor: Any) -> None:
        self._lure: Lure | None = None
        self._over: Deferred[None] | None = None
        self._listening = reactor.listenTCP(0, self, interface="127.0.0.1")
        self.address = f"127.0.0.1:{self._listening.getHost().port}"
        self._baits: set[Bait] = set()

    def lay(self, lure: Lure) -> Deferred[None]:
        """Serve the next connection with `lure`. Fires when the connection has ended."""
        self._lure, self._over = lure, Deferred()
        return self._over

    def buildProtocol(self, addr: IAddress) -> Bait | None:
        lure, self._lure = self._lure, None
        return None if lure is None else Bait(lure, self._end)

    def _end(self) -> None:
        over, self._over = self._over, None
        if over is not None:
            over.callback(None)

    def stop(self) -> Any:
        """Stop listening."""
        return self._listening.stopListening()


class HostileTarget(HostileHub):
    """Serves every connection with a lure of its own.

    :param seed: the seed of the lures.

    served: number of connections.
    """

    def __init__(self, seed: object, reactor: Any) -> None:
        super().__init__(reactor)
        self._seed = seed
        self.served = 0

    def buildProtocol(self, addr: IAddress) -> Bait:
        self.served += 1
        return Bait(make_lure(random.Random(f"{self._seed} target {self.served}")), self._end)
