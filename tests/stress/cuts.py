"""Cuts connections under traffic, and counts what arrives.

``python -m tests.stress.cuts messenger|repeater|target|hub CUTS SEED``

Runs real hub and repeater processes and our messengers. A proxy between them (`tests.support.faults`) injects
one fault after the other. Every publisher numbers its events per room. In the end each subscriber must have
received each number once and in order, and must not have been told of a gap.
"""

from __future__ import annotations

import random
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred, gatherResults

from ces.config.link import LinkSettings
from ces.messenger import Messenger
from tests.support.faults import FAULTS, Proxy
from tests.support.fleet import Role, free_port
from tests.support.numbered import ROOMS, Outside, Publisher, Subscriber

QUICK = ("--ping-interval=300ms", "--silence-timeout=1s", "--dial-silence-timeout=1s")
"""Short timeouts, so that half-open connections and silence are detected soon."""

SETTINGS = LinkSettings(ping_interval=0.3, silence_timeout=1.0, dial_silence_timeout=1.0)
PAUSE = 0.02
PATIENCE = 30.0
KINDS = ("messenger", "repeater", "target", "hub")
FAULT = re.compile("closed (?:by the other side )?with (?:1002|1007|1009|4400)")
WRONG = ("lost", "twice", "out of order", "gaps told", "tracebacks", "closed for a fault")
"""The results that must be 0."""


class Site:
    """The processes, the proxy and the members of one kind of run."""

    def __init__(self, kind: str, seed: int, reactor: Any, folder: Path, width: int) -> None:
        self.kind, self.reactor = kind, reactor
        self.roles: list[Role] = []
        self.proxies: list[Proxy] = []
        self.publishers: list[Publisher] = []
        self.subscribers: list[Subscriber] = []
        self.members: list[Messenger | Outside] = []
        hub = self._role(folder, "ces-hub")
        if kind == "messenger":
            proxy = self._proxy(hub.port, seed)
            for number in range(width):
                self._publisher(f"p{number}", proxy.port, seed + number)
                self._subscriber(proxy.port)
        elif kind == "repeater":
            for number in range(width):
                proxy = self._proxy(hub.port, seed + number)
                repeater = self._role(folder, "ces-repeater", "--hub", f"ws://127.0.0.1:{proxy.port}")
                outside = Outside(repeater.port, SETTINGS, reactor)
                self.members.append(outside)
                self.publishers.append(Publisher(f"p{number}", outside.send, seed + number))
            self._subscriber(hub.port)
        elif kind == "target":
            far_hub = self._role(folder, "ces-hub")
            target = self._role(folder, "ces-repeater", "--hub", f"ws://127.0.0.1:{far_hub.port}")
            proxy = self._proxy(target.port, seed)
            routes = folder / "routes.toml"
            routes.write_text(f'[routes]\n"*" = ["ws://127.0.0.1:{proxy.port}"]\n')
            near = ("--hub", f"ws://127.0.0.1:{hub.port}", "--routes", str(routes))
            # A connection that says nothing in its handshake costs ten seconds of events.
            self._role(folder, "ces-repeater", *near, "--target-buffer=64MiB")
            for number in range(width):
                self._publisher(f"p{number}", hub.port, seed + number)
            self._subscriber(far_hub.port)
        else:
            for number in range(width):
                proxy = self._proxy(hub.port, seed + number)
                other = self._role(folder, "ces-hub", "--interconnect", f"ws://127.0.0.1:{proxy.port}")
                self._publisher(f"p{number}", other.port, seed + number)
            self._subscriber(hub.port)
            self._publisher("centre", hub.port, seed - 1)
            for role in self.roles[1:]:
                self._subscriber(role.port)

    def _role(self, folder: Path, role: str, *options: str) -> Role:
        made = Role(folder, role, free_port(), *QUICK, *options).start()
        self.roles.append(made)
        return made

    def _proxy(self, port: int, seed: int) -> Proxy:
        proxy = Proxy(port, seed, self.reactor)
        self.proxies.append(proxy)
        return proxy

    def _messenger(self, port: int, *rooms: str) -> Messenger:
        messenger = Messenger(f"127.0.0.1:{port}", rooms, reactor=self.reactor, settings=SETTINGS)
        messenger.connect()
        self.members.append(messenger)
        return messenger

    def _publisher(self, name: str, port: int, seed: int) -> None:
        messenger = self._messenger(port)
        self.publishers.append(Publisher(name, lambda room, event: messenger.send(event, room), seed))

    def _subscriber(self, port: int) -> None:
        self.subscribers.append(Subscriber(self._messenger(port, *[f"ITB-{n}" for n in range(ROOMS)])))

    @property
    def expected(self) -> int:
        return sum(sum(publisher.said.values()) for publisher in self.publishers)

    def faults(self) -> dict[str, int]:
        """The faults of all subscribers.

        Hubs do not pass on events of other hubs. A subscriber at an outer hub therefore gets only the events
        of its own hub's publisher and of the central one.
        """
        found: Counter[str] = Counter()
        for number, subscriber in enumerate(self.subscribers):
            publishers = self.publishers
            if self.kind == "hub" and number:
                own = self.publishers[number - 1]
                publishers = [own, self.publishers[-1]]
            found.update(subscriber.faults(publishers))
        return dict(found)

    async def stop(self) -> None:
        await gatherResults([member.close() for member in self.members])
        for proxy in self.proxies:
            await proxy.stop()
        for role in self.roles:
            role.stop()


async def wait(seconds: float, reactor: Any) -> None:
    await task.deferLater(reactor, seconds)


async def cuts(kind: str, count: int, seed: int, reactor: Any, folder: Path, width: int) -> dict[str, Any]:
    """Inject `count` faults, one after the other. Returns the results."""
    site = Site(kind, seed, reactor, folder, width)
    chance = random.Random(seed)
    done: Counter[str] = Counter()
    try:
        await gatherResults([m.when_connected() for m in site.members if isinstance(m, Messenger)])
        await wait(1.0, reactor)
        loops = [task.LoopingCall(publisher.speak) for publisher in site.publishers]
        for loop in loops:
            loop.start(PAUSE)
        end = time.monotonic() + count * 5
        while sum(done.values()) < count and time.monotonic() < end:
            await wait(chance.uniform(0.01, 0.1), reactor)
            fault = chance.choice(site.proxies).strike(FAULTS)
            if fault is not None:
                done[fault] += 1
        for loop in loops:
            loop.stop()
        end = time.monotonic() + PATIENCE
        while site.faults()["lost"] and time.monotonic() < end:
            await wait(0.1, reactor)
        await wait(0.5, reactor)
        logs = [role.log.read_text() for role in site.roles]
        return {
            "cuts": dict(done),
            "events": site.expected,
            "deliveries": sum(subscriber.count for subscriber in site.subscribers),
            "tracebacks": sum(log.count("Traceback") for log in logs),
            "closed for a fault": sum(len(FAULT.findall(log)) for log in logs),
            **site.faults(),
        }
    finally:
        await site.stop()


def main(arguments: list[str]) -> int:
    """Run and print the results. Returns the exit status."""
    kind, count, seed = arguments[0], int(arguments[1]), int(arguments[2])
    wrong = 0

    async def run(reactor: Any) -> None:
        nonlocal wrong
        with tempfile.TemporaryDirectory() as folder:
            width = 10 if kind == "messenger" else 4
            seen = await cuts(kind, count, seed, reactor, Path(folder), width)
        struck = sum(seen.pop("cuts").values())
        print(f"{kind}: {struck} cuts, seed {seed}:", seen, flush=True)
        wrong = sum(seen[what] for what in WRONG) + (struck != count)

    try:
        task.react(lambda reactor: Deferred.fromCoroutine(run(reactor)))
    except SystemExit as ended:
        return 1 if wrong or ended.code else 0
    raise AssertionError("react ends by SystemExit")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
