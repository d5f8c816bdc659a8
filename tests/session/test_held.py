"""What is held for a repeater: its order, its bounds and its counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ces.model.wire import Run
from ces.session.held import Held

pytestmark = pytest.mark.usefixtures("bare_records")

LIMIT = 100


def sized(size: int, count: int = 1) -> Run:
    """A run of this many bytes and records."""
    return Run(b"A", [b"x" * size], count)


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
