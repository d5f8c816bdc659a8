"""Each limit at its edge: what is just within it passes, what is beyond is refused, counted and said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from socket import SHUT_RDWR
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from klein import Klein
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from websockets.exceptions import ConnectionClosed, InvalidStatus

from ces.config.link import LinkSettings
from ces.hub.api import counters
from ces.link.connection import FRAMES, Connection
from ces.link.serving import ServingFactory
from ces.model.bucket import Bucket
from ces.model.control import Error, SubscriptionChange
from ces.model.posted import MalformedEvent, is_deeper
from ces.model.wire import CES1, CES2
from ces.ops.entrance import RESERVE
from ces.ops.http import HEAD_TIMEOUT, REQUEST_TIMEOUT, make_site
from tests.support.fleet import Peer, Role, event, free_port, until
from tests.support.hubs import Floor
from tests.support.links import UPGRADE, Recorder, frame, make_side, make_uplink, record, serving
from tests.support.posted import read_posted

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)

# -- records and bytes a second ------------------------------------------------------------------------------


def test_a_bucket_gives_what_it_holds_and_what_has_come_since() -> None:
    bucket = Bucket(rate=2, burst=10, now=100.0)
    assert bucket.take(10, 100.0)
    assert not bucket.take(1, 100.0)
    assert bucket.take(1, 101.0), "one was owed, two have come"
    assert bucket.take(10, 1000.0)
    assert not bucket.take(1, 1000.0), "it holds no more than ten"


@given(st.lists(st.tuples(st.integers(0, 20), st.floats(0, 5)), max_size=30))
def test_a_bucket_never_gives_more_than_burst_and_rate(takes: list[tuple[int, float]]) -> None:
    bucket, now, given_out = Bucket(3, 10, 0.0), 0.0, 0
    for count, pause in takes:
        now += pause
        if not bucket.take(count, now):
            break
        given_out += count
        assert given_out <= 10 + 3 * now + 1e-6


@pytest.mark.parametrize("dialect", [CES1, CES2])
def test_a_link_that_sends_too_many_records_a_second_is_closed_with_4429(dialect: str) -> None:
    alone = serving(dialect=dialect, settings=LinkSettings(record_rate=1))
    for number in range(10):
        alone.send(2, record("A", str(number)))
    assert alone.link.connected
    alone.clock.advance(1)
    alone.send(2, record("A", "10"))
    assert alone.link.connected
    alone.written()
    alone.send(2, record("A", "11"))
    frames = alone.frames()
    assert frames[-1] == (8, (4429).to_bytes(2, "big") + b"more than 1 records a second")
    if dialect == CES2:
        assert frames[-2] == (1, b'{"ack":12}')
    assert len(alone.owner.records) == 12
    assert alone.side.refused["rate"] == 1
    assert "sends more than 1 records a second" in alone.lines[-1]


def test_a_link_that_sends_too_many_bytes_a_second_is_closed_with_4429() -> None:
    size = len(record("A", "x"))
    alone = serving(settings=LinkSettings(byte_rate=size))
    for _ in range(10):
        alone.send(2, record("A", "x"))
    assert alone.link.connected
    alone.send(2, record("A", "x"))
    assert alone.closed_with() == (4429, f"more than {size} bytes a second")


@pytest.mark.parametrize("kind", ["hub", "repeater"])
def test_links_that_carry_what_others_say_have_no_rate(kind: str) -> None:
    alone = serving(kind, settings=LinkSettings(record_rate=1))
    for number in range(30):
        alone.send(2, record("A", str(number)))
    assert alone.link.connected and len(alone.owner.records) == 30


# -- frames of a message -------------------------------------------------------------------------------------


def test_a_message_of_too_many_frames_closes_its_link_with_1009() -> None:
    alone = serving()
    for _ in range(2):  # the count begins anew with each message
        alone.receive(frame(2, record("A"), fin=False))
        alone.receive(*[frame(0, b"", fin=False)] * (FRAMES - 2), frame(0, b""))
    assert len(alone.owner.records) == 2
    alone.written()
    alone.receive(frame(2, record("A"), fin=False), *[frame(0, b"", fin=False)] * FRAMES)
    assert alone.closed_with() == (1009, f"a message of more than {FRAMES} frames")


# -- rooms of a link -----------------------------------------------------------------------------------------


def test_rooms_beyond_the_limit_are_refused_and_those_within_it_hold() -> None:
    floor = Floor(room_limit=3)
    reader, writer = floor.link("messenger", "A", "B", "B", dialect=CES2), floor.link("messenger")
    floor.hub.told(reader, SubscriptionChange(["A", "C"], True))
    assert (floor.told(reader), floor.hub.side.refused["rooms"]) == ([], 0)
    floor.hub.told(reader, SubscriptionChange(["D", "C", "E"], True))
    assert floor.told(reader) == [Error(code=4403, reason="2 rooms beyond 3, the limit of one link")]
    assert floor.hub.side.refused["rooms"] == 1
    assert set(floor.hub.routes.rooms(reader)) == {b"A", b"B", b"C"}
    floor.send(writer, "C", "c")
    assert len(floor.sent(reader)) == 1
    floor.hub.told(reader, SubscriptionChange(["A"], False))
    floor.hub.told(reader, SubscriptionChange(["D"], True))
    assert set(floor.hub.routes.rooms(reader)) == {b"B", b"C", b"D"}


def test_a_hub_that_wants_more_rooms_than_a_link_may_gets_every_room() -> None:
    floor = Floor(room_limit=2)
    other, writer = floor.link("hub", "A", "B", "C", dialect=CES2, node="other"), floor.link("messenger")
    floor.hub.told(other, SubscriptionChange(["D"], True))
    floor.send(writer, "D", "d")
    assert len(floor.sent(other)) == 1
    assert floor.hub.side.refused["rooms"] == 1


def test_a_hub_that_gets_every_room_for_wanting_too_many_goes_on_so_when_it_wants_star_no_more() -> None:
    floor = Floor(room_limit=2)
    other, writer = floor.link("hub", "*", "A", dialect=CES2, node="other"), floor.link("messenger")
    floor.hub.told(other, SubscriptionChange(["B", "C"], True))
    assert floor.hub.routes.wants == 2
    floor.cut(other)
    floor.resume(other)
    floor.hub.told(other, SubscriptionChange(["*"], False))
    floor.send(writer, "C", "c")
    assert len(floor.sent(other)) == 1
    floor.hub.told(other, SubscriptionChange())
    assert floor.hub.routes.wants == 0
    floor.hub.told(other, SubscriptionChange(["A"], True))
    assert set(floor.hub.routes.rooms(other)) == {b"A"}, "it begins anew"


def test_rooms_of_all_links_are_counted_and_those_beyond_the_share_of_a_link_refused() -> None:
    floor = Floor(subscription_limit=100)
    names = [f"{number}" for number in range(40)]
    first, second = (floor.link("messenger", *names, dialect=CES2) for _ in range(2))
    assert [len(floor.hub.routes.rooms(link)) for link in (first, second)] == [40, 30], (
        "half of what was free"
    )
    assert floor.told(second) == [
        Error(
            code=4403,
            reason="10 rooms beyond its share of 100, the limit of all links together: 0 wait until others"
            " are given up, and 10 must be asked for again",
        )
    ]
    other = floor.link("hub", *names[:20], dialect=CES2, node="other")
    assert set(floor.hub.routes.rooms(other)) == {b"*"}, "a hub gets every room instead"
    floor.hub.told(other, SubscriptionChange(["E"], True))
    assert floor.hub.routes.wants == 72
    assert floor.hub.side.refused["rooms"] == 2
    floor.close(other)
    floor.close(first)
    floor.hub.told(second, SubscriptionChange(names, True))
    assert len(floor.hub.routes.rooms(second)) == 40
    floor.hub.stop()


# -- links in all, and of one address ------------------------------------------------------------------------


def connect(factory: Any, host: str) -> Connection:
    """A connection with the address `host` at its other end."""
    connection: Connection = factory.buildProtocol(None)
    connection.makeConnection(StringTransport(peerAddress=IPv4Address("TCP", host, 40000)))
    return connection


def test_links_are_counted_in_all_and_by_address() -> None:
    clock = MemoryReactorClock()
    side = make_side(clock, LinkSettings(link_limit=3, address_limit=2))
    served, dialled = (
        ServingFactory(Recorder(), side, "messenger", clock),
        make_uplink(Recorder(), side, clock),
    )
    connections = []
    for host in ("10.0.0.1", "10.0.0.1", "10.0.0.2"):
        assert side.no_room(host) is None
        connections.append(connect(served, host))
        connections[-1].dataReceived(UPGRADE % b"")
        connect(dialled.factory, "10.0.0.1")
    assert side.no_room("10.0.0.3") == "There are 3 links already, the limit of this server."
    connections[2].connectionLost()
    assert side.no_room("10.0.0.3") is None
    assert side.no_room("10.0.0.1") == "There are 2 links from 10.0.0.1 already, the limit for one address."
    assert side.no_room("") is None, "a UNIX socket has no address"
    assert (side.refused["links"], side.refused["address"]) == (1, 1)


# -- HTTP ----------------------------------------------------------------------------------------------------


class Door:
    """A site with few places."""

    def __init__(self, **settings: int) -> None:
        self.clock = Clock()
        self.refused: list[str] = []
        app = Klein()
        app.route("/")(lambda request: b"here")
        bounds = LinkSettings(**settings)  # type: ignore[arg-type]
        self.site = make_site(
            app.resource(), self.clock, bounds, refused=lambda what, why: self.refused.append(why)
        )

    def connect(self):
        channel, transport = self.site.buildProtocol(None), StringTransport()
        transport.abortConnection = transport.loseConnection
        channel.makeConnection(transport)
        return channel, transport


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def test_a_connection_beyond_the_limit_takes_the_place_of_the_oldest_that_waits() -> None:
    door = Door(http_connections=2)
    crowd = [door.connect() for _ in range(2 + RESERVE)]
    assert not any(transport.disconnecting for _, transport in crowd)
    channel, transport = door.connect()
    channel.dataReceived(GET)
    assert transport.value().startswith(b"HTTP/1.1 200 ")
    assert [transport.disconnecting for _, transport in crowd] == [True] + (1 + RESERVE) * [False]
    assert len(door.refused) == 1
    (evicted, gone), (_, next_one) = crowd[:2]
    evicted.dataReceived(GET)
    assert gone.value() == b""
    evicted.connectionLost()
    door.connect()
    assert next_one.disconnecting


def test_a_request_that_trickles_is_cut_and_one_that_ends_starts_the_time_anew() -> None:
    door = Door()
    for before in (b"", GET):
        slow, transport = door.connect()
        slow.dataReceived(before)
        door.clock.advance(0 if not before else HEAD_TIMEOUT - 1)
        for number in range(int(HEAD_TIMEOUT) - 1):
            slow.dataReceived(GET[number : number + 1])
            door.clock.advance(1)
        assert not transport.disconnecting
        slow.dataReceived(GET[:1])
        door.clock.advance(1)
        assert transport.disconnecting
    slow, transport = door.connect()
    slow.dataReceived(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(int(REQUEST_TIMEOUT / 5) - 1):
        door.clock.advance(5)
        slow.dataReceived(b"x")
    assert not transport.disconnecting
    door.clock.advance(5)
    assert transport.disconnecting
    good, transport = door.connect()
    for _ in range(3 * int(REQUEST_TIMEOUT / 5)):
        door.clock.advance(5)
        good.dataReceived(GET)
    assert not transport.disconnecting
    assert transport.value().count(b"HTTP/1.1 200 ") == 3 * int(REQUEST_TIMEOUT / 5)


@pytest.mark.parametrize(("more", "status"), [(0, b"200"), (1, b"431")])
def test_the_head_of_a_request_is_bounded(more: int, status: bytes) -> None:
    door = Door(header_limit=1024)
    channel, transport = door.connect()
    lines = [b"GET / HTTP/1.1", b"Host: x", b"X: "]
    filler = b"y" * (1024 - sum(map(len, lines)) + more)
    channel.dataReceived(b"\r\n".join(lines) + filler + b"\r\n\r\n")
    assert transport.value().startswith(b"HTTP/1.1 %b" % status)


def nested(depth: int, inner: str = "1") -> str:
    return '{"key":"[[[", "data":' + "[" * (depth - 1) + inner + "]" * (depth - 1) + "}"


@pytest.mark.parametrize("array", [False, True])
def test_an_event_that_is_nested_too_deep_is_refused(array: bool) -> None:
    good, bad = (f"[{text}]" if array else text for text in (nested(64), nested(65)))
    assert read_posted(good.encode(), 10_000, 64, NOW)[0].count == 1
    with pytest.raises(MalformedEvent, match="nested more than 64 deep"):
        read_posted(bad.encode(), 10_000, 64, NOW)


values = st.recursive(
    st.none() | st.text(alphabet='[]{}"\\a', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('{"\\', max_size=2), inner, max_size=2)
    ),
    max_leaves=8,
)


def depth_of(value: object) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


@given(values, st.integers(1, 5))
def test_the_depth_is_that_of_the_value_whatever_its_texts_hold(value: object, depth: int) -> None:
    assert is_deeper(json.dumps(value).encode(), depth) == (depth_of(value) > depth)


# -- a real hub ----------------------------------------------------------------------------------------------

OPTIONS = (
    "--link-limit=4",
    "--address-limit=3",
    "--room-limit=2",
    "--record-rate=2",
    "--header-limit=1KiB",
    "--http-connections=2",
    "--json-depth=3",
    "--session-limit=1",
    "--malformed-limit=2",
)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Role]:
    role = Role(Path(tmp_path_factory.mktemp("limits")), "ces-hub", free_port(), *OPTIONS).start()
    yield role
    role.stop()


def test_a_hub_keeps_the_limits_that_it_was_told(hub: Role) -> None:
    peers = [Peer(hub.port, "/connect/messenger") for _ in range(3)]
    with pytest.raises(InvalidStatus) as refused:
        Peer(hub.port, "/connect/messenger")
    assert refused.value.response.status_code == 503
    said = bytes(refused.value.response.body or b"").decode()
    assert said == "There are 3 links from 127.0.0.1 already, the limit for one address."
    peers[0].subscribe("A", "B", "C")
    with pytest.raises(ConnectionClosed) as closed:
        for number in range(100):
            peers[1].send("A", event(number))
        peers[1].socket.recv(20)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 4429
    assert [room for room, _ in (next(peers[0].records(20)) for _ in range(20))] == ["A"] * 20
    code, said = hub.request("POST", "/event", nested(4).encode())
    assert (code, said) == (400, "The body is not an event: it is nested more than 3 deep.")
    refused = {what: count for what, count in hub.info()["nexus"]["refused"].items() if count}
    assert refused == {"address": 1, "rate": 1, "rooms": 1}
    assert 'ces_hub_refused_total{what="address"} 1.0' in hub.get("/metrics")[1]
    for peer in peers:
        peer.close()


def test_a_link_with_malformed_records_only_is_closed_after_as_many_as_the_hub_allows(hub: Role) -> None:
    peer = Peer(hub.port, "/connect/messenger")
    peer.socket.send(b"no")
    peer.socket.send(b"no")
    with pytest.raises(ConnectionClosed) as closed:
        peer.socket.recv(20)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 4400


def test_a_hub_keeps_no_more_sessions_of_cut_links_than_it_was_told(hub: Role) -> None:
    def cut() -> list[str]:
        return [link["id"] for link in hub.info()["nexus"]["detached"]]

    for node in ("first", "second"):
        Peer(hub.port, "/connect/messenger", "ces.2", node).socket.socket.shutdown(SHUT_RDWR)
        until(lambda node=node: any(node in id for id in cut()), f"{node} is waited for")
    assert len(cut()) == 1


def test_the_refusals_are_in_the_metrics() -> None:
    floor = Floor()
    floor.hub.side.refuse("rooms", "too many")
    assert counters(floor.hub)["ces_hub_refused"][2][("what", "rooms"),] == 1
