"""Messengers for tests, on a network in memory (`tests.support.network`)."""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ces.event import Event, Room
from ces.messenger import Messenger
from ces.model.wire import CES1
from tests.support.links import Lines
from tests.support.network import Network, Wire

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
"""The present time of `make_messenger`'s messengers."""


class Told:
    """What one Deferred came to: `result`, `error` or neither, and it `fired` or has not."""

    def __init__(self, deferred: Deferred[Any]) -> None:
        self.fired = False
        self.result: Any = None
        self.error: BaseException | None = None
        deferred.addCallbacks(self._callback, self._errback)

    def _callback(self, result: Any) -> None:
        self.fired, self.result = True, result

    def _errback(self, failure: Failure) -> None:
        self.fired, self.error = True, failure.value


def run_coroutine(coroutine: Coroutine[Any, Any, Any]) -> Told:
    """Start it."""
    return Told(Deferred.fromCoroutine(coroutine))


def make_messenger(
    network: Network, rooms: Any = (), *, lines: Lines | None = None, address: str = "ws://hub", **more: Any
) -> Messenger:
    """A messenger that logs to `lines`."""
    log = Logger(namespace="ces.test", observer=Lines() if lines is None else lines)
    return Messenger(address, rooms, reactor=network, log=log, node="me", now=lambda: NOW, **more)


def connected(
    rooms: Any = (), dialect: str = CES1, network: Network | None = None, **more: Any
) -> tuple[Messenger, Wire, Network]:
    """A messenger with a link, the hub's end of it, and the network."""
    network = network or Network()
    messenger = make_messenger(network, rooms, **more)
    messenger.connect()
    return messenger, network.dial.accept(dialect), network


def event(key: str, room: str = "ITB-1108") -> Event:
    """An event that is told from others by its key."""
    return Event(
        timestamp="2026-11-23T07:59:59Z",
        affected_room=Room.of(room) if room else Room(),
        key=key,
        value="on",
    )


def record(key: str, room: str = "ITB-1108") -> bytes:
    """The record of `event(key, room)` as it is strictly written."""
    return b"%b\n%b\n" % (room.encode(), event(key, room).to_json())
