"""Serving links under twisted.web on real sockets: what memory hides (producers, timeouts, buffers)."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import ClientCreator, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock
from twisted.web.http import HTTPChannel
from twisted.web.test.requesthelper import DummyRequest

from ces.config.link import LinkSettings
from ces.link.connection import Connection
from ces.link.link import Link
from ces.link.serving import refusal
from ces.link.turn import Memo
from ces.model.wire import CES1, CES2
from tests.support.certificates import endpoint, make_certificate
from tests.support.links import UPGRADE, frame, make_side, read_frames, record, run
from tests.support.sites import Served, until

T = TypeVar("T")


@pytest.fixture(params=[False, True], ids=["direct", "plain"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    """A site with the direct way to its sockets, and one without."""
    from twisted.internet import reactor

    site = Served(reactor, LinkSettings(plain_sockets=request.param))
    yield site
    pytest_twisted.blockon(Deferred.fromCoroutine(site.close()))


def transport_of(link: Link) -> Any:
    """What the link's connection reads and writes."""
    assert isinstance(link.connection, Connection)
    return link.connection.transport


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
        assert transport_of(link).getTcpNoDelay()


@pytest_twisted.ensureDeferred
async def test_a_closed_link_ends_on_both_sides(served: Served) -> None:
    link, peer = await served.dial()
    await served.uplinks[0].stop()
    await until(lambda: served.owner.reasons)
    assert served.caller.reasons == ["closed with 1000: closing"]
    assert served.owner.reasons == ["closed by the other side with 1000: closing"]
    assert (link.close_code, peer.close_code) == (1000, 1000)


@pytest_twisted.ensureDeferred
async def test_more_than_the_sockets_hold_waits_in_the_queue_and_arrives_in_order(served: Served) -> None:
    link, peer = await served.dial()
    transport_of(link).pauseProducing()  # the dialling side does not read
    sent = [run("ITB-1108", f"{number:06}" + "x" * 20_000) for number in range(400)]
    for one in sent:
        peer.put(one)
        peer.flush(Memo())
    await until(lambda: peer.backlogged)
    assert peer.queue.size > 1_000_000
    transport_of(link).resumeProducing()
    await until(lambda: len(served.caller.runs) and len(served.caller.records) == len(sent))
    assert served.caller.records == [record for one in sent for record in one.records]
    assert (peer.dropped, peer.backlogged, peer.queue.waiting_bytes) == (0, False, 0)


@pytest_twisted.ensureDeferred
async def test_what_waits_for_a_peer_that_never_reads_is_bounded_and_counted() -> None:
    from twisted.internet import reactor

    served = Served(reactor, LinkSettings(link_buffer=100_000))
    link, peer = await served.dial()
    transport_of(link).pauseProducing()
    for number in range(600):
        peer.put(run("ITB-1108", f"{number:06}" + "x" * 20_000))
        peer.flush(Memo())
    assert peer.queue.size <= 100_000
    assert peer.dropped > 0
    assert served.side.dropped == peer.dropped
    transport_of(link).resumeProducing()
    await until(lambda: len(served.caller.records) == 600 - peer.dropped)
    assert served.caller.records[-1].startswith(b'ITB-1108\n{"key":"000599')
    await served.close()


@pytest_twisted.ensureDeferred
async def test_nothing_of_the_http_channel_is_left_on_an_upgraded_connection(served: Served) -> None:
    """Its timeout would end an idle link, and as the producer it would keep the link from pausing."""
    client = await served.connect()
    client.transport.write(UPGRADE % b"")
    await until(lambda: served.owner.links)
    [link] = served.owner.links
    transport = transport_of(link)
    assert (transport.producer, transport.streamingProducer) == (link.connection, True)
    callers = {getattr(call.func, "__self__", None) for call in served.reactor.getDelayedCalls()}
    assert not [caller for caller in callers if isinstance(caller, HTTPChannel)]
    client.transport.loseConnection()
    await until(lambda: not served.owner.links)


@pytest.mark.parametrize("ending", ["closed", "cut"])
@pytest.mark.parametrize("dialect", [CES1, CES2])
@pytest_twisted.ensureDeferred
async def test_a_connection_that_has_gone_takes_its_memory_with_it(
    served: Served, dialect: str, ending: str
) -> None:
    """Without the collector, which comes to what has lived for a while very rarely."""
    gc.collect()
    gc.disable()
    # Something may still hold a channel of another test.
    before = existing(HTTPChannel)
    try:
        _, peer = await served.dial(dialect)
        gone = [weakref.ref(part) for part in (peer.connection, transport_of(peer))]
        if ending == "cut":
            transport_of(peer).abortConnection()
        await served.uplinks.pop().stop()
        await until(lambda: not any(part() for part in gone))
        await until(lambda: all(channel in before for channel in existing(HTTPChannel)))
    finally:
        gc.enable()


@pytest.mark.parametrize("dialect", [CES1, CES2])
@pytest_twisted.ensureDeferred
async def test_a_link_that_has_left_takes_its_memory_with_it(served: Served, dialect: str) -> None:
    """Without the collector, as a connection does."""
    gc.collect()
    gc.disable()
    before = existing(Link)
    try:
        await served.dial(dialect)
        await served.uplinks[0].stop()
        await until(lambda: served.owner.reasons)
        await until(lambda: not any(link.serving and link not in before for link in existing(Link)))
    finally:
        gc.enable()


def existing(kind: type[T]) -> list[T]:
    """All objects of a kind that there are."""
    return [one for one in gc.get_objects() if isinstance(one, kind)]


@pytest_twisted.ensureDeferred
async def test_an_idle_client_is_pinged() -> None:
    from twisted.internet import reactor

    served = Served(reactor, LinkSettings(ping_interval=0.01))
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
    await until(lambda: served.owner.reasons)
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


class Early(Protocol):
    """Says all at once, without waiting for the answer to the handshake."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._data)


@pytest_twisted.ensureDeferred
async def test_who_does_not_wait_for_the_answer_is_heard_with_tls_too(served: Served, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    port = await serverFromString(served.reactor, endpoint(certificate, key)).listen(served.site)
    options = CertificateOptions(verify=False)
    creator = ClientCreator(served.reactor, Early, UPGRADE % b"" + frame(2, record("ITB-1108", "power")))
    client = await creator.connectSSL("127.0.0.1", port.getHost().port, options)
    await until(lambda: served.owner.records)
    assert served.owner.records == [record("ITB-1108", "power")]
    client.transport.loseConnection()
    await until(lambda: not served.owner.links)
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_handshake_without_a_hello_holds_a_place_in_the_entrance_until_it_has_a_link(
    served: Served,
) -> None:
    entrance = served.site.entrance
    silent = await served.connect()
    silent.transport.write(UPGRADE % b"Sec-WebSocket-Protocol: ces.2\r\n")
    await until(lambda: silent.received)
    assert len(entrance) == 1
    await served.dial(CES1)
    await served.dial(CES2)
    assert len(entrance) == 1
    assert entrance.make_room(9, "it is full") == 1
    await silent.lost
    assert (len(served.owner.links), len(entrance)) == (2, 0)
    another = await served.connect()
    another.transport.write(UPGRADE % b"Sec-WebSocket-Protocol: ces.2\r\n")
    await until(lambda: another.received)
    another.transport.loseConnection()
    await until(lambda: not len(entrance))


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


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (b"http://hub:7100", 403),
        (b"http://evil.example", 403),
        (b"https://panel.example.edu", 101),
        (b"chrome-extension://abc", 101),
        (b"null", 101),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_handshake_of_a_web_page_is_taken_from_an_allowed_origin_only(
    origin: bytes, status: int
) -> None:
    from twisted.internet import reactor

    allowed = ("https://panel.example.edu", "chrome-extension://abc", "null")
    served = Served(reactor, LinkSettings(allow_origin=allowed))
    client = await served.connect()
    client.transport.write(UPGRADE % b"Origin: %b\r\n" % origin)
    await until(lambda: client.received)
    assert client.received.startswith(b"HTTP/1.1 %d " % status)
    client.transport.loseConnection()
    await client.lost
    await until(lambda: not served.owner.links)
    await served.close()


@pytest_twisted.ensureDeferred
async def test_going_away_ends_every_link(served: Served) -> None:
    links = [(await served.dial(dialect))[0] for dialect in (CES1, CES2)]
    await served.side.end_all()
    assert served.owner.links == []
    await until(lambda: not any(link.connection for link in links))
    assert {link.ended for link in links} == {"closed by the other side with 4001: going away"}


def handshake(**changed: str | list[str]) -> tuple[int, str, dict[str, str]] | None:
    """How a handshake with some headers changed is refused: status, sentence and headers; or None."""
    request = DummyRequest([])
    request.method, request.clientproto = b"GET", b"HTTP/1.1"
    headers: dict[str, Any] = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    for name, value in {
        **headers,
        **{key.replace("_", "-"): value for key, value in changed.items()},
    }.items():
        if name in ("method", "clientproto"):
            setattr(request, name, str(value).encode())
        else:
            request.requestHeaders.setRawHeaders(name, value if isinstance(value, list) else [value])
    refused = refusal(request, make_side(Clock()))
    if refused is None:
        return None
    answered = request.responseHeaders.getAllRawHeaders()
    return *refused, {name.decode(): b"|".join(values).decode() for name, values in answered}


UPGRADING = {"Upgrade": "websocket", "Connection": "Upgrade"}


@pytest.mark.parametrize("upgrade", ["websocket", "WebSocket", "h2c, websocket", ["websocket", "h2c"]])
@pytest.mark.parametrize("length", [[], "0"])
def test_a_request_for_websocket_is_an_upgrade(upgrade: str | list[str], length: str | list[str]) -> None:
    assert handshake(Upgrade=upgrade, Content_Length=length) is None


@pytest.mark.parametrize("upgrade", [[], "", "h2c", "websockets"])
def test_no_other_request_is_an_upgrade(upgrade: str | list[str]) -> None:
    sentence = "This path speaks WebSocket: connect with a WebSocket client (Upgrade: websocket)."
    assert handshake(Upgrade=upgrade) == (426, sentence, UPGRADING)


@pytest.mark.parametrize(
    "version", [[], "", "8", "12", "14", "013", "+13", "13.0", "13, 8", ["13", "8"], ["13", "13"]]
)
def test_every_version_but_13_is_told_which_one_is_spoken(version: str | list[str]) -> None:
    """RFC 6455 section 4.2.2."""
    sentence = "This path speaks version 13 of WebSocket: send one line Sec-WebSocket-Version: 13."
    answer = {**UPGRADING, "Sec-Websocket-Version": "13"}  # Twisted spells names in its own way
    assert handshake(Sec_WebSocket_Version=version) == (426, sentence, answer)


def test_http_1_0_cannot_be_upgraded() -> None:
    """RFC 9110 section 7.8."""
    assert handshake(clientproto="HTTP/1.0") == (
        426,
        "HTTP/1.0 has no WebSocket: connect with HTTP/1.1.",
        UPGRADING,
    )


@pytest.mark.parametrize("method", ["HEAD", "POST"])
def test_a_handshake_is_a_get(method: str) -> None:
    assert handshake(method=method) == (405, "A WebSocket handshake is a GET.", {"Allow": "GET"})


@pytest.mark.parametrize("header", [{"Content_Length": "4"}, {"Transfer_Encoding": "chunked"}])
def test_a_handshake_has_no_body(header: dict[str, Any]) -> None:
    assert handshake(**header) == (400, "A WebSocket handshake has no body.", {})


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (b"Version: 13", b"Version: 13", 101),
        (b"/connect", b"http://hub:7100/connect", 101),
        (b"\r\n\r\n", b"\r\nHost: hub:7100\r\n\r\n", 400),
        (b"hub:7100", b"hub:x", 400),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_handshake_is_a_request_as_any_other(
    served: Served, old: bytes, new: bytes, status: int
) -> None:
    client = await served.connect()
    client.transport.write((UPGRADE % b"").replace(old, new, 1))
    await until(lambda: client.received)
    assert client.received.startswith(b"HTTP/1.1 %d " % status)
    assert bool(served.owner.links) == (status == 101)
    client.transport.loseConnection()
    await client.lost
    await until(lambda: not served.owner.links)
