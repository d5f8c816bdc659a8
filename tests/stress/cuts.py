"""Injects faults under traffic, up to three at a time, and judges what arrives.

``python -m tests.stress.cuts messenger|repeater|target|hub|consumer FAULTS SEED``

Runs real hub and repeater processes and our messengers. A proxy between them (`tests.support.faults`) cuts,
delays, or answers by itself; the clocks of the processes are set, and the processes sleep
(`tests.support.trouble`). Publishers number their events.

messenger, repeater, target, hub
    Everything fits into the queues: each subscriber must have received each event once and in order, and must
    not have been told of a gap. Between hubs, links are also replaced and dialled from both ends, and rooms
    flap while a hub is stopped.
consumer
    Consumers in processes of their own sleep until the hub closes them with 4408. Their queues overflow. What
    each missed must be exactly what it was told.

``--wall-clock`` lets the processes' timers follow the system clock. The run must then find that.
``--without KIND`` leaves out a kind of fault, to narrow down the cause of a finding.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from ces.config.link import LinkSettings
from ces.messenger import Messenger
from tests.support.consumer import Consumer
from tests.support.faults import Proxy
from tests.support.fleet import Role, free_port
from tests.support.history import ROOM
from tests.support.lives import Lives
from tests.support.numbered import ROOM_NAMES, Outside, Publisher, Subscriber
from tests.support.program import exit_status
from tests.support.rooms import Flapper, Waverer, knows
from tests.support.trouble import Trouble
from tests.support.wall import Wall

QUICK = ("--ping-interval=300ms", "--silence-timeout=1s", "--dial-silence-timeout=1s")
"""Short timeouts, so that half-open connections and silence are detected soon."""

SETTINGS = LinkSettings(ping_interval=0.3, silence_timeout=1.0, dial_silence_timeout=1.0)
SLEEP = (0.2, 2.5)
"""Up to much longer than the timeouts of silence."""

SMALL = ("--link-buffer=256KiB", "--message-limit=64KiB", "--slow-timeout=500ms")
"""For a hub whose consumers sleep: 50 s with the default slow-timeout of 30 s, scaled down."""

SMALL_BUFFER = 2**18
LONG_SLEEP = (0.5, 3.0)
STALL = 2.0
"""Seconds for which a hub is stopped while rooms flap at another."""

BUFFER = 8 * 2**20
"""The default limits of the queue of a link and of the spool of a messenger."""

ALIASES = 2
"""Further names under which a hub may be dialled."""

PAUSE = 0.02
PATIENCE = 30.0
ROUND = 25
"""Faults after which the traffic pauses and is judged."""

SHOWN = 30
"""Findings that are printed."""

AFTER = 0.3
"""Seconds for which events still flow after the last fault, so that what arrives has passed every link."""

KINDS = ("messenger", "repeater", "target", "hub", "consumer")
FAULT = re.compile("closed (?:by the other side )?with (?:1002|1007|1009|4400(?!: no hello))")
"""A connection was closed since the other side had broken a rule. A hello that a silent proxy kept does not
count: "cut, or 4400 for a missing hello" (docs/reliability.md).
"""
WRONG = ("findings", "lost", "twice", "out of order", "gaps told", "tracebacks", "closed for a fault")
"""The results that must be 0."""


class Site:
    """The processes, the proxies and the members of one kind of run."""

    def __init__(
        self, kind: str, seed: int, reactor: Any, folder: Path, width: int, options: tuple[str, ...] = ()
    ) -> None:
        self.kind, self.reactor = kind, reactor
        self.lives = Lives()
        self.roles: list[Role] = []
        self.walls: list[Wall] = []
        self.proxies: list[Proxy] = []
        self.publishers: list[Publisher] = []
        self.subscribers: list[Subscriber] = []
        self.consumers: list[Consumer] = []
        self.members: list[Messenger | Outside | Consumer] = []
        self._options = (*QUICK, *options)
        self._ways: list[tuple[Role, Proxy]] = []
        """Further names of hubs, and who is to dial them."""
        self._flappers: list[Flapper] = []
        self._waverers: list[Waverer] = []
        self._random = random.Random(seed)
        hub = self._role(folder, "ces-hub", *(SMALL if kind == "consumer" else ()))
        getattr(self, f"_{kind}")(folder, hub, seed, width)
        more = {}
        if self._waverers:
            more["subscription"] = lambda: self._random.choice(self._waverers).waver()
        if kind == "hub":
            more |= {"replaced": self._replace, "rooms": self._flap}
        sleepers = self.consumers or self.roles
        self.trouble = Trouble(
            seed,
            reactor,
            self.proxies,
            lambda: [one.pid if isinstance(one, Consumer) else one.process.pid for one in sleepers],
            self.walls,
            LONG_SLEEP if kind == "consumer" else SLEEP,
            more,
        )

    # -- the kinds -------------------------------------------------------------------------------------------

    def _messenger(self, folder: Path, hub: Role, seed: int, width: int) -> None:
        proxy = self._proxy(hub.port, seed)
        for number in range(width):
            self._publisher(f"p{number}", proxy.port, seed + number, "hub")
            self._subscriber(f"s{number}", proxy.port, "hub")
        self._waverer("w", proxy.port, "hub")
        for publisher in self.publishers:
            for receiver in (*self.subscribers, *self._waverers):
                self.lives.route(publisher.name, receiver.name, "hub")

    def _repeater(self, folder: Path, hub: Role, seed: int, width: int) -> None:
        self._subscriber("s", hub.port, "hub")
        for number in range(width):
            proxy = self._proxy(hub.port, seed + number)
            repeater = self._role(folder, "ces-repeater", "--hub", f"ws://127.0.0.1:{proxy.port}")
            outside = Outside(repeater.port, SETTINGS, self.reactor)
            self.members.append(outside)
            name = f"p{number}"
            self.publishers.append(Publisher(name, outside.send, seed + number, self.lives))
            self.lives.route(name, "s", f"repeater {number}", "hub")

    def _target(self, folder: Path, hub: Role, seed: int, width: int) -> None:
        far_hub = self._role(folder, "ces-hub")
        target = self._role(folder, "ces-repeater", "--hub", f"ws://127.0.0.1:{far_hub.port}")
        proxy = self._proxy(target.port, seed)
        routes = folder / "routes.toml"
        routes.write_text(f'[routes]\n"*" = ["ws://127.0.0.1:{proxy.port}"]\n')
        near = ("--hub", f"ws://127.0.0.1:{hub.port}", "--routes", str(routes))
        # A connection that says nothing in its handshake costs ten seconds of events.
        self._role(folder, "ces-repeater", *near, "--target-buffer=64MiB")
        self._subscriber("s", far_hub.port, "far hub")
        for number in range(width):
            self._publisher(f"p{number}", hub.port, seed + number, "hub")
            self.lives.route(f"p{number}", "s", "hub", "repeater", "target", "far hub")

    def _hub(self, folder: Path, hub: Role, seed: int, width: int) -> None:
        self._subscriber("s", hub.port, "hub")
        self._publisher("centre", hub.port, seed - 1, "hub")
        self.lives.route("centre", "s", "hub")
        for number in range(width):
            name = f"hub {number}"
            proxy = self._proxy(hub.port, seed + number)
            other = self._role(folder, "ces-hub", "--interconnect", f"ws://127.0.0.1:{proxy.port}")
            self._ways += [(other, self._proxy(hub.port, seed + number)) for _ in range(ALIASES)]
            self._ways.append((hub, self._proxy(other.port, seed + number)))
            self._publisher(f"p{number}", other.port, seed + number, name)
            self._subscriber(f"s{number}", other.port, name)
            self._waverer(f"w{number}", other.port, name)
            self._flappers.append(
                Flapper(self._connect(other.port), seed + number, self.reactor),
            )
            self.lives.route(f"p{number}", "s", name, "hub", order=ROOM)
            # Hubs do not pass on events of other hubs: a subscriber at an outer hub gets those of its own
            # hub's publisher and of the central one.
            for receiver in (f"s{number}", f"w{number}"):
                self.lives.route(f"p{number}", receiver, name)
                self.lives.route("centre", receiver, "hub", name, order=ROOM)

    def _consumer(self, folder: Path, hub: Role, seed: int, width: int) -> None:
        for number in range(width):
            self._publisher(f"p{number}", hub.port, seed + number, "hub", "x" * 1000)
        proxy = self._proxy(hub.port, seed)
        for number in range(width):
            name = f"s{number}"
            consumer = Consumer(proxy.port, ROOM_NAMES, SETTINGS, self.reactor)
            self.consumers.append(consumer)
            self.members.append(consumer)
            self.subscribers.append(Subscriber(consumer, name, self.lives))
            self.lives.client(name, "hub", ROOM_NAMES)
            self.lives.limit("hub", name, SMALL_BUFFER)
            for publisher in self.publishers:
                self.lives.route(publisher.name, name, "hub")

    # -- parts -----------------------------------------------------------------------------------------------

    def _role(self, folder: Path, role: str, *options: str) -> Role:
        name = f"{role}-{len(self.roles)}"
        (folder / name).mkdir()
        self.walls.append(Wall(folder / name))
        env = self.walls[-1].env
        made = Role(folder, role, free_port(), *self._options, *options, name=name, env=env).start()
        self.roles.append(made)
        return made

    def _proxy(self, port: int, seed: int) -> Proxy:
        proxy = Proxy(port, seed, self.reactor)
        self.proxies.append(proxy)
        return proxy

    def _connect(self, port: int, *rooms: str, node: str = "") -> Messenger:
        address = f"127.0.0.1:{port}"
        messenger = Messenger(address, rooms, reactor=self.reactor, node=node, settings=SETTINGS)
        messenger.connect()
        self.members.append(messenger)
        return messenger

    def _publisher(self, name: str, port: int, seed: int, hub: str, *data: str) -> None:
        messenger = self._connect(port)

        def send(room: str, event: bytes) -> Deferred[None]:
            return messenger.send(event, room)

        self.publishers.append(Publisher(name, send, seed, self.lives, *data))
        self.lives.limit(name, hub, BUFFER)

    def _subscriber(self, name: str, port: int, hub: str) -> None:
        self.subscribers.append(Subscriber(self._connect(port, *ROOM_NAMES), name, self.lives))
        self.lives.client(name, hub, ROOM_NAMES)
        self.lives.limit(hub, name, BUFFER)

    def _waverer(self, name: str, port: int, hub: str) -> None:
        messenger = self._connect(port, ROOM_NAMES[0], node=name)
        self._waverers.append(Waverer(messenger, name, self.lives, len(self._waverers)))
        self.lives.client(name, hub, ROOM_NAMES[:1])
        self.lives.limit(hub, name, BUFFER)

    # -- faults of links between hubs ------------------------------------------------------------------------

    def _replace(self) -> bool:
        """Let a hub dial another under a further name, or be dialled by it."""
        if not self._ways:
            return False
        hub, proxy = self._ways.pop(self._random.randrange(len(self._ways)))
        path = f"/interconnect/127.0.0.1:{proxy.port}?retry=true"
        deferToThread(hub.request, "POST", path).addErrback(lambda failure: None)  # the hub may sleep
        return True

    def _flap(self) -> bool:
        """Let very many rooms come and go at a hub while the central one is stopped."""
        hub = self.roles[0].process
        assert hub is not None
        begun = self._random.choice(self._flappers).flap()
        if begun:
            self.trouble.stop(hub.pid, STALL)
        return begun

    # -- what there is of it ---------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether all members have a link. Of one to a repeater, nothing is known."""
        messengers = [one.connected for one in self.members if isinstance(one, Messenger)]
        return all(messengers) and all(consumer.linked for consumer in self.consumers)

    async def rooms_are_known(self) -> bool:
        """Whether the hubs know the rooms of those that change them."""
        hubs = [role for role in self.roles if role.role == "ces-hub"]
        return await deferToThread(
            lambda: all(
                any(knows(hub, one.name, self.lives.rooms(one.name)) for hub in hubs)
                for one in self._waverers
            )
        )

    def faults(self) -> dict[str, int]:
        """What the subscribers themselves have counted. Not for consumers that sleep: those lose events."""
        found = dict.fromkeys(("gaps told", "lost", "twice", "out of order"), 0)
        for number, subscriber in enumerate(self.subscribers):
            publishers = self.publishers
            if self.kind == "hub" and number:
                publishers = [self.publishers[0], self.publishers[number]]
            for what, count in subscriber.faults(publishers).items():
                found[what] += count
        if self.kind == "consumer":
            found |= {"lost": 0, "gaps told": 0}
        return found

    async def stop(self) -> None:
        self.trouble.rest()
        await gatherResults([member.close() for member in self.members])
        for proxy in self.proxies:
            await proxy.stop()
        for role in self.roles:
            role.stop()


async def wait(seconds: float, reactor: Any) -> None:
    await task.deferLater(reactor, seconds)


async def cuts(
    kind: str,
    count: int,
    seed: int,
    reactor: Any,
    folder: Path,
    width: int,
    *options: str,
    without: Collection[str] = (),
) -> dict[str, Any]:
    """Inject `count` faults or some more. Returns the results.

    :param options: of every process.
    :param without: kinds of faults that are left out.
    """
    site = Site(kind, seed, reactor, folder, width, options)
    site.trouble.leave_out(without)
    trouble, lives = site.trouble, site.lives
    chance = random.Random(seed)
    findings: list[str] = []

    async def until(condition: Any, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            await wait(0.05, reactor)
        return bool(condition())

    try:
        await until(lambda: site.connected, PATIENCE)
        await wait(1.0, reactor)
        lives.begin()
        while trouble.count < count:
            trouble.latest.clear()
            loops = [task.LoopingCall(publisher.speak) for publisher in site.publishers]
            for loop in loops:
                loop.start(PAUSE)
            enough = min(count, trouble.count + ROUND)
            end = time.monotonic() + 5 * ROUND
            while trouble.count < enough and time.monotonic() < end:
                await wait(chance.uniform(0.01, 0.1), reactor)
                trouble.strike()
            trouble.rest()
            await wait(AFTER, reactor)
            for loop in loops:
                loop.stop()
            await until(lambda: not trouble.lasts, PATIENCE)
            # Consumers that slept have lost events; everything else must arrive.
            await until(lambda: lives.explained if kind == "consumer" else lives.complete, PATIENCE)
            end = time.monotonic() + PATIENCE
            while not await site.rooms_are_known() and time.monotonic() < end:
                await wait(0.2, reactor)
            await wait(0.5, reactor)
            if found := lives.end():
                findings += [str(finding) for finding in found]
                findings.append(f"... after {dict(Counter(trouble.latest))}")
            if trouble.count < enough:
                break  # which the caller finds by the number of faults
        logs = [role.log.read_text() for role in site.roles]
        return {
            "cuts": dict(trouble.done),
            "events": lives.events,
            "deliveries": lives.deliveries,
            "answered by proxies": sum(proxy.refused for proxy in site.proxies),
            "announced as lost": sum(lost or 0 for one in site.subscribers for lost in one.gaps),
            "closed with 4408": sum(log.count("closed with 4408") for log in logs),
            "findings": lives.found.total(),
            "tracebacks": sum(log.count("Traceback") for log in logs),
            "closed for a fault": sum(len(FAULT.findall(log)) for log in logs),
            **site.faults(),
            "sentences": [
                *findings,
                *(line for log in logs for line in log.splitlines() if FAULT.search(line)),
            ],
        }
    finally:
        await site.stop()


def main(arguments: list[str]) -> int:
    """Run and print the results. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.cuts")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("count", type=int, help="faults")
    parser.add_argument("seed", type=int)
    parser.add_argument("--wall-clock", action="store_const", const=["--wall-clock"], default=[])
    parser.add_argument("--without", action="append", default=[], help="leave out a kind of fault")
    chosen = parser.parse_args(arguments)

    async def run(reactor: Any) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            width = 10 if chosen.kind == "messenger" else 4
            what = (chosen.kind, chosen.count, chosen.seed, reactor, Path(folder), width)
            seen = await cuts(*what, *chosen.wall_clock, without=chosen.without)
        faults, sentences = seen.pop("cuts"), seen.pop("sentences")
        print(f"{chosen.kind}: {sum(faults.values())} faults, seed {chosen.seed}:", faults, seen, flush=True)
        print("\n".join(sentences[:SHOWN]) or "nothing was wrong", flush=True)
        return not any(seen[what] for what in WRONG) and sum(faults.values()) >= chosen.count

    return exit_status(run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
