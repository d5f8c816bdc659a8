"""Publishers and subscribers of numbered events, which find faults in what arrives.

Every publisher numbers its events per room, so that a subscriber can tell which are lost, duplicated or out
of order. `Outside` is a link to a repeater, as an outside service has it.
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
from ces.messenger import Messenger
from ces.messenger.sendable import make_run
from ces.model.address import Address
from ces.model.wire import KnownRooms
from ces.ops.clock import utc_now
from ces.uplink.uplink import Uplink

ROOMS = 3


class Publisher:
    """Sends events that are numbered per room. `said` counts them by room."""

    def __init__(self, name: str, send: Any, seed: int) -> None:
        self.name = name
        self.said: Counter[str] = Counter()
        self._send = send
        self._random = random.Random(seed)

    def speak(self) -> None:
        """Send one to three events."""
        for _ in range(self._random.randrange(1, 4)):
            room = f"ITB-{self._random.randrange(ROOMS)}"
            self._send(room, {"key": self.name, "value": str(self.said[room]), "data": "x" * 200})
            self.said[room] += 1


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
    """Records the events that a messenger receives, by publisher and room, and the gaps that it reports."""

    def __init__(self, messenger: Messenger) -> None:
        self.messenger = messenger
        self.heard: dict[tuple[str, str], Heard] = defaultdict(Heard)
        self.gaps: list[int | None] = []
        messenger.on_gap(self.gaps.append)
        messenger.on_event(lambda event, room: self.heard[event.key, room].add(int(event.value)))

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
        self._queue = side.new_queue()
        address = Address("ws", "127.0.0.1", port)
        self._uplink = Uplink(
            self, side, address, "/connect/ITB-0/device", "target", reactor, queue=self._queue
        )
        self._uplink.dial()

    def send(self, room: str, event: dict[str, str]) -> None:
        """Insert one event."""
        self._queue.pending.append(make_run(event, room, self._known, 2**20, utc_now))
        self._uplink.flush()

    def close(self) -> Deferred[None]:
        """End."""
        return Deferred.fromCoroutine(self._uplink.stop())
