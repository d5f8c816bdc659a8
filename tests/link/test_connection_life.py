"""How a connection lives and ends: pings, deadlines, closes and cuts (docs/protocol.md sections 8 and 9)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.defer import ensureDeferred

from ces.link.serving import AGENT
from ces.link.side import GRACE
from ces.model.wire import CES1, CES2
from tests.support.links import (
    UPGRADE,
    Alone,
    accepted,
    dialling,
    frame,
    record,
    requested,
    run,
    serving,
)
from tests.support.network import linked

DIALECTS = pytest.mark.parametrize("dialect", [CES1, CES2])
ENDS = pytest.mark.parametrize("end", [serving, dialling])


@DIALECTS
def test_the_serving_side_pings_every_30_s_whatever_else_travels(dialect: str) -> None:
    pings = []
    alone = serving(dialect=dialect)
    alone.written()
    for second in range(1, 121):
        alone.clock.advance(1)
        alone.send(2, record("A"))
        alone.link.put(run("A"))
        alone.flush()
        pings += [(second, payload) for opcode, payload in alone.frames() if opcode == 9]
    assert pings == [(30, b""), (60, b""), (90, b""), (120, b"")]


@pytest.mark.parametrize("payload", [b"", b"other"])
def test_the_round_trip_is_from_a_ping_to_the_first_pong(payload: bytes) -> None:
    alone = serving()
    alone.send(10, payload)
    assert alone.connection.round_trip is None, "nobody had asked"
    alone.clock.advance(30)
    for trip in (0.25, 0.5):
        assert [opcode for opcode, _ in alone.frames() if opcode == 9] == [9]
        alone.clock.advance(trip)
        alone.send(10, payload)
        alone.clock.advance(1)
        alone.send(10, payload)
        assert alone.connection.round_trip == trip
        alone.clock.advance(29 - trip)


def test_the_user_agent_of_the_dialling_side_is_kept_as_far_as_it_is_short() -> None:
    alone = accepted()
    alone.receive(UPGRADE % (b"User-Agent: " + 500 * b"x" + b"\r\n"))
    assert alone.connection.agent == AGENT * "x"
    assert serving().connection.agent == ""


def test_the_dialling_side_does_not_ping_and_answers_pings() -> None:
    alone = dialling()
    alone.written()
    for _ in range(6):
        alone.clock.advance(30)
        alone.send(9, b"")
        assert alone.frames() == [(10, b"")]


@pytest.mark.parametrize(("end", "silence"), [(serving, 60), (dialling, 90)])
@DIALECTS
def test_silence_ends_a_connection(end: Callable[..., Alone], silence: int, dialect: str) -> None:
    alone = end(dialect=dialect)
    alone.clock.pump([1] * 20)
    alone.send(10, b"")
    alone.clock.pump([1] * (silence - 1))
    assert alone.link.connected
    alone.clock.advance(1)
    assert alone.link.ended == f"nothing heard for {silence} s"
    assert (alone.link.connected, alone.owner.calls[-1]) == (False, "detached")
    assert alone.transport.disconnecting
    assert alone.link.close_code is None


@pytest.mark.parametrize(
    "life", [frame(10, b""), frame(10, b"other"), frame(2, record("A")), frame(9, b""), b"\x82"]
)
def test_any_byte_is_life(life: bytes) -> None:
    alone = serving(dialect=CES1)
    alone.clock.pump([1] * 59)
    alone.receive(life)
    alone.clock.pump([1] * 59)
    assert alone.link.connected
    alone.clock.advance(1)
    assert not alone.link.connected


def test_a_pair_that_is_idle_all_day_stays_up() -> None:
    pair = linked()
    pair.network.pass_time(24 * 3600, step=10)
    assert (pair.dialled.calls, pair.served.calls) == (["admit", "joined"], ["admit", "joined"])
    assert (pair.link.connected, pair.peer.connected) == (True, True)


def test_a_connection_without_a_hello_is_closed_and_then_cut() -> None:
    alone = serving(hello="")
    alone.clock.pump([1] * 9)
    assert alone.frames() == []
    alone.clock.advance(1)
    assert alone.closed_with() == (4400, "no hello within 10 s")
    alone.clock.pump([1] * 9)
    assert not alone.transport.disconnecting
    alone.clock.advance(1)
    assert alone.transport.disconnecting
    assert alone.owner.calls == []


def test_the_hello_has_its_time_from_when_the_connection_opened() -> None:
    alone = accepted()
    alone.clock.pump([1] * 9)
    alone.receive(UPGRADE % b"Sec-WebSocket-Protocol: ces.2\r\n")
    alone.clock.pump([1] * 9)
    assert not alone.connection.ended
    alone.clock.advance(1)
    assert alone.connection.ended == "closed with 4400: no hello within 10 s"


@pytest.mark.parametrize("end", [accepted, requested])
def test_an_opening_handshake_that_does_not_end_is_cut(end: Callable[..., Alone]) -> None:
    alone = end()
    for _ in range(9):
        alone.clock.advance(1)
        alone.receive(b"H")
    assert not alone.transport.disconnecting
    alone.clock.advance(1)
    assert alone.transport.disconnecting
    assert alone.connection.ended == "no answer to the handshake within 10 s"


@ENDS
def test_a_close_that_is_not_answered_ends_in_a_cut(end: Callable[..., Alone]) -> None:
    alone = end()
    alone.link.end(1000, "done")
    for _ in range(9):
        alone.clock.advance(1)
        alone.send(10, b"")
    assert not alone.transport.disconnecting
    alone.clock.advance(1)
    assert alone.transport.disconnecting
    assert (alone.link.close_code, alone.link.ended) == (1000, "closed with 1000: done")
    alone.lose()
    assert not alone.connection.finished


@ENDS
def test_a_link_that_is_gone_leaves_nothing_on_the_clock(end: Callable[..., Alone]) -> None:
    alone = end(dialect=CES1)
    alone.lose()
    assert alone.clock.getDelayedCalls() == []
    assert alone.link.ended == "the connection was cut: Connection was closed cleanly"


def test_end_writes_what_waits_before_it_closes_and_happens_once() -> None:
    alone = serving()
    alone.link.put(run("A", "last"))
    alone.link.end(4001, "going away")
    alone.link.end(4400, "again")
    assert alone.frames() == [(2, record("A", "last")), (8, (4001).to_bytes(2, "big") + b"going away")]
    assert (alone.link.ended, alone.link.close_code) == ("closed with 4001: going away", 4001)
    assert alone.owner.calls == ["admit", "joined", "detached"]


def test_what_a_full_transport_did_not_take_is_undelivered_when_the_link_has_left() -> None:
    alone = serving()
    alone.connection.pauseProducing()
    alone.link.put(run("A", "1", "2"))
    alone.link.end(1000, "done")
    alone.connection.resumeProducing()
    assert [opcode for opcode, _ in alone.frames()] == [8]
    assert alone.link.queue.records == 2
    alone.lose()
    alone.clock.pump([1.0] * 121)
    assert alone.owner.reasons == ["closed with 1000: done; it did not come back within 120 s"]
    assert alone.owner.undelivered == [record("A", "1"), record("A", "2")]


@pytest.mark.parametrize(
    ("code", "heard"), [(1000, True), (4001, True), (4409, False), (4400, False), (4408, False)]
)
@ENDS
def test_records_that_were_under_way_are_taken_after_a_close_that_ends_the_session_in_good_order(
    end: Callable[..., Alone], code: int, heard: bool
) -> None:
    alone = end()
    alone.link.end(code, "because")
    alone.send(2, record("A"))
    alone.send_text({"rooms": ["A"], "create": True})
    assert alone.owner.records == ([record("A")] if heard else [])
    assert alone.owner.changes == []
    assert alone.owner.calls.count("detached") == 1


@pytest.mark.parametrize(
    ("payload", "code", "ended"),
    [
        (b"\x03\xe8", 1000, "closed by the other side with 1000"),
        (b"\x0f\xa1draining", 4001, "closed by the other side with 4001: draining"),
        (b"", 1000, "closed by the other side with no code"),
        (b"\x03\xf6no backend", 1014, "closed by the other side with 1014: no backend"),
    ],
)
@ENDS
def test_a_close_from_the_other_side_is_answered(
    end: Callable[..., Alone], payload: bytes, code: int, ended: str
) -> None:
    alone = end()
    alone.written()
    alone.send(8, payload)
    assert alone.frames()[0][0] == 8
    assert (alone.link.close_code, alone.link.ended) == (code, ended)
    # The side that serves ends the connection (RFC 6455 section 7.1.1).
    assert alone.transport.disconnecting == alone.connection.serving


def test_a_cut_has_no_close_code() -> None:
    pair = linked()
    pair.cut()
    assert (pair.link.close_code, pair.peer.close_code) == (None, None)
    assert pair.peer.ended.startswith("the connection was cut: ")


def test_going_away_closes_every_link_and_cuts_those_that_do_not_go() -> None:
    pair = linked()
    done: list[object] = []
    ensureDeferred(pair.peer.side.end_all()).addCallback(done.append)
    pair.settle()
    assert (done, pair.link.ended) == ([None], "closed by the other side with 4001: going away")
    assert pair.served.reasons == ["closed with 4001: going away"]
    alone = serving()
    ensureDeferred(alone.side.end_all()).addCallback(done.append)
    alone.clock.advance(GRACE)
    assert alone.transport.disconnecting
    alone.lose()
    assert (done, alone.clock.getDelayedCalls()) == ([None, None], [])


def test_a_connection_that_comes_while_all_are_going_away_is_cut() -> None:
    alone = serving()
    done = ensureDeferred(alone.side.end_all())
    late = accepted(side=alone.side)
    assert late.transport.disconnecting
    alone.lose()
    assert not done.called
    late.lose()
    assert done.called
