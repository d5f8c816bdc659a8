"""How a connection opens: handshake, hello, and who is let in (docs/protocol.md sections 3 and 5)."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import ensureDeferred

from ces.config.link import LinkSettings
from ces.link.link import Link
from ces.model.wire import CES1, CES2
from tests.support.links import (
    ANSWER,
    UPGRADE,
    Alone,
    Recorder,
    accepted,
    dialling,
    frame,
    record,
    requested,
    run,
    serving,
    upgraded,
)
from tests.support.network import Linked, linked

DIALECTS = pytest.mark.parametrize("dialect", [CES1, CES2])
KINDS = pytest.mark.parametrize("kind", ["messenger", "repeater", "hub"])
ENDS = pytest.mark.parametrize("end", [serving, dialling])


def stop(pair: Linked) -> None:
    """End the uplink of a pair."""
    ensureDeferred(pair.uplink.stop())
    pair.settle()


@KINDS
@DIALECTS
def test_a_pair_opens_carries_records_and_closes(kind: str, dialect: str) -> None:
    pair = linked(kind, dialect)
    assert (pair.link.dialect, pair.peer.dialect) == (dialect, dialect)
    assert (pair.link.kind, pair.peer.kind) == (kind, kind)
    assert (pair.link.connected, pair.peer.connected) == (True, True)
    names = ("served", "dialled") if dialect == CES2 else ("", "")
    assert (pair.link.node, pair.peer.node) == names
    pair.link.put(run("A", "1", "2"))
    pair.link.put(run("", "3"))
    pair.uplink.flush()
    pair.peer.put(run("B", "4"))
    pair.peer.side.turn.add(pair.peer)
    pair.settle()
    assert pair.served.records == [record("A", "1"), record("A", "2"), record("", "3")]
    assert pair.dialled.records == [record("B", "4")]
    assert (pair.link.records_in, pair.peer.records_in) == (1, 3)
    assert (pair.link.queue.taken, pair.peer.queue.taken) == (3, 1)
    stop(pair)
    assert pair.dialled.reasons[0].startswith("closed with 1000: closing")
    assert pair.served.reasons == ["closed by the other side with 1000: closing"]
    assert pair.network.getDelayedCalls() == []


def test_the_hello_travels_both_ways_and_says_what_the_protocol_says() -> None:
    alone = serving(hello="")
    assert (alone.owner.calls, alone.frames()) == ([], [])
    alone.send_text({"hello": {"node": "peer", "session": None, "received": 0}})
    [(opcode, payload)] = alone.frames()
    assert opcode == 1
    (session,) = alone.side.sessions
    assert len(session) >= 20
    assert json.loads(payload) == {
        "hello": {"node": "here", "session": session, "received": 0, "resumed": False, "window": 120}
    }
    assert (alone.owner.calls, alone.link.node) == (["admit", "joined"], "peer")


def test_the_dialling_side_says_hello_first_and_joins_when_it_is_answered() -> None:
    alone = requested()
    alone.receive(upgraded(alone.written()))
    [(opcode, payload)] = alone.frames()
    assert (opcode, json.loads(payload)) == (
        1,
        {"hello": {"node": "here", "session": None, "received": 0, "changes": 0, "gaps": 0}},
    )
    assert alone.owner.calls == []
    alone.send(1, ANSWER % b"peer")
    assert alone.owner.calls == ["admit", "joined"]


def test_a_client_that_offers_other_subprotocols_gets_a_ces1_link() -> None:
    alone = accepted()
    alone.receive(UPGRADE % b"Sec-WebSocket-Protocol: chat, mqtt\r\n")
    answer = alone.written()
    assert (b"101" in answer, b"Sec-WebSocket-Protocol" in answer) == (True, False)
    assert (alone.connection.dialect, alone.owner.calls) == (CES1, ["admit", "joined"])


@ENDS
def test_a_refused_node_is_told_why_and_its_records_are_not_heard(end: Callable[..., Alone]) -> None:
    alone = end(owner=Recorder(refusals={"peer": "this hub itself"}), hello="")
    alone.written()
    alone.send_text({"hello": {"node": "peer"}})
    frames = alone.frames()
    assert frames[-1] == (8, (4409).to_bytes(2, "big") + b"this hub itself")
    # The serving side's own hello comes first, so that who dialled learns whom it has reached.
    assert [opcode for opcode, _ in frames] == ([1, 8] if alone.connection.serving else [8])
    alone.send(2, record("A"))
    alone.send_text({"rooms": ["A"], "create": True})
    assert alone.owner.calls == ["admit"]
    assert (alone.connection.link, alone.connection.code) == (None, 4409)
    assert alone.connection.ended == "closed with 4409: this hub itself"


def test_a_refused_pair_ends_without_having_joined() -> None:
    pair = linked("hub", served=Recorder("served", refusals={"dialled": "no"}))
    assert "joined" not in pair.served.calls
    assert pair.meeting.served.ended == "closed with 4409: no"
    assert pair.uplink.reason == "closed by the other side with 4409: no"
    stop(pair)
    assert (pair.served.links, pair.network.getDelayedCalls()) == ([], [])


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
def test_whatever_comes_before_the_hello_closes_the_connection_with_4400(
    end: Callable[..., Alone], opcode: int, payload: bytes, reason: str
) -> None:
    alone = end(hello="")
    alone.written()
    alone.send(opcode, payload)
    code, said = alone.closed_with()
    assert (code, said[: len(reason)]) == (4400, reason)
    alone.send(2, record("A"))
    assert alone.owner.calls == []


@pytest.mark.parametrize("dialling_side", [True, False], ids=["dialling", "serving"])
@DIALECTS
def test_an_owner_may_end_a_link_as_it_joins(dialect: str, dialling_side: bool) -> None:
    class Ending(Recorder):
        def joined(self, link: Link) -> None:
            super().joined(link)
            link.end(4429, "too many links")

    ending = Ending("ending")
    owners = {"dialled" if dialling_side else "served": ending}
    pair = linked(dialect=dialect, dialled=owners.get("dialled"), served=owners.get("served"))
    stop(pair)
    assert ending.calls == ["admit", "joined", "detached", "left"]
    assert ending.reasons[0].startswith("closed with 4429: too many links")
    assert pair.network.getDelayedCalls() == []


def test_a_second_hello_closes_the_connection_with_4400() -> None:
    alone = serving()
    alone.send_text({"hello": {"node": "other"}})
    assert alone.closed_with() == (4400, "a second hello")
    alone.lose()
    assert alone.owner.calls == ["admit", "joined", "detached", "left"]


def test_an_endless_handshake_is_cut() -> None:
    alone = accepted()
    for _ in range(3):
        alone.receive(b"x" * (LinkSettings().header_limit // 2))
    assert alone.transport.disconnecting
    assert alone.connection.ended == f"an opening handshake of more than {LinkSettings().header_limit} bytes"


def test_many_records_may_come_in_one_read_with_the_answer_to_the_handshake() -> None:
    alone = requested()
    records = [record("A", "x" * 400)] * 100
    answer = upgraded(alone.written(), CES1)
    alone.receive(answer + b"".join(frame(2, one, masked=False) for one in records))
    assert alone.owner.records == records


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
    alone = accepted()
    alone.receive(data, b"\r\n\r\n")
    assert alone.written()[:12] in (
        b"HTTP/1.1 101",
        b"HTTP/1.1 400",
        b"HTTP/1.1 405",
        b"HTTP/1.1 505",
        b"HTTP/1.1 426",
        b"",
    )
    assert "unexpected" not in "".join(alone.lines)


@given(st.binary(max_size=300) | st.binary(max_size=60).map(lambda junk: b"HTTP/1.1 101 " + junk))
@settings(max_examples=200, deadline=None)
def test_any_answer_to_a_handshake_opens_a_link_or_ends_it_with_a_reason(data: bytes) -> None:
    alone = requested()
    alone.receive(data + b"\r\n\r\n")
    assert alone.connection.ended
    assert "unexpected" not in "".join(alone.lines)


def test_a_handshake_that_is_refused_says_why_in_its_body() -> None:
    alone = accepted()
    alone.receive((UPGRADE % b"").replace(b"Version: 13", b"Version: 8"))
    head, _, body = alone.written().decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 400 Bad Request\r\n")
    assert f"\r\nContent-Length: {len(body)}\r\n" in head
    assert "\r\nSec-WebSocket-Version: 13" in head
    assert "version 8 not supported" in body


def test_bad_handshakes_are_logged_at_a_limited_rate() -> None:
    alone = accepted()
    for one in (alone, *(accepted(side=alone.side) for _ in range(49))):
        one.receive(b"POST / HTTP/1.1\r\n\r\n")
    assert len([line for line in alone.lines if "handshake" in line]) == 1


def test_a_link_is_called_by_its_node_or_its_peer() -> None:
    assert serving("hub").link.name == "hub peer"
    assert serving("hub", CES1).link.name == "hub tcp4:127.0.0.1:40000"


def test_a_link_is_a_group_of_one() -> None:
    alone = serving()
    assert alone.link.links == (alone.link,)


@pytest.mark.parametrize("status", ["1" * 5000, "²00", "", "-101"])
def test_a_status_that_is_none_fails_the_handshake_and_nothing_else(status: str) -> None:
    alone = requested()
    alone.receive(f"HTTP/1.1 {status} Switching\r\n\r\n".encode())
    assert alone.connection.refused == 0
    assert not [line for line in alone.lines if "unexpected" in line]
