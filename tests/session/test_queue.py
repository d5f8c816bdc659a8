"""Send queues: a model of every way that a record can go, and the edges one by one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ces.model.patterns import Rooms
from ces.model.wire import Run, mixed
from ces.session.queue import BARE, ROOMS, OutOfStep, SendQueue, Tally

pytestmark = pytest.mark.usefixtures("bare_records")

LIMIT = 1000
SIZES = st.integers(1, 200)
PARTS = st.sampled_from([0.5, 0.8, 1.0, 0.0])
MOSTLY = st.sampled_from([True, True, True, False])
Item = tuple[str, int]
"""("record", its number) or ("gap", how many records)."""


def preferred(run: Run) -> Run | None:
    """Records whose number is even outlive the others."""
    kept = [record for record in run.records if number_of(record) % 2 == 0]
    if len(kept) == run.count:
        return run
    return Run(run.room, kept) if kept else None


def number_of(record: bytes) -> int:
    return int(record.split(b"\n")[1])


def size_of(items: list[Item], sizes: list[int]) -> int:
    return sum(sizes[number] for what, number in items if what == "record")


class Watching:
    """A watcher that says what it has of every record: it was put in, and is done, or was evicted."""

    def __init__(self) -> None:
        self.held: dict[int, list[int]] = {}
        self.done_numbers: list[int] = []
        self.lost: set[int] = set()

    def put(self, run: Run) -> None:
        self.held[id(run)] = [number_of(record) for record in run.records]

    def done(self, runs: list[Run]) -> None:
        for run in runs:
            self.done_numbers += self.held.pop(id(run))

    def evicted(self, run: Run) -> None:
        self.lost |= set(self.held.pop(id(run)))

    def cut(self, run: Run, rest: Run) -> None:
        before = self.held.pop(id(run))
        self.held[id(rest)] = [number_of(record) for record in rest.records]
        self.cut_off = set(before) - set(self.held[id(rest)])


class QueueModel(RuleBasedStateMachine):
    """A queue against plain lists of records, which the other side reads as far as the test lets it.

    waiting: runs that were never sent. Those with priority that outlived others stand in front, in
    `outlived`.
    stream: what was sent in this session and may have to be retransmitted, gaps in their places.
    again: what a cut connection may have lost.
    """

    @initialize(priority=st.booleans(), numbered=MOSTLY)
    def start(self, priority: bool, numbered: bool) -> None:
        self.priority = preferred if priority else None
        self.tally = Tally()
        self.tally.bytes = 10  # of other queues
        self.watcher = Watching()
        self.queue = SendQueue(LIMIT, self.priority, self.tally, self.watcher)
        self.queue.restart(numbered)
        self.runs: list[Run] = []  # kept alive, so that each has an id of its own
        self.sizes: list[int] = []
        self.outlived: list[list[int]] = []
        self.waiting: list[list[int]] = []
        self.stream: list[Item] = []
        self.again: list[Item] = []
        self.acknowledged = self.sent = self.gap = self.dropped = self.taken = 0

    # -- what the model does ---------------------------------------------------------------------------------

    def held_bytes(self) -> int:
        return sum(self.sizes[n] for run in [*self.outlived, *self.waiting] for n in run)

    def evict_in_model(self, excess: int) -> int:
        lost = 0
        while excess > 0 and (self.waiting or self.outlived):
            numbers = self.waiting.pop(0) if (was_waiting := bool(self.waiting)) else self.outlived.pop(0)
            kept = [n for n in numbers if n % 2 == 0] if self.priority and was_waiting else []
            if kept:
                self.outlived.append(kept)
            gone = [n for n in numbers if n not in kept]
            excess -= sum(self.sizes[n] for n in gone)
            lost += len(gone)
        self.dropped += lost
        self.gap += lost
        return lost

    def in_flight(self) -> int:
        return size_of(self.stream, self.sizes) + size_of(self.again, self.sizes)

    # -- what happens ----------------------------------------------------------------------------------------

    @rule(sizes=st.lists(SIZES, min_size=1, max_size=4))
    def put(self, sizes: list[int]) -> None:
        numbers = list(range(len(self.sizes), len(self.sizes) + len(sizes)))
        records = [b"A\n%d" % n + b" " * size + b"\n" for n, size in zip(numbers, sizes, strict=True)]
        self.sizes += map(len, records)
        run = Run(b"A", records)
        self.runs.append(run)
        self.watcher.put(run)
        self.queue.pending.append(run)
        self.waiting.append(numbers)

    @rule()
    def settle(self) -> None:
        excess = self.held_bytes() + self.queue.in_flight_bytes - LIMIT
        assert self.queue.settle() == self.evict_in_model(excess)
        assert self.queue.settled_bytes == self.held_bytes()

    @rule(excess=st.integers(0, LIMIT))
    def evict(self, excess: int) -> None:
        self.queue.settle()  # only what is settled can be evicted
        self.evict_in_model(self.held_bytes() + self.queue.in_flight_bytes - LIMIT)
        assert self.queue.evict(excess) == self.evict_in_model(excess)

    @rule(sizes=st.lists(SIZES, min_size=2, max_size=4))
    def put_and_take(self, sizes: list[int]) -> None:
        self.put(sizes)
        self.take(LIMIT)

    @rule(budget=st.integers(0, 2 * LIMIT))
    def take(self, budget: int) -> None:
        free = LIMIT // 2 - self.queue.in_flight_bytes
        gap, runs = self.queue.take(budget)
        records = [number_of(record) for run in runs for record in run.records]
        found = [("gap", gap)] * bool(gap) + [("record", number) for number in records]
        if self.again:
            # A batch as it was taken first; gaps with nothing behind them are one.
            assert found == self.again[: len(found)] and found
            del self.again[: len(found)]
        elif self.queue.numbered and free <= 0:
            assert found == []
        else:
            assert gap == self.gap
            self.gap = 0
            budget = min(budget, free) if self.queue.numbered else budget
            line = self.outlived or self.waiting
            expected: list[int] = []
            while line and (not expected or sum(self.sizes[n] for n in expected + line[0]) <= budget):
                expected += line.pop(0)
                line = self.outlived or self.waiting
            assert records == expected
            self.taken += len(records)
        self.sent += len(records)
        if self.queue.numbered:
            self.stream += found
        else:
            self.acknowledged = self.sent

    @precondition(lambda self: self.queue.numbered)
    @rule(part=PARTS)
    def acknowledge(self, part: float) -> None:
        number = self.number_between(part)
        self.queue.acknowledge(number)
        self.drop_from_stream(number)

    def number_between(self, part: float) -> int:
        """A number that the other side may say: part of what is in flight was received."""
        return self.acknowledged + int(part * (self.sent - self.acknowledged))

    def drop_from_stream(self, number: int) -> None:
        """So many records were received, and the gaps before them."""
        while self.acknowledged < number:
            what, _ = self.stream.pop(0)
            self.acknowledged += what == "record"

    @precondition(lambda self: self.queue.numbered)
    @rule(part=PARTS)
    def resume(self, part: float) -> None:
        received = self.number_between(part)
        self.queue.resume(received)
        self.drop_from_stream(received)
        self.again = self.stream + self.again
        self.stream = []
        self.sent = received

    @rule(numbered=MOSTLY)
    def restart(self, numbered: bool) -> None:
        self.queue.restart(numbered)
        self.again = self.stream + self.again
        self.stream = []
        self.sent = self.acknowledged = 0

    @precondition(lambda self: self.sent > 3)
    @rule()
    def everything_is_delivered(self) -> None:
        self.queue.delivered()
        self.stream = []
        self.acknowledged = self.sent

    @precondition(lambda self: self.queue.numbered)
    @rule(beyond=st.integers(1, 5), resume=st.booleans())
    def out_of_step(self, beyond: int, resume: bool) -> None:
        for number in (self.sent + beyond, self.acknowledged - beyond):
            with pytest.raises(OutOfStep):
                (self.queue.resume if resume else self.queue.acknowledge)(number)

    # -- what holds ------------------------------------------------------------------------------------------

    @invariant()
    def they_agree(self) -> None:
        if not hasattr(self, "queue"):
            return
        queue = self.queue
        waiting = [n for run in [*self.outlived, *self.waiting] for n in run]
        assert queue.waiting_bytes == self.held_bytes()
        assert queue.records == len(waiting)
        assert queue.unsent == bool(waiting)
        assert queue.waits == bool(waiting or self.again or self.gap)
        assert (queue.taken, queue.dropped, queue.gap) == (self.taken, self.dropped, self.gap)
        assert (queue.acknowledged, queue.sent) == (self.acknowledged, self.sent)
        unacknowledged = [number for what, number in self.stream + self.again if what == "record"]
        assert queue.unacknowledged == len(unacknowledged)
        # A batch counts whole until all of it is acknowledged.
        assert queue.in_flight_bytes >= self.in_flight()
        assert queue.tally.bytes == 10 + queue.settled_bytes + queue.in_flight_bytes
        assert queue.size == queue.waiting_bytes + queue.in_flight_bytes
        if not unacknowledged:
            assert queue.in_flight_bytes == 0
        # The watcher has every record that still needs care, whole batches of them.
        assert {n for held in self.watcher.held.values() for n in held} >= {*waiting, *unacknowledged}
        assert len(set(self.watcher.done_numbers)) == len(self.watcher.done_numbers)
        assert not self.watcher.lost & {*waiting, *unacknowledged}

    def teardown(self) -> None:
        if not hasattr(self, "queue"):
            return
        left = [number for what, number in self.stream + self.again if what == "record"]
        left += [n for run in [*self.outlived, *self.waiting] for n in run]
        found = [number_of(record) for run in self.queue.take_all() for record in run.records]
        assert found == left
        assert (self.queue.size, self.queue.waits and not self.queue.gap) == (0, False)
        assert (self.queue.unacknowledged, self.queue.tally.bytes) == (0, 10)


TestQueueModel = QueueModel.TestCase
TestQueueModel.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


# -- edges -------------------------------------------------------------------------------------------------


def run(*numbers: int, room: bytes = b"A") -> Run:
    return Run(room, [b"%b\n%d\n" % (room, n) for n in numbers])


def new(limit: int = 10_000) -> SendQueue:
    """A queue in a session."""
    queue = SendQueue(limit)
    queue.restart(numbered=True)
    return queue


def sent(*runs: Run, limit: int = 10_000) -> SendQueue:
    """A queue in a session, from which these runs were taken, each as a batch of its own."""
    queue = new(limit)
    for one in runs:
        queue.pending.append(one)
        assert queue.take(1)[1] == [one]
    return queue


def numbers(runs: list[Run]) -> list[int]:
    return [number_of(record) for one in runs for record in one.records]


def drained(queue: SendQueue) -> list[Item | int]:
    """What is sent until nothing waits: numbers of records, and gaps."""
    found: list[Item | int] = []
    while queue.waits:
        gap, runs = queue.take(10**6)
        found += [("gap", gap)] if gap else []
        found += numbers(runs)
        if not runs:
            break
    return found


def overflow(queue: SendQueue, *runs: Run) -> None:
    """These runs are put and evicted at once."""
    queue.pending += runs
    queue.settle()
    queue.evict(10**6)


def test_appending_goes_on_to_work_whatever_was_done_with_the_queue() -> None:
    queue = new()
    put = queue.pending.append
    for empty in (lambda: queue.take(1000), queue.settle, queue.take_all, lambda: queue.evict(1000)):
        put(run(1))
        empty()
    put(one := run(1))
    assert queue.take_all()[-1] is one


def test_a_run_larger_than_the_limit_is_evicted_by_itself() -> None:
    queue = new(10)
    queue.pending.append(run(*range(10)))
    assert (queue.settle(), queue.dropped, queue.unsent) == (10, 10, False)


@pytest.mark.parametrize("call", [SendQueue.acknowledge, SendQueue.resume])
@pytest.mark.parametrize("number", [1, 5, 10**15])
def test_a_number_outside_what_was_sent_is_out_of_step(
    call: Callable[[SendQueue, int], None], number: int
) -> None:
    queue = sent(run(1, 2), run(3, 4))
    queue.acknowledge(2)
    with pytest.raises(OutOfStep, match=f"{number} is not between 2 acknowledged and 4 sent records"):
        call(queue, number)
    assert (queue.acknowledged, queue.sent, queue.unacknowledged) == (2, 4, 2)


@pytest.mark.parametrize("received", range(7))
def test_it_resumes_in_the_middle_of_anything(received: int) -> None:
    queue = sent(run(1, 2, 3), run(4), run(5, 6))
    queue.pending.append(run(7))
    queue.resume(received)
    assert drained(queue) == list(range(received + 1, 8))
    assert queue.sent == 7
    queue.acknowledge(7)
    assert (queue.in_flight_bytes, queue.size, queue.tally.bytes) == (0, 0, 0)


def test_it_resumes_twice_before_anything_was_retransmitted() -> None:
    queue = sent(run(1), run(2, 3), run(4))
    queue.resume(1)
    queue.take(1)
    queue.resume(2)
    queue.resume(2)
    assert drained(queue) == [3, 4]


@pytest.mark.parametrize("acknowledged", range(7))
def test_a_new_session_begins_with_exactly_what_was_not_acknowledged(acknowledged: int) -> None:
    queue = sent(run(1, 2, 3), run(4), run(5, 6))
    queue.acknowledge(acknowledged)
    queue.restart(numbered=True)
    assert queue.unacknowledged == 6 - acknowledged
    assert drained(queue) == list(range(acknowledged + 1, 7))
    assert queue.sent == 6 - acknowledged


@pytest.mark.parametrize("acknowledged", range(7))
def test_another_queue_gets_exactly_what_was_not_acknowledged(acknowledged: int) -> None:
    queue = sent(run(1, 2, 3), run(4), run(5, 6))
    queue.pending.append(run(7))
    queue.acknowledge(acknowledged)
    assert numbers(queue.take_all()) == list(range(acknowledged + 1, 8))
    assert (queue.size, queue.waits, queue.unacknowledged, queue.tally.bytes) == (0, False, 0, 0)


def test_another_queue_gets_what_was_to_be_retransmitted_in_order() -> None:
    queue = sent(run(1), run(2), run(3))
    queue.resume(0)
    queue.take(1)
    queue.pending.append(run(4))
    assert numbers(queue.take_all()) == [1, 2, 3, 4]


def test_a_gap_goes_where_it_belongs_and_goes_again_with_what_follows_it() -> None:
    queue = sent(run(1))
    overflow(queue, run(*range(10, 16)))
    queue.pending.append(run(20))
    assert drained(queue) == [("gap", 6), 20]
    queue.resume(1)
    assert drained(queue) == [("gap", 6), 20]
    queue.resume(2)
    assert drained(queue) == []


def test_what_is_not_settled_cannot_be_evicted() -> None:
    queue = new()
    queue.pending.append(run(1))
    assert queue.evict(1) == 0


def test_a_gap_with_nothing_behind_it_is_announced_and_after_a_cut_announced_again() -> None:
    queue = sent(run(1))
    overflow(queue, run(*range(10, 20)))
    assert queue.take(1000) == (10, [])
    queue.resume(1)
    assert queue.take(1000) == (10, [])
    queue.pending.append(run(2))
    assert numbers(queue.take(1000)[1]) == [2]


def test_a_gap_that_the_other_side_says_it_was_told_of_is_not_announced_again() -> None:
    queue = sent(run(1))
    overflow(queue, run(*range(10, 20)))
    assert queue.take(1000) == (10, [])
    overflow(queue, run(*range(20, 23)))
    assert queue.take(1000) == (3, [])
    queue.resume(1, gaps=1)
    assert drained(queue) == [("gap", 3)]
    queue.resume(1, gaps=2)
    assert drained(queue) == []
    with pytest.raises(OutOfStep, match="gaps announced"):
        queue.resume(1, gaps=3)
    with pytest.raises(OutOfStep, match="gaps announced"):
        queue.resume(1, gaps=1)


def test_a_gap_that_was_delivered_with_a_close_counts_as_told_when_the_session_goes_on() -> None:
    queue = sent(run(1))
    overflow(queue, run(2))
    queue.take(1000)
    queue.delivered()
    queue.resume(1, gaps=1)
    assert drained(queue) == []


def test_a_gap_before_records_that_have_not_arrived_is_announced_once() -> None:
    queue = sent(run(1))
    overflow(queue, run(2))
    queue.pending.append(run(3))
    assert queue.take(1000)[0] == 1
    queue.resume(1, gaps=1)
    gap, runs = queue.take(1000)
    assert (gap, numbers(runs)) == (0, [3])
    queue.acknowledge(2)
    overflow(queue, run(4))
    queue.pending.append(run(5))
    assert queue.take(1000)[0] == 1
    queue.resume(2, gaps=1)
    assert queue.take(1000)[0] == 1


def test_so_many_gaps_with_nothing_behind_them_are_in_flight_and_no_more() -> None:
    queue = sent(run(1))
    for _ in range(BARE + 5):
        overflow(queue, run(2))
        queue.take(1000)
    assert (queue.gap, len(drained(queue))) == (5, 0)
    queue.pending.append(run(3))
    gap, runs = queue.take(1000)
    assert (gap, numbers(runs)) == (5, [3])
    queue.resume(1, gaps=BARE + 1)
    assert drained(queue) == [3]


def test_a_gap_is_not_acknowledged_with_the_records_before_it() -> None:
    # The other side may have said what it had received before the gap came.
    queue = sent(run(1))
    overflow(queue, run(2))
    assert queue.take(1000) == (1, [])
    queue.acknowledge(1)
    queue.resume(1)
    assert drained(queue) == [("gap", 1)]
    queue.pending.append(run(3))
    queue.take(1000)
    queue.acknowledge(2)
    queue.resume(2)
    assert drained(queue) == []


def test_a_gap_counts_as_heard_when_everything_was_delivered() -> None:
    queue = sent(run(1))
    overflow(queue, run(2))
    queue.take(1000)
    queue.delivered()
    queue.restart(numbered=True)
    assert drained(queue) == []


def test_without_a_session_nothing_is_kept() -> None:
    queue = SendQueue(1000)
    queue.pending.append(run(1, 2))
    queue.take(1000)
    assert (queue.sent, queue.acknowledged, queue.unacknowledged, queue.in_flight_bytes) == (2, 2, 0, 0)


def test_what_a_session_left_goes_over_a_connection_without_one() -> None:
    queue = sent(run(1), run(2))
    queue.restart(numbered=False)
    assert drained(queue) == [1, 2]
    assert queue.size == 0


def test_at_most_half_the_limit_is_in_flight() -> None:
    queue = sent(*[run(n) for n in range(5)], limit=40)
    assert queue.shut
    queue.pending.append(run(6))
    assert queue.take(1000) == (0, [])
    queue.acknowledge(1)
    assert not queue.shut
    assert numbers(queue.take(1000)[1]) == [6]


def test_a_queue_is_congested_above_the_high_water_mark_and_drained_below_the_low_one() -> None:
    queue = new(320)
    queue.pending += [run(n) for n in range(10, 17)]  # 5 bytes each
    queue.settle()
    assert (queue.congested, queue.drained) == (False, False)
    queue.pending.append(run(17))
    queue.settle()
    assert (queue.congested, queue.drained) == (True, False)
    queue.take(30)
    assert (queue.congested, queue.drained) == (False, True)


def test_evicted_records_are_counted_by_room_for_so_many_rooms() -> None:
    queue = new()
    overflow(queue, *[run(1, 2, room=b"R%d" % n) for n in range(ROOMS + 5)], run(3, room=b"R0"))
    assert queue.dropped == 2 * (ROOMS + 5) + 1
    assert queue.dropped_rooms is not None
    assert (len(queue.dropped_rooms), queue.dropped_rooms[b"R0"]) == (ROOMS, 3)


# -- what is shared ------------------------------------------------------------------------------------------


def state(queue: SendQueue) -> tuple[object, ...]:
    """All that a queue shows of itself."""
    waits = (list(queue.pending), queue.settled_bytes, queue.gap, queue.waits)
    counts = (queue.sent, queue.acknowledged, queue.unacknowledged, queue.taken)
    return (*waits, *counts, queue.in_flight_bytes, list(queue.retransmit), queue.tally.bytes, queue.latest)


@given(st.lists(st.lists(st.sampled_from([run(1), run(2, 3), run(4, room=b"B")])), max_size=5))
def test_to_take_as_another_queue_is_to_take(turns: list[list[Run]]) -> None:
    first, second, other = (new(10**6) for _ in range(3))
    for runs in turns:
        for queue in (first, second, other):
            queue.pending.extend(runs)
        first.take(10**6)
        if runs:
            assert first.latest is not None
            assert second.take_as(first.latest)
            assert second.latest is first.latest
            other.take(10**6)
        assert state(second) == state(other) == state(first)
    for queue in (first, second):
        queue.resume(0)
        assert drained(queue) == numbers([one for runs in turns for one in runs])
        queue.acknowledge(queue.sent)
        assert (queue.in_flight_bytes, queue.unacknowledged) == (0, 0)


def _with_a_gap(queue: SendQueue) -> None:
    queue.gap = 1


def _with_more(queue: SendQueue) -> None:
    queue.pending.append(run(2))


def _with_less(queue: SendQueue) -> None:
    queue.pending.clear()


def _with_what_waited_before(queue: SendQueue) -> None:
    queue.settle()
    queue.pending.append(run(1))


def _with_what_is_to_be_retransmitted(queue: SendQueue) -> None:
    queue.pending[:], pending = [run(0)], queue.pending[:]
    queue.take(100)
    queue.resume(0)
    queue.pending.extend(pending)


def _without_a_session(queue: SendQueue) -> None:
    queue.restart(numbered=False)


def _with_too_much_in_flight(queue: SendQueue) -> None:
    queue.limit = 7


@pytest.mark.parametrize(
    "other",
    [
        _with_a_gap,
        _with_more,
        _with_less,
        _with_what_waited_before,
        _with_what_is_to_be_retransmitted,
        _without_a_session,
        _with_too_much_in_flight,
    ],
)
def test_what_is_not_the_same_is_not_taken_as_another_queue_took_it(
    other: Callable[[SendQueue], None],
) -> None:
    one = run(1)
    first, queue = sent(one), new()
    queue.pending.append(one)
    other(queue)
    before = state(queue)
    assert first.latest is not None
    assert not queue.take_as(first.latest)
    assert state(queue) == before


# -- rooms that the other side may not have any more -------------------------------------------------------


def rooms_of(runs: list[Run]) -> list[bytes]:
    return [record.split(b"\n")[0] for one in runs for record in one.records]


def test_what_waits_for_rooms_that_may_not_be_had_is_discarded_and_no_gap_is_announced() -> None:
    tally = Tally()
    queue = SendQueue(10_000, tally=tally)
    queue.restart(numbered=True)
    together = mixed([Run(room, [room + b"\n{}\n"]) for room in (b"a1", b"b1", b"a2")])
    queue.pending += [Run(b"b1", [b"b1\n{}\n"]), together]
    queue.take(10_000)
    queue.pending.append(together)
    queue.settle()
    queue.pending.append(Run(b"b2", [b"b2\n{}\n"]))
    assert queue.discard(Rooms(["a*"])) == 2
    assert (queue.gap, queue.unacknowledged, queue.dropped) == (0, 4, 2)
    assert queue.dropped_rooms == {b"b1": 1, b"b2": 1}
    queue.resume(0)
    assert queue.discard(Rooms(["a*"])) == 2
    gap, runs = queue.take(10_000)
    assert (gap, rooms_of(runs)) == (0, [b"a1", b"a2"])
    assert (queue.sent, queue.unacknowledged) == (2, 2)
    gap, runs = queue.take(10_000)
    assert (gap, rooms_of(runs)) == (0, [b"a1", b"a2"])
    queue.acknowledge(4)
    assert (queue.size, tally.bytes, queue.waits) == (0, 0, False)


@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "settle", "take", "cut", "ack", "discard"]), st.integers(0, 5))
    ),
    st.sampled_from([Rooms(["0", "3"]), Rooms(), Rooms(["*"])]),
)
def test_after_a_discard_only_allowed_rooms_are_taken_and_all_is_counted(
    steps: list[tuple[str, int]], may: Rooms
) -> None:
    tally = Tally()
    queue = SendQueue(10_000, tally=tally)
    queue.restart(numbered=True)
    narrowed = False
    put = dropped = 0
    for what, number in steps:
        room = str(number).encode()
        match what:
            case "put" if not narrowed or room in may:
                queue.pending.append(Run(room, [room + b"\n{}\n"]))
                put += 1
            case "settle":
                assert queue.settle() == 0
            case "take":
                _, runs = queue.take(number * 100)
                assert not narrowed or all(one in may for one in rooms_of(runs))
            case "cut":
                queue.resume(min(queue.acknowledged + number, queue.sent))
                if narrowed:
                    dropped += queue.discard(may)
            case "ack":
                queue.acknowledge(min(queue.acknowledged + number, queue.sent))
            case "gone":
                narrowed = True
                dropped += queue.discard(may)
    assert (queue.dropped, queue.gap) == (dropped, 0)
    assert tally.bytes == queue.settled_bytes + queue.in_flight_bytes
    queue.take_all()
    assert tally.bytes == 0
