"""Writing straight to the kernel: the same bytes in the same order, whatever the socket takes."""

from __future__ import annotations

import random
from typing import Any

import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport

from ces.link.direct import IOV_MAX, READ_BYTES, direct_write


class Taker(Protocol):
    """Keeps what it receives; `enough` fires when that is `wanted` bytes."""

    def __init__(self, wanted: int) -> None:
        self.data = bytearray()
        self.wanted = wanted
        self.enough: Deferred[None] = Deferred()
        self.gone: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        if len(self.data) == self.wanted:
            self.enough.callback(None)

    def connectionLost(self, reason: Any = None) -> None:
        self.gone.callback(None)


def test_a_transport_that_is_not_plain_tcp_is_left_alone() -> None:
    assert direct_write(StringTransport()) is None


@pytest_twisted.ensureDeferred
async def test_whatever_the_socket_takes_the_bytes_arrive_once_and_in_order() -> None:
    from twisted.internet import reactor

    rng = random.Random(1)
    parts = [rng.randbytes(size) for size in [10, 3 * READ_BYTES, 1, 70_000, READ_BYTES] * 4]
    many = [b"%04d" % number for number in range(3 * IOV_MAX)]
    expected = b"".join(parts + many) + b"through the transport" + b"last"
    taker = Taker(len(expected))
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
        Factory.forProtocol(lambda: taker)
    )
    writer = Taker(0)
    await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port), writer)
    write = direct_write(writer.transport)
    assert write is not None
    write([b"", parts[0]])
    assert not writer.transport._tempDataBuffer, "the socket took it at once"
    for part in parts[1:]:
        write([part])
    assert writer.transport._tempDataBuffer, "the socket is full"
    write(many)
    writer.transport.write(b"through the transport")
    write([b"last"])
    await taker.enough
    assert taker.data == expected
    writer.transport.loseConnection()
    await writer.gone
    await port.stopListening()
