"""Sends the events of a simulated building, with one messenger per room.

Owns the messengers and the pace. The events come from building.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import LoopingCall

from ces.cli.building import Building
from ces.cli.running import Reactor
from ces.messenger import Messenger
from ces.model.event import Room

__all__ = ["Simulation"]

_STEP: Final = 0.1  # seconds; a slider moves ten times a second


class Simulation:
    """Sends a building's events, each through the messenger of the room that it comes from.

    :param messengers: one for each of the building's rooms, not yet connected.
    :param sent: callback for each event that is passed to a messenger; gets the event's JSON and the room.
    """

    def __init__(
        self,
        building: Building,
        messengers: Mapping[str, Messenger],
        reactor: Reactor,
        sent: Callable[[bytes, str], None] = lambda event, room: None,
    ) -> None:
        self._building = building
        self._messengers = messengers
        self._sent = sent
        self._pace = LoopingCall(self._step)
        self._pace.clock = reactor
        self._said = 0

    def summary(self) -> str:
        """The state of events and connections, as a text."""
        messengers = self._messengers.values()
        sent = sum(messenger.counters["sent"] for messenger in messengers)
        dropped = sum(messenger.counters["dropped"] for messenger in messengers)
        waiting = self._said - sent - dropped
        connected = sum(messenger.connected for messenger in messengers)
        reason = next((messenger.reason for messenger in messengers if not messenger.connected), "")
        return (
            f"{sent} events sent"
            + (f", {waiting} waiting" if waiting else "")
            + (f", {dropped} dropped" if dropped else "")
            + f"; {connected} of {len(messengers)} rooms are connected"
            + (f" ({reason})" if reason else "")
        )

    def start(self) -> None:
        """Connect and start sending. Until a link is up, events wait in its messenger's spool."""
        for messenger in self._messengers.values():
            messenger.connect()
        self._pace.start(_STEP)

    def pause(self, timeout: float) -> Deferred[list[tuple[bool, None]]]:
        """Stop sending. Fires when all events have been written to the links, or after `timeout` seconds."""
        if self._pace.running:
            self._pace.stop()
        return self._each(lambda messenger: messenger.flush(timeout=timeout))

    def close(self) -> Deferred[list[tuple[bool, None]]]:
        """Close the messengers."""
        return self._each(lambda messenger: messenger.close())

    def _each(self, act: Callable[[Messenger], Deferred[None]]) -> Deferred[list[tuple[bool, None]]]:
        acts = [act(messenger) for messenger in self._messengers.values()]
        return DeferredList(acts, consumeErrors=True)

    def _step(self) -> None:
        for event in self._building.step(datetime.now(UTC)):
            text = event.to_json()
            sender = Room.of(event.generating_system).room_id
            self._sent(text, sender)
            self._messengers[sender].send(text, room=event.room)
            self._said += 1
