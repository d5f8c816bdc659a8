"""The lives of the numbered events of real processes, one round after the other.

`History` judges facts that it has been told. `Lives` collects them from publishers and subscribers
(`tests.support.numbered`), each with the present time. A run goes on in rounds:

    lives.route(...), lives.client(...)     once: who gets whose events, and from which hub
    lives.begin()                           all are connected, all subscriptions are known
    ...                                     events and faults
    lives.complete                          whether all that was sent has arrived and has been answered
    findings = lives.end()                  no fault lasts and nothing is on its way; the next round begins

Each round has a `History` of its own, so that a run may last for hours. An event that arrives in a later
round than the one in which it was sent is found as unknown.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import Deferred

from tests.support.history import ALL, Finding, History

SLACK = 2.0
"""Seconds from the time at which a client is told of a possible gap until its hub knows its subscriptions."""


class Lives:
    """Records the facts of a run.

    arrived: when the last event arrived, by `time.monotonic`.
    events, deliveries: how many events were sent, and how many arrived at all receivers together.
    found: how many findings there were, by kind.
    """

    def __init__(self) -> None:
        self._facts: list[tuple[str, tuple[Any, ...], bool]] = []
        self._receivers: dict[str, list[str]] = defaultdict(list)  # by sender
        self._wants: dict[str, set[str]] = defaultdict(set)
        """The rooms of each receiver."""
        self._settled: dict[str, set[str]] = {}
        """Those of them that it has had since the round began."""
        self._owed: dict[str, dict[tuple[str, int], str]] = defaultdict(dict)
        """What has not arrived yet in this round, and for which room, by receiver."""
        self._announced: Counter[str] = Counter()
        self._unanswered: set[tuple[str, int]] = set()
        self._history = History(SLACK)
        self._round = 0
        self.arrived = 0.0
        self.events = self.deliveries = 0
        self.found: Counter[str] = Counter()

    # -- what there is ---------------------------------------------------------------------------------------

    def route(self, sender: str, receiver: str, *stages: str | Iterable[str], order: str = ALL) -> None:
        """Events of `sender` reach `receiver` (`History.route`)."""
        self._receivers[sender].append(receiver)
        self._facts.append(("route", (sender, receiver, *stages, order), False))

    def client(self, receiver: str, hub: str, rooms: Iterable[str]) -> None:
        """A receiver that is told of gaps by this hub, and is subscribed to these rooms."""
        self._facts.append(("client", (receiver, hub), True))
        self.sink(receiver, rooms)

    def sink(self, receiver: str, rooms: Iterable[str]) -> None:
        """A receiver that gets the events of these rooms, and is not told of gaps."""
        self._wants[receiver].update(rooms)

    def limit(self, source: str, destination: str, size: int) -> None:
        """The queue at `source` for `destination` holds events of this weight."""
        self._facts.append(("limit", (source, destination, size), False))

    # -- rounds ----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin the first round: all are connected, and all subscriptions are known."""
        now = time.monotonic()
        self._history = history = History(SLACK)
        for method, arguments, timed in self._facts:
            if method == "route":
                sender, receiver, *stages, order = arguments
                history.route(sender, receiver, *stages, order=order)
            else:
                getattr(history, method)(*arguments, *([now - 1] if timed else []))
        for receiver, rooms in self._wants.items():
            for room in rooms:
                history.want(receiver, room, now - 1)
        history.quiet(now)
        self._settled = {receiver: set(rooms) for receiver, rooms in self._wants.items()}
        self._owed.clear()
        self._announced.clear()
        self._unanswered.clear()
        self._round += 1

    def end(self) -> list[Finding]:
        """End a round and begin the next one. Returns what is not allowed."""
        self._history.quiet(time.monotonic())
        findings = self._history.findings()
        self.found.update(finding.what for finding in findings)
        self.begin()
        return findings

    @property
    def complete(self) -> bool:
        """Whether all that was sent in this round has arrived everywhere, and has been answered."""
        return self.answered and not any(self._owed.values())

    @property
    def explained(self) -> bool:
        """Whether all that was sent has been answered, and has arrived or may have been announced as lost."""
        return self.answered and all(len(owed) <= self._announced[one] for one, owed in self._owed.items())

    @property
    def answered(self) -> bool:
        """Whether all that was sent in this round has been acknowledged or dropped."""
        return not self._unanswered

    @property
    def owed(self) -> dict[str, int]:
        """How many events have not arrived yet, by receiver."""
        return {receiver: len(events) for receiver, events in self._owed.items() if events}

    def rooms(self, receiver: str) -> frozenset[str]:
        """The rooms to which a receiver is subscribed."""
        return frozenset(self._wants[receiver])

    # -- what happens ----------------------------------------------------------------------------------------

    def send(self, sender: str, number: int, room: str, weight: int) -> None:
        """An event is handed to `send`."""
        self._history.send(sender, number, room, time.monotonic(), weight)
        self._unanswered.add((sender, number))
        for receiver in self._receivers[sender]:
            if room in self._settled[receiver]:
                self._owed[receiver][sender, number] = room
        self.events += 1

    def answer(self, sender: str, number: int, answer: Deferred[None]) -> None:
        """Note what comes of an event that was handed to `send`."""
        round = self._round

        def acknowledged(_: object) -> None:
            if round == self._round:
                self._unanswered.discard((sender, number))
                self._history.acknowledge(sender, number, time.monotonic())

        def dropped(_: object) -> None:
            if round == self._round:
                self._unanswered.discard((sender, number))
                self._history.drop(sender, number, time.monotonic())

        answer.addCallbacks(acknowledged, dropped)

    def arrive(self, receiver: str, sender: str, number: int) -> None:
        """An event arrived."""
        now = self.arrived = time.monotonic()
        self._history.arrive(receiver, sender, number, now)
        self._owed[receiver].pop((sender, number), None)
        self.deliveries += 1

    def want(self, receiver: str, room: str) -> None:
        """A receiver subscribes to a room, in the middle of a round."""
        self._wants[receiver].add(room)
        self._history.want(receiver, room, time.monotonic())

    def leave(self, receiver: str, room: str) -> None:
        """A receiver ends a subscription, in the middle of a round."""
        self._wants[receiver].discard(room)
        self._settled[receiver].discard(room)
        self._history.leave(receiver, room, time.monotonic())
        owed = self._owed[receiver]
        for event in [event for event, known in owed.items() if known == room]:
            del owed[event]

    def announce(self, receiver: str, lost: int | None) -> None:
        """A receiver was told that it missed events."""
        self._history.announce(receiver, lost, time.monotonic())
        self._announced[receiver] += lost or 0

    def die(self, node: str) -> None:
        """A process ended, or is about to be ended."""
        self._history.die(node, time.monotonic())
