"""A simulated building: rooms whose devices report like those in the field.

Owns the devices, their state, and the times of their reports. Does not know links, hubs or the clock: the
caller passes the time and gets the events that are due. The same seed and the same steps give the same
events.

Each habit of a room (its heartbeat, its polls, its users, its faults) is a generator of reports and of pauses
in seconds. A heap orders the habits by the time of their next step. At rate 1 a building of 20 rooms sends
about four events a second, and six during its start. Heartbeats come every minute, as in the field. People
are somewhat busier than there.
"""

from __future__ import annotations

import heapq
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from ces.model.event import Device, Event, Room, Tag, rfc3339

__all__ = ["Building"]

_CATCH_UP: Final = 5.0
"""Longest delay that is made up for, in seconds. After a longer one (the machine slept) events are skipped,
to avoid flooding the hub.
"""
_ROOMS_PER_FLOOR: Final = 10

_DISPLAYS: Final = ("D1", "D2", "D3")
_INPUTS: Final = ("HDMI1", "HDMI2", "VIA1", "PC1")
_MICROPHONES: Final = ("MIC1", "MIC2")
# The equipment of a room: the percentage of rooms that have each device.
_EQUIPMENT: Final = {
    "CP1": 100, "TP1": 100, "D1": 100, "D2": 60, "D3": 20, "HDMI1": 100, "HDMI2": 40, "VIA1": 80, "PC1": 50,
    "SW1": 50, "DSP1": 60, "MIC1": 60, "MIC2": 30, "SP1": 40,
}  # fmt: skip
_PEOPLE: Final = ("aharris", "bwood7", "cmtaylor", "dlee22", "emgarcia", "fnielsen")

_BY_USER: Final = (Tag.CORE_STATE, Tag.USER_GENERATED)
_BY_POLL: Final = (Tag.CORE_STATE, Tag.AUTO_GENERATED)
_ALIVE: Final = (Tag.CORE_STATE, Tag.AUTO_GENERATED, Tag.HEARTBEAT)
_DETAIL: Final = (Tag.DETAIL_STATE, Tag.AUTO_GENERATED)
_METRIC: Final = (Tag.DETAIL_STATE, Tag.METRICS, Tag.AUTO_GENERATED)
_ALERT: Final = (Tag.ALERT, Tag.USER_GENERATED)
_TOUCH: Final = ("ui-event", Tag.USER_GENERATED)
_ABOUT: Final = (Tag.HARDWARE_INFO, Tag.DETAIL_STATE, Tag.STARTUP)


@dataclass(frozen=True, slots=True)
class _Report:
    """A report of a device, before it becomes an event. A `value` of None means the event's timestamp."""

    device: str
    key: str
    value: str | None
    tags: tuple[str, ...]
    user: str = ""
    data: Any = None
    knows_its_room: bool = True


_Habit: TypeAlias = Iterator[_Report | float]


class Building:
    """A building with the rooms `NAME-1101`, `NAME-1102`..., each with 6 to 14 devices.

    :param rooms: number of rooms, at least 1.
    :param rate: factor for the frequency of events; 1 is as described above. It does not change the pace
        within one gesture, such as moving a slider.
    :raises ValueError: when `rooms` is below 1 or `rate` is not above 0.
    """

    def __init__(self, name: str = "ITB", rooms: int = 20, *, rng: random.Random, rate: float = 1.0) -> None:
        if rooms < 1 or not rate > 0:
            raise ValueError(f"a building needs at least one room and a rate above 0, not {rooms} and {rate}")
        self.rooms: tuple[str, ...] = tuple(
            f"{name}-{1 + i // _ROOMS_PER_FLOOR}1{1 + i % _ROOMS_PER_FLOOR:02}" for i in range(rooms)
        )
        lives = [_RoomLife(room, rng, rate) for room in self.rooms]
        self._habits: list[_Habit] = [habit for life in lives for habit in life.habits()]
        self._turns: list[tuple[float, int, _Habit]] = []

    def step(self, now: datetime) -> list[Event]:
        """The events since the last step, in order of time. The first step starts the building.

        The sender of an event is its `generating_system`, a control processor. The room may be blank, because
        some devices do not know theirs.

        :param now: an aware time, never earlier than in the last step.
        """
        moment = now.timestamp()
        if not self._turns:
            self._turns = [(moment, number, habit) for number, habit in enumerate(self._habits)]
        events = []
        while self._turns[0][0] <= moment:
            due, number, habit = self._turns[0]
            for said in habit:
                if isinstance(said, float):
                    heapq.heapreplace(self._turns, (max(due, moment - _CATCH_UP) + said, number, habit))
                    break
                events.append(_event(said, datetime.fromtimestamp(due, UTC)))
        return events


def _event(report: _Report, moment: datetime) -> Event:
    device, timestamp = Device.of(report.device), rfc3339(moment)
    return Event(
        generating_system=f"{device.room_id}-CP1",
        timestamp=timestamp,
        event_tags=report.tags,
        target_device=device,
        affected_room=Room.of(device.room_id) if report.knows_its_room else Room(),
        key=report.key,
        value=timestamp if report.value is None else report.value,
        user=report.user,
        data=report.data,
    )


class _RoomLife:
    """The devices of one room, their state, and the room's habits."""

    def __init__(self, room: str, rng: random.Random, rate: float) -> None:
        self._rng = rng
        self._rate = rate
        self._room = room
        here = [name for name, percent in _EQUIPMENT.items() if rng.uniform(0, 100) < percent]
        self._devices = [f"{room}-{name}" for name in here]
        self._displays = [f"{room}-{name}" for name in here if name in _DISPLAYS]
        self._inputs = [f"{room}-{name}" for name in here if name in _INPUTS]
        self._microphones = [f"{room}-{name}" for name in here if name in _MICROPHONES]
        self._processor, self._panel = f"{room}-CP1", f"{room}-TP1"
        self._sound = f"{room}-DSP1" if "DSP1" in here else self._displays[0]
        self._address = f"10.13.{rng.randrange(256)}.{rng.randrange(1, 255)}"
        self._on = {display: False for display in self._displays}
        self._volume = rng.randrange(20, 60)
        self._battery = {microphone: rng.randrange(120, 600) for microphone in self._microphones}

    def habits(self) -> list[_Habit]:
        """The room's habits, each of which is endless. Their order affects what a seed produces."""
        return [
            self._startup(),
            self._heartbeats(),
            self._polls(),
            self._metrics(),
            self._people(),
            self._faults(),
            self._help(),
            self._strangers(),
            *(self._alive(device) for device in self._devices),
        ]

    def _every(self, seconds: float) -> float:
        """A nearly regular pause, as devices make it; `seconds` is its length at rate 1."""
        return self._rng.uniform(0.9, 1.1) * seconds / self._rate

    def _about(self, seconds: float) -> float:
        """An irregular pause, as between people or faults; `seconds` is its average at rate 1."""
        return self._rng.expovariate(self._rate / seconds)

    def _start_of(self, seconds: float) -> float:
        return self._rng.uniform(0, seconds) / self._rate

    # What devices do by themselves

    def _startup(self) -> _Habit:
        yield self._start_of(60)
        while True:
            serial = f"{self._rng.randrange(16**10):010X}"
            yield _Report(self._processor, "hostname", self._processor, _ABOUT)
            yield _Report(self._processor, "ip-address", self._address, _ABOUT)
            yield _Report(self._processor, "software-version", "2.4.1", _ABOUT)
            hardware = self._hardware(serial)
            yield _Report(
                self._processor, "hardware-info", json.dumps(hardware["host"]), _ABOUT, data=hardware
            )
            yield self._every(86_400)

    def _hardware(self, serial: str) -> dict[str, Any]:
        """A control processor's report about itself, its interfaces and its devices: up to 4 kB."""
        mac = ":".join(serial[i : i + 2] for i in range(0, 10, 2))
        return {
            "host": {"hostname": self._processor, "serial": serial, "os": "linux", "kernel": "6.1.0"},
            "interfaces": [
                {"name": name, "mac": f"{mac}:{i:02X}", "address": self._address, "mtu": 1500, "up": i == 0}
                for i, name in enumerate(("eth0", "eth1", "wlan0"))
            ],
            "devices": [
                {
                    "deviceID": device,
                    "firmware": f"{self._rng.randrange(1, 9)}.{self._rng.randrange(20)}.0",
                    "serial": f"{self._rng.randrange(16**12):012X}",
                    "roles": ["EventRouter"] if device == self._processor else ["Controllable", "Monitored"],
                }
                for device in self._devices
            ],
        }

    def _heartbeats(self) -> _Habit:
        yield self._start_of(60)
        while True:
            yield _Report(self._processor, "last-heartbeat", None, (Tag.HEARTBEAT, Tag.AUTO_GENERATED))
            yield self._every(60)

    def _alive(self, device: str) -> _Habit:
        every = self._rng.choice((60, 120, 300))
        yield self._start_of(every)
        while True:
            key, value = self._rng.choice((("online", "Online"), ("responsive", "Ok")))
            yield _Report(device, key, value, _ALIVE)
            yield self._every(every)

    def _polls(self) -> _Habit:
        yield self._start_of(300)
        while True:
            for display in self._displays:
                yield _Report(display, "power", self._power(display), _BY_POLL)
                yield self._rng.uniform(0.05, 0.5)
                signal = "true" if self._on[display] else "false"
                yield _Report(display, "active-signal", signal, (*_DETAIL, Tag.ACTIVE_SIGNAL))
            for microphone in self._microphones:
                left = self._battery[microphone] = (self._battery[microphone] - 5) % 600
                charge = f"{left // 60}:{left % 60:02}"
                yield _Report(microphone, "battery-charge-hours-minutes", charge, _DETAIL)
                yield _Report(microphone, "interference", self._rng.choice(("none", "low")), _DETAIL)
            yield self._every(300)

    def _metrics(self) -> _Habit:
        yield self._start_of(300)
        while True:
            for key, low, high in (
                ("cpu-usage-percent", 3, 60),
                ("v-mem-used-percent", 20, 70),
                ("disk-used-percent", 30, 50),
            ):
                value = f"{self._rng.uniform(low, high):.2f}"
                yield _Report(self._processor, key, value, _METRIC, data={"unit": "percent", "cores": 4})
            yield self._every(300)

    # What people do

    def _people(self) -> _Habit:
        yield self._about(60)
        while True:
            user = self._rng.choice(_PEOPLE)
            if not any(self._on.values()):
                yield from self._switch(user, on=True)
            else:
                gestures: tuple[Callable[[str], _Habit], ...] = (
                    self._slide, self._slide, self._mute, self._blank, self._choose_input, self._camera,
                    self._leave,
                )  # fmt: skip
                yield from self._rng.choice(gestures)(user)
            yield self._about(60)

    def _by_user(self, device: str, key: str, value: str, user: str) -> _Report:
        return _Report(device, key, value, _BY_USER, user, {"requester": self._address})

    def _press(self, button: str, user: str) -> _Report:
        return _Report(self._panel, "user-interaction", button, _TOUCH, user, f"pressed {button}")

    def _power(self, display: str) -> str:
        return "on" if self._on[display] else "standby"

    def _switch(self, user: str, *, on: bool) -> _Habit:
        yield self._press("power-on" if on else "power-off", user)
        for display in self._displays:
            self._on[display] = on
            yield self._rng.uniform(0.2, 1.5)
            yield self._by_user(display, "power", self._power(display), user)
        if on:
            yield self._rng.uniform(0.5, 1.5)
            yield from self._choose_input(user)

    def _leave(self, user: str) -> _Habit:
        yield from self._switch(user, on=False)

    def _choose_input(self, user: str) -> _Habit:
        source = self._rng.choice(self._inputs)
        yield self._press("input", user)
        for display in self._displays:
            yield self._rng.uniform(0.1, 0.6)
            yield self._by_user(display, "input", source, user)
            yield self._by_user(display, "blanked", "false", user)

    def _slide(self, user: str) -> _Habit:
        direction = 1 if self._volume < 40 else -1
        for _ in range(self._rng.randrange(4, 16)):
            self._volume = min(100, max(0, self._volume + direction * self._rng.randrange(1, 5)))
            yield self._by_user(self._sound, "volume", str(self._volume), user)
            yield self._rng.uniform(0.05, 0.2)

    def _mute(self, user: str) -> _Habit:
        yield self._by_user(self._sound, "muted", "true", user)
        yield self._rng.uniform(2, 10)
        yield self._by_user(self._sound, "muted", "false", user)

    def _blank(self, user: str) -> _Habit:
        display = self._rng.choice(self._displays)
        yield self._press("blank", user)
        yield self._by_user(display, "blanked", "true", user)
        yield self._rng.uniform(5, 20)
        yield self._by_user(display, "blanked", "false", user)

    def _camera(self, user: str) -> _Habit:
        preset = self._rng.choice(("lectern", "board", "audience"))
        yield _Report(self._panel, "GoToPreset", preset, (Tag.USER_GENERATED,), user)

    def _help(self) -> _Habit:
        yield self._about(1_200)
        while True:
            user = self._rng.choice(_PEOPLE)
            yield _Report(self._panel, "help-request", "confirm", _ALERT, user, "the projector shows nothing")
            yield self._rng.uniform(20, 90)
            yield _Report(self._panel, "help-request", "cancel", _ALERT, user)
            yield self._about(1_200)

    # What goes wrong

    def _faults(self) -> _Habit:
        yield self._about(900)
        while True:
            device = self._rng.choice(self._devices)
            what = self._rng.choice(("timeout after 5 s", "connection refused", "unexpected answer 0x15"))
            yield _Report(device, "error-string", f"{device}: {what}", (Tag.ERROR, Tag.AUTO_GENERATED))
            yield _Report(device, "online", "Offline", _ALIVE)
            yield self._rng.uniform(10, 60)
            yield _Report(device, "online", "Online", _ALIVE)
            yield self._about(900)

    def _strangers(self) -> _Habit:
        """Devices that report without knowing their room."""
        yield self._about(600)
        while True:
            device = self._rng.choice(self._devices)
            yield _Report(device, "timer-v", "1", _DETAIL, knows_its_room=False)
            yield self._about(600)
