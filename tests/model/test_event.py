"""The v2 event and its JSON: names, defaults, unknown keys, errors with their place."""

from __future__ import annotations

import doctest
import json
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ces.event
from ces.event import Device, Event, EventError, Room, Tag, rfc3339

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
ROOMS = st.builds(Room, building_id=TEXT, room_id=TEXT)
DEVICES = st.builds(Device, building_id=TEXT, room_id=TEXT, device_id=TEXT)
EVENTS = st.builds(
    Event,
    generating_system=TEXT,
    timestamp=TEXT,
    event_tags=st.lists(TEXT, max_size=4).map(tuple),
    target_device=DEVICES,
    affected_room=ROOMS,
    key=TEXT,
    value=TEXT,
    user=TEXT,
    data=JSON,
)
KNOWN = {
    "generating-system": "ITB-1108-CP1",
    "timestamp": "2026-11-23T08:00:00Z",
    "event-tags": ["core-state", "user-generated"],
    "target-device": {"buildingID": "ITB", "roomID": "ITB-1108", "deviceID": "ITB-1108-D1"},
    "affected-room": {"buildingID": "ITB", "roomID": "ITB-1108"},
    "key": "power",
    "value": "on",
    "user": "",
    "data": {"lamp": 3},
}
EMPTY = {
    "generating-system": "",
    "event-tags": [],
    "target-device": {},
    "affected-room": {},
    "key": "",
    "value": "",
    "user": "",
}


def written(event: Event) -> Any:
    return json.loads(event.to_json())


def test_the_example_of_the_public_module_runs() -> None:
    outcome = doctest.testmod(ces.event)
    assert outcome.attempted > 5
    assert outcome.failed == 0


def test_each_wire_name_has_its_field() -> None:
    assert Event.from_json(json.dumps(KNOWN)) == Event(
        generating_system="ITB-1108-CP1",
        timestamp="2026-11-23T08:00:00Z",
        event_tags=(Tag.CORE_STATE, Tag.USER_GENERATED),
        target_device=Device.of("ITB-1108-D1"),
        affected_room=Room.of("ITB-1108"),
        key="power",
        value="on",
        data={"lamp": 3},
    )


def test_an_event_is_written_with_the_wire_names_in_their_order() -> None:
    event = Event.from_json(json.dumps(KNOWN))
    assert written(event) == KNOWN
    assert list(written(event)) == list(KNOWN)


def test_what_the_fleet_leaves_out_when_empty_is_left_out_and_the_rest_is_written() -> None:
    assert written(Event()) == EMPTY


def test_an_empty_time_stamp_which_the_fleet_cannot_read_is_left_out() -> None:
    assert "timestamp" not in written(Event(timestamp=""))
    assert "timestamp" not in written(Event.from_json('{"timestamp": "", "shade": "dim"}'))


@pytest.mark.parametrize("key", [*EMPTY, "timestamp", "data"])
def test_absent_and_null_are_the_default(key: str) -> None:
    absent = {name: value for name, value in KNOWN.items() if name != key}
    event = Event.from_json(json.dumps(absent))
    assert event == Event.from_json(json.dumps({**KNOWN, key: None}))
    expected = {**absent, key: EMPTY[key]} if key in EMPTY else absent
    assert written(event) == expected


def test_null_ids_of_room_and_device_are_left_out() -> None:
    text = '{"target-device": {"roomID": null, "deviceID": "D1"}, "affected-room": {"buildingID": null}}'
    event = Event.from_json(text)
    assert event == Event(target_device=Device(device_id="D1"))
    assert written(event)["target-device"] == {"deviceID": "D1"}


@given(EVENTS)
def test_an_event_survives_the_round_trip(event: Event) -> None:
    text = event.to_json()
    assert b"\n" not in text
    assert Event.from_json(text) == event
    assert Event.from_json(text.decode()) == event


def has_new_names(extra: dict[str, Any]) -> bool:
    return extra.keys().isdisjoint([*KNOWN, "buildingID", "roomID", "deviceID"])


EXTRA = st.dictionaries(TEXT | st.just("(unknown keys)"), JSON, max_size=3).filter(has_new_names)


@given(EXTRA, EXTRA, EXTRA, JSON)
def test_unknown_keys_survive_the_round_trip_on_every_level(
    top: dict[str, Any], in_device: dict[str, Any], in_room: dict[str, Any], data: Any
) -> None:
    tree = {
        **KNOWN,
        "data": data,
        **top,
        "target-device": {"deviceID": "ITB-1108-D1", **in_device},
        "affected-room": {**in_room, "roomID": "ITB-1108"},
    }
    event = Event.from_json(json.dumps(tree))
    assert event.extra == top
    assert event.target_device.extra == in_device
    assert event.affected_room.extra == in_room
    if data is None:
        del tree["data"]
    assert written(event) == tree
    assert Event.from_json(event.to_json()) == event


def test_a_known_key_is_written_once_even_when_extra_holds_it_too() -> None:
    event = Event(key="power", extra={"key": "volume", "shade": 1})  # type: ignore[arg-type]
    assert event.to_json().count(b'"key"') == 1
    assert written(event) == {**EMPTY, "key": "power", "shade": 1}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"value": 30}', "`$.value`: expected `str`, got `int`"),
        ('{"value": 30, "shade": 1}', "`$.value`: expected `str`, got `int`"),
        ('{"target-device": {"roomID": 1}}', "`$.target-device.roomID`: expected `str`, got `int`"),
        (
            '{"affected-room": {"x": 1, "roomID": []}}',
            "`$.affected-room.roomID`: expected `str`, got `array`",
        ),
        ('{"target-device": "D1"}', "`$.target-device`: expected `object`, got `str`"),
        ('{"event-tags": ["a", null]}', "`$.event-tags[1]`: expected `str`, got `null`"),
        ('{"event-tags": "a"}', "`$.event-tags`: expected `array`, got `str`"),
        ("[]", "`$`: expected `object`, got `array`"),
        ("null", "`$`: expected `object`, got `null`"),
        ("", "`$`: input data was truncated"),
        ('{"key": "power"', "`$`: input data was truncated"),
        ('{"data": NaN}', "`$`: JSON is malformed: invalid character (byte 9)"),
        ('{"data": "\\ud800"}', "`$`: input data was truncated"),
        (b"\xff", "`$`: JSON is malformed: invalid character (byte 0)"),
        ('{"data": 1e999}', "`$[...]`: number out of range"),
        ('{"data": ' + "[" * 100_000, "`$`: the JSON is nested too deeply"),
        ('{"shade": ' + '{"a":' * 100_000, "`$`: the JSON is nested too deeply"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_with_its_place(text: str | bytes, sentence: str) -> None:
    with pytest.raises(EventError) as caught:
        Event.from_json(text)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("text", [b'{"key": "\xff"}', '{"key": "\ud800"}', '{"data": ' + "9" * 6000 + "}"])
def test_bad_utf_8_surrogates_and_endless_numbers_are_event_errors(text: str | bytes) -> None:
    with pytest.raises(EventError, match=r"^`\$"):
        Event.from_json(text)


@given(st.binary(max_size=60) | st.text(max_size=60))
def test_garbage_raises_nothing_but_event_error(text: bytes | str) -> None:
    try:
        Event.from_json(text)
    except EventError as error:
        assert "\n" not in str(error)


@given(st.data())
def test_a_damaged_event_raises_nothing_but_event_error(data: st.DataObject) -> None:
    text = bytearray(data.draw(EVENTS).to_json())
    place = data.draw(st.integers(0, len(text) - 1))
    text[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        Event.from_json(bytes(text))
    except EventError as error:
        assert str(error).startswith("`$")


@given(st.dictionaries(st.sampled_from([*KNOWN, "shade"]), JSON))
def test_an_object_of_wrong_types_raises_nothing_but_event_error(tree: dict[str, Any]) -> None:
    try:
        event = Event.from_json(json.dumps(tree))
    except EventError as error:
        assert str(error).startswith("`$.")
    else:
        for key in ("generating-system", "timestamp", "key", "value", "user"):
            assert written(event).get(key, "") == (tree.get(key) or "")
            assert tree.get(key) is None or isinstance(tree[key], str)


@pytest.mark.parametrize("data", [object(), "\ud800", {(1, 2): 3}])
def test_data_that_is_not_json_cannot_be_written(data: object) -> None:
    with pytest.raises(EventError, match=r"^the event cannot be written as JSON: "):
        Event(data=data).to_json()


def test_data_that_holds_itself_cannot_be_written() -> None:
    data: list[Any] = []
    data.append(data)
    with pytest.raises(EventError, match=r"^the event cannot be written as JSON: "):
        Event(data=data).to_json()


def test_an_event_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Event().key = "power"  # type: ignore[misc]
    with pytest.raises(TypeError):
        Event().extra["shade"] = 1  # type: ignore[index]


@pytest.mark.parametrize(
    ("identifier", "building", "room"),
    [
        ("ITB-1108", "ITB", "ITB-1108"),
        ("ITB-1108-D1", "ITB", "ITB-1108"),
        ("ITB-1108-D1-X", "ITB", "ITB-1108"),
        ("LOBBY", "", "LOBBY"),
        ("ITB-", "", "ITB-"),
        ("-1108", "", "-1108"),
        ("", "", ""),
    ],
)
def test_an_id_yields_its_room_and_building(identifier: str, building: str, room: str) -> None:
    assert Room.of(identifier) == Room(building_id=building, room_id=room)


@pytest.mark.parametrize(
    ("identifier", "building", "room"),
    [("ITB-1108-D1", "ITB", "ITB-1108"), ("ITB-1108", "", ""), ("D1", "", ""), ("", "", "")],
)
def test_a_device_keeps_its_id_and_has_a_room_when_the_id_names_one(
    identifier: str, building: str, room: str
) -> None:
    assert Device.of(identifier) == Device(building_id=building, room_id=room, device_id=identifier)


def test_the_room_of_an_event_is_the_affected_one() -> None:
    assert Event(affected_room=Room.of("ITB-1108"), target_device=Device.of("TNRB-1-D1")).room == "ITB-1108"
    assert Event(target_device=Device.of("TNRB-1-D1")).room == ""


@pytest.mark.parametrize(
    ("timestamp", "moment"),
    [
        ("2026-11-23T08:00:00Z", datetime(2026, 11, 23, 8, tzinfo=UTC)),
        ("2026-11-23t08:00:00.5z", datetime(2026, 11, 23, 8, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-11-23T08:00:00.123456789Z", datetime(2026, 11, 23, 8, 0, 0, 123_456, tzinfo=UTC)),
        ("2026-11-23 01:00:00.12-07:00", datetime(2026, 11, 23, 8, 0, 0, 120_000, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_time_reads_rfc_3339_with_any_number_of_fractional_digits(timestamp: str, moment: datetime) -> None:
    assert Event(timestamp=timestamp).time == moment


@pytest.mark.parametrize(
    "timestamp",
    [
        "",
        "now",
        "2026-11-23",
        "2026-11-23T08:00Z",
        "2026-11-23T08:00:00",
        "2026-11-23T08:00:00Z\n",
        "2026-13-01T00:00:00Z",
        "2026-11-23T08:00:00+99:00",
        "2026-W01-1T00:00:00Z",
        "\uff12\uff10\uff12\uff16-11-23T08:00:00Z",
    ],
)
def test_an_event_without_a_readable_time_stamp_has_no_time(timestamp: str) -> None:
    assert Event(timestamp=timestamp).time is None


def test_an_event_without_a_time_stamp_can_be_given_one() -> None:
    moment = datetime(2026, 11, 23, 8, tzinfo=UTC)
    event = Event(key="power", affected_room=Room.of("ITB-1108"), extra=MappingProxyType({"shade": "dim"}))
    stamped = event.stamped(moment)
    assert stamped.timestamp == "2026-11-23T08:00:00Z"
    assert stamped.time == moment
    assert {**written(event), "timestamp": stamped.timestamp} == written(stamped)
    assert event.timestamp == "", "events cannot be changed"


def test_an_event_keeps_the_time_stamp_that_it_has() -> None:
    event = Event(timestamp="yesterday")
    assert event.stamped(datetime(2026, 11, 23, 8, tzinfo=UTC)) is event


@given(st.datetimes(timezones=st.timezones()), st.integers(1, 23))
def test_a_moment_survives_being_written(moment: datetime, hours: int) -> None:
    for zone in (UTC, timezone(timedelta(hours=hours)), moment.tzinfo):
        try:
            text = rfc3339(moment.replace(tzinfo=zone))
        except EventError:
            assert moment.year in (1, 9999)
        else:
            assert text.endswith("Z")
            assert Event(timestamp=text).time == moment.replace(tzinfo=zone).astimezone(UTC)


def test_a_moment_without_a_time_zone_is_refused() -> None:
    with pytest.raises(EventError, match="needs a time zone"):
        rfc3339(datetime(2026, 11, 23, 8))
