"""Large answers: built in slices, shared by all who ask, sent in pieces, bounded, and freed."""

from __future__ import annotations

import gc
import json
import socket
import struct
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from klein import Klein
from twisted.internet import reactor as the_reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest

from ces.config.link import LinkSettings
from ces.ops import views
from ces.ops.http import make_site
from ces.ops.views import BUILDING, CHEAP, LIFETIME, PAUSE, PIECE, SLICE, Build, Views
from tests.support.asking import Connection, Narrow, answer
from tests.support.logged import LoggedFailures
from tests.support.sites import until


class Asked(Connection):
    """A side with a view at /view, whose steps take time. ``?key=`` asks for different ones.

    steps: how many steps it has. cost: seconds that each takes. begun: how often it was begun to be built.
    """

    def __init__(self, **settings: int) -> None:
        super().__init__(**settings)
        self.steps, self.cost, self.begun, self.size = 1, 0.0, 0, 10
        self.fails = False

        def build() -> Build:
            self.begun += 1
            number = self.begun
            for _ in range(self.steps):
                self.clock.rightNow += self.cost
                yield
            if self.fails:
                raise ValueError("it fails")
            return {"number": number, "filler": "x" * self.size}

        def view(request: IRequest) -> Deferred[None]:
            key = (request.args.get(b"key") or [b""])[0]
            return self.views.answer(request, key, build)

        self.app.route("/view")(view)

    def dial(self, transport: Any = None) -> Any:
        """Another connection, which becomes the present one."""
        self.connect()
        if transport is not None:
            self.channel = self.site.buildProtocol(None)
            self.transport = transport
            self.transport.abortConnection = self.transport.loseConnection
            self.channel.makeConnection(transport)
        return self.transport

    def begin(self, path: str = "/view") -> None:
        """Ask, and do not wait for the answer."""
        self.channel.dataReceived(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


@pytest.fixture
def asked() -> Asked:
    return Asked()


def test_a_view_that_is_cheap_is_answered_at_once_and_built_anew_each_time(asked: Asked) -> None:
    assert [json.loads(asked.ask("GET", "/view").body)["number"] for _ in range(3)] == [1, 2, 3]


def test_a_view_is_built_in_slices_with_pauses_between_them(asked: Asked) -> None:
    asked.steps, asked.cost = 10, SLICE / 2
    asked.begin()
    began = asked.clock.seconds()
    turns = 0
    while not asked.transport.value():
        before = asked.clock.seconds()
        asked.clock.advance(PAUSE)
        turns += 1
        assert asked.clock.seconds() - before <= PAUSE + SLICE + asked.cost + 1e-9
    assert 3 <= turns <= 5
    assert asked.clock.seconds() - began >= turns * PAUSE
    assert answer(asked.transport.value()).code == 200


def test_all_who_ask_while_it_is_built_or_kept_share_it(asked: Asked) -> None:
    asked.steps, asked.cost = 20, SLICE
    transports = []
    for _ in range(5):
        transports.append(asked.dial())
        asked.begin()
    for _ in range(30):
        asked.clock.advance(PAUSE)
    bodies = {answer(transport.value()).body for transport in transports}
    assert (len(bodies), asked.begun) == (1, 1)
    assert asked.ask("GET", "/view").body in bodies
    asked.clock.advance(LIFETIME)
    assert asked.begun == 1
    asked.begin()
    assert asked.begun == 2
    for _ in range(30):
        asked.clock.advance(PAUSE)


@pytest.mark.parametrize(("cost", "kept"), [(CHEAP, 10 * CHEAP), (0.09, 0.9), (10.0, LIFETIME)])
def test_a_view_is_kept_for_as_long_as_it_costs_a_tenth_of_the_time(
    asked: Asked, cost: float, kept: float
) -> None:
    asked.cost = cost
    asked.begin()
    asked.clock.advance(PAUSE)
    asked.cost = 0
    asked.clock.advance(kept - PAUSE - 1e-6)
    asked.ask("GET", "/view")
    assert asked.begun == 1
    asked.clock.advance(2 * PAUSE)
    asked.ask("GET", "/view")
    assert asked.begun == 2


def test_views_are_built_one_after_another_and_too_many_are_refused(asked: Asked) -> None:
    asked.steps, asked.cost = 2, SLICE
    for number in range(BUILDING):
        asked.dial()
        asked.begin(f"/view?key={number}")
    assert asked.begun == 1
    asked.dial()
    got = asked.ask("GET", "/view?key=more")
    assert (got.code, got.headers["retry-after"]) == (503, "1")
    assert got.sentence == f"{BUILDING} other views are being built: try again."
    for _ in range(3 * BUILDING):
        asked.clock.advance(PAUSE)
    assert asked.begun == BUILDING


def test_a_view_that_fails_is_an_internal_error_for_each_who_asked_and_stops_no_other(
    asked: Asked, logged_failures: LoggedFailures
) -> None:
    asked.cost, asked.fails = SLICE, True
    transports = []
    for key in "aab":
        transports.append(asked.dial())
        asked.begin(f"/view?key={key}")
    for _ in range(3):
        asked.clock.advance(PAUSE)
    assert [answer(one.value()).code for one in transports] == [500, 500, 500]
    assert len(logged_failures.flush(ValueError)) == 3


def test_who_goes_away_while_a_view_is_built_is_forgotten(asked: Asked) -> None:
    asked.steps, asked.cost = 3, SLICE
    transports = []
    for _ in range(2):
        transports.append(asked.dial())
        asked.begin()
    asked.channel.connectionLost(Failure(ConnectionDone()))
    for _ in range(4):
        asked.clock.advance(PAUSE)
    assert answer(transports[0].value()).code == 200
    assert transports[1].value() == b""


def test_a_large_view_is_sent_in_pieces_as_it_is_read(asked: Asked) -> None:
    asked.size = 20 * PIECE
    transport = asked.dial(Narrow())
    asked.begin()
    body, turns = b"", 0
    while transport.value():
        assert len(transport.value()) < 2**16 + 2 * PIECE
        body += transport.value()
        transport.read_all()
        turns += 1
    assert turns > 5
    assert json.loads(answer(body).body)["filler"] == "x" * asked.size
    assert asked.ask("GET", "/health").body == b"ok"


def test_who_reads_a_large_view_slowly_counts_as_waited_for_and_not_as_being_answered() -> None:
    asked = Asked(http_connections=1)
    asked.size = 20 * PIECE
    transports = []
    for _ in range(2):
        transports.append(asked.dial(Narrow()))
        asked.begin()
    for _ in range(2):
        for transport in transports:
            transport.read_all()
        assert not asked.site.entrance.busy


def test_requests_behind_a_large_view_are_answered_in_order_when_it_is_read(asked: Asked) -> None:
    asked.size = 3 * PIECE
    transport = asked.dial(Narrow())
    for _ in range(4):
        asked.begin()
    asked.begin("/health")
    everything = b""
    while transport.value():
        assert len(transport.value()) < 2**16 + 2 * PIECE
        everything += transport.value()
        transport.read_all()
    assert everything.count(b"HTTP/1.1 200 ") == 5
    assert everything.endswith(b"ok")


def test_head_has_the_length_and_no_body(asked: Asked) -> None:
    asked.size = 3 * PIECE
    raw = asked.feed(b"HEAD /view HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"Content-Length: 983" in head
    assert body == b""


def test_those_who_read_the_oldest_view_are_cut_when_too_much_is_being_read(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked.size = 10 * PIECE
    monkeypatch.setattr(views, "READ_BYTES", 25 * PIECE)
    transports = []
    for _ in range(3):
        transports.append(asked.dial(Narrow()))
        asked.begin()
    assert [one.disconnecting for one in transports] == [True, False, False]
    assert len(asked.refused) == 1 and "are not read" in asked.refused[0]
    for transport in transports[1:]:
        body = b""
        while transport.value():
            body += transport.value()
            transport.read_all()
        assert json.loads(answer(body).body)["filler"] == "x" * asked.size


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked()
    asked.cost, asked.size = 1.0, 1000
    monkeypatch.setattr(views, "KEPT_BYTES", 2500)
    for key in "aabbccaa":
        asked.begin(f"/view?key={key}")
        asked.clock.advance(PAUSE)
        asked.clock.rightNow -= 1 + PAUSE
    assert asked.begun == 4, "the first one was dropped for the third"


# -- what is freed -------------------------------------------------------------------------------------------


@pytest.fixture
def no_collections() -> Iterator[None]:
    """Nothing is freed but by counting references."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("how", ["a view", "an answer at once"])
async def test_an_answer_that_nobody_reads_is_freed_when_the_connection_is_reset(
    no_collections: None, how: str
) -> None:
    # A request is in a reference cycle of Klein's for good. What was not sent must not hang on it.
    reactor: Any = the_reactor
    app = Klein()
    sides = Views(Clock(), lambda what, why: None)
    size = 8 * 2**20
    held: list[weakref.ref[Any]] = []

    def view(request: Any) -> Any:
        held.append(weakref.ref(request.channel))
        held.append(weakref.ref(request.channel.transport))
        if how == "a view":
            return sides.answer(request, "", lambda: views.ready("x" * size))
        return size * b"x"

    app.route("/health")(lambda request: b"ok")
    app.route("/view")(view)
    site = make_site(app.resource(), reactor, LinkSettings(), refused=lambda what, why: None)
    port = reactor.listenTCP(0, site, interface="127.0.0.1")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port.getHost().port))
    client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" + b"GET /view HTTP/1.1\r\nHost: x\r\n\r\n")
    await until(lambda: held)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    await until(lambda: not any(one() for one in held), 5)
    await port.stopListening()


@pytest.mark.parametrize("ends", ["it is read", "the connection is reset", "the side cuts it"])
def test_a_view_that_is_read_no_more_is_kept_nowhere(asked: Asked, no_collections: None, ends: str) -> None:
    contents: list[bytes] = []

    def encode(value: str) -> bytes:
        contents.append(value.encode())
        return contents[-1]

    def view(request: IRequest) -> Deferred[None]:
        return asked.views.answer(request, "", lambda: views.ready("x" * 3 * PIECE), encode)

    asked.app.route("/weak")(view)
    transport = asked.dial(Narrow())
    asked.begin("/weak")
    held = sys.getrefcount(contents[0])
    assert held > 2
    while ends == "it is read" and transport.value():
        transport.read_all()
    if ends == "the connection is reset":
        transport.producer.stopProducing()
    if ends != "it is read":
        asked.channel.connectionLost(Failure(ConnectionDone()))
    held = sys.getrefcount(contents[0])
    assert held == 2, "the list of this test, and the call"
