"""Sockets read and written directly: the same bytes in the same order, and the same ends.

`tests.link.test_serving` has links on real sockets, with the direct way and without it.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest_twisted
from twisted.internet import reactor as the_reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.logger import Logger
from twisted.python.failure import Failure

from ces.link.direct import IOV_MAX, READ_BYTES, SHORT_BYTES, Sockets
from tests.support.logged import LoggedFailures

reactor: Any = the_reactor


class Taker(Protocol):
    """Keeps what it receives on a connection that `sockets` reads; told `on_data` after each read."""

    def __init__(self, sockets: Sockets) -> None:
        self.data = bytearray()
        self.reads: list[int] = []
        self.made: Deferred[None] = Deferred()
        self.gone: Deferred[None] = Deferred()
        self.reason: Any = None
        self.on_data: Callable[[], object] = lambda: None
        self._sockets = sockets
        self._wanted: tuple[int, Deferred[None]] | None = None

    def connectionMade(self) -> None:
        self._sockets.adopt(self.transport, self)
        self.made.callback(None)

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self.reads.append(len(data))
        self.on_data()
        if self._wanted is not None and len(self.data) >= self._wanted[0]:
            (_, enough), self._wanted = self._wanted, None
            enough.callback(None)

    def connectionLost(self, reason: Any = None) -> None:
        self.reason = reason
        self.gone.callback(None)

    async def have(self, size: int) -> None:
        """Until so many bytes have come."""
        if len(self.data) < size:
            self._wanted = size, Deferred()
            await self._wanted[1]


@asynccontextmanager
async def connected(
    count: int = 1, direct: bool = True
) -> AsyncIterator[tuple[list[Taker], list[socket.socket], Sockets]]:
    """So many connections: the ends that `Sockets` read, and the plain sockets at their other ends."""
    sockets = Sockets(Logger(namespace="ces.test"), direct)
    takers = [Taker(sockets) for _ in range(count)]
    waiting = iter(takers)
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
        Factory.forProtocol(lambda: next(waiting))
    )
    ends = []
    for taker in takers:
        ends.append(socket.create_connection(("127.0.0.1", port.getHost().port)))
        await taker.made
    try:
        yield takers, ends, sockets
    finally:
        for end in ends:
            end.close()
        for taker in takers:
            await taker.gone
        await port.stopListening()
        assert sockets not in reactor.getReaders()
        assert sockets.fileno() == -1


def test_on_a_transport_that_is_not_plain_tcp_nothing_goes_around_it() -> None:
    transport, sockets = StringTransport(), Sockets(Logger())
    sockets.adopt(transport, Protocol())
    sockets.output(transport).write([b"a", b"bc"], 3)
    assert (transport.value(), transport.producerState) == (b"abc", "producing")


@pytest_twisted.ensureDeferred
async def test_switched_off_it_leaves_reading_and_writing_to_twisted() -> None:
    async with connected(direct=False) as ((taker,), (end,), sockets):
        assert taker.transport in reactor.getReaders()
        end.sendall(b"abc")
        await taker.have(3)
        sockets.output(taker.transport).write([b"d", b"ef"], 3)
        assert taker.transport.dataBuffer or taker.transport._tempDataBuffer, (
            "it waits for the end of the turn"
        )
        taker.transport.loseConnection()
        await taker.gone
        assert end.recv(10) == b"def"


@pytest_twisted.ensureDeferred
async def test_whatever_the_socket_takes_the_bytes_arrive_once_and_in_order() -> None:
    rng = random.Random(1)
    parts = [rng.randbytes(size) for size in [10, 3 * READ_BYTES, 1, 70_000, READ_BYTES] * 4]
    many = [b"%04d" % number for number in range(3 * IOV_MAX)]
    expected = b"before" + b"".join(parts + many) + b"last"
    sockets = Sockets(Logger(namespace="ces.test"))
    taker, writer = Taker(sockets), Taker(sockets)
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
        Factory.forProtocol(lambda: taker)
    )
    await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port), writer)
    transport: Any = writer.transport
    transport.write(b"before")  # which waits for the end of this turn
    write = sockets.output(transport).write
    for part in parts:
        write([b"", part], len(part))
    assert transport.dataBuffer or transport._tempDataBuffer, "it came behind what waited"
    write(many, sum(map(len, many)))
    write([b"last"], 4)
    await taker.have(len(expected))
    assert taker.data == expected
    write([b"and at once"], 11)
    assert not transport.dataBuffer and not transport._tempDataBuffer, "the socket took it"
    await taker.have(len(expected) + 11)
    for part in parts:
        write([part], len(part))
    assert transport.dataBuffer or transport._tempDataBuffer, "the socket is full"
    await taker.have(len(expected) + 11 + sum(map(len, parts)))
    assert taker.data.endswith(b"and at once" + b"".join(parts))
    transport.loseConnection()
    await taker.gone
    await writer.gone
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_read_takes_little_after_a_short_one_and_much_after_a_long_one() -> None:
    async with connected() as ((taker,), (end,), _):
        end.sendall(b"x" * 10)
        await taker.have(10)
        end.sendall(b"x" * 50_000)
        await taker.have(50_010)
        assert taker.reads[:2] == [10, SHORT_BYTES]
        assert max(taker.reads) > SHORT_BYTES


@pytest_twisted.ensureDeferred
async def test_what_is_paused_is_not_read_until_it_is_resumed() -> None:
    async with connected(2) as ((paused, other), ends, _):
        paused.transport.pauseProducing()
        paused.transport.pauseProducing()
        for end in ends:
            end.sendall(b"abc")
        await other.have(3)
        assert paused.data == b""
        paused.transport.resumeProducing()
        await paused.have(3)


@pytest_twisted.ensureDeferred
async def test_a_connection_that_is_closed_or_reset_ends_as_ever() -> None:
    async with connected(2) as ((closed, reset), ends, _):
        ends[0].close()
        ends[1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        ends[1].close()
        for taker, kind in ((closed, ConnectionDone), (reset, ConnectionLost)):
            await taker.gone
            assert taker.reason.check(kind)


@pytest_twisted.ensureDeferred
async def test_the_number_of_a_socket_is_not_free_before_the_reactor_has_done_with_what_it_has_found() -> (
    None
):
    async with connected() as ((taker,), (end,), sockets):
        number = taker.transport.fileno()
        end.close()
        sockets.doRead()
        assert (taker.transport.fileno(), taker.gone.called) == (number, False)
        await taker.gone
        assert taker.reason.check(ConnectionDone)


@pytest_twisted.ensureDeferred
async def test_one_that_is_ended_by_what_comes_on_another_is_not_read_any_more() -> None:
    async with connected(2) as ((one, other), ends, _):
        for taker, victim in ((one, other), (other, one)):
            taker.on_data = victim.transport.abortConnection
        for taker in (one, other):
            taker.transport.pauseProducing()
        for end in ends:
            end.sendall(b"abc")
        for taker in (one, other):
            taker.transport.resumeProducing()
        await DeferredList([one.gone, other.gone], fireOnOneCallback=True)
        assert sorted([one.data, other.data]) == [b"", b"abc"]


@pytest_twisted.ensureDeferred
async def test_a_protocol_that_fails_costs_its_own_connection_alone(logged_failures: LoggedFailures) -> None:
    def fail() -> None:
        raise ValueError("planned")

    async with connected(2) as ((bad, good), ends, _):
        bad.on_data = fail
        for end in ends:
            end.sendall(b"abc")
        await good.have(3)
        await bad.gone
        assert bad.reason.check(ValueError)
        assert len(logged_failures.flush(ValueError)) == 1
        ends[1].sendall(b"d")
        await good.have(4)


@pytest_twisted.ensureDeferred
async def test_when_the_reactor_stops_every_connection_is_lost() -> None:
    async with connected(3) as (takers, _, sockets):
        takers[0].transport.pauseProducing()
        sockets.connectionLost(Failure(ConnectionLost()))
        assert [taker.gone.called for taker in takers] == [False, True, True]
        takers[0].transport.resumeProducing()
