"""The processes of `tests.stress.topologies`: hubs, repeaters, messengers and services, which start and die.

Each makes the real thing, with the process as its reactor, and tells the history what it sees from outside:
what was sent, what came of it, what arrived, what was announced and what was counted.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any, cast

from treq.client import HTTPClient
from twisted.internet.defer import Deferred

from ces.hub.hub import Hub
from ces.hub.interconnect import Interconnections, hub_address
from ces.link.link import Link, Owner
from ces.link.serving import ServingFactory
from ces.link.side import Side
from ces.messenger import Messenger
from ces.model.address import Address
from ces.model.control import Gap, SubscriptionChange
from ces.model.routing import HUB, MESSENGER, REPEATER
from ces.model.wire import Run
from ces.repeater.inbound import OUTSIDE, read_outside
from ces.repeater.repeater import Repeater
from ces.session.life import NORMAL, TOO_SLOW
from ces.uplink.uplink import Uplink
from tests.stress.scenario import EVERY
from tests.support.history import Finding, History
from tests.support.world import Process, Server

if TYPE_CHECKING:
    from tests.stress.topologies import Simulation

LEFT = "left behind"
"""Found when a process that has stopped in good order leaves delayed calls or connections."""


class Role:
    """Something that runs in a process, and may be started again.

    name: who it is. node: who this process is. process: the present one. running: whether it has one.
    """

    def __init__(self, run: Simulation, name: str) -> None:
        self.run, self.name = run, name
        self.starts = 0
        self.running = False
        self.stopping = False
        self.process: Process

    @property
    def node(self) -> str:
        return f"{self.name}.{self.starts}"

    @property
    def history(self) -> History:
        return self.run.history

    def now(self) -> datetime:
        """What a clock on the wall shows."""
        return datetime(2026, 11, 24, tzinfo=UTC) + timedelta(seconds=self.run.world.now + self.process.wall)

    def start(self) -> None:
        """Start, in a new process."""
        if self.running or self.stopping or self.run.over:
            return
        self.starts += 1
        self.running = True
        self.process = Process(self.run.world, self.name, self.starts)
        self.run.world.at(self.run.world.now, self.process, self.begin)

    def stop(self) -> None:
        """Stop in good order, as on SIGTERM."""
        if self.running and not self.stopping:
            self.stopping = True
            self.run.world.at(self.run.world.now, self.process, self._stop)

    def _stop(self) -> None:
        self.end().addBoth(self._stopped)

    def _stopped(self, result: object) -> None:
        # What is due in this turn is still done.
        self.run.world.at(self.run.world.now, self.process, self._exit)

    def _exit(self) -> None:
        self.run.world.at(self.run.world.now, None, self._gone)

    def _gone(self) -> None:
        process = self.process
        if not process.dead:
            if process.calls or process.ends:
                calls = [call.function for call in self.run.world.calls(process)]
                left = f"{len(process.ends)} connections and the calls {calls}"
                self.run.found.append(Finding(LEFT, self.name, f"{self.node} stopped and left {left}"))
            self.kill(False)

    def kill(self, reset: bool) -> None:
        """The process dies."""
        if self.running:
            self.tally()
            self.running = self.stopping = False
            self.process.die(reset)
            self.history.die(self.known, self.run.world.now)

    @property
    def known(self) -> str:
        """Its name in the history: that of the process, or that of the role where it has one for good."""
        return self.name

    def begin(self) -> None:
        """Make what runs."""
        raise NotImplementedError

    def end(self) -> Deferred[Any]:
        """Stop what runs in good order; fires when it has."""
        raise NotImplementedError

    def tally(self) -> None:
        """Tell the history what has been counted."""

    def watch_closes(self, owner: Owner) -> None:
        """Tell the history which sessions end by a close: when it begins, and when its connection is gone.

        "A session ends when its connection is closed with any code except 4001, 4408 and 4409", and "after
        4408 (too slow) a repeater's session ends nevertheless". What arrives during a close that is not
        answered "counts as not delivered". No other code may be used here.

        When a hub stops and a repeater is cut meanwhile, "the session ends. What the repeater had not
        acknowledged goes to the next one, and may reach a target twice".
        """
        detached, left = owner.detached, owner.left

        def ended(link: Link) -> None:
            repeats = link.kind == REPEATER or self.name.startswith("r")
            if link.node and (link.close_code == NORMAL or (link.close_code == TOO_SLOW and repeats)):
                self.history.part(self.known, self.run.of_node(link.node), self.run.world.now)

        def closing(link: Link) -> None:
            ended(link)
            detached(link)

        def gone(link: Link, undelivered: list[Run]) -> None:
            ended(link)
            if undelivered and self.stopping and link.kind == REPEATER:
                self.history.part(self.known, self.run.of_node(link.node), self.run.world.now)
            left(link, undelivered)

        owner.detached, owner.left = closing, gone  # type: ignore[method-assign]

    def restless(self) -> str | None:
        """Why this is not linked and at rest; None when it is."""
        raise NotImplementedError


class HubRole(Role):
    """A hub with its ports and interconnections."""

    def __init__(self, run: Simulation, name: str, fixed: bool, addresses: list[str], node: str = "") -> None:
        super().__init__(run, name)
        self.fixed = fixed
        self.addresses = list(addresses)
        self._node = node

    @property
    def node(self) -> str:
        return self._node or (f"{self.name}.0" if self.fixed else super().node)

    def begin(self) -> None:
        process = self.process
        settings = self.run.hub_settings
        self.hub = Hub(self.node, settings, cast(Any, process), cast(Any, process.log))
        self.interconnections = Interconnections(self.hub, process)
        self._factories = {
            f"/connect/{kind}": ServingFactory(self.hub, self.hub.side, kind, cast(Any, process))
            for kind in (HUB, MESSENGER, REPEATER)
        }
        self._watch(self.hub)
        self._held = 0
        server = Server(process, self._build)
        for address in (self.name, f"{self.name}.b", f"{self.name}.c"):
            self.run.serve(address, server)
        for address in self.addresses:
            self.interconnections.keep(hub_address(address))

    def _build(self, path: str) -> Any:
        return self._factories[path].buildProtocol(None)

    def _watch(self, hub: Hub) -> None:
        """Tell the history what the hub counts."""
        drop = hub.side.drop

        def dropped(link: str, records: int, why: str) -> None:
            self.history.count(self.name, self.run.of_node(link.split()[1]), records, self.run.world.now)
            drop(link, records, why)

        hub.side.drop = dropped  # type: ignore[method-assign]
        self.watch_closes(hub)
        joined, attached = hub.joined, hub.attached

        def came(link: Link) -> None:
            self.run.replaced(self, link)
            joined(link)

        def back(link: Link, fresh: bool) -> None:
            self.run.replaced(self, link)
            attached(link, fresh)

        hub.joined, hub.attached = came, back  # type: ignore[method-assign]

    def dial(self, address: str) -> None:
        """Keep an interconnection with the hub at an address."""
        self.interconnections.keep(hub_address(address))

    def end(self) -> Deferred[Any]:
        for address in (self.name, f"{self.name}.b", f"{self.name}.c"):
            self.run.serve(address, None)
        return Deferred.fromCoroutine(self._goodbye())

    async def _goodbye(self) -> None:
        await self.hub.side.drain()
        gone = self.interconnections.stop()
        await self.hub.side.end_all()
        await gone
        self.hub.stop()

    def tally(self) -> None:
        held = self.hub.held.dropped
        if held > self._held:
            for name in [name for name, hub in self.run.scenario.repeaters if hub == self.name][:1]:
                self.history.count(self.name, name, held - self._held, self.run.world.now)
            self._held = held

    def restless(self) -> str | None:
        for pair in self.run.scenario.linked:
            if self.name in pair:
                (other,) = pair - {self.name}
                link = self.hub.hub_link(self.run.hub(other).node)
                if link is None or not link.connected:
                    return f"there is no link to {other}"
        if self.hub.side.tally.bytes:
            return f"{self.hub.side.tally.bytes} bytes wait"
        return None


class Publisher(Role):
    """Numbers the events that it sends, and writes down what comes of them."""

    def begin(self) -> None:
        self._numbers = count()

    @property
    def known(self) -> str:
        return self.node

    def send(self, room: str, times: int, pad: int) -> None:
        """Send so many events."""
        for _ in range(times):
            number = next(self._numbers)
            event = b'{"key":"%b","value":"%d","data":"%b"}' % (self.node.encode(), number, b"x" * pad)
            weight = max(128, len(event) + len(room) + 2)
            self.history.send(self.node, number, room, self.run.world.now, weight)
            self.publish(event, room, number)

    def publish(self, event: bytes, room: str, number: int) -> None:
        """Send one event."""
        raise NotImplementedError


class MessengerRole(Publisher):
    """A messenger, which publishes and subscribes."""

    def __init__(self, run: Simulation, name: str, hub: str, rooms: tuple[str, ...]) -> None:
        super().__init__(run, name)
        self.hub, self.rooms = hub, rooms

    def begin(self) -> None:
        super().begin()
        node, now, history = self.node, self.run.world.now, self.history
        self.run.born(self)
        self.messenger = messenger = Messenger(
            Address("ws", self.hub, 7100),
            self.rooms,
            reactor=self.process,
            node=node,
            spool=self.run.scenario.buffer,
            settings=self.run.link_settings,
            log=cast(Any, self.process.log),
            now=self.now,
        )
        for room in self.rooms:
            history.want(node, room, now)
        world = self.run.world

        def arrived(event: bytes, room: bytes) -> None:
            _, _, _, sender, _, _, _, number, *_ = event.split(b'"', 8)
            history.arrive(node, sender.decode(), int(number), world.now)

        messenger.on_record(arrived)
        messenger.on_gap(lambda lost: history.announce(node, lost, world.now))
        messenger.connect()

    def publish(self, event: bytes, room: str, number: int) -> None:
        node, history, world = self.node, self.history, self.run.world

        def answered(result: object) -> None:
            if result is None:
                history.acknowledge(node, number, world.now)
            else:
                history.drop(node, number, world.now)

        self.messenger.send(event, room).addBoth(answered)

    def change(self, create: bool, rooms: tuple[str, ...]) -> None:
        """Subscribe to rooms, or end the subscriptions."""
        for room in rooms:
            if create:
                self.history.want(self.node, room, self.run.world.now)
            else:
                self.history.leave(self.node, room, self.run.world.now)
        if create:
            self.messenger.subscribe(*rooms)
        else:
            self.messenger.unsubscribe(*rooms)
        self.rooms = tuple(sorted(self.messenger.rooms))

    def end(self) -> Deferred[Any]:
        self.history.close(self.node, self.run.world.now)
        return self.messenger.close()

    def restless(self) -> str | None:
        if not self.messenger.connected:
            return f"the messenger is {self.messenger.state}: {self.messenger.reason}"
        waiting = self.messenger.status()["spool-utilization"]
        return f"{waiting} bytes wait" if waiting else None


class OutsideRun(Run):
    """A run of one record, with its number."""

    __slots__ = ("number",)
    number: int


class OutsideRole(Publisher, Owner):
    """An outside service: one link to a repeater."""

    def __init__(self, run: Simulation, name: str, repeater: str) -> None:
        super().__init__(run, name)
        self.repeater = repeater

    node = Publisher.node  # type: ignore[assignment]

    def begin(self) -> None:
        super().begin()
        self.run.born(self)
        self._side: Side[Link] = Side(
            self.run.link_settings, cast(Any, self.process), cast(Any, self.process.log)
        )
        self._queue = self._side.new_queue(cast(Any, self))
        self._uplink = Uplink(
            self,
            self._side,
            Address("ws", self.repeater, 7101),
            "/connect/A/outside",
            "target",
            self.process,
            queue=self._queue,
        )
        self._uplink.dial()

    def publish(self, event: bytes, room: str, number: int) -> None:
        run = OutsideRun(room.encode(), [b"%b\n%b\n" % (room.encode(), event)])
        run.number = number
        self._queue.pending.append(run)
        self._uplink.flush()

    def done(self, runs: list[Run]) -> None:
        for run in runs:
            assert isinstance(run, OutsideRun)
            self.history.acknowledge(self.node, run.number, self.run.world.now)

    def evicted(self, run: Run) -> None:
        assert isinstance(run, OutsideRun)
        self.history.drop(self.node, run.number, self.run.world.now)

    def cut(self, run: Run, rest: Run) -> None:
        raise AssertionError("a run of one record was cut")

    def end(self) -> Deferred[Any]:
        self.history.close(self.node, self.run.world.now)
        return Deferred.fromCoroutine(self._uplink.stop())

    def restless(self) -> str | None:
        if self._queue.size:
            return f"{self._queue.size} bytes wait"
        return None


class RepeaterRole(Role):
    """A repeater, which sends what comes from its hub to the sink of that hub."""

    def __init__(self, run: Simulation, name: str, hub: str) -> None:
        super().__init__(run, name)
        self.hub = hub

    def begin(self) -> None:
        process = self.process
        self.repeater = Repeater(
            self.name,
            self.node,
            self.run.repeater_settings[self.hub],
            process,
            cast(HTTPClient, None),
            cast(Any, process.log),
        )
        self.repeater.route({EVERY: (f"ws://s{self.hub}",)})
        side = self.repeater.side
        factory = ServingFactory(self.repeater, side, OUTSIDE, cast(Any, process), read_outside())
        self.run.serve(self.name, Server(process, lambda path: factory.buildProtocol(None)))
        self._lost = Counter[str]()
        self.watch_closes(self.repeater)
        self.repeater.start()

    def end(self) -> Deferred[Any]:
        self.run.serve(self.name, None)
        return Deferred.fromCoroutine(self.repeater.stop())

    def tally(self) -> None:
        lost = {
            self.hub: self.repeater.hub.spool.queue.dropped,
            f"s{self.hub}": self.repeater.pool.total("dropped"),
        }
        for destination, number in lost.items():
            more = number - self._lost[destination]
            if more:
                known = self.run.roles[destination].known
                self.history.count(self.name, known, more, self.run.world.now)
                self._lost[destination] = number

    def restless(self) -> str | None:
        if not self.repeater.hub.uplink.connected:
            return f"the repeater has no link to its hub: {self.repeater.hub.away}"
        if self.repeater.side.tally.bytes or self.repeater.pool.waiting:
            return f"{self.repeater.side.tally.bytes} + {self.repeater.pool.waiting} bytes wait"
        return None


class SinkRole(Role, Owner):
    """A service that repeaters send events to."""

    @property
    def known(self) -> str:
        return self.node

    node = Role.node  # type: ignore[assignment]

    def begin(self) -> None:
        process = self.process
        self.run.born(self)
        self.history.want(self.node, EVERY, self.run.world.now)
        self._side: Side[Link] = Side(self.run.link_settings, cast(Any, process), cast(Any, process.log))
        factory = ServingFactory(self, self._side, OUTSIDE, cast(Any, process))
        self.run.serve(self.name, Server(process, lambda path: factory.buildProtocol(None)))

    def received(self, link: Link, runs: list[Run]) -> None:
        for run in runs:
            for event in run.events:
                _, _, _, sender, _, _, _, number, *_ = event.split(b'"', 8)
                self.history.arrive(self.node, sender.decode(), int(number), self.run.world.now)

    def told(self, link: Link, message: SubscriptionChange | Gap) -> None:
        pass

    def end(self) -> Deferred[Any]:
        self.run.serve(self.name, None)
        return Deferred.fromCoroutine(self._goodbye())

    async def _goodbye(self) -> None:
        await self._side.drain()
        await self._side.end_all()

    def restless(self) -> str | None:
        return None
