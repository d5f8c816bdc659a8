"""Inbox and what has been sent, against obvious slow models, and Deferreds that wait in turn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from ces.messenger import Closed, Dropped, TooManyWaiting
from ces.messenger.inbox import Inbox, Received
from ces.messenger.outgoing import Outgoing
from ces.messenger.sendable import Sending
from ces.messenger.waiting import Waiting
from ces.model.wire import Run
from tests.support.links import make_side
from tests.support.messengers import Told

pytestmark = pytest.mark.usefixtures("bare_records")

rooms = st.sampled_from([b"", b"A", b"ITB-1108"])
events = st.integers(0, 30).map(lambda size: b'{"k":"%b"}' % (b"x" * size))


def make(room: bytes, texts: list[bytes]) -> Run:
    return Run(room, [b"%b\n%b\n" % (room, text) for text in texts])


# None reads one record, a pair puts a run.
inbox_steps = st.lists(st.none() | st.tuples(rooms, st.lists(events, min_size=1, max_size=4)), max_size=40)


@given(inbox_steps, st.integers(0, 200))
def test_the_inbox_is_a_list_that_loses_its_oldest_runs(
    steps: list[tuple[bytes, list[bytes]] | None], limit: int
) -> None:
    inbox = Inbox(limit)
    model: list[list[Received]] = []
    dropped = 0

    def size() -> int:
        return sum(len(room) + len(text) + 2 for run in model for text, room in run)

    for step in steps:
        if step is not None:
            room, texts = step
            model.append([Received(text, room) for text in texts])
            lost = 0
            while size() > limit and len(model) > 1:
                lost += len(model.pop(0))
            assert inbox.put(make(room, texts)) == lost
            dropped += lost
        elif model:
            assert inbox.take() == model[0].pop(0)
            if not model[0]:
                del model[0]
        assert bool(inbox) == bool(model)
        assert len(inbox) == sum(len(run) for run in model)
        assert (inbox.bytes, inbox.dropped) == (size(), dropped)


def make_outgoing(clock: Clock, limit: int = 10_000) -> tuple[Outgoing, list[int]]:
    """What has been sent, without a copy on disk, and how many records it said to be lost each time."""
    lost: list[int] = []
    return Outgoing(make_side(clock), limit, "", 1000, lost.append), lost


# A number takes so many bytes, a negative one acknowledges so many records, an event is put, None lets a turn
# pass. What was taken at once leaves at once: when all of it is acknowledged.
outgoing_steps = st.lists(st.none() | st.integers(-3, 100) | events, max_size=60)


@given(outgoing_steps, st.integers(0, 150), st.booleans())
def test_each_send_hears_once_what_became_of_its_record(
    steps: list[bytes | int | None], limit: int, acknowledged: bool
) -> None:
    clock = Clock()
    outgoing, lost = make_outgoing(clock, limit)
    queue = outgoing.queue
    queue.restart(acknowledged)
    waiting: list[tuple[Run, Told]] = []
    in_flight: list[list[tuple[Run, Told]]] = []
    handed: list[Told] = []
    dropped: list[Told] = []

    def left() -> list[tuple[Run, Told]]:
        return [one for batch in in_flight for one in batch] + waiting

    def size() -> int:
        return sum(run.size for run, _ in left())

    for step in steps:
        if isinstance(step, bytes):
            run = Sending(b"A", [step])
            waiting.append((run, Told(outgoing.put(run))))
            while size() > limit:
                dropped.append(waiting.pop(0)[1])
        elif step is None:
            clock.advance(0)
            assert all(told.fired for told in handed + dropped)
        elif step >= 0:
            _, taken = queue.take(step)
            assert taken == [run for run, _ in waiting[: len(taken)]]
            in_flight.append(waiting[: len(taken)])
            del waiting[: len(taken)]
        else:
            queue.acknowledge(min(queue.acknowledged - step, queue.sent))
        while in_flight and len(handed) + len(in_flight[0]) <= queue.acknowledged:
            handed += [told for _, told in in_flight.pop(0)]
        assert outgoing.waiting == size() <= limit
        assert outgoing.records == len(left())
        assert queue.dropped == len(dropped)
        assert not any(told.fired for _, told in left())
    outgoing.close()
    dropped += [told for _, told in left()]
    assert all(told.fired and told.error is None for told in handed)
    assert all(isinstance(told.error, Dropped) for told in dropped)
    assert sum(lost) == queue.dropped == len(dropped)
    assert clock.getDelayedCalls() == []


@given(st.lists(events, max_size=10), st.lists(st.integers(0, 10), max_size=10))
def test_emptied_fires_when_what_was_put_before_it_has_left(puts: list[bytes], asks: list[int]) -> None:
    clock = Clock()
    outgoing, _ = make_outgoing(clock)
    asked: list[tuple[int, Told]] = []
    for count, text in enumerate(puts):
        asked += [(count, Told(outgoing.emptied())) for ask in asks if ask == count]
        outgoing.put(Sending(b"A", [text]))
    while True:
        clock.advance(0)
        assert all(told.fired == (outgoing.records_left >= count) for count, told in asked)
        if not outgoing.records:
            break
        outgoing.queue.take(0)


def test_what_is_closed_is_empty() -> None:
    outgoing, _ = make_outgoing(Clock())
    outgoing.put(Sending(b"A", [b"{}"]))
    told = Told(outgoing.emptied())
    outgoing.close()
    assert told.fired and told.error is None, "what was dropped waits no more"


def test_those_that_wait_are_served_in_turn_and_no_more_than_were_allowed_wait() -> None:
    waiting: Waiting[str, int] = Waiting(2)
    first, second = waiting.wait(1), waiting.wait(2)
    with pytest.raises(TooManyWaiting):
        waiting.wait(3)
    assert (len(waiting), waiting.first()) == (2, 1)
    assert waiting.pop() is first
    told = Told(second)
    waiting.fail(Closed())
    assert isinstance(told.error, Closed)
    assert len(waiting) == 0
