"""How a link opens: handshake, hello, and who is let in (docs/protocol.md sections 3 and 5)."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ces.link.owner import LinkLimits
from ces.link.protocol import Link
from ces.model.wire import CES1, CES2
from tests.support.links import (
    UPGRADE,
    Alone,
    Recorder,
    dialling,
    frame,
    linked,
    record,
    run,
    serving,
    upgraded,
)

DIALECTS = pytest.mark.parametrize("dialect", [CES1, CES2])
KINDS = pytest.mark.parametrize("kind", ["messenger", "repeater", "hub"])
ENDS = pytest.mark.parametrize("end", [serving, dialling])


@KINDS
@DIALECTS
def test_a_pair_opens_carries_records_and_closes(kind: str, dialect: str) -> None:
    pair = linked(kind, dialect)
    assert (pair.link.dialect, pair.peer.dialect) == (dialect, dialect)
    assert (pair.link.kind, pair.peer.kind) == (kind, kind)
    assert (pair.link.joined, pair.peer.joined) == (True, True)
    names = ("served", "dialled") if dialect == CES2 else ("", "")
    assert (pair.link.node, pair.peer.node) == names
    pair.link.put(run("A", "1", "2"))
    pair.link.put(run("", "3"))
    pair.link.factory.side.turn.add(pair.link)
    pair.peer.put(run("B", "4"))
    pair.peer.factory.side.turn.add(pair.peer)
    pair.settle()
    assert pair.served.records == [record("A", "1"), record("A", "2"), record("", "3")]
    assert pair.dialled.records == [record("B", "4")]
    assert (pair.link.records_in, pair.peer.records_in) == (1, 3)
    assert (pair.link.outbox.taken, pair.peer.outbox.taken) == (3, 1)
    pair.link.end(1000, "done")
    pair.settle()
    assert pair.dialled.reasons == ["closed with 1000: done"]
    assert pair.served.reasons == ["closed by the other side with 1000: done"]
    assert pair.clock.getDelayedCalls() == []


def test_the_hello_travels_both_ways_and_says_what_the_protocol_says() -> None:
    alone = serving(hello="")
    assert (alone.owner.calls, alone.frames()) == ([], [])
    alone.send_text({"hello": {"node": "peer", "session": None, "received": 0}})
    [(opcode, payload)] = alone.frames()
    assert opcode == 1
    (session,) = alone.link.factory.side.sessions
    assert len(session) >= 20
    assert json.loads(payload) == {
        "hello": {"node": "here", "session": session, "received": 0, "resumed": False, "window": 120}
    }
    assert (alone.owner.calls, alone.link.node) == (["admit", "joined"], "peer")


def test_the_dialling_side_says_hello_first_and_joins_when_it_is_answered() -> None:
    pair = linked(settle=False)
    sent = []
    original = pair.link.tell
    pair.link.tell = lambda message: (sent.append(message), original(message))[1]  # type: ignore[method-assign]
    pair.settle()
    assert [(message.node, message.session, message.received) for message in sent] == [("dialled", None, 0)]
    assert pair.dialled.calls == ["admit", "joined"]


def test_a_client_that_offers_other_subprotocols_gets_a_ces1_link() -> None:
    pair = linked(settle=False)
    pair.peer.dataReceived(UPGRADE % b"Sec-WebSocket-Protocol: chat, mqtt\r\n")
    answer = b"".join(pair.pump.serverIO.stream)
    assert (b"101" in answer, b"Sec-WebSocket-Protocol" in answer) == (True, False)
    assert (pair.peer.dialect, pair.served.calls) == (CES1, ["joined"])


@ENDS
def test_a_refused_node_is_told_why_and_its_records_are_not_heard(end: Callable[..., Alone]) -> None:
    alone = end(owner=Recorder(refusals={"peer": "this hub itself"}), hello="")
    alone.written()
    alone.send_text({"hello": {"node": "peer"}})
    frames = alone.frames()
    assert frames[-1] == (8, (4409).to_bytes(2, "big") + b"this hub itself")
    # The serving side's own hello comes first, so that who dialled learns whom it has reached.
    assert [opcode for opcode, _ in frames] == ([1, 8] if alone.link.serving else [8])
    alone.send(2, record("A"))
    alone.send_text({"rooms": ["A"], "create": True})
    assert alone.owner.calls == ["admit"]
    assert (alone.link.refusal, alone.link.close_code) == ("this hub itself", 4409)


def test_a_refused_pair_ends_without_having_joined() -> None:
    pair = linked("hub", served=Recorder("served", refusals={"dialled": "no"}))
    assert "joined" not in pair.served.calls
    assert pair.peer.ended == "closed with 4409: no"
    assert pair.link.ended == "closed by the other side with 4409: no"
    assert pair.clock.getDelayedCalls() == []


@ENDS
@pytest.mark.parametrize(
    ("opcode", "payload", "reason"),
    [
        (2, record("A"), "a record came before the hello"),
        (1, b'{"rooms":["A"],"create":true}', "the first message was not a hello"),
        (1, b'{"ack":1}', "the first message was not a hello"),
        (1, b"hello", "the first message was not a hello: the text message cannot be read: "),
        (1, b'{"hello":{"node":""}}', "the first message was not a hello: the node of a hello is 1 to 128"),
    ],
)
def test_whatever_comes_before_the_hello_ends_the_link_with_4400(
    end: Callable[..., Alone], opcode: int, payload: bytes, reason: str
) -> None:
    alone = end(hello="")
    alone.written()
    alone.send(opcode, payload)
    code, said = alone.closed_with()
    assert (code, said[: len(reason)]) == (4400, reason)
    alone.send(2, record("A"))
    assert alone.owner.calls == []


@DIALECTS
def test_an_owner_may_end_a_link_as_it_joins(dialect: str) -> None:
    class Ending(Recorder):
        def joined(self, link: Link) -> None:
            super().joined(link)
            link.end(4429, "too many links")

    pair = linked(dialect=dialect, dialled=Ending("dialled"))
    assert pair.dialled.reasons == ["closed with 4429: too many links"]
    assert pair.clock.getDelayedCalls() == []


def test_a_second_hello_ends_the_link_with_4400() -> None:
    alone = serving()
    alone.send_text({"hello": {"node": "other"}})
    assert alone.closed_with() == (4400, "a second hello")
    assert alone.owner.calls == ["admit", "joined", "left"]


def test_an_endless_handshake_is_cut() -> None:
    pair = linked(settle=False)
    for _ in range(3):
        pair.peer.dataReceived(b"x" * (LinkLimits().header // 2))
    assert pair.peer.transport.disconnecting
    assert pair.peer.ended == f"an opening handshake of more than {LinkLimits().header} bytes"


def test_many_records_may_come_in_one_read_with_the_answer_to_the_handshake() -> None:
    pair = linked(dialect=CES1, settle=False)
    request = pair.pump.clientIO.getOutBuffer()
    records = [record("A", "x" * 400)] * 100
    pair.link.dataReceived(upgraded(request, CES1) + b"".join(frame(2, r, masked=False) for r in records))
    assert pair.dialled.records == records


@given(
    st.binary(max_size=300)
    | st.builds(
        lambda junk, at: (UPGRADE % b"")[:at] + junk + (UPGRADE % b"")[at:],
        st.binary(max_size=30),
        st.integers(0, len(UPGRADE)),
    )
)
@settings(max_examples=200, deadline=None)
def test_any_handshake_opens_a_link_or_is_refused(data: bytes) -> None:
    pair = linked(settle=False)
    for part in (data, b"\r\n\r\n"):
        pair.peer.dataReceived(part)
    answer = b"".join(pair.pump.serverIO.stream)
    assert answer[:12] in (
        b"HTTP/1.1 101",
        b"HTTP/1.1 400",
        b"HTTP/1.1 405",
        b"HTTP/1.1 505",
        b"HTTP/1.1 426",
        b"",
    )
    assert "unexpected" not in "".join(pair.lines)


@given(st.binary(max_size=300) | st.binary(max_size=60).map(lambda junk: b"HTTP/1.1 101 " + junk))
@settings(max_examples=200, deadline=None)
def test_any_answer_to_a_handshake_opens_a_link_or_ends_it_with_a_reason(data: bytes) -> None:
    pair = linked(settle=False)
    pair.link.dataReceived(data + b"\r\n\r\n")
    assert pair.link.ended
    assert "unexpected" not in "".join(pair.lines)


def test_a_handshake_that_is_refused_says_why_in_its_body() -> None:
    pair = linked(settle=False)
    pair.peer.dataReceived((UPGRADE % b"").replace(b"Version: 13", b"Version: 8"))
    head, _, body = b"".join(pair.pump.serverIO.stream).decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 400 Bad Request\r\n")
    assert f"\r\nContent-Length: {len(body)}\r\n" in head
    assert "\r\nSec-WebSocket-Version: 13" in head
    assert "version 8 not supported" in body


def test_bad_handshakes_are_logged_at_a_limited_rate() -> None:
    pair = linked(settle=False)
    factory = pair.peer.factory
    for _ in range(50):
        link = factory.buildProtocol(None)
        link.makeConnection(type(pair.peer.transport)(link, True))
        link.dataReceived(b"POST / HTTP/1.1\r\n\r\n")
    assert len([line for line in pair.lines if "handshake" in line]) == 1


def test_a_link_is_called_by_its_node_or_its_peer() -> None:
    assert serving("hub").link.name == "hub peer"
    assert serving("hub", CES1).link.name == "hub tcp4:127.0.0.1:40000"


def test_a_link_is_a_group_of_one() -> None:
    alone = serving()
    assert alone.link.links == (alone.link,)
