"""Faults that were found and mended, put back for the time of one run: the simulation must find each.

A `Fault` says how it is put back, by patching the real classes, and which kinds of trouble bring it to light.
`first_found` returns the first seed at which it is found. A fault counts as found only where the same seed
without it gives no finding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred, succeed

import ces.session.life
import ces.uplink.dialler
from ces.hub.hub import Hub
from ces.link.link import Link
from ces.messenger import Messenger
from ces.messenger.reception import Reception
from ces.model.control import Hello, SubscriptionChange
from ces.model.routing import HUB
from ces.model.wire import CES1
from ces.session.interest import Interest
from ces.session.life import GOING_AWAY, REPLACED
from ces.session.queue import SendQueue
from ces.uplink.dialler import Dialler
from ces.uplink.uplink import Uplink
from tests.stress.scenario import Draft, Scenario
from tests.stress.topologies import RESTLESS, collected_rarely, play
from tests.support.history import FALSE_ALARM, NOT_TOLD, NOWHERE, TWICE, Finding
from tests.support.world import Process


@dataclass(frozen=True)
class Fault:
    """A fault that can be put back.

    put: puts it back while it is entered.
    trouble: the kinds of steps in which it shows (`tests.stress.scenario.FAULTS`).
    found: kinds of findings, one of which it gives.
    """

    name: str
    put: Callable[[], AbstractContextManager[Any]]
    trouble: tuple[str, ...]
    found: tuple[str, ...]


def first_found(fault: Fault, seeds: range) -> tuple[Scenario, list[Finding]] | None:
    """The first scenario in which the fault is found, and what was found."""
    with collected_rarely() as collect:
        for seed in seeds:
            scenario = Draft(seed, fault.trouble).scenario()
            with fault.put():
                findings = [finding for finding in play(scenario) if finding.what in fault.found]
            if findings and not play(scenario):
                return scenario, findings
            collect()
    return None


# -- time ----------------------------------------------------------------------------------------------------


@contextmanager
def wall_clock() -> Iterator[None]:
    """Timers go by the clock on the wall, as `reactor.seconds` of Twisted does."""

    def seconds(process: Process) -> float:
        return process.world.now + process.wall

    def set_clock(process: Process, seconds: float) -> None:
        process.wall += seconds
        for call in process.world.calls(process):
            call.reset(max(0.0, call.getTime() - process.world.now - seconds))

    with patch.object(Process, "seconds", seconds), patch.object(Process, "set_clock", set_clock):
        yield


# -- dials and sessions --------------------------------------------------------------------------------------


@contextmanager
def downgrades() -> Iterator[None]:
    """Every failed handshake is repeated at once without the subprotocol, whoever the server is."""
    lost = Dialler.lost

    def forgetful(dialler: Dialler, connection: Any) -> None:
        connection.dialect = CES1
        lost(dialler, connection)

    with (
        patch.object(ces.uplink.dialler, "REFUSES_SUBPROTOCOL", frozenset(range(300, 600))),
        patch.object(Dialler, "lost", forgetful),
    ):
        yield


def too_slow_ends_the_session() -> AbstractContextManager[Any]:
    """A close with 4408 throws the session away."""
    return patch.object(ces.session.life, "RESUMABLE", frozenset({None, GOING_AWAY, REPLACED}))


def targets_begin_anew() -> AbstractContextManager[Any]:
    """A link to a target of a repeater begins a new session each time."""
    hello = Uplink.hello

    def first(uplink: Uplink, connection: Any) -> Hello:
        if uplink.kind != "target":
            return hello(uplink, connection)
        uplink._offered = ""
        return Hello(uplink.owner.node, None, 0, changes=0, gaps=0)

    return patch.object(Uplink, "hello", first)


def twins_replace_each_other() -> AbstractContextManager[Any]:
    """A hub does not ask which process has a node."""
    admit = Hub.admit

    def careless(hub: Hub, kind: str, node: str, instance: str, serving: bool) -> Link | None:
        return admit(hub, kind, node, "", serving)

    return patch.object(Hub, "admit", careless)


# -- rooms ---------------------------------------------------------------------------------------------------


@contextmanager
def announcements_end() -> Iterator[None]:
    """When a link to another hub has lost its connection, this hub announces no change of rooms any more."""
    detached, change = Hub.detached, Hub._change
    ended: list[Hub] = []

    def loses(hub: Hub, link: Link) -> None:
        if link.kind == HUB:
            ended.append(hub)
        detached(hub, link)

    def changes(hub: Hub, rooms: list[bytes]) -> None:
        if hub not in ended:
            change(hub, rooms)

    with patch.object(Hub, "detached", loses), patch.object(Hub, "_change", changes):
        yield


@contextmanager
def all_rooms_at_once() -> Iterator[None]:
    """Rooms are announced whether the link takes them or not."""

    def announce(link: Link) -> None:
        if link.interest is not None and link.connection is not None:
            while link.connected and (change := link.interest.take()):
                link.connection.tell(change)

    with (
        patch.object(Link, "announce", announce),
        patch("ces.session.interest.WINDOW", 10**6),
        patch("ces.session.interest.PIECE_ROOMS", 20),
    ):
        yield


def every_change_is_told() -> AbstractContextManager[Any]:
    """What is announced is a log of all changes, not the state."""

    def change(hub: Hub, rooms: list[bytes]) -> None:
        for link in list(hub._told):
            for create in (True, False):
                part = [room.decode() for room in rooms if hub.routes.is_wanted(room) is create]
                if part:
                    link.tell(SubscriptionChange(part, create))

    return patch.object(Hub, "_change", change)


def changes_in_flight_are_lost() -> AbstractContextManager[Any]:
    """A subscription change that was in flight at a cut counts as taken."""
    resume = Interest.resume

    def hopeful(interest: Interest, number: int | None) -> None:
        interest.acknowledge(interest.sent)
        resume(interest, interest.sent)
        interest.sent = interest.acknowledged = number or 0

    return patch.object(Interest, "resume", hopeful)


# -- queues --------------------------------------------------------------------------------------------------


def gaps_are_silent() -> AbstractContextManager[Any]:
    """What is evicted is not announced."""
    evict = SendQueue.evict

    def silent(queue: SendQueue, excess: int) -> int:
        lost = evict(queue, excess)
        queue.gap -= lost
        return lost

    return patch.object(SendQueue, "evict", silent)


def cuts_lose_what_is_in_flight() -> AbstractContextManager[Any]:
    """What was in flight at a cut is not sent again."""
    resume = SendQueue.resume

    def forgetful(queue: SendQueue, *numbers: Any) -> None:
        resume(queue, *numbers)
        queue._release(sum(size for _, size, _, _ in queue.retransmit))
        queue.retransmit.clear()

    return patch.object(SendQueue, "resume", forgetful)


def new_sessions_are_silent() -> AbstractContextManager[Any]:
    """A messenger is not told of a possible gap."""
    gap = Reception.gap

    def silent(reception: Reception, records: int | None) -> None:
        if records is not None:
            gap(reception, records)

    return patch.object(Reception, "gap", silent)


def sent_is_done() -> AbstractContextManager[Any]:
    """The Deferred of `send` fires at once."""
    send = Messenger.send

    def hasty(messenger: Messenger, event: Any, room: str | None = None) -> Deferred[None]:
        send(messenger, event, room)
        return succeed(None)

    return patch.object(Messenger, "send", hasty)


LINK = (NOWHERE, TWICE, FALSE_ALARM)
"""What a session that should have gone on gives."""

PLANTED = (
    Fault("timers go by the clock on the wall", wall_clock, ("wall", "cut"), (RESTLESS, NOT_TOLD, *LINK)),
    Fault("any failed handshake downgrades", downgrades, ("away", "cut"), LINK),
    Fault("announcements end for good", announcements_end, ("change", "cut"), (NOWHERE,)),
    Fault("all rooms are told in one turn", all_rooms_at_once, ("many", "cut"), (RESTLESS, *LINK)),
    Fault("every change of rooms is told", every_change_is_told, ("flap", "stall"), LINK),
    Fault("targets begin anew after a cut", targets_begin_anew, ("cut",), LINK),
    Fault("changes of rooms in flight are lost", changes_in_flight_are_lost, ("change", "cut"), (NOWHERE,)),
    Fault("hubs with one node replace each other", twins_replace_each_other, ("twin",), (NOWHERE, TWICE)),
    Fault("4408 ends the session", too_slow_ends_the_session, ("stall", "sleep", "burst"), LINK),
    Fault("what is evicted is not announced", gaps_are_silent, ("burst", "stall", "cut"), (NOWHERE,)),
    Fault("what is in flight at a cut is lost", cuts_lose_what_is_in_flight, ("cut",), (NOWHERE,)),
    Fault("nobody is told of a new session", new_sessions_are_silent, ("restart",), (NOT_TOLD,)),
    Fault("what is sent counts as done", sent_is_done, ("restart",), (NOWHERE,)),
)
