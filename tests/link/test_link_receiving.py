"""What a link receives: records and text, good and malformed (docs/protocol.md sections 2 to 5)."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from twisted.internet.defer import ensureDeferred

from ces.config.link import LinkSettings
from ces.link.connection import MESSAGES, SMALL_FRAMES
from ces.model.control import SubscriptionChange
from ces.model.wire import CES1, CES2
from tests.support.links import (
    Alone,
    OwnerFailed,
    Recorder,
    dialling,
    frame,
    make_side,
    record,
    run,
    serving,
)
from tests.support.logged import LoggedFailures
from tests.support.network import linked
from tests.support.turns import TurnReactor

DIALECTS = pytest.mark.parametrize("dialect", [CES1, CES2])
KINDS = pytest.mark.parametrize("kind", ["messenger", "repeater", "hub"])
ENDS = pytest.mark.parametrize("end", [serving, dialling])


def errors(alone: Alone) -> list[dict[str, Any]]:
    """The errors that the connection has told the other side of since it was last asked."""
    texts = [json.loads(payload) for opcode, payload in alone.frames() if opcode == 1]
    return [text["error"] for text in texts if "error" in text]


@DIALECTS
@ENDS
def test_malformed_records_are_counted_and_logged_and_the_link_goes_on(
    end: Callable[..., Alone], dialect: str
) -> None:
    alone = end(dialect=dialect)
    alone.written()
    for message in (b"no\n", record("A", "1"), b"*\n{}\n", record("A", "2")):
        alone.send(2, message)
    assert alone.owner.records == [record("A", "1"), record("A", "2")]
    assert (alone.link.malformed, alone.side.malformed, alone.link.connected) == (2, 2, True)
    assert len([line for line in alone.lines if "malformed" in line]) == 1
    assert [error["code"] for error in errors(alone)] == ([4400, 4400] if dialect == CES2 else [])


def test_a_peer_is_told_once_for_a_message_with_many_malformed_records() -> None:
    alone = serving()
    alone.send(2, b"*\n{1}\n" * 3 + record("A"))
    reason = "the room is '*', which is for subscriptions only (and 2 more)"
    assert errors(alone) == [{"code": 4400, "reason": reason}]


@DIALECTS
def test_a_link_that_sends_nothing_but_malformed_records_is_closed_after_100(dialect: str) -> None:
    alone = serving(dialect=dialect)
    for _ in range(99):
        alone.send(2, b"no\n")
    assert alone.link.connected
    alone.written()
    alone.send(2, b"no\n")
    assert alone.closed_with()[0] == 4400
    alone.lose()
    assert alone.owner.reasons[0].startswith("closed with 4400: nothing but malformed records, 100 of them")


def test_one_good_record_forgives_any_number_of_malformed_ones() -> None:
    alone = serving(dialect=CES1)
    alone.send(2, record("A"))
    for _ in range(300):
        alone.send(2, b"no\n")
    assert (alone.link.connected, alone.link.malformed) == (True, 300)


@ENDS
@pytest.mark.parametrize("fragmented", [True, False])
def test_a_message_above_the_limit_closes_the_link_with_1009(
    end: Callable[..., Alone], fragmented: bool
) -> None:
    alone = end(dialect=CES1, settings=LinkSettings(message_limit=1000))
    served = alone.link.serving
    largest = record("A", "x" * (1000 - len(record("A"))))
    alone.send(2, largest)
    assert alone.owner.records == [largest]
    if fragmented:
        alone.receive(frame(2, b"x" * 999, served, fin=False), frame(0, b"xx", served))
    else:
        alone.send(2, b"x" * 1001)
    assert alone.closed_with()[0] == 1009
    assert (alone.link.close_code, alone.link.ended[:16]) == (1009, "closed with 1009")
    alone.send(2, record("A"))
    assert alone.owner.records == [largest]


@ENDS
def test_a_record_that_grows_above_the_limit_is_malformed_and_the_link_goes_on(
    end: Callable[..., Alone],
) -> None:
    """With the LF that it lacks it would close the link of everyone that it is passed on to."""
    alone = end(dialect=CES1, settings=LinkSettings(message_limit=100))
    fits, grows = b"A\n{%b}\n" % (b"x" * 95), b"A\n{%b}" % (b"x" * 96)
    assert len(fits) == len(grows) == 100
    alone.receive(b"".join(frame(2, one, alone.link.serving) for one in (fits, grows, record("A"))))
    alone.send(2, grows)
    assert alone.owner.records == [fits, record("A")]
    assert (alone.link.connected, alone.link.malformed, alone.link.records_in) == (True, 2, 2)
    assert any("more than 100 bytes" in line for line in alone.lines)


def test_a_large_message_that_arrives_in_many_reads_is_one_message() -> None:
    alone = serving(dialect=CES1)
    message = record("A", "x" * 300_000)
    data = frame(2, message) + frame(2, record("B"))
    for at in range(0, len(data), 1000):
        alone.receive(data[at : at + 1000])
    assert alone.owner.records == [message, record("B")]


@DIALECTS
def test_a_messengers_text_is_a_subscription_change(dialect: str) -> None:
    alone = serving("messenger", dialect)
    alone.send_text({"rooms": ["ITB-1108"], "create": True})
    alone.send_text({})
    assert alone.owner.changes == [SubscriptionChange(["ITB-1108"], True), SubscriptionChange()]


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (serving, "repeater"),
        (serving, "hub"),
        (serving, "outside"),
        (dialling, "hub"),
        (dialling, "messenger"),
    ],
)
def test_text_on_any_other_ces1_link_is_a_record(end: Callable[..., Alone], kind: str) -> None:
    alone = end(kind, CES1)
    alone.send(1, b'ITB-1108\n\n{"key":"power"}')
    assert alone.owner.records == [record("ITB-1108", "power")]
    assert alone.owner.changes == []


@KINDS
@ENDS
def test_text_on_any_ces2_link_is_a_control_message(end: Callable[..., Alone], kind: str) -> None:
    alone = end(kind, CES2)
    alone.send_text({"rooms": ["A"], "create": True})
    alone.send(1, record("A"))
    assert (alone.owner.changes, alone.owner.records) == ([SubscriptionChange(["A"], True)], [])
    assert alone.link.malformed == 1


@DIALECTS
@pytest.mark.parametrize(
    "message",
    ['{"rooms":["{"],"create":true}', '{"rooms":"A"}', "", "[]"],
)
def test_malformed_text_is_counted_and_the_link_goes_on(dialect: str, message: str) -> None:
    alone = serving(dialect=dialect)
    alone.send(1, message.encode())
    alone.send_text({"rooms": ["A"]})
    assert (alone.link.malformed, alone.link.connected, alone.owner.changes) == (
        1,
        True,
        [SubscriptionChange(["A"])],
    )


@ENDS
def test_an_acknowledgement_of_what_was_never_sent_closes_the_link(end: Callable[..., Alone]) -> None:
    alone = end("messenger", CES2)
    alone.send_text({"ack": 5})
    said = "an acknowledgement is out of step: 5 is not between 0 acknowledged and 0 sent records"
    assert alone.closed_with() == (4400, said)


def test_a_control_message_on_a_ces1_link_is_malformed() -> None:
    alone = serving(dialect=CES1)
    alone.send_text({"hello": {"node": "peer"}})
    alone.send_text({"gap": {"lost": 1}})
    assert (alone.link.malformed, alone.owner.changes, alone.link.node) == (2, [], "")
    assert "a control message of ces.2 came on a link that speaks ces.1" in alone.lines[0]


def test_errors_and_gaps_are_logged_at_a_limited_rate() -> None:
    alone = serving()
    for _ in range(20):
        alone.send_text({"error": {"code": 4400, "reason": "no good"}})
        alone.send_text({"gap": {"lost": 3}})
    assert alone.lines == ["messenger peer says: 4400 no good", "messenger peer dropped 3 records for us"]
    assert alone.frames() == []


@DIALECTS
def test_text_that_is_not_utf8_closes_the_link_with_1007(dialect: str) -> None:
    alone = serving(dialect=dialect)
    alone.send(1, b'{"rooms":["\xff"]}')
    assert alone.closed_with()[0] == 1007
    assert alone.link.ended.startswith("closed with 1007")


def test_a_fragmented_message_is_one_message() -> None:
    alone = serving(dialect=CES1)
    message = record("A", "power")
    alone.receive(frame(2, message[:3], fin=False), frame(9, b""), frame(0, message[3:]))
    assert alone.owner.records == [message]
    assert alone.frames() == [(10, b"")]


@pytest.mark.parametrize("call", ["admit", "joined", "received", "told", "detached", "left"])
@DIALECTS
def test_an_owner_that_raises_costs_that_connection_alone(
    call: str, dialect: str, logged_failures: LoggedFailures
) -> None:
    pair = linked(dialect=dialect, served=Recorder("served", fails={call}))
    good = linked(dialect=dialect)
    if pair.served.links and pair.peer.connected:
        pair.link.tell(SubscriptionChange(["A"], True))
        pair.link.put(run("A"))
        pair.uplink.flush()
        pair.settle()
        pair.meeting.dialled.end(1000, "done")
        pair.settle()
    ensureDeferred(pair.uplink.stop())
    pair.network.pass_time(LinkSettings().session_window + 1, step=10)
    assert len(logged_failures.flush(OwnerFailed)) == (
        not (call == "told" and "told" not in pair.served.calls)
    )
    assert pair.served.links == []
    assert pair.served.calls.count("left") == ("joined" in pair.served.calls)
    assert pair.network.getDelayedCalls() == []
    assert good.peer.connected


def test_an_owner_that_raises_when_a_link_is_attached_costs_that_connection_alone(
    logged_failures: LoggedFailures,
) -> None:
    pair = linked(served=Recorder("served", fails={"attached"}))
    pair.cut()
    pair.redial()
    assert len(logged_failures.flush(OwnerFailed)) == 1
    assert not pair.peer.connected
    pair.served.fails.clear()
    pair.redial()
    pair.link.put(run("A"))
    pair.uplink.flush()
    pair.settle()
    assert (pair.served.records, pair.peer.connected) == ([record("A")], True)


@pytest.mark.parametrize("call", ["detached", "left"])
@DIALECTS
def test_an_owner_that_raises_when_silence_ends_a_connection_does_not_stop_the_sweep(
    call: str, dialect: str, logged_failures: LoggedFailures
) -> None:
    alone = serving(owner=Recorder(fails={call}), dialect=dialect)
    beside = serving(side=alone.side)
    alone.clock.pump([1] * 60)
    assert alone.transport.disconnecting
    assert beside.transport.disconnecting
    alone.lose()
    alone.clock.pump([1] * 122)
    assert alone.owner.links == []
    assert len(logged_failures.flush(OwnerFailed)) == 1


LARGE = b"".join(record(f"R{number % 2}", str(number)) for number in range(20_000))
"""Twenty times what is taken at a time."""


def by_turns() -> Alone:
    """A serving connection on a clock that goes on turn by turn."""
    return serving(side=make_side(TurnReactor()))


def paused(alone: Alone) -> bool:
    """Whether nothing is read from the connection."""
    return bool(alone.transport.producerState == "paused")


@ENDS
def test_a_large_message_is_taken_whole(end: Callable[..., Alone]) -> None:
    alone = end()
    alone.send(2, LARGE)
    alone.send(2, record("A", "behind"))
    assert b"".join(alone.owner.records) == LARGE + record("A", "behind")
    assert not paused(alone)


def test_a_large_message_is_taken_piece_by_piece_in_turns_and_what_follows_waits() -> None:
    alone = by_turns()
    alone.receive(frame(2, LARGE) + frame(2, record("A", "behind")))
    turns = []
    while len(alone.owner.records) < 20_001:
        turns.append(len(alone.owner.records))
        assert paused(alone)
        alone.clock.advance(0)
    assert len(turns) > 10
    assert max(later - before for before, later in pairwise(turns)) < 1500
    assert b"".join(alone.owner.records) == LARGE + record("A", "behind")
    assert not paused(alone)
    assert alone.link.session.received == 20_001


def test_of_a_large_message_that_is_cut_the_pieces_taken_count() -> None:
    alone = by_turns()
    alone.receive(frame(2, LARGE))
    alone.clock.advance(0)
    alone.lose()
    alone.clock.advance(1)
    taken = len(alone.owner.records)
    assert 0 < taken < 20_000
    assert alone.link.session.received == taken


def test_nothing_of_a_large_message_is_taken_while_its_link_is_paused() -> None:
    alone = by_turns()
    alone.receive(frame(2, LARGE))
    alone.link.pause()
    taken = len(alone.owner.records)
    alone.clock.advance(5)
    assert len(alone.owner.records) == taken
    alone.link.resume()
    for _ in range(100):
        alone.clock.advance(0)
    assert len(alone.owner.records) == 20_000
    assert not paused(alone)


def test_a_close_behind_a_large_message_comes_when_all_of_it_is_taken() -> None:
    alone = by_turns()
    alone.receive(frame(2, LARGE) + frame(8, b"\x03\xe8"))
    assert alone.link.connected
    for _ in range(100):
        alone.clock.advance(0)
    assert len(alone.owner.records) == 20_000
    assert not alone.link.connected


def test_the_rest_of_a_large_message_is_not_taken_when_this_side_has_closed() -> None:
    alone = by_turns()
    alone.receive(frame(2, LARGE))
    alone.link.end(4400, "enough")
    taken = len(alone.owner.records)
    alone.receive(frame(8, b"\x11\x30"))
    for _ in range(100):
        alone.clock.advance(0)
    assert len(alone.owner.records) == taken
    assert alone.link.over or not alone.link.connected


PINGS = frame(9, b"x") * 1000
PIECES = frame(2, b"A\n", fin=False) + frame(0, b"", fin=False) * 900 + frame(0, b"{}\n")
ACKS = frame(1, b'{"ack":0}') * 1000


@pytest.mark.parametrize(
    ("small", "count"),
    [(PINGS, 1000), (PIECES, 902), (ACKS, 1000), (PINGS + ACKS + PIECES, 2902)],
    ids=["pings", "pieces", "acks", "all"],
)
def test_very_many_small_frames_are_taken_in_turns_and_what_follows_waits(small: bytes, count: int) -> None:
    alone = by_turns()
    alone.receive(small + frame(2, record("B", "behind")))
    turns = 1
    while record("B", "behind") not in alone.owner.records:
        assert paused(alone)
        alone.clock.advance(0)
        turns += 1
    assert count // SMALL_FRAMES <= turns <= 2 * (count // SMALL_FRAMES + 1)
    assert len(alone.owner.records) == 1 + (PIECES in small)
    assert alone.written().count(b"\x8a\x01x") == (1000 if PINGS in small else 0)
    assert not paused(alone)


def test_very_many_small_messages_are_taken_in_turns_and_in_order() -> None:
    alone = by_turns()
    records = [record(f"R{number % 2}", str(number)) for number in range(4 * MESSAGES)]
    large = b"".join(record("L", "x" * 1000) for _ in range(100))
    alone.receive(b"".join(frame(2, one) for one in records) + frame(2, large) + frame(2, record("A")))
    taken = [len(alone.owner.records)]
    while paused(alone):
        alone.clock.advance(0)
        taken.append(len(alone.owner.records))
    assert max(later - before for before, later in pairwise(taken)) == MESSAGES < len(records)
    assert b"".join(alone.owner.records) == b"".join(records) + large + record("A")
    assert alone.link.session.received == len(records) + 101


def test_small_frames_that_are_usual_are_taken_at_once() -> None:
    alone = by_turns()
    alone.receive(frame(9, b"x") * (SMALL_FRAMES - 1) + frame(2, record("B", "behind")))
    assert alone.owner.records == [record("B", "behind")]


def test_one_large_record_is_taken_at_once() -> None:
    alone = serving(settings=LinkSettings(message_limit=2**18))
    alone.receive(frame(2, record("A", "x" * 200_000)))
    assert len(alone.owner.records) == 1
    assert not paused(alone)


def test_a_change_of_very_many_rooms_is_taken_in_steps_and_counts_when_all_is_taken() -> None:
    alone = serving(side=make_side(TurnReactor()), hello="")
    alone.receive(frame(1, b'{"hello":{"node":"x","session":null,"received":0,"changes":0}}'))
    rooms = [f"R{number}" for number in range(9500)]
    alone.send_text({"rooms": rooms, "create": True})
    alone.send(2, record("A", "behind"))
    told = []
    while not alone.owner.records:
        told.append(sum(len(change.rooms) for change in alone.owner.changes))
        assert paused(alone)
        assert alone.link.session.changes == 0
        alone.clock.advance(0)
    assert len(told) > 3
    assert [room for change in alone.owner.changes for room in change.rooms] == rooms
    assert alone.link.session.changes == 1
    assert not paused(alone)


def test_a_change_of_rooms_that_is_cut_in_the_middle_does_not_count() -> None:
    alone = serving(side=make_side(TurnReactor()), hello="")
    alone.receive(frame(1, b'{"hello":{"node":"x","session":null,"received":0,"changes":0}}'))
    alone.send_text({"rooms": [f"R{number}" for number in range(5500)], "create": True})
    alone.lose()
    alone.clock.advance(0)
    assert alone.link.session.changes == 0
    assert len(alone.owner.changes) < 5
