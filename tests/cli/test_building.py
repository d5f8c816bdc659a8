"""The simulated building: what it says, how often, and that a seed repeats it."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from ces.cli.building import Building
from ces.event import Event, Room

START = datetime(2026, 11, 23, 8, tzinfo=UTC)


def spoken(
    seconds: int, *, seed: int = 1, rooms: int = 20, rate: float = 1.0, step: float = 1.0
) -> list[Event]:
    """All events of the first seconds of a building."""
    building = Building(rooms=rooms, rng=random.Random(seed), rate=rate)
    events = building.step(START)
    for number in range(1, int(seconds / step) + 1):
        events += building.step(START + timedelta(seconds=number * step))
    return events


@pytest.fixture(scope="module")
def hour() -> list[Event]:
    return spoken(3600)


def test_rooms_have_ids_of_the_building() -> None:
    building = Building("TNRB", rooms=12, rng=random.Random(1))
    assert building.rooms[:2] == ("TNRB-1101", "TNRB-1102")
    assert building.rooms[10:] == ("TNRB-2101", "TNRB-2102")
    assert all(Room.of(room) == Room(building_id="TNRB", room_id=room) for room in building.rooms)


def test_a_seed_repeats_the_events_and_another_one_does_not() -> None:
    assert spoken(120, seed=7) == spoken(120, seed=7)
    assert spoken(120, seed=7) != spoken(120, seed=8)


def test_how_often_it_is_stepped_does_not_change_how_much_it_says() -> None:
    assert len(spoken(600, step=0.25)) == pytest.approx(len(spoken(600, step=2.0)), rel=0.2)


def test_twenty_rooms_say_some_events_a_second() -> None:
    events = spoken(600)
    assert 3 <= len(events) / 600 <= 6


def test_the_rate_scales_the_events() -> None:
    assert 3.5 <= len(spoken(600, rate=5)) / len(spoken(600)) <= 5.5


def test_an_hour_holds_everything_that_the_field_knows(hour: list[Event]) -> None:
    keys = Counter(event.key for event in hour)
    assert keys.keys() >= {
        "power",
        "input",
        "volume",
        "blanked",
        "muted",
        "active-signal",
        "online",
        "responsive",
        "last-heartbeat",
        "cpu-usage-percent",
        "battery-charge-hours-minutes",
        "user-interaction",
        "GoToPreset",
        "error-string",
        "help-request",
        "hardware-info",
        "software-version",
    }
    assert keys["hardware-info"] == 20


def test_events_survive_the_wire_and_come_in_order_of_time(hour: list[Event]) -> None:
    assert all(Event.from_json(event.to_json()) == event for event in hour)
    times = [event.time for event in hour]
    assert times == sorted(times)
    assert times[0] >= START
    assert times[-1] <= START + timedelta(hours=1)


def test_events_are_as_long_as_those_in_the_field(hour: list[Event]) -> None:
    usual = [len(event.to_json()) for event in hour if event.key != "hardware-info"]
    assert min(usual) >= 250
    assert max(usual) <= 700
    assert 300 <= sum(usual) / len(usual) <= 500
    hardware = [len(event.to_json()) for event in hour if event.key == "hardware-info"]
    assert min(hardware) >= 1000
    assert max(hardware) <= 4096


def test_each_control_processor_has_a_heartbeat_a_minute(hour: list[Event]) -> None:
    beats = Counter(event.generating_system for event in hour if event.key == "last-heartbeat")
    assert len(beats) == 20
    assert all(55 <= count <= 67 for count in beats.values())


def test_each_call_for_help_is_cancelled_before_the_next(hour: list[Event]) -> None:
    rooms = {event.room for event in hour if event.key == "help-request"}
    assert rooms
    for room in rooms:
        calls = [event.value for event in hour if event.key == "help-request" and event.room == room]
        assert calls == (["confirm", "cancel"] * len(calls))[: len(calls)]


def test_a_slider_moves_in_a_burst(hour: list[Event]) -> None:
    moves = [event for event in hour if event.key == "volume"]
    pauses = [
        (after.time - before.time).total_seconds()
        for before, after in pairwise(moves)
        if before.target_device == after.target_device
    ]
    assert sum(pause < 0.25 for pause in pauses) > len(pauses) * 0.7
    assert all(0 <= int(event.value) <= 100 for event in moves)


def test_some_devices_do_not_know_their_room_but_have_a_sender(hour: list[Event]) -> None:
    blank = [event for event in hour if event.room == ""]
    assert 0 < len(blank) < len(hour) / 20
    assert {Room.of(event.generating_system).room_id for event in blank} <= {event.room for event in hour}


def test_a_building_that_was_not_stepped_for_hours_does_not_flood() -> None:
    building = Building(rng=random.Random(1))
    building.step(START)
    usual = len(spoken(120))
    assert len(building.step(START + timedelta(hours=5))) < usual * 2
    assert len(building.step(START + timedelta(hours=5, minutes=1))) < usual


@pytest.mark.parametrize(("rooms", "rate"), [(0, 1.0), (1, 0.0), (1, -1.0), (1, float("nan"))])
def test_no_rooms_and_no_rate_are_refused(rooms: int, rate: float) -> None:
    with pytest.raises(ValueError, match="a building needs"):
        Building(rooms=rooms, rng=random.Random(1), rate=rate)
