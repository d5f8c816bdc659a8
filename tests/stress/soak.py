"""Hours of ordinary network faults: ``python -m tests.stress.soak HOURS SEED``.

Runs two interconnected hubs and a repeater as processes. Publishers at both hubs and outside the repeater
number their events, and subscribers at both hubs count them. All their links, and those between the
processes, go through proxies (`tests.support.faults`), which inject one fault after the other. Guests
connect, listen for a while and leave, some without a closing handshake. The run checks:

- every lost event was announced to its subscriber, and no event is duplicated or out of order;
- the memory of each process does not grow after the warm-up: the medians of the first and the last quarter
  of the remaining time differ by at most `FLAT`;
- each process has as many open descriptors as before, and no log contains unexpected lines.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from ces.config.link import LinkSettings
from ces.messenger import Messenger
from tests.support.faults import FAULTS, Proxy
from tests.support.fleet import Role, free_port
from tests.support.numbered import ROOMS, Outside, Publisher, Subscriber
from tests.support.process import descriptors, memory, unexpected

OPTIONS = (
    "--ping-interval=500ms",
    "--silence-timeout=2s",
    "--dial-silence-timeout=2s",
    "--session-window=20s",
)
SETTINGS = LinkSettings(ping_interval=0.5, silence_timeout=2.0, dial_silence_timeout=2.0)
PAUSE = 0.02
FAULT_EVERY = (0.1, 1.0)
GUESTS = 20
STAY = (0.1, 5.0)
"""Shortest and longest stay of a guest, in seconds."""

WARM_UP = 0.3
"""Share of the run in which the processes may grow, limited to `WARM` seconds."""

WARM = 300.0
FLAT = 8 * 2**20
"""Limit of growth, in bytes. Some hundreds of closed links, a varying number, wait for the collector."""

PATIENCE = 60.0


class Soak:
    """The processes, the permanent clients, the guests, and the measurements."""

    def __init__(self, seconds: float, seed: int, reactor: Any, folder: Path) -> None:
        self.seconds, self.reactor, self.folder = seconds, reactor, folder
        self.random = random.Random(seed)
        self.proxies: list[Proxy] = []
        self.roles: list[Role] = []
        self.messengers: list[Messenger] = []
        self.cuts: Counter[str] = Counter()
        self.guests = 0
        self._ending = False
        self.samples: dict[str, list[tuple[float, int]]] = {}
        self.hub = self._role("ces-hub")
        self.other = self._role("ces-hub", "--interconnect", self._through(self.hub.port))
        repeater = self._role("ces-repeater", "--hub", self._through(self.hub.port), "--idle-ttl=60s")
        self._outside = Outside(self._proxy(repeater.port).port, SETTINGS, reactor)
        self.publishers = [
            self._publisher("here", self.hub.port),
            self._publisher("there", self.other.port),
            Publisher("outside", self._outside.send, seed),
        ]
        rooms = [f"ITB-{number}" for number in range(ROOMS)]
        self.subscribers = [
            Subscriber(self._messenger(self._proxy(port).port, *rooms))
            for port in (self.hub.port, self.hub.port, self.other.port, self.other.port)
        ]

    def _role(self, role: str, *options: str) -> Role:
        made = Role(self.folder, role, free_port(), *OPTIONS, *options).start()
        self.roles.append(made)
        self.samples[made.name] = []
        return made

    def _proxy(self, port: int) -> Proxy:
        proxy = Proxy(port, self.random.randrange(2**32), self.reactor)
        self.proxies.append(proxy)
        return proxy

    def _through(self, port: int) -> str:
        return f"ws://127.0.0.1:{self._proxy(port).port}"

    def _messenger(self, port: int, *rooms: str) -> Messenger:
        messenger = Messenger(f"127.0.0.1:{port}", rooms, reactor=self.reactor, settings=SETTINGS)
        messenger.connect()
        self.messengers.append(messenger)
        return messenger

    def _publisher(self, name: str, port: int) -> Publisher:
        messenger = self._messenger(self._proxy(port).port)
        return Publisher(name, lambda room, event: messenger.send(event, room), len(name))

    # -- the run ---------------------------------------------------------------------------------------------

    async def run(self) -> list[str]:
        """Run for the given time. Returns the faults, as sentences."""
        await gatherResults([messenger.when_connected() for messenger in self.messengers])
        await self._until(self._settled)
        before = {role.name: descriptors(role) for role in self.roles}
        talks = [task.LoopingCall(publisher.speak) for publisher in self.publishers]
        for talk in talks:
            talk.start(PAUSE)
        began = time.monotonic()
        goings_on = [self._faults(), self._samples(began), *(self._guest() for _ in range(GUESTS))]
        running = gatherResults([Deferred.fromCoroutine(one) for one in goings_on])
        try:
            await self._wait(self.seconds)
        finally:
            self._ending = True
            for talk in talks:
                talk.stop()
            await running
        late = [] if await self._until(lambda: not self._lost()) else [f"events are missing: {self._drops()}"]
        if not await self._until(lambda: self._settled() and self._files() == before):
            late.append(f"descriptors were {before} and are {self._files()}; links {self._links()}")
        return late + self._wrong()

    async def _faults(self) -> None:
        while not self._ending:
            await self._wait(self.random.uniform(*FAULT_EVERY))
            fault = self.random.choice(self.proxies).strike(FAULTS)
            if fault is not None:
                self.cuts[fault] += 1

    async def _samples(self, began: float) -> None:
        step = max(0.25, self.seconds / 2000)
        while not self._ending:
            await self._wait(step)
            for role in self.roles:
                self.samples[role.name].append((time.monotonic() - began, memory(role)))

    async def _guest(self) -> None:
        """Guests, one after the other: each subscribes, stays and leaves. A third cut their connection."""
        while not self._ending:
            port = self.random.choice(self.roles[:2]).port
            rooms = self.random.sample([f"ITB-{number}" for number in range(ROOMS)] + ["*", "EMPTY"], 2)
            guest = Messenger(f"127.0.0.1:{port}", rooms, reactor=self.reactor, settings=SETTINGS)
            guest.connect()
            guest.send({"key": "guest"}, "LOBBY")
            self.guests += 1
            await self._wait(self.random.uniform(*STAY))
            if self.random.random() < 0.3:
                guest.factory.abort()
            await guest.close(0.5)

    async def stop(self) -> None:
        await gatherResults([*(m.close() for m in self.messengers), self._outside.close()])
        for proxy in self.proxies:
            await proxy.stop()
        for role in reversed(self.roles):
            role.stop()

    # -- the checks ------------------------------------------------------------------------------------------

    def _wrong(self) -> list[str]:
        found = []
        for number, subscriber in enumerate(self.subscribers):
            faults = subscriber.faults(self.publishers)
            told = sum(records or 0 for records in subscriber.gaps)
            if faults["lost"] > told or faults["twice"] or faults["out of order"]:
                parts = {one.name: subscriber.faults([one]) for one in self.publishers}
                found.append(f"subscriber {number} counts {parts} and was told of {told} lost")
        for role in self.roles:
            if self.growth(role) > FLAT:
                found.append(f"{role.name} grows: by {self.growth(role)} bytes after the warm-up")
            found += [f"{role.name} logged {line[:500]!r}" for line in unexpected(role.logged())[:5]]
        return found

    def growth(self, role: Role) -> float:
        """The growth of a process after the warm-up, in bytes; negative if it has shrunk."""
        warm = min(WARM, WARM_UP * self.seconds)
        sizes = [size for when, size in self.samples[role.name] if when > warm]
        quarter = max(1, len(sizes) // 4)
        return median(sizes[-quarter:]) - median(sizes[:quarter]) if sizes else 0.0

    def _lost(self) -> int:
        return sum(subscriber.faults(self.publishers)["lost"] for subscriber in self.subscribers)

    def _drops(self) -> dict[str, list[str]]:
        """The metrics of dropped records, by process."""
        lines = {role.name: role.get("/metrics")[1].splitlines() for role in self.roles}
        return {
            name: [
                line for line in said if line[:1] != "#" and "dropped" in line and not line.endswith(" 0.0")
            ]
            for name, said in lines.items()
        }

    def _files(self) -> dict[str, int]:
        return {role.name: descriptors(role) for role in self.roles}

    def _links(self) -> list[list[int]]:
        return [
            [len(role.info()["nexus"][what]) for what in ("messengers", "hubs", "repeaters", "detached")]
            for role in self.roles[:2]
        ]

    def _settled(self) -> bool:
        """Whether the permanent clients are connected, and no others."""
        return self._links() == [[3, 1, 1, 0], [3, 1, 0, 0]]

    async def _until(self, condition: Any) -> bool:
        end = time.monotonic() + PATIENCE
        while not await deferToThread(condition):
            if time.monotonic() > end:
                return False
            await self._wait(0.2)
        return True

    async def _wait(self, seconds: float) -> None:
        await task.deferLater(self.reactor, seconds)

    def summary(self) -> str:
        """The results, on one line."""
        grown = ", ".join(f"{role.name} {self.growth(role) / 2**20:+.1f} MiB" for role in self.roles)
        events = sum(sum(publisher.said.values()) for publisher in self.publishers)
        heard = sum(subscriber.count for subscriber in self.subscribers)
        faults = sum((Counter(one.faults(self.publishers)) for one in self.subscribers), Counter())
        return (
            f"{self.seconds:.0f} s, {sum(self.cuts.values())} faults, {self.guests} guests, {events} events,"
            f" {heard} deliveries, {dict(faults) or 'none lost, twice or out of order'};"
            f" after the warm-up: {grown}"
        )


async def soak(seconds: float, seed: int, reactor: Any, folder: Path) -> tuple[str, list[str]]:
    """Run the soak test. Returns the summary and the faults."""
    site = Soak(seconds, seed, reactor, folder)
    try:
        wrong = await site.run()
        return site.summary(), wrong
    finally:
        await site.stop()


def main(arguments: list[str]) -> int:
    """Run and print the results. Returns the exit status."""
    found: list[str] = []

    async def run(reactor: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            summary, wrong = await soak(float(arguments[0]) * 3600, int(arguments[1]), reactor, Path(folder))
        print(f"seed {arguments[1]}: {summary}")
        print("\n".join(wrong) or "nothing was wrong")
        found.extend(wrong)

    try:
        task.react(lambda reactor: Deferred.fromCoroutine(run(reactor)))
    except SystemExit as ended:
        return 1 if found or ended.code else 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
