"""What a messenger does with what is sent: forms of events, the spool, flush, one-shot use."""

from __future__ import annotations

import builtins
import gc
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from twisted.internet import defer

from ces.event import Device, Event
from ces.messenger import Dropped, Kept, Messenger, NotSent, TimedOut, TooManyWaiting, Unconfirmed, send_once
from ces.model.wire import CES1, CES2
from tests.support.links import Lines
from tests.support.logged import LoggedFailures
from tests.support.messengers import Told, connected, event, make_messenger, record
from tests.support.network import ATTEMPT, BINARY, Network

KEYS = ["one", "two", "three"]
RECORD_WITHOUT_ROOM = (
    b'\n{"generating-system":"","timestamp":"noon","event-tags":[],"target-device":{},'
    b'"affected-room":{},"key":"power","value":"","user":""}\n'
)


# -- on the wire ---------------------------------------------------------------------------------------------


def test_on_a_ces_1_link_each_event_is_a_message() -> None:
    messenger, wire, network = connected()
    sent = [Told(messenger.send(event(key))) for key in KEYS]
    assert wire.messages() == [] and not any(told.fired for told in sent)
    network.settle()
    assert wire.messages() == [record(key) for key in KEYS]
    assert all(told.fired and told.error is None for told in sent)
    assert messenger.counters["sent"] == 3
    Told(messenger.close())


def test_on_a_ces_2_link_what_is_sent_in_one_turn_is_one_message() -> None:
    messenger, wire, network = connected(dialect=CES2)
    for key in KEYS:
        messenger.send(event(key))
    network.settle()
    assert wire.messages() == [b"".join(record(key) for key in KEYS)]
    Told(messenger.close())


# -- forms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "room", "expected"),
    [
        (event("power"), None, record("power")),
        (event("power"), "B", b"B\n" + event("power").to_json() + b"\n"),
        (event("power", ""), "", b"\n" + event("power", "").to_json() + b"\n"),
        (
            Event(target_device=Device.of("ITB-1108-D1"), timestamp="noon"),
            None,
            b"ITB-1108\n" + Event(target_device=Device.of("ITB-1108-D1"), timestamp="noon").to_json() + b"\n",
        ),
        (
            {"key": "power", "timestamp": "noon", "affected-room": {"roomID": "A"}, "shade": "dim"},
            None,
            b'A\n{"generating-system":"","timestamp":"noon","event-tags":[],"target-device":{},'
            b'"affected-room":{"roomID":"A"},"key":"power","value":"","user":"","shade":"dim"}\n',
        ),
        ({"key": "power", "timestamp": "noon"}, "", RECORD_WITHOUT_ROOM),
        (b'{"key": 1}', "A", b'A\n{"key": 1}\n'),
        (b' {"affected-room":\n{"roomID":"A"}}\n', None, b'A\n{"affected-room": {"roomID":"A"}}\n'),
        (b'{"target-device":{"roomID":"A"}}', None, b'A\n{"target-device":{"roomID":"A"}}\n'),
        ('{"key": "Größe"}', "", '\n{"key": "Größe"}\n'.encode()),
        ('{"key": "x"}', "Straße", 'Straße\n{"key": "x"}\n'.encode()),
    ],
)
def test_events_mappings_and_json_are_sent_for_the_room_they_name(
    what: Any, room: str | None, expected: bytes
) -> None:
    messenger, wire, network = connected()
    messenger.send(what, room)
    network.settle()
    assert wire.messages() == [expected]
    Told(messenger.close())


@pytest.mark.parametrize("what", [Event(), {"timestamp": ""}, {"timestamp": None}, {"shade": "dim"}])
def test_an_event_without_a_time_stamp_is_stamped_with_the_present_time(what: Any) -> None:
    messenger, wire, network = connected()
    messenger.send(what, "A")
    network.settle()
    (message,) = wire.messages()
    assert json.loads(message.split(b"\n")[1])["timestamp"] == "2026-11-23T08:00:00Z"
    Told(messenger.close())


def test_the_present_time_is_the_wall_clock_s() -> None:
    network = Network()
    messenger = Messenger("hub", reactor=network)
    before = datetime.now(UTC)
    messenger.send(Event(), "A")
    messenger.connect()
    (message,) = network.dial.accept().messages()
    time = Event.from_json(message.split(b"\n")[1]).time
    assert time is not None and before <= time <= datetime.now(UTC)
    Told(messenger.close())


def test_json_is_sent_without_a_time_stamp_when_it_has_none() -> None:
    messenger, wire, network = connected()
    messenger.send(b'{"key":"power","timestamp":""}', "A")
    messenger.send('{"key":"power"}', "A")
    network.settle()
    assert wire.messages() == [b'A\n{"key":"power","timestamp":""}\n', b'A\n{"key":"power"}\n']
    Told(messenger.close())


@pytest.mark.parametrize(
    "what",
    [
        Event(key="power"),
        Event(key="power", target_device=Device(device_id="D1")),
        {"key": "power"},
        {"key": "power", "affected-room": {"roomID": ""}},
        b'{"key": "power"}',
        '{"key": "power", "affected-room": null}',
    ],
)
def test_an_event_that_names_no_room_is_refused_unless_the_caller_names_one(what: Any) -> None:
    messenger, wire, network = connected()
    with pytest.raises(ValueError) as caught:
        messenger.send(what)
    assert str(caught.value) == (
        'the event names no room: set its affected room or pass room=; room="" sends it to the blank room'
    )
    for room in ("", "A"):
        messenger.send(what, room)
    network.settle()
    assert [message.split(b"\n")[0] for message in wire.messages()] == [b"", b"A"]
    Told(messenger.close())


@pytest.mark.parametrize("room", [b"A", ["A"], 7])
def test_a_room_that_is_no_text_is_a_type_error(room: Any) -> None:
    messenger, wire, network = connected()
    with pytest.raises(TypeError, match=r"^a room is a str, not "):
        messenger.send(event("power"), room)
    network.settle()
    assert wire.messages() == []
    Told(messenger.close())


@pytest.mark.parametrize(
    ("what", "room", "sentence"),
    [
        ({"value": 30}, "A", r"`\$.value`: expected `str`, got `int`"),
        ({"data": object()}, "A", "cannot be written as JSON"),
        (Event(data=object()), "A", "cannot be written as JSON"),
        (b"[1]", None, "Expected `object`, got `array`"),
        (b"nothing", "A", "does not begin with '{'"),
        (b'{"key": ', None, "truncated"),
        ('{"key": "\ud800"}', "A", "surrogates not allowed"),
        (event("power"), "*", "which is for subscriptions only"),
        (event("power"), "a\nb", "control character"),
        (event("power", "x" * 256), None, "256 bytes long; 255 are allowed"),
        (Event(value="x" * 2**20), "A", r"makes a record of \d+ bytes; at most 1048576 may be sent"),
    ],
)
def test_what_cannot_be_sent_is_refused_at_once_in_one_sentence(
    what: Any, room: str | None, sentence: str
) -> None:
    messenger, wire, network = connected()
    with pytest.raises(ValueError, match=sentence):
        messenger.send(what, room)
    network.settle()
    assert wire.messages() == []
    Told(messenger.close())


@pytest.mark.parametrize("what", [7, None, ["key", "power"]])
def test_what_is_no_kind_of_event_is_a_type_error(what: Any) -> None:
    messenger, wire, network = connected()
    with pytest.raises(TypeError, match="expected an Event, a dict, or JSON as bytes or str"):
        messenger.send(what, "A")
    network.settle()
    assert wire.messages() == []
    Told(messenger.close())


# -- the spool -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", [CES1, CES2])
def test_what_is_sent_without_a_link_goes_out_in_order_when_there_is_one(dialect: str) -> None:
    network = Network()
    messenger = make_messenger(network, ["A"])
    sent = [Told(messenger.send(event("before connect")))]
    messenger.connect()
    sent.append(Told(messenger.send(event("while dialling"))))
    network.dial.refuse()
    sent.append(Told(messenger.send(event("while waiting"))))
    network.redial()
    assert not any(told.fired for told in sent)
    wire = network.dial.accept(dialect)
    expected = [record(key) for key in ("before connect", "while dialling", "while waiting")]
    assert b"".join(wire.messages()) == b"".join(expected)
    assert all(told.fired and told.error is None for told in sent)
    opcodes = [opcode for opcode, _ in wire.written]
    assert opcodes.index(BINARY) == len(opcodes) - len(wire.messages()), "the rooms are told first"
    Told(messenger.close())


def test_the_spool_keeps_its_bound_to_the_byte_and_drops_the_oldest() -> None:
    lines = Lines()
    network = Network()
    size = len(record("0"))
    messenger = make_messenger(network, lines=lines, spool=3 * size)
    sent = [Told(messenger.send(event(key))) for key in "012345"]
    assert messenger.status()["spool-utilization"] == 3 * size
    network.settle()
    assert [isinstance(told.error, Dropped) for told in sent] == [True] * 3 + [False] * 3
    assert messenger.counters["dropped"] == 3
    assert lines == ["events for ws://hub:7100 dropped unsent: 3 (3 so far)"]
    messenger.connect()
    wire = network.dial.accept()
    assert wire.messages() == [record(key) for key in "345"]
    assert [told.fired for told in sent] == [True] * 6
    Told(messenger.close())


def test_a_drop_that_nobody_looks_at_is_not_an_unhandled_error(logged_failures: LoggedFailures) -> None:
    network = Network()
    messenger = make_messenger(network, spool=0)
    for key in KEYS:
        messenger.send(event(key))
    network.settle()
    Told(messenger.close())
    messenger.send(event("closed"))
    gc.collect()
    assert logged_failures.flush() == []
    assert messenger.counters["dropped"] == 4


def test_dropped_and_kept_are_both_events_that_were_not_sent() -> None:
    assert issubclass(Dropped, NotSent) and issubclass(Kept, NotSent)
    assert not issubclass(Kept, Dropped) and not issubclass(Dropped, Kept)


def test_who_looks_later_still_gets_the_drop() -> None:
    network = Network()
    messenger = make_messenger(network, spool=0)
    sent = messenger.send(event("power"))
    network.settle()
    assert isinstance(Told(sent).error, Dropped)
    Told(messenger.close())


def test_an_error_of_the_application_s_own_callback_is_reported(logged_failures: LoggedFailures) -> None:
    network = Network()
    messenger = make_messenger(network, spool=0)
    messenger.send(event("power")).addErrback(lambda failure: 1 / 0)
    network.settle()
    gc.collect()
    assert len(logged_failures.flush(ZeroDivisionError)) == 1
    Told(messenger.close())


def test_to_cancel_a_send_does_not_take_the_event_back() -> None:
    messenger, wire, network = connected()
    sent = messenger.send(event("power"))
    told = Told(sent)
    sent.cancel()
    network.settle()
    assert isinstance(told.error, defer.CancelledError)
    assert wire.messages() == [record("power")]
    Told(messenger.close())


def test_a_send_after_close_is_dropped_and_raises_nothing() -> None:
    messenger, _, network = connected()
    Told(messenger.close())
    network.settle()
    told = Told(messenger.send(event("late")))
    assert isinstance(told.error, Dropped)
    assert messenger.counters["dropped"] == 1
    assert network.getDelayedCalls() == []


def test_what_a_send_leads_to_is_sent_behind_what_was_waiting() -> None:
    messenger, wire, network = connected()
    messenger.send(event("one")).addCallback(lambda _: messenger.send(event("three")))
    messenger.send(event("two"))
    network.settle()
    assert wire.messages() == [record(key) for key in KEYS]
    Told(messenger.close())


def test_a_transport_that_is_full_makes_events_wait_in_order() -> None:
    messenger, wire, network = connected()
    wire.producer.pauseProducing()
    sent = [Told(messenger.send(event(key))) for key in KEYS]
    network.settle()
    assert wire.messages() == [] and not any(told.fired for told in sent)
    wire.producer.resumeProducing()
    network.settle()
    assert wire.messages() == [record(key) for key in KEYS]
    assert all(told.fired for told in sent)
    Told(messenger.close())


def test_what_waited_for_a_full_transport_goes_out_on_the_next_link() -> None:
    messenger, wire, network = connected()
    wire.producer.pauseProducing()
    messenger.send(event("waits"))
    network.settle()
    wire.cut()
    network.redial()
    assert network.dial.accept().messages() == [record("waits")]
    Told(messenger.close())


# -- flush ---------------------------------------------------------------------------------------------------


def test_flush_fires_when_all_that_was_sent_before_it_has_left() -> None:
    messenger, wire, network = connected()
    assert Told(messenger.flush()).fired, "nothing waits"
    wire.producer.pauseProducing()
    messenger.send(event("one"))
    flushed = Told(messenger.flush())
    network.settle()
    assert not flushed.fired
    wire.producer.resumeProducing()
    network.settle()
    assert flushed.fired and flushed.error is None
    assert network.getDelayedCalls() != [], "the silence of the link is watched"
    Told(messenger.close())
    network.settle()
    assert network.getDelayedCalls() == []


def test_flush_fires_when_what_it_waited_for_was_dropped() -> None:
    network = Network()
    size = len(record("0"))
    messenger = make_messenger(network, spool=size)
    messenger.send(event("0"))
    flushed = Told(messenger.flush())
    messenger.send(event("1"))
    network.settle()
    assert flushed.fired and flushed.error is None
    Told(messenger.close())


@pytest.mark.parametrize("kind", [builtins.TimeoutError, defer.TimeoutError])
def test_flush_that_takes_too_long_says_why_and_takes_nothing_back(kind: type[Exception]) -> None:
    network = Network()
    messenger = make_messenger(network)
    messenger.connect()
    network.dial.refuse()
    network.advance(ATTEMPT)
    sent = Told(messenger.send(event("0")))
    flushed = Told(messenger.flush(timeout=0.25))
    network.advance(0.3)
    assert isinstance(flushed.error, kind)
    assert str(flushed.error) == (
        "1 not sent within 0.25 s: the link to ws://hub:7100 is waiting: "
        "Connection was refused by other side: Connection refused"
    )
    network.redial()
    network.dial.accept()
    assert sent.fired and sent.error is None
    Told(messenger.close())


def test_a_flush_may_be_cancelled() -> None:
    network = Network()
    messenger = make_messenger(network)
    messenger.send(event("0"))
    flush = messenger.flush()
    told = Told(flush)
    flush.cancel()
    assert isinstance(told.error, defer.CancelledError)
    Told(messenger.close())
    network.settle()
    assert network.getDelayedCalls() == []


def test_no_more_flush_wait_than_were_allowed() -> None:
    messenger = make_messenger(Network(), waits=1)
    messenger.send(event("0"))
    first = Told(messenger.flush())
    assert isinstance(Told(messenger.flush()).error, TooManyWaiting)
    assert not first.fired
    closed = Told(messenger.close())
    assert closed.fired and closed.error is None


# -- once ----------------------------------------------------------------------------------------------------


def test_send_once_connects_sends_and_closes() -> None:
    network = Network()
    done = Told(send_once("hub", event("power"), reactor=network))
    wire = network.dial.accept()
    assert wire.messages() == [record("power")]
    network.settle()
    assert done.fired and done.error is None
    assert not wire.alive
    assert network.getDelayedCalls() == []


def test_send_once_gives_up_in_time_and_says_why() -> None:
    network = Network()
    done = Told(send_once("hub", event("power"), reactor=network, timeout=0.5))
    network.dial.refuse()
    network.advance(ATTEMPT)
    network.advance(0.3)
    assert isinstance(done.error, TimedOut)
    assert "the link to ws://hub:7100 is waiting: Connection was refused" in str(done.error)
    assert network.getDelayedCalls() == []


def test_send_once_fails_when_the_hub_may_not_have_read_the_event() -> None:
    network = Network()
    done = Told(send_once("hub", event("power"), reactor=network))
    wire = network.dial.connected()
    wire.closes = False
    wire.answer(CES1)
    assert wire.messages() == [record("power")]
    wire.cut()
    network.settle()
    assert isinstance(done.error, Unconfirmed)
    assert network.getDelayedCalls() == []


def test_send_once_refuses_what_is_no_event_without_dialling() -> None:
    network = Network()
    done = Told(send_once("hub", {"value": 30}, reactor=network))
    assert isinstance(done.error, ValueError)
    assert network.dials == []
