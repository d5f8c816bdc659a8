"""When a side acknowledges what it has received (docs/protocol.md section 5)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.error import ConnectionDone
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from ces.link.serving import ServingFactory
from ces.link.side import FEW, LOOK
from ces.session.session import ACK_BYTES, ACK_RECORDS, ACK_SECONDS
from tests.support.links import (
    UPGRADE,
    Alone,
    Recorder,
    dialling,
    frame,
    make_side,
    read_frames,
    record,
    serving,
)

ENDS = pytest.mark.parametrize("end", [serving, dialling])


def acks(data: bytes) -> list[int]:
    """The acknowledgements among these frames."""
    texts = [json.loads(payload) for opcode, payload in read_frames(data) if opcode == 1]
    return [text["ack"] for text in texts if "ack" in text]


def message(alone: Alone, records: int = 1, text: str = "") -> bytes:
    """A frame with so many records from the other side."""
    return frame(2, record("A", text) * records, masked=alone.connection.serving)


@pytest_twisted.ensureDeferred
async def test_a_serving_side_acknowledges_two_turns_after_the_last_record() -> None:
    """On the reactor itself: a clock of a test has no turns."""
    from twisted.internet import reactor

    side = make_side(reactor)  # type: ignore[arg-type]
    factory = ServingFactory(Recorder(), side, "messenger", reactor)  # type: ignore[arg-type]
    connection: Any = factory.buildProtocol(None)  # type: ignore[arg-type]
    transport = StringTransport()
    connection.makeConnection(transport)
    connection.dataReceived(UPGRADE % b"Sec-WebSocket-Protocol: ces.2\r\n")
    connection.dataReceived(frame(1, b'{"hello":{"node":"peer","session":null,"received":0}}'))
    try:
        for number in range(1, 4):
            transport.clear()
            connection.dataReceived(frame(2, record("A")))
            assert acks(transport.value()) == []
            await deferLater(reactor, 0)  # type: ignore[arg-type]
            assert acks(transport.value()) == []
            await deferLater(reactor, 0)  # type: ignore[arg-type]
            assert acks(transport.value()) == [number]
    finally:
        connection.connectionLost(Failure(ConnectionDone()))
        side.detached.popitem()[0].end(1000, "done")


def test_a_dialling_side_acknowledges_within_a_tenth_of_a_second() -> None:
    alone = dialling()
    alone.receive(message(alone))
    alone.clock.advance(ACK_SECONDS / 2)
    alone.receive(message(alone))
    assert alone.written() == b""
    alone.clock.advance(ACK_SECONDS / 2)
    assert acks(alone.written()) == [2]
    alone.clock.advance(1)
    assert alone.written() == b""


@ENDS
def test_a_flood_is_acknowledged_at_once_after_256_records(end: Callable[..., Alone]) -> None:
    alone = end()
    alone.written()
    for _ in range(ACK_RECORDS - 1):
        alone.connection.dataReceived(message(alone))
    assert alone.written() == b""
    alone.connection.dataReceived(message(alone))
    assert acks(alone.written()) == [ACK_RECORDS]
    alone.connection.dataReceived(message(alone, records=3 * ACK_RECORDS))
    assert acks(alone.written()) == [4 * ACK_RECORDS], "not in the middle of what was read at once"


@ENDS
def test_a_flood_is_acknowledged_at_once_after_256_kibibytes(end: Callable[..., Alone]) -> None:
    alone = end()
    alone.written()
    half = message(alone, text="x" * (ACK_BYTES // 2))
    alone.connection.dataReceived(half)
    assert alone.written() == b""
    alone.connection.dataReceived(half)
    assert acks(alone.written()) == [2]


def test_a_serving_side_on_which_more_and_more_comes_acknowledges_after_a_tenth_of_a_second() -> None:
    alone = serving()
    clock = alone.clock

    def trickle() -> None:
        alone.connection.dataReceived(message(alone))
        if clock.seconds() < 1.5 * ACK_SECONDS:
            clock.callLater(0.001, trickle)

    trickle()
    # In the turn before the first look, which so sees that more has come.
    clock.callLater(0, alone.connection.dataReceived, message(alone))
    while not (came := acks(alone.written())):
        clock.advance(0.0005)
    assert clock.seconds() == pytest.approx(ACK_SECONDS, abs=0.002)
    assert 1 < came[0] < ACK_RECORDS
    clock.advance(1)
    assert acks(alone.written())[-1] == alone.connection.session.received


@ENDS
def test_what_waits_for_room_is_acknowledged_when_there_is_room(end: Callable[..., Alone]) -> None:
    alone = end()
    alone.written()
    alone.connection.pauseProducing()
    alone.receive(message(alone, records=2 * ACK_RECORDS), message(alone))
    alone.clock.advance(1)
    assert alone.written() == b""
    alone.connection.resumeProducing()
    assert acks(alone.written()) == [2 * ACK_RECORDS + 1]


FULL = pytest.mark.parametrize("full", [False, True], ids=["room", "no room"])


@ENDS
@FULL
@pytest.mark.parametrize("code", [1000, 4001, 4409, 4400])
def test_all_that_was_taken_is_acknowledged_before_a_close(
    end: Callable[..., Alone], code: int, full: bool
) -> None:
    """Also when the transport is full: it could not be said later."""
    alone = end()
    alone.written()
    if full:
        alone.connection.pauseProducing()
    alone.connection.dataReceived(message(alone))
    alone.connection.end(code, "done")
    assert [opcode for opcode, _ in read_frames(alone.transport.value())] == [1, 8]
    assert acks(alone.written()) == [1]


@ENDS
@FULL
def test_all_that_was_taken_is_acknowledged_before_the_answer_to_a_close(
    end: Callable[..., Alone], full: bool
) -> None:
    alone = end()
    alone.written()
    if full:
        alone.connection.pauseProducing()
    alone.connection.dataReceived(message(alone) + frame(8, b"\x03\xe8", masked=alone.connection.serving))
    assert [opcode for opcode, _ in read_frames(alone.transport.value())] == [1, 8]
    assert acks(alone.written()) == [1]


def test_a_side_with_nothing_to_acknowledge_leaves_nothing_on_the_clock() -> None:
    alone = serving()
    before = len(alone.clock.getDelayedCalls())
    alone.connection.dataReceived(message(alone))
    alone.clock.advance(0)
    assert acks(alone.written()) == [1]
    alone.clock.advance(ACK_SECONDS)
    assert len(alone.clock.getDelayedCalls()) == before


def test_where_many_publish_at_once_none_is_acknowledged_in_the_next_turn_but_one() -> None:
    clock = MemoryReactorClock()
    side = make_side(clock)
    alone = [serving(side=side, hello=f"peer-{number}") for number in range(FEW + 1)]
    for one in alone:
        one.connection.dataReceived(message(one))
    clock.advance(0)
    clock.advance(0)
    assert [acks(one.written()) for one in alone] == [[]] * len(alone)
    clock.advance(LOOK)
    assert [acks(one.written()) for one in alone] == [[1]] * len(alone)
