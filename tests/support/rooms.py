"""Subscriptions that change under faults: rooms that flap, very many at once, and some that are judged."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

from ces.messenger import Messenger
from tests.support.fleet import Role
from tests.support.lives import Lives
from tests.support.numbered import ROOM_NAMES, Subscriber

MANY = 5000
"""Rooms at a time."""

TIMES = 4
PAUSE = 0.1


class Flapper:
    """Subscribes to very many rooms at once and ends that again, several times."""

    def __init__(self, messenger: Messenger, seed: int, reactor: Any) -> None:
        self.messenger = messenger
        self._random = random.Random(seed)
        self._reactor = reactor
        self._left = 0

    @property
    def done(self) -> bool:
        return not self._left

    def flap(self) -> bool:
        """Begin; whether that was possible."""
        if self._left or not self.messenger.connected:
            return False
        self._left = TIMES
        self._step()
        return True

    def _step(self) -> None:
        first = self._random.randrange(MANY)  # few names enough for caches that are full soon
        self.messenger.unsubscribe()
        self._left -= 1
        if self._left:
            self.messenger.subscribe(*[f"FLAP-{first + number}" for number in range(MANY)])
            self._reactor.callLater(PAUSE, self._step)


def knows(hub: Role, node: str, rooms: Iterable[str]) -> bool:
    """Whether a hub knows that the messenger of this node is subscribed to exactly these rooms."""
    return hub.rooms(f"messenger {node}") == set(rooms)


class Waverer(Subscriber):
    """A subscriber that changes its rooms. Each must count from the next round on."""

    def __init__(self, messenger: Messenger, name: str, lives: Lives, seed: int) -> None:
        super().__init__(messenger, name, lives)
        self._known = lives
        self._random = random.Random(seed)

    def waver(self) -> bool:
        """Subscribe to one room, or end that."""
        room = self._random.choice(ROOM_NAMES)
        if room in self._known.rooms(self.name):
            self._known.leave(self.name, room)
            self.messenger.unsubscribe(room)
        else:
            self._known.want(self.name, room)
            self.messenger.subscribe(room)
        return True
