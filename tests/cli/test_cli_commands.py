"""`ces watch`, `ces send` and `ces simulate` at a hub on real sockets."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from datetime import UTC
from functools import partial
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from ces.cli.commands import send, simulate, watch
from ces.cli.running import Command, Stopping
from ces.cli.screen import Screen
from ces.event import Device, Event, Room, Tag
from ces.hub.service import make_hub_service
from ces.hub.settings import HubSettings
from ces.link.listen import Listening
from ces.messenger import Messenger
from ces.ops.logging import LogLevels

EVENT = Event(
    generating_system="front-desk",
    timestamp="2026-11-23T08:00:00Z",
    event_tags=(Tag.USER_GENERATED,),
    target_device=Device.of("ITB-1108-D1"),
    affected_room=Room.of("ITB-1108"),
    key="power",
    value="on",
)


class Paper(io.StringIO):
    """A stream that one can wait at until something has been written to it."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[tuple[str, Deferred[None]]] = []

    def flush(self) -> None:
        written = self.getvalue()
        for text, waiting in [entry for entry in self._waiting if entry[0] in written]:
            self._waiting.remove((text, waiting))
            waiting.callback(None)

    def until(self, text: str) -> Deferred[None]:
        from twisted.internet import reactor

        waiting: Deferred[None] = Deferred()
        self._waiting.append((text, waiting))
        self.flush()
        return waiting.addTimeout(
            20, reactor, lambda *_: pytest.fail(f"{text!r} is not in {self.getvalue()!r}")
        )


class Running:
    """A command on the reactor, with what it writes."""

    def __init__(self, command: Any, **arguments: Any) -> None:
        from twisted.internet import reactor

        self.results, self.notes = Paper(), Paper()
        screen = Screen(self.results, self.notes, environ={}, zone=UTC)
        self.stopping = Stopping(reactor)
        run: Command = partial(command, screen=screen, **arguments)
        self.ended: Deferred[int] = Deferred.fromCoroutine(run(reactor, self.stopping))

    def stop(self) -> Deferred[int]:
        self.stopping.request()
        return self.ended


@pytest.fixture
def hub() -> Iterator[str]:
    """The address of a hub."""
    from twisted.internet import reactor

    service = make_hub_service(HubSettings(listen=("tcp:0:interface=127.0.0.1",)), reactor, LogLevels())
    service.privilegedStartService()
    service.startService()
    (listening,) = (part for part in service if isinstance(part, Listening))
    yield f"ws://127.0.0.1:{listening.ports[0].getHost().port}"
    pytest_twisted.blockon(service.stopService())


@pytest_twisted.ensureDeferred
async def test_what_is_sent_is_watched(hub: str) -> None:
    watching = Running(watch, hub=hub, rooms=["ITB-1108"], as_json=False)
    await watching.notes.until(f"ces: connected to {hub}\n")
    sending = Running(send, hub=hub, event=EVENT, timeout=10.0)
    assert await sending.ended == 0
    await watching.results.until("\n")
    assert await watching.stop() == 0
    assert watching.results.getvalue().split() == [
        "08:00:00.000",
        "ITB-1108",
        "D1",
        "power",
        "on",
        "user-generated",
    ]
    assert sending.notes.getvalue() == sending.results.getvalue() == ""


@pytest_twisted.ensureDeferred
async def test_watched_as_json_an_event_is_what_was_sent(hub: str) -> None:
    watching = Running(watch, hub=hub, rooms=["*"], as_json=True)
    await watching.notes.until("connected")
    assert await Running(send, hub=hub, event=EVENT, timeout=10.0).ended == 0
    await watching.results.until("\n")
    assert await watching.stop() == 0
    assert watching.results.getvalue() == EVENT.to_json().decode() + "\n"


@pytest_twisted.ensureDeferred
async def test_an_event_for_the_blank_room_can_be_sent_on_purpose(hub: str) -> None:
    watching = Running(watch, hub=hub, rooms=["*"], as_json=False)
    await watching.notes.until("connected")
    event = Event(timestamp="2026-11-23T08:00:00Z", key="power", value="on")
    assert await Running(send, hub=hub, event=event, timeout=10.0).ended == 0
    await watching.results.until("\n")
    assert await watching.stop() == 0
    assert watching.results.getvalue().split() == ["08:00:00.000", "-", "-", "power", "on"]


@pytest_twisted.ensureDeferred
async def test_what_is_not_a_v2_event_is_noted_and_the_watching_goes_on(hub: str) -> None:
    from twisted.internet import reactor

    watching = Running(watch, hub=hub, rooms=["*"], as_json=False)
    await watching.notes.until("connected")
    messenger = Messenger(hub, reactor=reactor)
    messenger.connect()
    messenger.send(b'{"value": 30}', room="ITB-1108")
    messenger.send(EVENT)
    await watching.results.until("power")
    await messenger.close()
    assert await watching.stop() == 0
    noted = "ces: an event for room 'ITB-1108' is not a v2 event: `$.value`: expected `str`, got `int`\n"
    assert watching.notes.getvalue().endswith(noted)


@pytest_twisted.ensureDeferred
async def test_an_event_for_nobody_is_not_sent_and_one_sentence_says_why() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        hub = f"ws://127.0.0.1:{unused.getsockname()[1]}"
        sending = Running(send, hub=hub, event=EVENT, timeout=0.5)
        assert await sending.ended == 1
    said = sending.notes.getvalue()
    assert said.startswith("ces: the event was not sent: ")
    assert hub in said
    assert "refused" in said
    assert said.count("\n") == 1


@pytest_twisted.ensureDeferred
async def test_sending_stops_when_it_is_asked_to() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        hub = f"ws://127.0.0.1:{unused.getsockname()[1]}"
        sending = Running(send, hub=hub, event=EVENT, timeout=1000.0)
        assert await sending.stop() == 1
    assert sending.notes.getvalue() == ""


@pytest_twisted.ensureDeferred
async def test_a_simulated_building_is_on_the_air_until_it_is_stopped(hub: str) -> None:
    watching = Running(watch, hub=hub, rooms=["*"], as_json=False)
    await watching.notes.until("connected")
    simulating = Running(simulate, hub=hub, name="TNRB", rooms=3, rate=20.0)
    await watching.results.until("TNRB-1102")
    assert await simulating.stop() == 0
    assert await watching.stop() == 0
    first, last = simulating.results.getvalue().splitlines()
    assert first == "Building TNRB: 3 rooms, TNRB-1101 to TNRB-1103. Ctrl-C stops it."
    assert last.endswith(" events sent; 3 of 3 rooms are connected")
