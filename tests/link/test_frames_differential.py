"""The fast ways of reading frames are Autobahn's way, only faster: see `tests.stress.differential`."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import apply_mask

from ces.session.life import State
from tests.stress.differential import Stream, compare, make_stream, outcome
from tests.support.links import Alone, dialling, frame, record, run, serving


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


# -- acknowledgements, which have a way of their own -------------------------------------------------------

SAID = (
    *((1, b'{"ack":%d}' % number) for number in (0, 1, 2, 3, 5, 6)),
    (1, b'{"ack": 4}'),
    (1, b'{"ack":04}'),
    (1, b'{"ack":4} '),
    (1, b'{"ack":-1}'),
    (1, b'{"ack":4.0}'),
    (1, b'{"ack":4e0}'),
    (1, b'{"ack":null}'),
    (1, b' {"ack" :4}'),
    (1, b'{"ack":9223372036854775808}'),
    (1, b'{"ack":4,"ack":2}'),
    (1, b'{"ack":4,"more":"\xff"}'),
    (1, b'{"ack":4,"gap":{"lost":1}}'),
    (1, b'{"acks":4}'),
    (1, b'{"gap":{"lost":1}}'),
    (2, record("A")),
    (2, b"no"),
    (9, b"ping"),
    (10, b""),
    (0, b""),
    (8, b"\x03\xe8"),
)


def came_of(end: Callable[[], Alone], reads: list[bytes], closing: bool, fast: bool) -> tuple[object, ...]:
    """What a link that has sent five records makes of `reads`, after it has begun to close or not."""
    if not fast:
        with patch("ces.link.connection._take_ack", lambda connection, data: 0):
            return came_of(end, reads, closing, True)
    alone = end()
    for number in range(5):
        alone.link.put(run("A", str(number)))
        alone.flush()
    if closing:
        alone.link.end(1000, "bye")
    alone.written()
    connection = alone.connection
    for data in reads:
        if alone.transport.disconnecting:
            break
        connection.dataReceived(data)
    link = alone.link
    counts = (link.queue.acknowledged, link.queue.unacknowledged, connection.session.received, link.malformed)
    known = (connection.life, connection.code, connection.ended, alone.owner.records)
    said = [payload for opcode, payload in _unmasked(alone.written()) if opcode != 8]
    alone.lose()
    return counts, known, alone.transport.disconnecting, said, alone.owner.calls


def _unmasked(data: bytes) -> list[tuple[int, bytes]]:
    """(opcode, payload) of short frames, masked or not."""
    found = []
    while data:
        length, start = data[1] & 0x7F, 6 if data[1] & 0x80 else 2
        if length == 126:
            length, start = int.from_bytes(data[2:4], "big"), start + 2
        payload = data[start : start + length]
        if data[1] & 0x80:
            payload = apply_mask(payload, data[start - 4 : start])
        found.append((data[0] & 15, payload))
        data = data[start + length :]
    return found


@given(
    end=st.sampled_from([serving, dialling]),
    said=st.lists(st.sampled_from(SAID) | st.sampled_from(SAID[:6]), max_size=6),
    cuts=st.lists(st.integers(0, 120), max_size=5),
    whole=st.booleans(),
    closing=st.booleans(),
)
@settings(max_examples=600, deadline=None)
def test_acknowledgements_come_to_the_same_both_ways(
    end: Callable[[], Alone], said: list[tuple[int, bytes]], cuts: list[int], whole: bool, closing: bool
) -> None:
    frames = [frame(opcode, payload, end is serving) for opcode, payload in said]
    data = b"".join(frames)
    marks = sorted({0, *(at for at in cuts if at < len(data)), len(data)})
    reads = frames if whole else [data[start:end] for start, end in pairwise(marks)]
    fast, slow = (came_of(end, reads, closing, way) for way in (True, False))
    assert fast == slow


@pytest.mark.parametrize("one_read", [True, False])
@pytest.mark.parametrize("end", [serving, dialling])
def test_what_follows_a_close_frame_is_not_looked_at(end: Callable[[], Alone], one_read: bool) -> None:
    alone = end()
    masked = end is serving
    more = [frame(8, b"\x03\xe8", masked), frame(2, record("A"), masked), b"\xff" * 10]
    alone.link.end(1000, "bye")
    alone.receive(*([b"".join(more)] if one_read else more))
    assert (alone.connection.life, alone.owner.records) == (State.FINISHING, [])
    alone.lose()
    assert (alone.connection.finished, alone.connection.ended) == (True, "closed with 1000: bye")
