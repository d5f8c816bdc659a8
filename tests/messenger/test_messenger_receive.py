"""What a messenger does with what arrives: callbacks, `receive`, `async for`, and bounds."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError

from ces.event import Event
from ces.messenger import Closed, Received, TooManyWaiting
from ces.model.wire import CES1, CES2
from tests.support.links import Lines
from tests.support.messengers import Told, connected, event, record, run_coroutine


def keys(told: list[tuple[Event, str]]) -> list[str]:
    return [found.key for found, _ in told]


class Taken(list[tuple[Event, str]]):
    """A callback that keeps what it is called with."""

    def __call__(self, found: Event, room: str) -> None:
        self.append((found, room))


# -- callbacks -----------------------------------------------------------------------------------------------


def test_on_event_is_called_with_each_event_and_the_room_of_its_record() -> None:
    messenger, wire, _ = connected(["*"])
    taken = Taken()
    assert messenger.on_event(taken) is taken
    wire.send(record("one"), record("two", "BNSN-W002"), record("blank", ""))
    assert taken == [
        (event("one"), "ITB-1108"),
        (event("two", "BNSN-W002"), "BNSN-W002"),
        (event("blank", ""), ""),
    ]
    assert messenger.counters["received"] == 3
    Told(messenger.close())


def test_batches_of_ces_2_arrive_event_by_event_in_order() -> None:
    messenger, wire, _ = connected(["*"], CES2)
    taken = Taken()
    messenger.on_event(taken)
    wire.send(record("one") + record("two") + record("three", "B"), record("four"))
    assert keys(taken) == ["one", "two", "three", "four"]
    Told(messenger.close())


def test_records_as_go_hubs_write_them_are_read() -> None:
    messenger, wire, _ = connected(["*"])
    taken = Taken()
    messenger.on_event(taken)
    wire.send(b'ITB-1108\n\n\n{"key":"power",\n  "value":"on"}', b'\n\n{"key":"blank"}\n')
    assert [(found.key, room) for found, room in taken] == [("power", "ITB-1108"), ("blank", "")]
    Told(messenger.close())


def test_on_record_is_called_with_the_event_and_its_room_as_the_bytes_that_came() -> None:
    messenger, wire, _ = connected(["*"])
    taken: list[tuple[bytes, bytes]] = []
    messenger.on_record(lambda event, room: taken.append((event, room)))
    wire.send(b'ITB-1108\n{"key": 1, "\xc3\xa4": 2}\n')
    assert taken == [(b'{"key": 1, "\xc3\xa4": 2}', b"ITB-1108")]
    assert messenger.counters["malformed"] == 0
    Told(messenger.close())


def test_a_callback_that_raises_costs_neither_other_callbacks_nor_other_events() -> None:
    lines = Lines()
    messenger, wire, _ = connected(["*"], lines=lines)
    del lines[:]
    taken, records = Taken(), []

    @messenger.on_event
    def broken(found: Event, room: str) -> None:
        raise ZeroDivisionError

    @messenger.on_record
    def broken_too(text: bytes, room: bytes) -> None:
        records.append(text)
        raise ZeroDivisionError

    messenger.on_event(taken)
    wire.send(record("one"), record("two"))
    assert keys(taken) == ["one", "two"]
    assert len(records) == 2
    assert wire.alive
    assert messenger.counters["failures"] == 4
    assert len(lines) == 1, "logged at a limited rate"
    assert "broken_too raised (1 so far)\nTraceback" in lines[0]
    Told(messenger.close())


def test_what_is_no_event_is_counted_logged_and_skipped() -> None:
    lines = Lines()
    messenger, wire, _ = connected(["*"], lines=lines)
    del lines[:]
    taken = Taken()
    messenger.on_event(taken)
    wire.send(b'A\n{"key":"volume","value":30}\n', b"A\n{]\n", record("good"))
    assert keys(taken) == ["good"]
    assert messenger.counters["malformed"] == 2
    assert lines == [
        "a record for room 'A' holds no v2 event: `$.value`: expected `str`, got `int` (1 so far)",
    ]
    Told(messenger.close())


def test_a_callback_that_is_forgotten_is_called_no_more() -> None:
    messenger, wire, _ = connected(["*"])
    taken = Taken()
    records: list[bytes] = []

    @messenger.on_record
    def keep(text: bytes, room: bytes) -> None:
        records.append(text)

    messenger.on_event(taken)
    wire.send(record("one"))
    messenger.forget(taken)
    messenger.forget(keep)
    wire.send(record("two"))
    assert keys(taken) == ["one"]
    assert len(records) == 1
    Told(messenger.close())


def test_an_async_callback_is_refused_with_what_to_do_instead() -> None:
    messenger, _, _ = connected()

    async def taken(found: Event, room: str) -> None:
        raise AssertionError

    with pytest.raises(TypeError, match=r"taken is async; loop over `async for event in messenger` instead"):
        messenger.on_event(taken)
    Told(messenger.close())


# -- receive -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", [CES1, CES2])
def test_receive_gives_what_has_come_at_once_and_waits_for_what_will(dialect: str) -> None:
    messenger, wire, _ = connected(["*"], dialect)
    wire.send(record("early"))
    assert Told(messenger.receive()).result == event("early")
    waiting = [Told(messenger.receive()) for _ in range(3)]
    assert not any(told.fired for told in waiting)
    wire.send(record("one"), record("two"))
    assert [told.result for told in waiting] == [event("one"), event("two"), None]
    wire.send(record("three"))
    assert waiting[2].result == event("three")
    Told(messenger.close())


def test_a_receive_that_an_event_leads_to_waits_behind_those_that_wait() -> None:
    messenger, wire, _ = connected(["*"], CES2)
    again: list[Told] = []
    messenger.receive().addCallback(lambda _: again.append(Told(messenger.receive())))
    second = Told(messenger.receive())
    wire.send(record("one") + record("two") + record("three"))
    assert second.result == event("two")
    assert again[0].result == event("three")
    Told(messenger.close())


def test_receive_record_gives_the_bytes_and_shares_the_order_with_receive() -> None:
    messenger, wire, _ = connected(["*"])
    waiting = [
        Told(messenger.receive_record()),
        Told(messenger.receive()),
        Told(messenger.receive_record()),
    ]
    wire.send(b"A\n{]\n", b"B\n{]\n", record("good"), b"C\n{}\n")
    assert waiting[0].result == Received(b"{]", b"A")
    assert waiting[1].result == event("good"), "what is no event is skipped"
    assert waiting[2].result == Received(b"{}", b"C")
    assert messenger.counters["malformed"] == 1
    Told(messenger.close())


def test_a_receive_that_was_cancelled_takes_no_event() -> None:
    messenger, wire, network = connected(["*"])
    impatient = Told(messenger.receive().addTimeout(1, network))
    first = messenger.receive()
    cancelled = Told(first)
    last = Told(messenger.receive())
    first.cancel()
    network.advance(1)
    wire.send(record("one"))
    assert isinstance(cancelled.error, CancelledError)
    assert impatient.error is not None
    assert last.result == event("one")
    Told(messenger.close())


def test_no_more_receive_wait_than_were_allowed() -> None:
    messenger, _, _ = connected(["*"], waits=2)
    waiting = [Told(messenger.receive()), Told(messenger.receive())]
    with pytest.raises(TooManyWaiting, match="2 already wait"):
        messenger.receive()
    Told(messenger.close())
    assert not any(told.fired for told in waiting), "the connection has not gone yet"


def test_the_inbox_drops_the_oldest_counts_them_and_says_so_once() -> None:
    lines = Lines()
    size = len(record("0"))
    messenger, wire, _ = connected(["*"], lines=lines, inbox=3 * size)
    del lines[:]
    for key in "012345":
        wire.send(record(key))
    assert messenger.counters["unread"] == 3
    assert lines == ["the inbox is full, events dropped unread: 1 (1 so far); receive faster"]
    assert [Told(messenger.receive()).result.key for _ in "345"] == ["3", "4", "5"]
    assert not Told(messenger.receive()).fired
    Told(messenger.close())


def test_an_application_with_callbacks_alone_fills_no_inbox_until_it_asks() -> None:
    messenger, wire, _ = connected(["*"])
    messenger.on_event(Taken())
    wire.send(record("one"))
    waiting = Told(messenger.receive())
    assert not waiting.fired
    wire.send(record("two"), record("three"))
    assert waiting.result == event("two")
    assert Told(messenger.receive()).result == event("three")
    Told(messenger.close())


def test_a_loop_gets_every_event_until_the_messenger_is_closed() -> None:
    messenger, wire, network = connected(["*"])
    seen: list[str] = []

    async def loop() -> str:
        async for found in messenger:
            seen.append(found.key)
        return "ended"

    looping = run_coroutine(loop())
    wire.send(record("one"), record("two"))
    wire.cut()
    network.redial()
    wire = network.dial.accept()
    wire.send(record("three"))
    assert seen == ["one", "two", "three"]
    Told(messenger.close())
    network.settle()
    assert looping.result == "ended"


def test_what_had_arrived_before_the_close_can_be_received_after_it() -> None:
    messenger, wire, network = connected(["*"])
    wire.send(record("one"), record("two"))
    Told(messenger.close())
    network.settle()
    assert Told(messenger.receive()).result == event("one")
    assert Told(messenger.receive_record()).result.room == b"ITB-1108"
    assert isinstance(Told(messenger.receive()).error, Closed)


def test_a_receive_that_waits_when_the_messenger_is_closed_fails() -> None:
    messenger, _, network = connected(["*"])
    waiting = Told(messenger.receive())
    Told(messenger.close())
    network.settle()
    assert isinstance(waiting.error, Closed)


def test_a_callback_may_close_the_messenger() -> None:
    messenger, wire, network = connected(["*"])
    closed: list[Told] = []

    @messenger.on_event
    def done(found: Event, room: str) -> None:
        if found.key == "last":
            closed.append(Told(messenger.close()))

    wire.send(record("one"), record("last"))
    network.settle()
    assert closed[0].fired
    assert network.getDelayedCalls() == []
