"""The fast way of reading frames is Autobahn's way, only faster: see `tests.differential`."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.differential import Stream, compare, make_stream, outcome
from tests.links import frame


@given(st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_any_stream_comes_to_the_same_both_ways(rng: random.Random) -> None:
    compare(make_stream(rng))


def test_thousands_of_streams_come_to_the_same_both_ways() -> None:
    for number in range(2000):
        compare(make_stream(random.Random(f"stream {number}")))


@pytest.mark.parametrize("serving", [True, False])
def test_whole_frames_of_every_length_come_to_the_same_at_every_cut(serving: bool) -> None:
    data = b"".join(frame(2, b"x" * size, serving) for size in (0, 3, 125, 126, 200))
    for at in range(1, len(data)):
        compare(Stream(serving, (data[:at], data[at:])))


def test_the_streams_reach_both_good_and_bad_ends() -> None:
    outcomes = [outcome(make_stream(random.Random(seed)), True) for seed in range(300)]
    codes = {found.closed[0] for found in outcomes}
    assert {None, 1000, 1002, 1007, 1009} <= codes
    assert sum(len(found.messages) for found in outcomes) > 1000
