"""Answers of HTTP targets, byte by byte: how much of one the HTTP client takes."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from ces.link.link import Link
from ces.link.side import Side
from ces.model.address import Address
from ces.model.wire import Run
from ces.repeater.http_target import ANSWER_BYTES, HEAD_BYTES, HttpClient, HttpTarget
from ces.repeater.settings import RepeaterSettings
from ces.repeater.undelivered import Undelivered
from tests.support.links import Lines, make_side

OK = b"HTTP/1.1 200 OK\r\n"


class Wire(StringTransport):
    """The target's end of one connection. `aborted` says whether the client has cut it."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True
        self.loseConnection()


class Served:
    """An HTTP target of a repeater, whose part the test plays."""

    def __init__(self) -> None:
        self.reactor = MemoryReactorClock()
        settings = RepeaterSettings()
        self.client = HttpClient(self.reactor, settings)
        self.lines = Lines()
        side: Side[Link] = make_side(self.reactor, settings, self.lines)  # type: ignore[arg-type]
        address = Address("http", "127.0.0.1", 80, "/event")
        self.target = HttpTarget(address, side, settings, Undelivered(2**20), self.client.treq)
        self.target.put(Run(b"A", [b"A\n{}\n"]))
        self.accept()

    def accept(self) -> None:
        """Accept the connection that is being made."""
        factory = self.reactor.tcpClients[-1][2]
        self.protocol: Any = factory.buildProtocol(None)
        self.wire = Wire()
        self.protocol.makeConnection(self.wire)
        self.ended = False

    def say(self, data: bytes, step: int = 2**16) -> int:
        """Send this in steps until the client closes; the number of bytes sent."""
        for at in range(0, len(data), step):
            self.protocol.dataReceived(data[at : at + step])
            if self.wire.disconnecting:
                self.end()
                return at + step
        return len(data)

    def end(self) -> None:
        """The connection is gone."""
        if not self.ended:
            self.ended = True
            self.protocol.connectionLost(Failure(ConnectionDone()))

    def close(self) -> None:
        self.end()
        self.target.stop()
        self.client.close()


@pytest.fixture
def served() -> Any:
    made = Served()
    yield made
    made.close()


def test_an_answer_is_taken(served: Served) -> None:
    assert b"POST /event" in served.wire.value()
    served.say(OK + b"Content-Length: 2\r\n\r\nok", step=1)
    assert (served.target.sent, served.target.waiting) == (1, 0)
    assert not served.wire.disconnecting


@pytest.mark.parametrize("step", [1000, 2**16, 2**24])
@pytest.mark.parametrize(
    "line",
    [b"a: b\r\n", b"X: " + b"y" * 10_000 + b"\r\n", b" folded\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"],
    ids=["small", "large", "folded", "informational"],
)
def test_the_head_of_an_answer_is_bounded(served: Served, line: bytes, step: int) -> None:
    start = b"" if line.startswith(b"HTTP") else OK + b"X: y\r\n"
    served.say(start + line * (2**20 // len(line)), step)
    assert served.wire.aborted
    assert served.target.reason == f"the head of its answer is larger than {HEAD_BYTES} bytes"
    assert (served.target.failures, served.target.sent) == (1, 0)
    assert served.target.waiting > 0, "it is tried again"


@pytest.mark.parametrize("more", [0, 1])
def test_a_head_as_large_as_the_limit_is_taken(served: Served, more: int) -> None:
    head = OK + b"Content-Length: 0\r\nX: " + 8 * (b"y" * 8000 + b"\r\nX: ")
    head += b"z" * (HEAD_BYTES - len(head) - 4 + more) + b"\r\n\r\n"
    assert len(head) == HEAD_BYTES + more
    served.say(head)
    assert (served.target.sent, served.wire.aborted) == ((0, True) if more else (1, False))


def test_what_follows_a_head_in_the_same_read_is_the_body(served: Served) -> None:
    body = b"x" * ANSWER_BYTES
    served.say(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body, step=2**24)
    assert (served.target.sent, served.wire.disconnecting) == (1, False)


@pytest.mark.parametrize(
    "part",
    [b"1;" + b"x" * 1000 + b"\r\ny\r\n", b"0001\r\ny\r\n", b"0\r\n" + b"T: x\r\n" * 2**15],
    ids=["extensions", "small chunks", "trailers"],
)
def test_what_frames_a_chunked_body_is_bounded(served: Served, part: bytes) -> None:
    start = OK + b"Transfer-Encoding: chunked\r\n\r\n"
    sent = served.say(start + part * (2**20 // len(part)), 1000)
    assert served.wire.disconnecting
    assert sent <= HEAD_BYTES + ANSWER_BYTES + 1000
    assert served.target.sent == 1, "the answer itself had come"


def test_each_answer_on_a_connection_may_be_as_large(served: Served) -> None:
    for number in range(1, 6):
        served.say(OK + b"X: %b\r\nX: %b\r\nContent-Length: 0\r\n\r\n" % (b"y" * 15_000, b"z" * 15_000))
        assert (served.target.sent, served.wire.disconnecting) == (number, False)
        served.target.put(Run(b"A", [b"A\n{}\n"]))


def test_a_body_that_is_compressed_is_not_inflated(served: Served) -> None:
    """64 KiB would become 64 MiB in one step, only to be thrown away."""
    body = gzip.compress(bytes(50_000_000))[:ANSWER_BYTES]
    served.say(OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    assert (served.target.sent, served.wire.disconnecting) == (1, False)
