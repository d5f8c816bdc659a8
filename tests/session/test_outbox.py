"""Outboxes and what is held for a repeater: order, bounds and counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ces.model.wire import Run
from ces.session.held import Held
from ces.session.outbox import Outbox

pytestmark = pytest.mark.usefixtures("bare_records")

LIMIT = 100


def sized(size: int, count: int = 1) -> Run:
    """A run of this many bytes and records."""
    return Run(b"A", [b"x" * size], count)


class OutboxModel(RuleBasedStateMachine):
    """An outbox against a plain list; only settling drops."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox(LIMIT)
        self.waiting: list[Run] = []
        self.put_records = self.dropped = self.taken = self.handed_on = 0

    @rule(size=st.integers(1, 120), count=st.integers(1, 3))
    def put(self, size: int, count: int) -> None:
        run = sized(size, count)
        self.outbox.pending.append(run)
        self.waiting.append(run)
        self.put_records += count

    @rule()
    def settle(self) -> None:
        lost = 0
        while sum(run.size for run in self.waiting) > LIMIT:
            lost += self.waiting.pop(0).count
        assert self.outbox.settle() == lost
        self.dropped += lost

    @rule(budget=st.integers(0, 200))
    def take(self, budget: int) -> None:
        count = min(1, len(self.waiting))
        while count < len(self.waiting) and sum(run.size for run in self.waiting[: count + 1]) <= budget:
            count += 1
        taken = self.waiting[:count]
        records, size = sum(run.count for run in taken), sum(run.size for run in taken)
        assert self.outbox.take(budget) == (taken, records, size)
        self.taken += sum(run.count for run in self.waiting[:count])
        del self.waiting[:count]

    @rule()
    def take_all(self) -> None:
        assert self.outbox.take_all() == self.waiting
        self.handed_on += sum(run.count for run in self.waiting)
        self.waiting.clear()

    @rule()
    def clear(self) -> None:
        lost = sum(run.count for run in self.waiting)
        assert self.outbox.clear() == lost
        self.dropped += lost
        self.waiting.clear()

    @invariant()
    def they_agree(self) -> None:
        assert bool(self.outbox) == bool(self.waiting)
        assert self.outbox.size == sum(run.size for run in self.waiting)
        assert self.outbox.records == sum(run.count for run in self.waiting)
        assert (self.outbox.taken, self.outbox.dropped) == (self.taken, self.dropped)
        assert self.put_records == self.taken + self.dropped + self.handed_on + self.outbox.records


TestOutboxModel = OutboxModel.TestCase


def test_putting_after_taking_keeps_the_same_list() -> None:
    outbox = Outbox(LIMIT)
    put = outbox.pending.append
    for empty in (lambda: outbox.take(1000), outbox.settle, outbox.take_all, outbox.clear):
        put(sized(10))
        empty()
    put(run := sized(10))
    assert outbox.take_all()[-1] is run


def test_a_run_larger_than_the_outbox_is_dropped_by_itself() -> None:
    outbox = Outbox(LIMIT)
    outbox.pending.append(sized(LIMIT + 1, 2))
    assert (outbox.settle(), outbox.dropped, bool(outbox)) == (2, 2, False)


times = st.floats(0, 50)
steps = st.lists(
    st.tuples(st.sampled_from(["put", "expire", "take"]), times, st.integers(1, 120)), max_size=20
)


@given(steps)
def test_held_is_a_list_bounded_in_bytes_and_time(steps: list[tuple[str, float, int]]) -> None:
    held, model, now, dropped = Held(LIMIT, 30.0), list[tuple[float, Run]](), 0.0, 0

    def expire() -> list[Run]:
        nonlocal dropped
        lost = []
        while model and (now >= model[0][0] + 30.0 or sum(run.size for _, run in model) > LIMIT):
            lost.append(model.pop(0)[1])
        dropped += sum(run.count for run in lost)
        return lost

    for what, wait, size in steps:
        now += wait
        if what == "put":
            run = sized(size, 2)
            model.append((now, run))
            assert held.put(run, now) == expire()
        elif what == "expire":
            assert held.expire(now) == expire()
        else:
            expire()
            assert held.take(now) == [run for _, run in model]
            model.clear()
        assert held.dropped == dropped
        assert held.bytes == sum(run.size for _, run in model) <= LIMIT
        assert held.records == 2 * len(model)
        assert bool(held) == bool(model)
        assert held.expires() == (model[0][0] + 30.0 if model else None)


def test_what_is_held_lasts_for_its_time_and_no_longer() -> None:
    held = Held(LIMIT, 30.0)
    run = sized(10)
    held.put(run, 100.0)
    assert (held.expire(129.9), held.take(129.9)) == ([], [run])
    held.put(run, 100.0)
    assert (held.expire(130.0), held.take(130.0)) == ([run], [])
