"""Publishers and subscribers of numbered events, which find faults in what arrives.

Every publisher numbers its events per room, so that a subscriber can tell which are lost, duplicated or out
of order. It numbers them all together as well, for the history of a run (`tests.support.lives`). `Outside`
is a link to a repeater, as an outside service has it.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ces.config.link import LinkSettings
from ces.link.link import Link, Owner
from ces.link.side import Side
from ces.messenger.sendable import Sending, make_run
from ces.messenger.waiting import Dropped
from ces.model.address import Address
from ces.model.event import Event
from ces.model.wire import KnownRooms, Run
from ces.ops.clock import utc_now
from ces.uplink.uplink import Uplink
from tests.support.lives import Lives

ROOMS = 3
ROOM_NAMES = tuple(f"ITB-{number}" for number in range(ROOMS))
DATA = "x" * 200


def ignore(result: object) -> None:
    """What came of an event is of no interest."""


class Publisher:
    """Sends events: ``key`` is its name, ``value`` the number in the room, ``user`` the number of all.

    :param send: ``send(room, event)``; returns a Deferred, or None.
    :param lives: records what is sent and what comes of it.
    :param data: of each event.

    said: how many events there were for each room.
    """

    def __init__(self, name: str, send: Any, seed: int, lives: Lives | None = None, data: str = DATA) -> None:
        self.name = name
        self.said: Counter[str] = Counter()
        self._send = send
        self._random = random.Random(seed)
        self._lives = lives
        self._data = data

    def speak(self) -> None:
        """Send one to three events."""
        for _ in range(self._random.randrange(1, 4)):
            room = f"ITB-{self._random.randrange(ROOMS)}"
            number = self.said.total()
            event = Event(key=self.name, value=str(self.said[room]), user=str(number), data=self._data)
            text = event.stamped(utc_now()).to_json()
            self.said[room] += 1
            if self._lives is None:
                self._send(room, text)
            else:
                self._lives.send(self.name, number, room, len(room) + len(text) + 2)
                self._lives.answer(self.name, number, self._send(room, text))


class Heard:
    """The numbers that have arrived from one publisher in one room. Its memory grows only with missing
    numbers.

    missing: numbers below the highest that have not arrived.
    """

    def __init__(self) -> None:
        self.count = self.next = self.twice = self.out_of_order = 0
        self.missing: set[int] = set()

    def add(self, number: int) -> None:
        self.count += 1
        if number >= self.next:
            self.missing.update(range(self.next, number))
            self.next = number + 1
        elif number in self.missing:
            self.missing.remove(number)
            self.out_of_order += 1
        else:
            self.twice += 1


class Subscriber:
    """Records the events that a messenger receives, by publisher and room, and the gaps that it reports.

    :param messenger: the messenger, or another source of both.
    :param name: by which `lives` knows it.
    :param lives: records what arrives and what is announced.
    """

    def __init__(self, messenger: Any, name: str = "", lives: Lives | None = None) -> None:
        self.messenger = messenger
        self.name = name
        self.heard: dict[tuple[str, str], Heard] = defaultdict(Heard)
        self.gaps: list[int | None] = []
        self._lives = lives
        messenger.on_gap(self._missed)
        messenger.on_event(self._arrived)

    def _arrived(self, event: Event, room: str) -> None:
        self.heard[event.key, room].add(int(event.value))
        if self._lives is not None:
            self._lives.arrive(self.name, event.key, int(event.user))

    def _missed(self, lost: int | None) -> None:
        self.gaps.append(lost)
        if self._lives is not None:
            self._lives.announce(self.name, lost)

    def faults(self, publishers: list[Publisher]) -> dict[str, int]:
        """The number of gaps, and of events that are lost, duplicated or out of order."""
        found = Counter({"gaps told": len(self.gaps), "lost": 0, "twice": 0, "out of order": 0})
        for publisher in publishers:
            for room, count in publisher.said.items():
                heard = self.heard[publisher.name, room]
                found["lost"] += count - heard.next + len(heard.missing)
                found["twice"] += heard.twice
                found["out of order"] += heard.out_of_order
        return dict(found)

    @property
    def count(self) -> int:
        return sum(heard.count for heard in self.heard.values())


class Outside(Owner):
    """An outside service: one ces.2 link to the repeater at a port of this host. It always redials."""

    def __init__(self, port: int, settings: LinkSettings, reactor: Any) -> None:
        self.node = f"outside-{port}"
        self._known = KnownRooms()
        side: Side[Link] = Side(settings, reactor, Logger(namespace="ces.test.outside"))
        self._queue = side.new_queue(self)
        address = Address("ws", "127.0.0.1", port)
        self._uplink = Uplink(
            self, side, address, "/connect/ITB-0/device", "target", reactor, queue=self._queue
        )
        self._uplink.dial()

    def send(self, room: str, event: bytes) -> Deferred[None]:
        """Insert one event. Fires when the repeater has acknowledged it, fails when it was dropped."""
        run = make_run(event, room, self._known, 2**20, utc_now)
        run.answer = sent = Deferred[None]()
        self._queue.pending.append(run)
        self._uplink.flush()
        return sent

    def done(self, runs: list[Run]) -> None:
        """The repeater has acknowledged these (`ces.session.queue.Watcher`)."""
        for run in runs:
            assert isinstance(run, Sending)
            run.answer.callback(None)

    def evicted(self, run: Run) -> None:
        """The queue was full."""
        assert isinstance(run, Sending)
        run.answer.addErrback(ignore)
        run.answer.errback(Dropped("the event was dropped"))

    def cut(self, run: Run, rest: Run) -> None:
        """A run has one record, and is not cut."""

    def close(self) -> Deferred[None]:
        """End."""
        return Deferred.fromCoroutine(self._uplink.stop())
