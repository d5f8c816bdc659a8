"""Judges the lives of numbered events: what the promise of docs/reliability.md allows, and what it does not.

Pure: no Twisted, no clock. A test records facts, each with the time at which it happened. The facts are
observed from outside: what was handed to `send` and what came of it, what arrived, what was announced, what
was counted, and which faults were injected. `History.findings` is empty when all of it is allowed.

    history = History()
    history.client("m1", "hub", 0)                 m1 is connected to the hub
    history.route("m0", "m1", "hub")               events of m0 reach m1 through the hub
    history.want("m1", "ROOM", 0)
    history.quiet(1)                               all is connected, all subscriptions are known
    history.send("m0", 1, "ROOM", 2)               then facts, in any order
    history.acknowledge("m0", 1, 3)
    history.arrive("m1", "m0", 1, 3)
    history.quiet(4)                               no fault lasts, nothing is on its way
    history.findings()

**Epochs.** `quiet` ends an epoch. An event belongs to the epoch in which it was sent. Faults excuse what
happens to the events of their own epoch only. A subscription counts from the first `quiet` after it: from
then on, each event of the room must arrive, unless something below excuses it.

What is allowed, with the sentence that allows it (docs/reliability.md, docs/protocol.md section 5):

======================  ================================================================================
lost, announced         "the oldest events are dropped, counted, and announced as a gap", when more waited
                        than the queue holds
lost, counted           the same between two hubs: "Both hubs count and log what the link between them lost"
lost, a process died    "Events that the dead hub had acknowledged but not passed on are lost; each client is
                        told that there may be a gap (`on_gap` with None)"
lost, the sender died   "Events that the hub had not acknowledged are lost"
lost, too long away     "a link is away longer than the window": a new session, and `on_gap` with None
lost, not sent          the Deferred of `send` failed: the sender was told
twice                   "Events that were not acknowledged are sent again, and may arrive twice", after the
                        death of a process on the way, or after a session that could not be kept
======================  ================================================================================
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

EVERY = "*"
"""A subscription to every room."""

ALL, ROOM, NONE = "all", "room", "none"
"""What is kept in order on a way: all events of a sender, those for each room, or nothing."""

NOWHERE, LOST, TWICE, OUT_OF_ORDER = "nowhere", "lost", "twice", "out of order"
NOT_TOLD, FALSE_ALARM, TOO_MANY, NOT_DROPPED = "not told", "false alarm", "too many", "not dropped"
UNANSWERED, UNWANTED, UNKNOWN = "unanswered", "unwanted", "unknown"
"""What is found. NOWHERE: sent, not arrived, neither counted nor announced. LOST: announced or counted
although the queues had room. NOT_TOLD: a client of a hub that died was not told of a possible gap.
FALSE_ALARM: a client was told of one for no reason. TOO_MANY: more was announced than is missing.
NOT_DROPPED: it arrived although its sender was told that it was dropped. UNANSWERED: `send` was never
answered. UNWANTED: it arrived for a room that was not subscribed. UNKNOWN: it arrived and was never sent.
"""

SHOWN = 5
"""A sentence names at most this many events."""

Event = tuple[str, int]
"""The sender of an event and the event's number."""


@dataclass(frozen=True)
class Finding:
    """Something that the promise does not allow.

    what: its kind, one of those above. who: the receiver or the sender.
    """

    what: str
    who: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.what}: {self.sentence}"


@dataclass
class _Sent:
    """The life of one event at its sender."""

    room: str
    time: float
    weight: int
    epoch: int = 0
    acknowledged: float | None = None
    dropped: float | None = None


@dataclass(frozen=True)
class _Route:
    """The way of one sender's events to one receiver: at each stage, the nodes one of which passes it on."""

    stages: tuple[tuple[str, ...], ...]
    order: str
    nodes: frozenset[str]
    pairs: frozenset[frozenset[str]]


@dataclass
class _Receiver:
    """The facts of one receiver."""

    arrived: list[tuple[float, Event]] = field(default_factory=list)
    wants: dict[str, list[list[float]]] = field(default_factory=lambda: defaultdict(list))
    """By room, the times from and until which it was subscribed."""
    announced: list[tuple[float, int | None]] = field(default_factory=list)
    routes: dict[str, _Route] = field(default_factory=dict)
    hub: str = ""
    since: float = 0.0

    def wanted(self, room: str, start: float, end: float) -> bool:
        """Whether it was subscribed to the room at any time between these two."""
        return any(a <= end and b >= start for a, b in self._intervals(room))

    def settled(self, room: str, start: float, end: float) -> bool:
        """Whether it was subscribed to the room all the time between these two, and before."""
        return any(a < start and b >= end for a, b in self._intervals(room))

    def _intervals(self, room: str) -> Iterator[list[float]]:
        for known in (room, EVERY):
            if known in self.wants:
                yield from self.wants[known]


class History:
    """Records facts, and judges them.

    :param slack: seconds that a client may take, after it was told of a possible gap, until its hub knows its
        subscriptions again.
    """

    def __init__(self, slack: float = 15.0) -> None:
        self._slack = slack
        self._sent: dict[Event, _Sent] = {}
        self._receivers: dict[str, _Receiver] = defaultdict(_Receiver)
        self._quiet: list[float] = []
        self._deaths: list[tuple[float, str]] = []
        self._partings: list[tuple[float, frozenset[str]]] = []
        self._closed: dict[str, float] = {}
        self._counted: list[tuple[float, str, str, int]] = []
        self._limits: dict[tuple[str, str], int] = {}

    # -- what was there --------------------------------------------------------------------------------------

    def client(self, receiver: str, hub: str, time: float) -> None:
        """A receiver that is told of gaps by this hub."""
        known = self._receivers[receiver]
        known.hub, known.since = hub, time

    def route(self, sender: str, receiver: str, *stages: str | Iterable[str], order: str = ALL) -> None:
        """Events of `sender` reach `receiver` through these nodes, one after the other.

        :param stages: each a node, or several of which one passes an event on.
        :param order: what is kept in order.
        """
        groups = tuple((stage,) if isinstance(stage, str) else tuple(stage) for stage in stages)
        ends = ((sender,), *groups, (receiver,))
        pairs = frozenset(frozenset((a, b)) for here, there in pairwise(ends) for a in here for b in there)
        nodes = frozenset(node for group in groups for node in group)
        self._receivers[receiver].routes[sender] = _Route(groups, order, nodes, pairs)

    def limit(self, source: str, destination: str, size: int) -> None:
        """The queue at `source` for `destination` holds events of this weight."""
        self._limits[source, destination] = size

    # -- what happened ---------------------------------------------------------------------------------------

    def send(self, sender: str, number: int, room: str, time: float, weight: int = 0) -> None:
        """An event was handed to `send`."""
        self._sent[sender, number] = _Sent(room, time, weight)

    def acknowledge(self, sender: str, number: int, time: float) -> None:
        """The Deferred of `send` fired."""
        self._sent[sender, number].acknowledged = time

    def drop(self, sender: str, number: int, time: float) -> None:
        """The Deferred of `send` failed: the event is lost, and its sender knows."""
        self._sent[sender, number].dropped = time

    def arrive(self, receiver: str, sender: str, number: int, time: float) -> None:
        """An event arrived. The arrivals of one receiver are recorded in their order."""
        self._receivers[receiver].arrived.append((time, (sender, number)))

    def announce(self, receiver: str, lost: int | None, time: float) -> None:
        """The receiver was told that it missed events; None when their number is not known."""
        self._receivers[receiver].announced.append((time, lost))

    def count(self, source: str, destination: str, lost: int, time: float) -> None:
        """A node counted events as lost that were meant for `destination`."""
        self._counted.append((time, source, destination, lost))

    def want(self, receiver: str, room: str, time: float) -> None:
        """The receiver subscribed to a room."""
        intervals = self._receivers[receiver].wants[room]
        if not intervals or intervals[-1][1] != float("inf"):
            intervals.append([time, float("inf")])

    def leave(self, receiver: str, room: str, time: float) -> None:
        """The receiver ended a subscription."""
        intervals = self._receivers[receiver].wants.get(room)
        if intervals and intervals[-1][1] == float("inf"):
            intervals[-1][1] = time

    def die(self, node: str, time: float) -> None:
        """A process ended, in whatever way. Its successor has another name, unless it is a hub."""
        self._deaths.append((time, node))
        if node in self._receivers:
            for room in self._receivers[node].wants:
                self.leave(node, room, time)

    def close(self, sender: str, time: float) -> None:
        """A sender closes: of what it had sent before, it does not know what arrived."""
        self._closed[sender] = time

    def part(self, one: str, other: str, time: float) -> None:
        """These two could not reach each other for longer than the session window, or ended their session."""
        self._partings.append((time, frozenset((one, other))))

    def quiet(self, time: float) -> None:
        """Nothing is on its way, no fault lasts, and every subscription is known where it must be."""
        self._quiet.append(time)

    @property
    def arrivals(self) -> dict[str, int]:
        """How many events arrived at each receiver."""
        return {name: len(receiver.arrived) for name, receiver in self._receivers.items()}

    # -- judgement -------------------------------------------------------------------------------------------

    def findings(self) -> list[Finding]:
        """What is not allowed."""
        return list(self._judge())

    def _judge(self) -> Iterator[Finding]:
        quiet = self._quiet
        for sent in self._sent.values():
            sent.epoch = bisect_right(quiet, sent.time)
        yield from self._unanswered()
        yield from self._overfull()
        by_sender: dict[str, list[tuple[Event, _Sent]]] = defaultdict(list)
        for event, sent in self._sent.items():
            by_sender[event[0]].append((event, sent))
        for name, receiver in self._receivers.items():
            copies = Counter(event for _, event in receiver.arrived)
            yield from self._strange(name, receiver, copies)
            yield from self._disordered(name, receiver)
            yield from self._misinformed(name, receiver)
            yield from self._missing(name, receiver, copies, by_sender)

    def _start(self, epoch: int) -> float:
        return self._quiet[epoch - 1] if epoch else float("-inf")

    def _end(self, epoch: int) -> float:
        return self._quiet[epoch] if epoch < len(self._quiet) else float("inf")

    def _died(self, nodes: Iterable[str], start: float, end: float) -> list[float]:
        return [time for time, node in self._deaths if start <= time <= end and node in nodes]

    def _parted(self, pairs: Iterable[frozenset[str]], start: float, end: float) -> list[float]:
        return [time for time, pair in self._partings if start <= time <= end and pair in pairs]

    def _unanswered(self) -> Iterator[Finding]:
        """`send` is answered within the epoch, unless the sender dies."""
        waiting = defaultdict(list)
        for (sender, number), sent in self._sent.items():
            end = self._end(sent.epoch)
            if sent.acknowledged is None and sent.dropped is None and end != float("inf"):
                if self._died((sender,), sent.time, end):
                    continue
                waiting[sender].append(number)
        for sender, numbers in waiting.items():
            yield Finding(UNANSWERED, sender, f"{sender} never heard what became of {_list(numbers)}")

    def _overfull(self) -> Iterator[Finding]:
        """Nothing is evicted while there is room: "Within a session, every record arrives once and in order
        [...] within the limits of the queues".
        """
        weights: Counter[tuple[int, frozenset[str]]] = Counter()
        pairs: dict[str, set[frozenset[str]]] = defaultdict(set)
        for receiver in self._receivers.values():
            for sender, route in receiver.routes.items():
                pairs[sender] |= route.pairs
        for (sender, _), sent in self._sent.items():
            for pair in pairs[sender]:
                weights[sent.epoch, pair] += sent.weight
        lost: Counter[tuple[int, str, str]] = Counter()
        for time, source, destination, number in self._counted:
            lost[bisect_right(self._quiet, time), source, destination] += number
        for name, receiver in self._receivers.items():
            for time, announced in receiver.announced:
                key = bisect_right(self._quiet, time), receiver.hub, name
                if announced is not None and not lost[key]:
                    lost[key] += announced
        for (sender, _), sent in self._sent.items():
            if sent.dropped is not None and not self._closed_by(sender, sent.dropped):
                for pair in pairs[sender]:
                    if sender in pair:
                        (hub,) = pair - {sender}
                        lost[bisect_right(self._quiet, sent.dropped), sender, hub] += 1
        for (epoch, source, destination), number in lost.items():
            limit = self._limits.get((source, destination))
            pair = frozenset((source, destination))
            if limit is None or weights[epoch, pair] > limit:
                continue
            start, end = self._start(epoch), self._end(epoch)
            if self._died((source,), start, end) or self._died((destination,), float("-inf"), end):
                continue  # "a link is away longer than the window", or its process has ended
            if self._parted((pair,), start, end):
                continue
            sentence = (
                f"{source} dropped {number} events for {destination}, although all that was sent in this"
                f" epoch, {weights[epoch, pair]} bytes, is within its limit of {limit}"
            )
            yield Finding(LOST, destination, sentence)

    def _closed_by(self, sender: str, time: float) -> bool:
        return sender in self._closed and self._closed[sender] <= time

    def _strange(self, name: str, receiver: _Receiver, copies: Counter[Event]) -> Iterator[Finding]:
        """What arrived and should not have, or too often."""
        for time, event in receiver.arrived:
            sent = self._sent.get(event)
            route = receiver.routes.get(event[0])
            if sent is None or sent.time > time:
                yield Finding(UNKNOWN, name, f"{name} got {_name(event)}, which was not sent before")
                continue
            if route is None or not receiver.wanted(sent.room, self._start(sent.epoch), time):
                yield Finding(UNWANTED, name, f"{name} got {_name(event)}, for {sent.room}, unasked")
            if sent.dropped is not None and not self._closed_by(event[0], sent.dropped):
                told = f"{event[0]} was told that {_name(event)} was dropped, but {name} got it"
                yield Finding(NOT_DROPPED, name, told)
        twice = defaultdict(list)
        for event, count in copies.items():
            if count > 1 and event in self._sent and event[0] in receiver.routes:
                sent = self._sent[event]
                if count > 1 + self._resent(sent, receiver.routes[event[0]]):
                    twice[event[0]].append(event[1])
        for sender, numbers in twice.items():
            yield Finding(TWICE, name, f"{name} got {_list(numbers)} of {sender} more than once")

    def _resent(self, sent: _Sent, route: _Route) -> int:
        """How often an event may have been sent again: "unacknowledged records are sent again (so a record
        may arrive twice)" after a restart, and after a session that was not kept.
        """
        end = self._end(sent.epoch)
        first = set(route.stages[0])
        times = 0
        for time, node in self._deaths:
            if sent.time <= time <= end and node in route.nodes:
                answered = sent.acknowledged is not None and sent.acknowledged <= time
                if node not in first or not answered:
                    times += 1
        return times + len(self._parted(route.pairs, sent.time, end))

    def _disordered(self, name: str, receiver: _Receiver) -> Iterator[Finding]:
        """First arrivals come in the order in which they were sent."""
        last: dict[tuple[str, str], int] = {}
        seen: set[Event] = set()
        for _, event in receiver.arrived:
            sent, route = self._sent.get(event), receiver.routes.get(event[0])
            if sent is None or route is None or event in seen or route.order == NONE:
                continue
            seen.add(event)
            key = event[0], sent.room if route.order == ROOM else ""
            before = last.get(key, -1)
            if event[1] > before:
                last[key] = event[1]
                continue
            # "Within a session [...] in order on each link": one that begins anew on the way is another.
            later = self._sent[event[0], before]
            start, end = self._start(min(sent.epoch, later.epoch)), self._end(max(sent.epoch, later.epoch))
            if len(route.stages) > 1 and (
                self._died(route.nodes, start, end) or self._parted(route.pairs, start, end)
            ):
                continue
            # "Unacknowledged records are sent again": the first time, this one was not wanted.
            known = receiver.settled(sent.room, self._start(sent.epoch), sent.time)
            if self._resent(sent, route) and not known:
                continue
            yield Finding(OUT_OF_ORDER, name, f"{name} got {_name(event)} after {before}")

    def _misinformed(self, name: str, receiver: _Receiver) -> Iterator[Finding]:
        """A client is told of a possible gap when its hub has died or its session could not be kept, "and at
        no other time".
        """
        if not receiver.hub:
            return
        hub, pair = receiver.hub, frozenset((name, receiver.hub))
        doubts = [time for time, lost in receiver.announced if lost is None]
        for time in doubts:
            start = self._start(bisect_right(self._quiet, time))
            if not self._died((hub,), start, time) and not self._parted((pair,), start, time):
                yield Finding(
                    FALSE_ALARM,
                    name,
                    f"{name} was told at {time:g} of a possible gap, but {hub} had not died",
                )
        for time, node in self._deaths:
            epoch = bisect_right(self._quiet, time)
            start, end = self._start(epoch), self._end(epoch)
            if node != hub or end == float("inf") or not receiver.since < start:
                continue
            if self._died((name,), float("-inf"), end) or self._closed_by(name, end):
                continue
            if not any(time <= doubt <= end for doubt in doubts):
                yield Finding(
                    NOT_TOLD, name, f"{hub} died at {time:g}, and {name} was not told of a possible gap"
                )

    def _missing(
        self,
        name: str,
        receiver: _Receiver,
        copies: Counter[Event],
        by_sender: dict[str, list[tuple[Event, _Sent]]],
    ) -> Iterator[Finding]:
        """What did not arrive and is not explained; what was announced and is not missing."""
        unexplained: dict[int, list[Event]] = defaultdict(list)
        absent: Counter[int] = Counter()
        announced: Counter[int] = Counter()
        for time, lost in receiver.announced:
            announced[bisect_right(self._quiet, time)] += lost or 0
        for sender, route in receiver.routes.items():
            for event, sent in by_sender.get(sender, ()):
                if event in copies:
                    continue
                epoch = sent.epoch
                start, end = self._start(epoch), self._end(epoch)
                if not receiver.wanted(sent.room, start, end):
                    continue
                absent[epoch] += 1
                if sent.dropped is not None or end == float("inf") or not epoch:
                    continue
                if receiver.settled(sent.room, start, end) and not self._excused(
                    name, receiver, route, sender, sent
                ):
                    unexplained[epoch].append(event)
        for epoch, events in unexplained.items():
            pairs = set().union(*(receiver.routes[event[0]].pairs for event in events))
            # What its own hub drops for it is announced to it. A target of a repeater is told nothing.
            pairs.discard(frozenset((name, receiver.hub)))
            start, end = self._start(epoch), self._end(epoch)
            counted = sum(
                number
                for time, source, destination, number in self._counted
                if start <= time <= end and frozenset((source, destination)) in pairs
            )
            known = announced[epoch] + counted
            if len(events) > known:
                of = f"{len(events)} events ({_list(events)})"
                yield Finding(
                    NOWHERE,
                    name,
                    f"{of} for {name} did not arrive; {announced[epoch]} were announced to it,"
                    f" {counted} counted",
                )
        for epoch, number in announced.items():
            if number > absent[epoch] and number > absent[epoch] + self._copies(receiver, copies, epoch):
                sentence = (
                    f"{number} lost events were announced to {name}, but only {absent[epoch]} are missing"
                )
                yield Finding(TOO_MANY, name, sentence)

    def _copies(self, receiver: _Receiver, copies: Counter[Event], epoch: int) -> int:
        """How many events were sent again and arrived once: the other copy may have been lost. ("Events that
        were not acknowledged are sent again, and may arrive twice")
        """
        arrived = [(event, self._sent[event]) for event in copies if event in self._sent]
        return sum(
            max(0, 1 + self._resent(sent, receiver.routes[event[0]]) - copies[event])
            for event, sent in arrived
            if sent.epoch == epoch and event[0] in receiver.routes
        )

    def _excused(self, name: str, receiver: _Receiver, route: _Route, sender: str, sent: _Sent) -> bool:
        """Whether an event may be lost without a number, since a process on its way died or a session on its
        way could not be kept, and the receiver knows.
        """
        start, end = self._start(sent.epoch), self._end(sent.epoch)
        if sent.acknowledged is None and self._died((sender,), sent.time, end):
            return True  # "Events that the hub had not acknowledged are lost"
        hub = receiver.hub
        nearest = {hub} if hub else set()
        if self._died(route.nodes - nearest, start, end):
            return True
        if self._parted(route.pairs - {frozenset((name, hub))}, start, end):
            return True
        if not hub:
            return bool(self._died((name,), start, end) or self._parted(route.pairs, start, end))
        near = self._died((hub,), start, end) + self._parted((frozenset((name, hub)),), start, end)
        if not near:
            return False
        # "Events that are published before a subscriber is back do not wait for it"
        doubts = [time for time, lost in receiver.announced if lost is None and min(near) <= time <= end]
        if not doubts:
            return False
        # Where another hub is on the way, it may take longer until that one is linked again.
        return len(route.stages) > 1 or sent.time <= max(doubts) + self._slack


def _name(event: Event) -> str:
    return f"{event[0]}/{event[1]}"


def _list(events: Iterable[Event] | Iterable[int]) -> str:
    names = [_name(event) if isinstance(event, tuple) else str(event) for event in events]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
