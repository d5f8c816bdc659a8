"""Serving links under twisted.web on real sockets: what memory hides (producers, timeouts, buffers)."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import ClientCreator, Protocol
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import Request
from twisted.web.test.requesthelper import DummyRequest

from ces.link.owner import LinkLimits
from ces.link.protocol import Link
from ces.link.server import LinkResource, ServingFactory, upgrade_fault
from ces.link.turn import Memo
from ces.model.address import Address
from ces.model.wire import CES1, CES2
from ces.ops.http import make_site
from ces.uplink.reconnect import Dialler
from tests.support.links import UPGRADE, Lines, Recorder, frame, make_side, read_frames, record, run


async def until(condition: Callable[[], object]) -> None:
    """Let the reactor turn until `condition` holds, for 10 s at the most."""
    deadline = monotonic() + 10

    def look() -> None:
        if condition():
            looping.stop()
        assert monotonic() < deadline, "what is waited for does not come"

    looping = LoopingCall(look)
    await looping.start(0)


class Root(Resource):
    """A site's root that has links at ``/connect/messenger``."""

    def __init__(self, resource: LinkResource) -> None:
        super().__init__()
        self._resource = resource

    def getChild(self, path: bytes, request: Request) -> Any:
        return self if path == b"connect" else self._resource


class Served:
    """A site on a port of its own, and what dials it."""

    def __init__(self, reactor: Any, limits: LinkLimits | None = None) -> None:
        self.reactor = reactor
        self.lines = Lines()
        self.owner, self.caller = Recorder("served"), Recorder("dialled")
        self.side = make_side(self.owner, reactor, limits, self.lines)
        self.callers = make_side(self.caller, reactor, limits, self.lines)
        factory = ServingFactory(self.side, "messenger", reactor)
        self.site = make_site(Root(LinkResource(factory)), reactor, timeout=60)
        self.port: IListeningPort = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self.diallers: list[Dialler] = []

    @property
    def number(self) -> int:
        return self.port.getHost().port  # type: ignore[attr-defined,no-any-return]

    async def dial(self, dialect: str = CES2) -> tuple[Link, Link]:
        """Dial; the dialling and the serving link, both joined."""
        address = Address("ws", "127.0.0.1", self.number)
        dialler = Dialler(self.callers, address, "/connect/messenger", "messenger", self.reactor)
        if dialect == CES1:
            dialler.protocols = []
        self.diallers.append(dialler)
        links = len(self.owner.links)
        dialler.dial()
        await until(lambda: dialler.link is not None and len(self.owner.links) > links)
        assert dialler.link is not None
        return dialler.link, self.owner.links[-1]

    async def connect(self) -> Peer:
        """A bare connection to the port."""
        peer: Peer = await ClientCreator(self.reactor, Peer).connectTCP("127.0.0.1", self.number)
        return peer

    async def close(self) -> None:
        for dialler in self.diallers:
            await dialler.stop()
        await self.side.end_all()
        await self.port.stopListening()


class Peer(Protocol):
    """The other side, byte by byte."""

    def __init__(self) -> None:
        self.received = b""
        self.lost: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.lost.callback(None)


@pytest.fixture
def served() -> Iterator[Served]:
    from twisted.internet import reactor

    site = Served(reactor)
    yield site
    pytest_twisted.blockon(Deferred.fromCoroutine(site.close()))


@pytest.mark.parametrize("dialect", [CES1, CES2])
@pytest_twisted.ensureDeferred
async def test_records_travel_both_ways(served: Served, dialect: str) -> None:
    link, peer = await served.dial(dialect)
    assert (link.dialect, peer.dialect) == (dialect, dialect)
    link.put(run("ITB-1108", "up", "up again"))
    served.callers.turn.add(link)
    peer.put(run("ITB-1108", "down"))
    served.side.turn.add(peer)
    await until(lambda: len(served.owner.records) == 2 and served.caller.records)
    assert served.owner.records == [record("ITB-1108", "up"), record("ITB-1108", "up again")]
    assert served.caller.records == [record("ITB-1108", "down")]


@pytest_twisted.ensureDeferred
async def test_nothing_waits_for_the_kernel_to_acknowledge_what_went_before(served: Served) -> None:
    for link in await served.dial():
        assert link.transport.getTcpNoDelay()


@pytest_twisted.ensureDeferred
async def test_a_closed_link_ends_on_both_sides(served: Served) -> None:
    link, peer = await served.dial()
    await served.diallers[0].stop()
    await until(lambda: served.owner.reasons)
    assert served.caller.reasons == ["closed with 1000: closing"]
    assert served.owner.reasons == ["closed by the other side with 1000: closing"]
    assert (link.close_code, peer.close_code) == (1000, 1000)


@pytest_twisted.ensureDeferred
async def test_more_than_the_sockets_hold_waits_in_the_outbox_and_arrives_in_order(served: Served) -> None:
    link, peer = await served.dial()
    link.transport.pauseProducing()  # the dialling side does not read
    sent = [run("ITB-1108", f"{number:06}" + "x" * 20_000) for number in range(400)]
    for one in sent:
        peer.put(one)
        peer.flush(Memo())
    await until(lambda: peer.backlogged)
    assert peer.outbox.size > 1_000_000
    link.transport.resumeProducing()
    await until(lambda: len(served.caller.runs) and len(served.caller.records) == len(sent))
    assert served.caller.records == [record for one in sent for record in one.records]
    assert (peer.dropped, peer.backlogged, peer.outbox.size) == (0, False, 0)


@pytest_twisted.ensureDeferred
async def test_what_waits_for_a_peer_that_never_reads_is_bounded_and_counted(served: Served) -> None:
    served.side.limits = LinkLimits(outbox=100_000)
    link, peer = await served.dial()
    link.transport.pauseProducing()
    for number in range(600):
        peer.put(run("ITB-1108", f"{number:06}" + "x" * 20_000))
        peer.flush(Memo())
    assert peer.outbox.size <= 100_000
    assert peer.dropped > 0
    assert served.side.dropped == peer.dropped
    link.transport.resumeProducing()
    await until(lambda: len(served.caller.records) == 600 - peer.dropped)
    assert served.caller.records[-1].startswith(b'ITB-1108\n{"key":"000599')


@pytest_twisted.ensureDeferred
async def test_nothing_of_the_http_channel_is_left_on_an_upgraded_connection(served: Served) -> None:
    """Its timeout would end an idle link, and as the producer it would keep the link from pausing."""
    client = await served.connect()
    client.transport.write(UPGRADE % b"")
    await until(lambda: served.owner.links)
    [link] = served.owner.links
    transport = link.transport
    assert (transport.producer, transport.streamingProducer) == (link, True)
    channels = {getattr(call.func, "__self__", None) for call in served.reactor.getDelayedCalls()}
    assert not [channel for channel in channels if isinstance(channel, HTTPChannel)]
    client.transport.loseConnection()
    await until(lambda: not served.owner.links)


@pytest.mark.parametrize("ending", ["closed", "cut"])
@pytest.mark.parametrize("dialect", [CES1, CES2])
@pytest_twisted.ensureDeferred
async def test_a_link_that_has_gone_takes_its_memory_with_it(
    served: Served, dialect: str, ending: str
) -> None:
    """Without the collector, which comes to what has lived for a while very rarely."""
    gc.collect()
    gc.disable()
    # Something may still hold a channel of another test.
    before = channels()
    try:
        await served.dial(dialect)
        gone = [weakref.ref(part) for part in (served.owner.links[0], served.owner.links[0].transport)]
        if ending == "cut":
            served.owner.links[0].transport.abortConnection()
        await served.diallers[0].stop()
        await until(lambda: served.owner.reasons and served.caller.reasons)
        served.owner.links.clear()
        served.caller.links.clear()
        served.diallers.clear()
        await until(lambda: not any(part() for part in gone))
        await until(lambda: all(channel in before for channel in channels()))
    finally:
        gc.enable()


def channels() -> list[HTTPChannel]:
    """The HTTP channels there are."""
    return [one for one in gc.get_objects() if isinstance(one, HTTPChannel)]


@pytest_twisted.ensureDeferred
async def test_an_idle_client_is_pinged() -> None:
    from twisted.internet import reactor

    served = Served(reactor, LinkLimits(ping_interval=0.01))
    client = await served.connect()
    client.transport.write(UPGRADE % b"")
    await until(lambda: client.received.count(b"\x89\x00") >= 2)
    head, _, frames = client.received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101")
    assert set(read_frames(frames)) == {(9, b"")}
    client.transport.loseConnection()
    await client.lost
    await served.close()


@pytest_twisted.ensureDeferred
async def test_records_may_follow_the_answer_at_once(served: Served) -> None:
    client = await served.connect()
    client.transport.write(UPGRADE % b"")
    await until(lambda: client.received)
    client.transport.write(frame(2, b'ITB-1108\n\n{"key":"power"}') + frame(8, b"\x03\xe8"))
    await client.lost
    assert served.owner.records == [record("ITB-1108", "power")]
    assert client.received.endswith(b"\x88\x02\x03\xe8")
    assert served.owner.reasons == ["closed by the other side with 1000"]


@pytest.mark.parametrize("records", [1, 2000])
@pytest_twisted.ensureDeferred
async def test_who_does_not_wait_for_the_answer_is_heard_and_goes_on_being_read(
    served: Served, records: int
) -> None:
    """The HTTP channel would keep it all, and stop reading for good once that is more than 16 KiB."""
    client = await served.connect()
    early = frame(2, record("ITB-1108", "power")) * records
    client.transport.write(UPGRADE % b"" + early)
    await until(lambda: len(served.owner.records) == records)
    client.transport.write(frame(2, record("ITB-1108", "last")) + frame(8, b"\x03\xe8"))
    await client.lost
    assert served.owner.records[-1] == record("ITB-1108", "last")
    assert client.received.startswith(b"HTTP/1.1 101")


@pytest_twisted.ensureDeferred
async def test_what_follows_a_bad_upgrade_is_thrown_away(served: Served) -> None:
    client = await served.connect()
    client.transport.write((UPGRADE % b"").replace(b"Version: 13", b"Version: 8") + frame(2, b"x") * 9000)
    await client.lost
    assert served.owner.calls == []


@pytest_twisted.ensureDeferred
async def test_a_bad_upgrade_is_refused_and_costs_nothing(served: Served) -> None:
    client = await served.connect()
    client.transport.write((UPGRADE % b"").replace(b"Version: 13", b"Version: 8"))
    await client.lost
    assert client.received.startswith(b"HTTP/1.1 4")
    assert served.owner.calls == []


@pytest_twisted.ensureDeferred
async def test_going_away_ends_every_link(served: Served) -> None:
    for dialect in (CES1, CES2):
        await served.dial(dialect)
    await served.side.end_all()
    assert served.owner.links == []
    await until(lambda: len(served.caller.reasons) == 2)
    assert set(served.caller.reasons) == {"closed by the other side with 4001: going away"}


@pytest.mark.parametrize(
    ("upgrade", "accepted"),
    [
        (None, False),
        ("", False),
        ("h2c", False),
        ("websocket", True),
        ("WebSocket", True),
        ("h2c, websocket", True),
    ],
)
def test_only_a_request_for_websocket_is_an_upgrade(upgrade: str | None, accepted: bool) -> None:
    request = DummyRequest([])
    if upgrade is not None:
        request.requestHeaders.addRawHeader("Upgrade", upgrade)
    assert (upgrade_fault(request) is None) == accepted
