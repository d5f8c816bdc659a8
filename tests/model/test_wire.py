"""Records, rooms and batches (docs/protocol.md sections 2 and 3)."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ces.model.frames import LARGE, frames
from ces.model.wire import (
    BATCH_BYTES,
    PIECE_BYTES,
    KnownRooms,
    MalformedRecord,
    Run,
    event_room_fault,
    make_record,
    mixed,
    pack,
    pieces,
    read_ces1,
    read_ces2,
    read_record,
    room_fault,
)
from ces.session.queue import SendQueue

STRICT = b'ITB-1108\n{"key":"power"}\n'


def read1(*messages: bytes) -> tuple[list[bytes], list[str]]:
    """The records and the faults in ces.1 messages that came in one read."""
    faults: list[str] = []
    return [record for run in read_ces1(messages, KnownRooms(), faults) for record in run.records], faults


def read2(*messages: bytes) -> tuple[list[bytes], list[str]]:
    """The records and the faults in ces.2 messages that came in one read."""
    faults: list[str] = []
    return [record for run in read_ces2(messages, KnownRooms(), faults) for record in run.records], faults


# -- ces.1: read liberally, written strictly -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "record"),
    [
        pytest.param(STRICT, STRICT, id="strict"),
        pytest.param(b'ITB-1108\n{"key":"power"}', STRICT, id="no final LF"),
        pytest.param(b'ITB-1108\n\n\n\n{"key":"power"}', STRICT, id="an LF for each hop"),
        pytest.param(b'ITB-1108\n{"key":"power"}\n\n', STRICT, id="LFs behind"),
        pytest.param(b'ITB-1108\n \t{"key":"power"} \r\n', STRICT, id="white space around the event"),
        pytest.param(b'ITB-1108\n{"key":"power"} \n', STRICT, id="a blank before the final LF"),
        pytest.param(b'ITB-1108\n{"key":"power"}\r\n', STRICT, id="CR LF"),
        pytest.param(b'A\n{\n  "key": "power"\n}\n', b'A\n{   "key": "power" }\n', id="indented JSON"),
        pytest.param(b'\n{"key":"power"}\n', b'\n{"key":"power"}\n', id="blank room"),
        pytest.param(b'\n\n\n{"key":"power"}', b'\n{"key":"power"}\n', id="blank room and LFs"),
        pytest.param("Köln\n{}".encode(), "Köln\n{}\n".encode(), id="a room in UTF-8"),
        pytest.param(b"r" * 255 + b"\n{}\n", b"r" * 255 + b"\n{}\n", id="a room of 255 bytes"),
        pytest.param(b"a *\n{}\n", b"a *\n{}\n", id="a room with a star in it"),
        pytest.param(b"a{\n{}\n", b"a{\n{}\n", id="a room with a brace in it"),
    ],
)
def test_a_ces1_message_is_read_liberally(message: bytes, record: bytes) -> None:
    assert read1(message) == ([record], [])
    assert read_record(message, KnownRooms())[1] == record
    # The same behind a record of the same room and behind one of another.
    room = record.partition(b"\n")[0]
    for before in (room + b"\n{}\n", b"other\n{}\n"):
        assert read1(before, message) == ([before, record], [])


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        (b"", "no line feed between room and event"),
        (b"ITB-1108", "no line feed between room and event"),
        (b'{"key":"power"}', "no line feed between room and event"),
        (b'{"rooms":["A"]}\n{}\n', "the room begins with '{': the line with the room is missing"),
        (b"ITB-1108\n", "the event does not begin with '{'"),
        (b"ITB-1108\nhello\n", "the event does not begin with '{'"),
        (b"ITB-1108\n[{}]\n", "the event does not begin with '{'"),
        (b"\n", "the event does not begin with '{'"),
        (b"\nhello\n", "the event does not begin with '{'"),
        (b"*\n{}\n", "the room is '*', which is for subscriptions only"),
        (b"r" * 256 + b"\n{}\n", "the room is 256 bytes long; 255 are allowed"),
        (b"a\tb\n{}\n", "the room holds a control character"),
        (b"a\r\n{}\n", "the room holds a control character"),
        (b"a\x00\n{}\n", "the room holds a control character"),
        (b"a\x7f\n{}\n", "the room holds a control character"),
        ("a\x85\n{}\n".encode(), "the room holds a control character"),
        (b"a\xff\n{}\n", "the room is not UTF-8"),
        (b"\xed\xa0\x80\n{}\n", "the room is not UTF-8"),
    ],
)
def test_a_malformed_ces1_message_is_named_and_costs_no_other(message: bytes, fault: str) -> None:
    assert read1(STRICT, message, STRICT) == ([STRICT, STRICT], [fault])
    assert read1(message) == ([], [fault])
    with pytest.raises(MalformedRecord, match=r".") as caught:
        read_record(message, KnownRooms())
    assert str(caught.value) == fault


def test_a_bad_room_is_refused_again_each_time() -> None:
    known = KnownRooms()
    for _ in range(2):
        with pytest.raises(MalformedRecord):
            known[b"*"]
    assert not known


def test_known_rooms_are_bounded() -> None:
    known = KnownRooms(bound=3)
    for number in range(10):
        known[b"%d" % number]
        assert len(known) <= 3
    assert b"9" in known


def test_consecutive_records_for_one_room_are_one_run() -> None:
    messages = [b"A\n{1}\n", b"A\n\n{2}", b"A\n{3}\n", b"B\n{4}\n", b"A\n{5}\n"]
    runs = read_ces1(messages, KnownRooms(), [])
    assert [(run.room, run.count) for run in runs] == [(b"A", 3), (b"B", 1), (b"A", 1)]


@pytest.mark.parametrize(
    ("room", "event", "record"),
    [(b"A", b"{}", b"A\n{}\n"), (b"", b" {\n} \n", b"\n{ }\n"), (b"A", b'{"a":\n1}', b'A\n{"a": 1}\n')],
)
def test_make_record_writes_strictly(room: bytes, event: bytes, record: bytes) -> None:
    assert make_record(room, event) == record


@pytest.mark.parametrize(("room", "event"), [(b"*", b"{}"), (b"{", b"{}"), (b"A", b""), (b"A", b"1")])
def test_make_record_refuses_what_no_reader_takes(room: bytes, event: bytes) -> None:
    with pytest.raises(MalformedRecord):
        make_record(room, event)


def test_the_star_is_a_room_to_subscribe_to_but_not_to_send_to() -> None:
    assert room_fault(b"*") is None
    assert event_room_fault(b"*") == "the room is '*', which is for subscriptions only"


# -- ces.2: batches ------------------------------------------------------------------------------------------


def test_a_batch_for_one_room_is_one_run_without_a_copy() -> None:
    message = b"A\n{1}\nA\n{2}\n"
    [run] = read_ces2([message], KnownRooms(), [])
    assert b"".join(run.parts) is message
    assert (run.room, run.count, run.size) == (b"A", 2, len(message))
    assert run.records == [b"A\n{1}\n", b"A\n{2}\n"]


@pytest.mark.parametrize(
    ("sizes", "parts"),
    [
        ([100] * 5, [500]),
        ([BATCH_BYTES - 100, 100, 100], [BATCH_BYTES, 100]),
        ([100, BATCH_BYTES, 100, 100], [100, BATCH_BYTES, 200]),
        ([100, BATCH_BYTES - 99, BATCH_BYTES - 99], [100, BATCH_BYTES - 99, BATCH_BYTES - 99]),
    ],
)
def test_batches_for_one_room_are_joined_as_far_as_a_message_may_be_long(
    sizes: list[int], parts: list[int]
) -> None:
    messages = [b"A\n{1}\nA\n{%b}\n" % (b"x" * (size - 11)) for size in sizes]
    assert list(map(len, messages)) == sizes
    [run] = read_ces2(messages, KnownRooms(), [])
    assert (list(map(len, run.parts)), run.count) == (parts, 2 * len(messages))
    assert b"".join(run.parts) == b"".join(messages)


def test_a_batch_for_several_rooms_is_one_run_for_each_stretch() -> None:
    message = b"A\n{1}\nA\n{2}\nB\n{3}\n\n{4}\nA\n{5}\n"
    runs = read_ces2([message], KnownRooms(), [])
    assert [b"".join(run.parts) for run in runs] == [
        b"A\n{1}\nA\n{2}\n",
        b"B\n{3}\n",
        b"\n{4}\n",
        b"A\n{5}\n",
    ]


@pytest.mark.parametrize(
    ("message", "records", "faults"),
    [
        (b"", [], ["the message ends in the middle of a record"]),
        (b"A", [], ["the message ends in the middle of a record"]),
        (b"A\n", [], ["the message ends in the middle of a record"]),
        (b"A\n{1}", [], ["the message ends in the middle of a record"]),
        (b"A\n{1}\nA\n{2}", [b"A\n{1}\n"], ["the message ends in the middle of a record"]),
        (b"A\n{1}\nA\n", [b"A\n{1}\n"], ["the message ends in the middle of a record"]),
        (b"A\n{1}\nA", [b"A\n{1}\n"], ["the message ends in the middle of a record"]),
        (b"A\n{1}\nA\nno\nA\n{3}\n", [b"A\n{1}\n", b"A\n{3}\n"], ["the event does not begin with '{'"]),
        (b"A\n{1}\nA\n\nA\n{3}\n", [b"A\n{1}\n", b"A\n{3}\n"], ["the event does not begin with '{'"]),
        (b"A\n {1}\n", [], ["the event does not begin with '{'"]),
        (
            b"A\n{1}\n*\n{2}\nA\n{3}\n",
            [b"A\n{1}\n", b"A\n{3}\n"],
            ["the room is '*', which is for subscriptions only"],
        ),
        (b"*\n{1}\n*\n{2}\n", [], ["the room is '*', which is for subscriptions only"] * 2),
        (
            b"A\nno\n{B\n{2}\n",
            [],
            [
                "the event does not begin with '{'",
                "the room begins with '{': the line with the room is missing",
            ],
        ),
    ],
)
def test_a_bad_record_of_a_batch_is_named_and_costs_no_other(
    message: bytes, records: list[bytes], faults: list[str]
) -> None:
    assert read2(message) == (records, faults)
    assert read2(STRICT, message, STRICT) == ([STRICT, *records, STRICT], faults)


rooms = st.sampled_from([b"", b"A", b"ITB-1108", b"*", b"{x", b"a\tb", b"\xff", b"r" * 256, b"Z\xc3\xbc"])
events = st.sampled_from([b"{}", b'{"a":1}', b'{"b":"{\\n}"}', b"{1} ", b"no", b"", b" {}"])


def one_by_one(records: list[tuple[bytes, bytes]]) -> tuple[list[bytes], list[str]]:
    """The slow reading of strictly framed records, straight from the rules."""
    good, faults = [], []
    for room, event in records:
        fault = event_room_fault(room)
        if fault is None and not event.startswith(b"{"):
            fault = "the event does not begin with '{'"
        if fault is None:
            good.append(room + b"\n" + event + b"\n")
        else:
            faults.append(fault)
    return good, faults


@given(st.lists(st.lists(st.tuples(rooms, events), min_size=1, max_size=6), max_size=5))
def test_batches_are_read_as_record_by_record(batches: list[list[tuple[bytes, bytes]]]) -> None:
    messages = [b"".join(b"%b\n%b\n" % record for record in batch) for batch in batches]
    assert read2(*messages) == one_by_one([record for batch in batches for record in batch])


long = b"{%b}" % (b"x" * LARGE)


@given(
    st.lists(st.tuples(st.sampled_from([b"A", b"A", b"B"]), st.sampled_from([b"{1}", b"{1}", b"no", long]))),
    st.lists(st.integers(0, 40) | st.integers(0, 40_000), max_size=4),
)
@settings(max_examples=300)
def test_ces2_messages_are_read_together_as_one_by_one(
    records: list[tuple[bytes, bytes]], cuts: list[int]
) -> None:
    stream = b"".join(b"%b\n%b\n" % record for record in records)
    marks = sorted({0, *(at for at in cuts if at < len(stream)), len(stream)})
    messages = [stream[start:end] for start, end in pairwise(marks)]
    apart = [read2(message) for message in messages]
    assert read2(*messages) == ([r for good, _ in apart for r in good], [f for _, bad in apart for f in bad])


@pytest.mark.parametrize("event", [b"{%b}" % (b"x" * 400), long])
def test_a_run_has_no_part_of_several_records_that_is_longer_than_a_message_may_be(event: bytes) -> None:
    message = b"A\n%b\n" % event * (BATCH_BYTES // len(event) + 1)
    (run,) = read_ces2([STRICT, message], KnownRooms(), [])[1:]
    assert len(message) > BATCH_BYTES
    assert len(run.parts) == run.count == message.count(b"\n") // 2


@given(st.lists(st.binary(max_size=40) | st.builds(lambda r, e: r + b"\n" + e, rooms, events), max_size=8))
def test_ces1_messages_are_read_as_one_by_one(messages: list[bytes]) -> None:
    together = read1(*messages)
    apart = [read1(message) for message in messages]
    assert together == ([r for good, _ in apart for r in good], [f for _, bad in apart for f in bad])


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_whatever_comes_is_read_as_strict_records_or_named(messages: list[bytes]) -> None:
    for records, faults in (read1(*messages), read2(*messages)):
        assert all(faults)
        for record in records:
            room, event, end = record.split(b"\n")
            assert event_room_fault(room) is None
            assert event.startswith(b"{")
            assert end == b""
    assert len(read1(*messages)[0]) + len(read1(*messages)[1]) == len(messages)


# -- runs and packing ----------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([b"{}", b'{"a":"b"}', b"{ 1 }"]), min_size=1, max_size=5))
def test_the_forms_of_a_run_agree_whichever_it_was_made_from(texts: list[bytes]) -> None:
    records = [b"A\n%b\n" % text for text in texts]
    for run in (Run(b"A", list(records)), Run(b"A", [b"".join(records)], len(records))):
        assert run.records == records
        assert b"".join(run.parts) == b"".join(records)
        assert run.events == texts
        assert b"".join(run.ces1_frames) == frames(records)
        assert run.ces1_frames is run.ces1_frames
        assert (run.count, run.size) == (len(records), sum(map(len, records)))


def sized(size: int, count: int = 1) -> Run:
    """A run of `count` records of `size` bytes each."""
    return Run(b"A", [b"A\n{" + b"x" * (size - 5) + b"}\n"] * count)


@given(
    st.lists(st.builds(sized, st.sampled_from([10, 1000, 40_000, BATCH_BYTES, 70_000]), st.integers(1, 4)))
)
@settings(max_examples=50)
def test_packed_messages_hold_the_records_in_order_within_64_kib(runs: list[Run]) -> None:
    payloads = [b"".join(parts) for parts in pack(runs)]
    assert b"".join(payloads) == b"".join(b"".join(run.parts) for run in runs)
    for payload in payloads:
        records, faults = read2(payload)
        assert faults == []
        assert len(payload) <= BATCH_BYTES or len(records) == 1


def test_what_fits_into_one_message_is_one_message() -> None:
    assert len(pack([sized(30_000), sized(1000, 5), sized(30_000)])) == 1
    assert [sum(map(len, parts)) for parts in pack([sized(BATCH_BYTES), sized(10)])] == [BATCH_BYTES, 10]
    assert pack([]) == []


@pytest.mark.parametrize(("size", "count", "weight"), [(4, 1, 128), (4, 3, 384), (400, 2, 400)])
def test_a_record_weighs_its_bytes_and_128_at_least(size: int, count: int, weight: int) -> None:
    run = Run(b"A", [b"x" * size], count)
    assert (run.size, run.weight) == (size, weight)


def test_the_smallest_records_take_up_little_more_memory_than_the_bound() -> None:
    queue = SendQueue(2**20)
    tracemalloc.start()
    try:
        for number in range(20_000):
            queue.pending.append(Run(b"%d" % (number % 7), [b"%d\n{}\n" % (number % 7)]))
        queue.settle()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert queue.dropped == 20_000 - 2**20 // 128
    assert taken < 3 * 2**20


@given(st.lists(st.lists(st.tuples(rooms, events), min_size=1, max_size=6), min_size=1, max_size=5))
def test_several_runs_make_one_with_the_same_records(batches: list[list[tuple[bytes, bytes]]]) -> None:
    runs = [run for batch in batches for run in read_ces2([written(batch)], KnownRooms(), [])]
    if not runs:
        return
    records = [record for run in runs for record in run.records]
    one = mixed(runs)
    assert (one.records, one.count, one.size) == (records, len(records), sum(map(len, records)))
    assert one.weight >= max(run.weight for run in runs)
    assert one.by_room() == Counter(record[: record.index(b"\n")] for record in records)
    assert b"".join(one.ces1_frames) == frames(records)
    for first in range(len(records)):
        assert one.without_first(first).records == records[first:]


def written(batch: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%b\n%b\n" % record for record in batch)


MESSAGES = st.lists(
    st.sampled_from([b"A\n{}\n", b"\n{\n", b"B\n{" + b"x" * 300 + b"}\n", b"C\n" + b"{" * 20_000 + b"\n"])
    | st.sampled_from([b"*\n{}\n", b"A\nno\n"]),
    max_size=40,
).map(lambda parts: b"".join(parts * 30))


@given(MESSAGES, st.sampled_from([b"", b"A", b"A\n", b"A\n{}"]))
@settings(max_examples=50)
def test_the_pieces_of_a_large_message_say_what_the_whole_says(message: bytes, rest: bytes) -> None:
    message += rest
    cut = list(pieces(message))
    assert b"".join(cut) == message
    for piece in cut:
        assert len(piece) <= PIECE_BYTES or piece.count(b"\n") <= 2
    whole_faults: list[str] = []
    faults: list[str] = []
    whole = [record for run in read_ces2([message], KnownRooms(), whole_faults) for record in run.records]
    found = [
        record for piece in cut for run in read_ces2([piece], KnownRooms(), faults) for record in run.records
    ]
    if message:
        assert (found, faults) == (whole, whole_faults)
