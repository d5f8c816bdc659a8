"""Events in the body of a request, and the room that an event names."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ces.model.posted import MalformedEvent, event_room, tag_event
from tests.support.posted import read_posted

LIMIT = 1000
DEPTH = 64
NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
T = b'"timestamp":"2026-11-23T08:00:00Z"'


@pytest.mark.parametrize(
    ("event", "room"),
    [
        ({"affected-room": {"roomID": "A"}, "target-device": {"roomID": "B"}}, "A"),
        ({"affected-room": {"roomID": ""}, "target-device": {"roomID": "B"}}, "B"),
        ({"affected-room": None, "target-device": {"roomID": "B"}}, "B"),
        ({"affected-room": {"roomID": None}}, None),
        ({"affected-room": {}}, None),
        ({"key": "power", "data": {"affected-room": {"roomID": "A"}}}, None),
        ({}, None),
    ],
)
def test_an_event_names_its_room(event: dict[str, object], room: str | None) -> None:
    assert event_room(json.dumps(event).encode()) == room


@pytest.mark.parametrize(
    ("body", "records"),
    [
        (
            b'{"affected-room": {"roomID": "A"}, "timestamp": "1"}',
            [b'A\n{"affected-room": {"roomID": "A"}, "timestamp": "1"}\n'],
        ),
        (b' {"key":\n"power","timestamp":"1"}\n', [b'\n{"key": "power","timestamp":"1"}\n']),
        (
            b' [ {"a":1,"timestamp":"1"} , {"target-device":{"roomID":"B"},"timestamp":"2"} ]',
            [b'\n{"a":1,"timestamp":"1"}\n', b'B\n{"target-device":{"roomID":"B"},"timestamp":"2"}\n'],
        ),
        (b"[]", []),
    ],
)
def test_a_body_is_one_event_or_an_array_of_them(body: bytes, records: list[bytes]) -> None:
    assert [record for run in read_posted(body, LIMIT, DEPTH, NOW) for record in run.records] == records


@pytest.mark.parametrize(
    ("body", "event"),
    [
        (b"{}", b"{%b}" % T),
        (b'{"key": "power"}', b'{"key":"power",%b}' % T),
        (b'{"timestamp": "", "key": "power"}', b'{%b,"key":"power"}' % T),
        (b'{"timestamp": null}', b"{%b}" % T),
        (b'{"timestamp":"1","timestamp":""}', b"{%b}" % T),
        (b'{"a": 1.0, "b": 1e999, "c": [1,\n2]}', b'{"a":1.0,"b":1e999,"c":[1, 2],%b}' % T),
        (b'{"timestamp": "noon"}', b'{"timestamp": "noon"}'),
        (b'{"timestamp": 0}', b'{"timestamp": 0}'),
    ],
)
def test_an_event_without_a_time_stamp_gets_the_present_time(body: bytes, event: bytes) -> None:
    for text in (body, b"[%b]" % body):
        assert [run.events for run in read_posted(text, LIMIT, DEPTH, NOW)] == [[event]]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", r"^The body is not JSON: .*\.$"),
        (b"power", r"^The body is not JSON: .*\.$"),
        (b'{"a":1', r"^The body is not JSON: .*\.$"),
        (b'{"a":1}{"b":2}', r"^The body is not JSON: .*byte \d+.*\.$"),
        (b"[" * 100_000, r"^The body is not JSON: .*\.$"),
        (b'{"a":"\xff"}', r"^The body is not JSON: .*\.$"),
        (b"[%b]" % b",".join([b"{}"] * 10_001), r"^The array holds more than 10000 events, which is .*\.$"),
        (
            b'{"a":"%b"}' % (b"x" * 1000),
            r"^The body is not an event: .* record of more than 10.. bytes; at most 1000 may.*\.$",
        ),
        (b"1", r"^The body is not an event: .*\.$"),
        (b"null", r"^The body is not an event: .*\.$"),
        (b'[{"a":1}, 2]', r"^Item 2 of the array is not an event: .*\.$"),
        (b'{"affected-room": {"roomID": 5}}', r"^The body is not an event: .*affected-room.*\.$"),
        (b'{"affected-room": {"roomID": "*"}}', r"^The body is not an event: the room is '\*'.*\.$"),
        (
            b'[{"affected-room": {"roomID": "a\\nb"}}]',
            r"^Item 1 of the array is not an event: .*control.*\.$",
        ),
    ],
)
def test_a_body_without_events_is_named_in_a_sentence(body: bytes, why: str) -> None:
    with pytest.raises(MalformedEvent, match=why):
        read_posted(body, LIMIT, DEPTH, NOW)


def test_an_event_that_names_no_room_gets_the_default() -> None:
    assert tag_event(b'{"key":"power"}', "ITB-1108").records == [b'ITB-1108\n{"key":"power"}\n']
    assert tag_event(b'{"affected-room":{"roomID":"A"}}', "ITB-1108").room == b"A"


bodies = st.recursive(
    st.none() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["affected-room", "target-device", "roomID", "x"]), inner, max_size=3
        )
    ),
    max_leaves=6,
).map(lambda value: json.dumps(value).encode())


@given(st.binary(max_size=40) | bodies)
def test_any_body_is_read_or_refused(body: bytes) -> None:
    try:
        runs = read_posted(body, LIMIT, DEPTH, NOW)
    except MalformedEvent as fault:
        assert str(fault).endswith(".")
    else:
        assert all(run.count == 1 and run.records[0].startswith(run.room + b"\n{") for run in runs)
