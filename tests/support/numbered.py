"""Numbered events: who sends them, who counts them, and what is wrong with what arrived.

Every publisher numbers its events per room, so that a subscriber can say which are lost, twice or out of
order. Our own messengers, and a link to a repeater as an outside service has one.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ces.link.owner import LinkLimits, Owner
from ces.link.side import Side
from ces.messenger import Messenger
from ces.messenger.sendable import make_run
from ces.model.address import Address
from ces.model.wire import KnownRooms
from ces.ops.clock import utc_now
from ces.uplink.reconnect import Dialler

ROOMS = 3


class Publisher:
    """Numbers its events per room. `said` is how many there are of each."""

    def __init__(self, name: str, send: Any, seed: int) -> None:
        self.name = name
        self.said: Counter[str] = Counter()
        self._send = send
        self._random = random.Random(seed)

    def speak(self) -> None:
        """A few events."""
        for _ in range(self._random.randrange(1, 4)):
            room = f"ITB-{self._random.randrange(ROOMS)}"
            self._send(room, {"key": self.name, "value": str(self.said[room]), "data": "x" * 200})
            self.said[room] += 1


class Heard:
    """Which numbers of one publisher and room have come; as small as little is missing.

    missing: below the highest, and not there yet.
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
    """What it has heard, per publisher and room, and the gaps that it was told of."""

    def __init__(self, messenger: Messenger) -> None:
        self.messenger = messenger
        self.heard: dict[tuple[str, str], Heard] = defaultdict(Heard)
        self.gaps: list[int | None] = []
        messenger.on_gap(self.gaps.append)
        messenger.on_event(lambda event, room: self.heard[event.key, room].add(int(event.value)))

    def faults(self, publishers: list[Publisher]) -> dict[str, int]:
        """How many events are lost, twice, or out of order."""
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
    """An outside service: one ces.2 link to the repeater at a port of this host, dialled for ever."""

    def __init__(self, port: int, limits: LinkLimits, reactor: Any) -> None:
        self.node = f"outside-{port}"
        self._known = KnownRooms()
        side = Side(self, limits, reactor, Logger(namespace="ces.test.outside"))
        self.dialler = Dialler(
            side, Address("ws", "127.0.0.1", port), "/connect/ITB-0/device", "target", reactor
        )
        self.dialler.dial()

    def send(self, room: str, event: dict[str, str]) -> None:
        """Insert one event."""
        self.dialler.session.outbox.pending.append(make_run(event, room, self._known, 2**20, utc_now))
        if self.dialler.link is not None:
            self.dialler.side.turn.add(self.dialler.link)

    def close(self) -> Deferred[None]:
        """End."""
        return self.dialler.stop()
