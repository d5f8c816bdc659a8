"""Text messages: subscription changes and control messages (docs/protocol.md sections 4 and 5)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ces.model.control import (
    Error,
    Gap,
    Hello,
    MalformedControl,
    Message,
    SubscriptionChange,
    read_control,
    write_control,
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"rooms": ["A", "B"], "create": true}', SubscriptionChange(["A", "B"], True)),
        ('{"rooms": ["A"], "create": false}', SubscriptionChange(["A"], False)),
        ('{"rooms": ["A"]}', SubscriptionChange(["A"], False)),
        ('{"rooms": ["*", "", "Köln"], "create": true}', SubscriptionChange(["*", "", "Köln"], True)),
        ('{"rooms": ["A", "A"], "create": true}', SubscriptionChange(["A", "A"], True)),
        ("{}", SubscriptionChange()),
        ('{"create": false}', SubscriptionChange()),
        ('{"rooms": null, "create": false}', SubscriptionChange()),
        ('{"rooms": [], "create": true}', SubscriptionChange([], True)),
        ('{"create": true}', SubscriptionChange([], True)),
        ('{"rooms": ["A"], "create": true, "more": [1, {}]}', SubscriptionChange(["A"], True)),
        ('{"hello": {"node": "n"}}', Hello("n")),
        ('{"hello": {"node": "n", "session": null, "received": 0}}', Hello("n")),
        ('{"hello": {"node": "n", "session": "s", "received": 7, "new": 1}}', Hello("n", "s", 7)),
        (
            '{"hello": {"node": "n", "session": "s", "received": 7, "resumed": true, "window": 120}}',
            Hello("n", "s", 7, True, 120.0),
        ),
        ('{"ack": 12}', 12),
        ('{"gap": {"lost": 3}}', Gap(3)),
        ('{"error": {"code": 4400, "reason": "no"}}', Error(4400, "no")),
    ],
)
def test_a_text_message_is_read(text: str, message: Message | int) -> None:
    assert read_control(text.encode()) == message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rooms",
        "[]",
        "null",
        '"A"',
        "{",
        '{"rooms": "A"}',
        '{"rooms": [1]}',
        '{"rooms": [null]}',
        '{"rooms": ["A"], "create": 1}',
        '{"rooms": ["A"], "create": null}',
        '{"hello": {}}',
        '{"hello": []}',
        '{"hello": {"node": 1}}',
        '{"hello": {"node": "n", "received": -1}}',
        '{"hello": {"node": "n", "received": 1.5}}',
        '{"hello": {"node": "n", "session": 1}}',
        '{"ack": -1}',
        '{"ack": "1"}',
        '{"ack": 9223372036854775808}',
        '{"gap": {"lost": -1}}',
        '{"gap": {}}',
        '{"error": {"code": "x", "reason": ""}}',
        '{"error": {"code": 4400}}',
        '{"ack": ' + "9" * 5000 + "}",
        '{"hello": {"node": "n", "window": 1e999}}',
        '{"more": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"rooms": ' + "[" * 100_000,
        '{"a":' * 100_000,
    ],
)
def test_what_is_no_text_message_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(MalformedControl, match=r"^the text message cannot be read: .") as caught:
        read_control(text.encode())
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("node", ["", "a b", "Köln", "a\n", "a\x00", "n" * 129])
def test_a_node_is_short_and_printable(node: str) -> None:
    with pytest.raises(MalformedControl, match=r"^the node of a hello is 1 to 128 printable ASCII"):
        read_control(json.dumps({"hello": {"node": node}}).encode())


def test_the_longest_node_is_read() -> None:
    assert read_control(json.dumps({"hello": {"node": "n" * 128}}).encode()) == Hello("n" * 128)


@pytest.mark.parametrize(
    ("room", "fault"),
    [
        ("{x", "begins with '{'"),
        ("a\nb", "control character"),
        ("a\x7f", "control character"),
        ("a\u0085", "control character"),
        ("r" * 256, "256 bytes long"),
        ("ü" * 128, "256 bytes long"),
    ],
)
def test_a_room_that_breaks_the_rules_is_refused(room: str, fault: str) -> None:
    with pytest.raises(MalformedControl, match=f"^room .* cannot be subscribed to: the room .*{fault}"):
        read_control(json.dumps({"rooms": ["A", room], "create": True}).encode())


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (SubscriptionChange(["A"], True), '{"rooms":["A"],"create":true}'),
        (SubscriptionChange(), '{"rooms":[],"create":false}'),
        (Hello("n"), '{"hello":{"node":"n","session":null,"received":0}}'),
        (
            Hello("n", "s", 2, True, 120),
            '{"hello":{"node":"n","session":"s","received":2,"resumed":true,"window":120}}',
        ),
        (Gap(3), '{"gap":{"lost":3}}'),
        (Error(4400, "no"), '{"error":{"code":4400,"reason":"no"}}'),
    ],
)
def test_a_message_is_written_as_the_protocol_shows_it_and_read_again(message: Message, text: str) -> None:
    assert write_control(message) == text.encode()
    assert read_control(write_control(message)) == message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
keys = st.sampled_from(
    ["hello", "ack", "gap", "error", "rooms", "create", "node", "session", "lost", "code", "x"]
)
near_misses = st.dictionaries(keys, json_values | st.dictionaries(keys, json_values, max_size=3), max_size=3)


@given(
    st.binary(max_size=60) | near_misses.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass"))
)
def test_any_text_is_read_or_refused(text: bytes) -> None:
    try:
        message = read_control(text)
    except MalformedControl as fault:
        assert str(fault)
    else:
        assert isinstance(message, SubscriptionChange | Hello | Gap | Error | int)
