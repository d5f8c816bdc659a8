"""The commands that use a hub: watch its events, send one, simulate a building.

The messenger owns the link. Its log tells the screen when there is no connection.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from twisted.internet.defer import CancelledError

from ces.cli.building import Building
from ces.cli.running import Reactor, Stopping
from ces.cli.screen import Screen
from ces.cli.simulation import Simulation
from ces.messenger import Messenger, State, TimedOut, Unconfirmed, send_once
from ces.model.event import Event, EventError

__all__ = ["send", "simulate", "watch"]

_REPORT: Final = 10.0  # seconds between two lines of `simulate`
_FLUSH: Final = 2.0  # grace period for sending the last events, in seconds


async def watch(
    reactor: Reactor,
    stopping: Stopping,
    *,
    screen: Screen,
    hub: str,
    token_file: str = "",
    rooms: Sequence[str],
    as_json: bool,
) -> int:
    """Show the events of `rooms` until asked to stop.

    :param as_json: print each event's JSON unchanged, one event a line.
    :return: the exit status.
    """
    messenger = Messenger(hub, rooms=rooms, reactor=reactor, token_file=token_file)
    screen.reader_left = stopping.request

    def arrived(event: bytes, room: bytes) -> None:
        if as_json:
            screen.line(event.decode("utf-8", "replace"))
            return
        try:
            screen.event(Event.from_json(event), room.decode("utf-8", "replace"))
        except EventError as error:
            screen.note(f"an event for room {room.decode('utf-8', 'replace')!r} is not a v2 event: {error}")

    def told(state: State) -> None:
        if state is State.CONNECTED:
            screen.note(f"connected to {messenger.address}")

    messenger.on_record(arrived)
    messenger.on_state(told)
    messenger.connect()
    await stopping.within(None)
    await messenger.close()
    return 0


async def send(
    reactor: Reactor,
    stopping: Stopping,
    *,
    screen: Screen,
    hub: str,
    token_file: str = "",
    event: Event,
    timeout: float,
) -> int:
    """Send one event to the hub.

    :param timeout: in seconds, for connecting and sending together.
    :return: the exit status: 1 when the event was not sent in time.
    """
    try:
        sent = send_once(hub, event, event.room, reactor=reactor, timeout=timeout, token_file=token_file)
        await stopping.cancels(sent)
    except CancelledError:
        return 1
    except TimedOut as error:
        screen.note(f"the event was not sent: {error}")
        return 1
    except (Unconfirmed, ValueError) as error:
        screen.note(str(error))
        return 1
    return 0


async def simulate(
    reactor: Reactor,
    stopping: Stopping,
    *,
    screen: Screen,
    hub: str,
    token_file: str = "",
    name: str,
    rooms: int,
    rate: float,
) -> int:
    """Send the events of a simulated building until asked to stop. Returns the exit status."""
    building = Building(name, rooms, rng=random.Random(), rate=rate)
    messengers = {room: Messenger(hub, reactor=reactor, token_file=token_file) for room in building.rooms}
    simulation = Simulation(building, messengers, reactor)
    first, last = building.rooms[0], building.rooms[-1]
    screen.line(f"Building {name}: {rooms} rooms, {first} to {last}. Ctrl-C stops it.")
    simulation.start()
    while not await stopping.within(_REPORT):
        screen.line(simulation.summary())
    await simulation.pause(_FLUSH)
    screen.line(simulation.summary())
    await simulation.close()
    return 0
