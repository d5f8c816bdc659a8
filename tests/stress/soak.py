"""Hours of faults in a mesh: ``python -m tests.stress.soak HOURS SEED [--wall-clock] [--without KIND]``.

Three hubs in a ring, two repeaters at one of them with an HTTP target, publishers and subscribers at each hub
and outside the repeaters, and a consumer in a process of its own. All links go through proxies
(`tests.support.faults`). Up to three faults at a time are injected (`tests.support.trouble`): those of the
network, proxies that answer by themselves, clocks that are set, processes that sleep, links between hubs that
are replaced and dialled from both ends, rooms that flap by the thousand while a hub is stopped. Guests
connect, listen for a while and leave, some without a closing handshake.

The run goes on in rounds. In each, events and faults come together; then the faults end, and the round is
judged by what both ends know (`tests.support.lives`). In every other round one hub or one repeater is killed
or restarted, and docs/reliability.md allows what it says of that. In all other rounds nothing may be lost,
come twice or out of order, or be announced as lost. The run checks as well:

- the memory of each process that is never restarted does not grow after the warm-up: the medians of the first
  and the last quarter of the remaining time differ by at most `FLAT`;
- each process has as many open descriptors as before, and no log contains unexpected lines.

``--wall-clock`` lets the processes' timers follow the system clock. The run must then find that.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from statistics import median
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from ces.config.link import LinkSettings
from ces.messenger import Messenger
from tests.support.consumer import Consumer
from tests.support.faults import Proxy
from tests.support.fleet import Role, free_port
from tests.support.history import NONE, ROOM
from tests.support.lives import Lives
from tests.support.numbered import ROOM_NAMES, Outside, Publisher, Subscriber
from tests.support.process import descriptors, memory, unexpected
from tests.support.program import exit_status
from tests.support.rooms import Flapper, Waverer, knows
from tests.support.sink import Sink
from tests.support.trouble import Trouble
from tests.support.wall import Wall

OPTIONS = (
    "--ping-interval=500ms",
    "--silence-timeout=2s",
    "--dial-silence-timeout=2s",
    "--session-window=30s",
)
SETTINGS = LinkSettings(ping_interval=0.5, silence_timeout=2.0, dial_silence_timeout=2.0)
HUBS = 3
REPEATERS = 2
BUFFER = 8 * 2**20
"""The default limits of the queue of a link and of the spool of a messenger."""

PAUSE = 0.04
FAULT_EVERY = (0.1, 1.0)
SLEEP = (0.3, 4.0)
"""Up to twice as long as the timeouts of silence."""

STALL = 2.5
"""Seconds for which a hub is stopped while rooms flap at another."""

ROUND = 10.0
"""Seconds of events and faults; then they end, and what came of them is judged."""

AFTER = 0.5
"""Seconds for which events still flow after the last fault, so that what arrives has passed every link."""

LATE = 3.0
"""After a restart, what has not come for so many seconds does not come any more."""

DEATHS = (("hub-2", signal.SIGKILL), ("repeater-1", signal.SIGTERM))
DEATHS += (("hub-2", signal.SIGTERM), ("repeater-1", signal.SIGKILL))
"""Who dies, one in every other round. docs/reliability.md then allows: of a hub, "Events that the dead hub
had acknowledged but not passed on are lost; each client is told"; of a repeater, "Events that the hub had not
acknowledged are lost"; of both, "may arrive twice".
"""

GUESTS = 20
STAY = (0.1, 5.0)
"""Shortest and longest stay of a guest, in seconds."""

WARM_UP = 0.3
"""Share of the run in which the processes may grow, limited to `WARM` seconds."""

WARM = 300.0
FLAT = 8 * 2**20
"""Limit of growth, in bytes. Some hundreds of closed links, a varying number, wait for the collector."""

PATIENCE = 60.0
SHOWN = 30
"""Findings that are printed."""


class Soak:
    """The processes, the permanent clients, the guests, and the measurements.

    :param options: of every process.
    :param wall: the system clock of this process, if it can be set.
    """

    def __init__(
        self,
        seconds: float,
        seed: int,
        reactor: Any,
        folder: Path,
        options: tuple[str, ...] = (),
        wall: Wall | None = None,
    ) -> None:
        self.seconds, self.reactor, self.folder = seconds, reactor, folder
        self.random = random.Random(seed)
        self.lives = Lives()
        self.proxies: list[Proxy] = []
        self.roles: dict[str, Role] = {}
        self.walls = [] if wall is None else [wall]
        self.messengers: list[Messenger] = []
        self.receivers: list[tuple[str, Role]] = []
        """The node of each that is subscribed, and its hub."""
        self.waverers: list[Waverer] = []
        self.guests = self.rounds = 0
        self.deaths: Counter[str] = Counter()
        self._options = (*OPTIONS, *options)
        self._ending = False
        self._dying: set[Role] = set()
        self.samples: dict[str, list[tuple[float, int]]] = {}
        ports = [free_port() for _ in range(HUBS)]
        self.hubs = [
            self._role(
                f"hub-{n}", "ces-hub", ports[n], f"--interconnect={self._through(ports[(n + 1) % HUBS])}"
            )
            for n in range(HUBS)
        ]
        self._ways = {n: self._ways_of(n) for n in range(HUBS)}
        self.sink = Sink("sink", {"p0"}, self.lives, reactor)
        routes = folder / "routes.toml"
        routes.write_text(f'[routes]\n"*" = ["{self.sink.url}"]\n')
        self.publishers: list[Publisher] = []
        self.outsides = [self._repeater(number, routes, seed) for number in range(REPEATERS)]
        for number, hub in enumerate(self.hubs):
            self._publisher(f"p{number}", hub, seed + number)
        self.subscribers = [
            self._subscriber(f"s{number}", hub, *ROOM_NAMES) for number, hub in enumerate(self.hubs)
        ]
        for number, hub in enumerate(self.hubs):
            port, node = self._proxy(hub.port).port, f"w{number}"
            waverer = Waverer(
                self._messenger(port, ROOM_NAMES[0], node=node), node, self.lives, seed + number
            )
            self.waverers.append(waverer)
            self._receives(node, hub, ROOM_NAMES[:1])
        self.consumer = self._consumer("c", self.hubs[1])
        self._flappers = [
            Flapper(self._messenger(hub.port), seed + number, reactor) for number, hub in enumerate(self.hubs)
        ]
        for number in range(HUBS):
            self.lives.limit(f"p{number}", f"hub-{number}", BUFFER)
        self.lives.sink("sink", ROOM_NAMES)
        self.lives.route(
            "p0", "sink", "hub-0", [f"repeater-{number}" for number in range(REPEATERS)], order=NONE
        )
        more: dict[str, Callable[[], bool]] = {
            "subscription": lambda: self.random.choice(self.waverers).waver(),
            "replaced": self._replace,
            "rooms": self._flap,
        }
        self.trouble = Trouble(seed, reactor, self.proxies, self._pids, self.walls, SLEEP, more)

    # -- parts -----------------------------------------------------------------------------------------------

    def _role(self, name: str, role: str, port: int, *options: str) -> Role:
        (self.folder / name).mkdir()
        wall = Wall(self.folder / name)
        self.walls.append(wall)
        if role == "ces-hub":
            options = (*options, "--node-id", name)
        made = Role(self.folder, role, port, *self._options, *options, name=name, env=wall.env).start()
        self.roles[name] = made
        self.samples[name] = []
        return made

    def _repeater(self, number: int, routes: Path, seed: int) -> Outside:
        options = ("--hub", self._through(self.hubs[0].port), "--idle-ttl=15s", "--routes", str(routes))
        role = self._role(f"repeater-{number}", "ces-repeater", free_port(), *options)
        outside = Outside(self._proxy(role.port).port, SETTINGS, self.reactor)
        self.publishers.append(Publisher(f"o{number}", outside.send, seed + number, self.lives))
        return outside

    def _proxy(self, port: int) -> Proxy:
        proxy = Proxy(port, self.random.randrange(2**32), self.reactor)
        self.proxies.append(proxy)
        return proxy

    def _through(self, port: int) -> str:
        return f"ws://127.0.0.1:{self._proxy(port).port}"

    def _messenger(self, port: int, *rooms: str, node: str = "") -> Messenger:
        address = f"127.0.0.1:{port}"
        messenger = Messenger(address, rooms, reactor=self.reactor, node=node, settings=SETTINGS)
        messenger.connect()
        self.messengers.append(messenger)
        return messenger

    def _publisher(self, name: str, hub: Role, seed: int) -> None:
        messenger = self._messenger(self._proxy(hub.port).port)

        def send(room: str, event: bytes) -> Deferred[None]:
            return messenger.send(event, room)

        self.publishers.append(Publisher(name, send, seed, self.lives))

    def _subscriber(self, name: str, hub: Role, *rooms: str) -> Subscriber:
        self._receives(name, hub, rooms)
        return Subscriber(self._messenger(self._proxy(hub.port).port, *rooms, node=name), name, self.lives)

    def _consumer(self, name: str, hub: Role) -> Consumer:
        (self.folder / name).mkdir()
        wall = Wall(self.folder / name)
        self.walls.append(wall)
        port = self._proxy(hub.port).port
        consumer = Consumer(port, ROOM_NAMES, SETTINGS, self.reactor, name, wall.env)
        self._receives(name, hub, ROOM_NAMES)
        self.subscribers.append(Subscriber(consumer, name, self.lives))
        return consumer

    def _receives(self, name: str, hub: Role, rooms: Collection[str]) -> None:
        """The events of all publishers reach it: from its own hub, and from the others through one more."""
        self.receivers.append((name, hub))
        self.lives.client(name, hub.name, rooms)
        self.lives.limit(hub.name, name, BUFFER)
        for number, first in enumerate(self.hubs):
            ways: dict[str, tuple[str, ...]] = {f"p{number}": (first.name,)}
            if number == 0:
                ways |= {f"o{n}": (f"repeater-{n}", first.name) for n in range(REPEATERS)}
            for sender, stages in ways.items():
                if first is hub:
                    self.lives.route(sender, name, *stages)
                else:
                    self.lives.route(sender, name, *stages, hub.name, order=ROOM)

    # -- faults of processes and of links between hubs -------------------------------------------------------

    def _pids(self) -> list[int | None]:
        roles = [role.process.pid for role in self.roles.values() if role.process and role not in self._dying]
        return [*roles, self.consumer.pid]

    def _ways_of(self, number: int) -> list[str]:
        """Further addresses for a hub to dial: of the next hub again, and of the one that has dialled it."""
        return [self._through(self.hubs[(number + step) % HUBS].port) for step in (1, 1, 2)]

    def _replace(self) -> bool:
        """Let a hub dial another under a further name, or be dialled by it."""
        ways = [
            number for number, ways in self._ways.items() if ways and self.hubs[number] not in self._dying
        ]
        if not ways:
            return False
        number = self.random.choice(ways)
        path = f"/interconnect/{self._ways[number].pop()}?retry=true"
        # It need not answer: it may sleep.
        deferToThread(self.hubs[number].request, "POST", path).addErrback(lambda failure: None)
        return True

    def _flap(self) -> bool:
        """Let very many rooms come and go at a hub while another one is stopped."""
        one, other = self.random.sample(range(HUBS), 2)
        hub = self.hubs[other]
        if hub in self._dying or not self._flappers[one].flap():
            return False
        assert hub.process is not None
        self.trouble.stop(hub.process.pid, STALL)
        return True

    async def _kill(self, name: str, number: signal.Signals) -> None:
        """Kill or restart a process."""
        role = self.roles[name]
        self._dying.add(role)
        assert role.process is not None
        self.trouble.wake(role.process.pid)
        await deferToThread(role.stop, number)
        self.lives.die(name)
        await self._wait(self.random.uniform(0, 1))
        await deferToThread(role.start)
        self._dying.discard(role)
        self.deaths[f"{number.name} {name}"] += 1
        if role in self.hubs:  # it has forgotten whom it was told to dial; the proxies can be dialled again
            at = self.hubs.index(role)
            self._ways[at] = self._ways_of(at) if len(self.proxies) < 100 else []

    # -- the run ---------------------------------------------------------------------------------------------

    async def run(self) -> list[str]:
        """Run for the given time. Returns the faults, as sentences."""
        await gatherResults([messenger.when_connected() for messenger in self.messengers])
        await self._until(self._settled)
        for flapper in self._flappers:  # what the processes remember of rooms is no growth
            flapper.flap()
        await self._until(lambda: all(flapper.done for flapper in self._flappers))
        await self._until(self._settled)
        before = {role.name: descriptors(role) for role in self.roles.values()}
        began = time.monotonic()
        goings_on = [self._samples(began), *(self._guest() for _ in range(GUESTS))]
        running = gatherResults([Deferred.fromCoroutine(one) for one in goings_on])
        found = []
        self.lives.begin()
        try:
            while time.monotonic() < began + self.seconds:
                found += await self._round()
        finally:
            self._ending = True
            await running
        if not await self._until(lambda: self._settled() and self._files() == before):
            found.append(f"descriptors were {before} and are {self._files()}; links {self._links()}")
        return found + self._wrong()

    async def _round(self) -> list[str]:
        """One round of events and faults. Returns what is not allowed."""
        self.rounds += 1
        self.trouble.latest.clear()
        talks = [task.LoopingCall(publisher.speak) for publisher in self.publishers]
        for talk in talks:
            talk.start(PAUSE)
        death: Deferred[None] | None = None
        restarted = self.rounds % 2 == 0
        end = time.monotonic() + ROUND
        if restarted:
            name, number = DEATHS[self.rounds // 2 % len(DEATHS) - 1]
            death = Deferred.fromCoroutine(self._kill(name, number))
            self.trouble.latest.append(f"{number.name} {name}")
        while time.monotonic() < end:
            await self._wait(self.random.uniform(*FAULT_EVERY))
            self.trouble.strike()
        self.trouble.rest()
        if death is not None:
            await death
        back = await self._until(lambda: not self.trouble.lasts and self._settled())
        await self._wait(AFTER)
        for talk in talks:
            talk.stop()
        if restarted:
            await self._until(self._handed_on)
            await self._until(lambda: self.lives.complete or self._late())
        else:
            await self._until(lambda: self.lives.complete)
        known = await self._until(self._rooms_are_known)
        await self._wait(0.5)
        owed, drops = self.lives.owed, "" if self.lives.complete else f"; {self._drops()}"
        found = [str(finding) for finding in self.lives.end()]
        if not back:
            found.append(f"links are not back within {PATIENCE:g} s: {self._links()}")
        if not known:
            found.append("a hub does not know the rooms of its clients")
        if found:
            found.append(
                f"... in round {self.rounds}, after {dict(Counter(self.trouble.latest))}; {owed}{drops}"
            )
        return found

    def _late(self) -> bool:
        return self.lives.answered and time.monotonic() > self.lives.arrived + LATE

    def _handed_on(self) -> bool:
        """Whether the hub has given the next repeater what a dead one had not acknowledged: it waits for that
        one until the window of its session has passed.
        """
        nexus = self.hubs[0].info()["nexus"]
        return not any(one["id"].startswith("repeater ") for one in nexus["detached"])

    async def _samples(self, began: float) -> None:
        step = max(0.25, self.seconds / 2000)
        while not self._ending:
            await self._wait(step)
            for name, role in self.roles.items():
                if role not in self._dying:
                    self.samples[name].append((time.monotonic() - began, memory(role)))

    async def _guest(self) -> None:
        """Guests, one after the other: each subscribes, stays and leaves. A third cut their connection."""
        while not self._ending:
            port = self.random.choice(self.hubs).port
            rooms = self.random.sample([*ROOM_NAMES, "*", "EMPTY"], 2)
            guest = Messenger(f"127.0.0.1:{port}", rooms, reactor=self.reactor, settings=SETTINGS)
            guest.connect()
            guest.send({"key": "guest"}, "LOBBY")
            self.guests += 1
            await self._wait(self.random.uniform(*STAY))
            if self.random.random() < 0.3:
                guest.factory.abort()
            await guest.close(0.5)

    async def stop(self) -> None:
        self.trouble.rest()
        closing = [*(m.close() for m in self.messengers), *(o.close() for o in self.outsides)]
        await gatherResults([*closing, self.consumer.close()])
        for proxy in self.proxies:
            await proxy.stop()
        for role in reversed(self.roles.values()):
            role.stop()
        await self.sink.stop()

    # -- the checks ------------------------------------------------------------------------------------------

    def _wrong(self) -> list[str]:
        found = []
        for name, role in self.roles.items():
            if name not in dict(DEATHS) and self.growth(name) > FLAT:
                found.append(f"{name} grows: by {self.growth(name)} bytes after the warm-up")
            found += [f"{name} logged {line[:500]!r}" for line in unexpected(role.logged())[:5]]
        if self.consumer.errors:
            found.append(f"the consumer said {self.consumer.errors[-500:]!r}")
        return found

    def growth(self, name: str) -> float:
        """The growth of a process after the warm-up, in bytes; negative if it has shrunk."""
        warm = min(WARM, WARM_UP * self.seconds)
        sizes = [size for when, size in self.samples[name] if when > warm]
        quarter = max(1, len(sizes) // 4)
        return median(sizes[-quarter:]) - median(sizes[:quarter]) if sizes else 0.0

    def _drops(self) -> dict[str, list[str]]:
        """The metrics of dropped records, by process."""
        lines = {name: role.get("/metrics")[1].splitlines() for name, role in self.roles.items()}
        return {
            name: [
                line for line in said if line[:1] != "#" and "dropped" in line and not line.endswith(" 0.0")
            ]
            for name, said in lines.items()
        }

    def _files(self) -> dict[str, int]:
        return {name: descriptors(role) for name, role in self.roles.items()}

    def _links(self) -> list[dict[str, int]]:
        kinds = ("messengers", "hubs", "repeaters", "detached")
        statuses = [hub.info()["nexus"] for hub in self.hubs]
        return [{kind: len(status[kind]) for kind in kinds} for status in statuses]

    def _settled(self) -> bool:
        """Whether the permanent links are there; once the guests have gone, whether there are no others."""
        links = self._links()
        hubs = all(one["hubs"] == HUBS - 1 for one in links)
        repeaters = [one["repeaters"] for one in links] == [REPEATERS] + [0] * (HUBS - 1)
        if not (hubs and repeaters and all(messenger.connected for messenger in self.messengers)):
            return False
        if not self._ending:
            return self.consumer.linked
        clients = [sum(hub is at for _, at in self.receivers) + 2 for hub in self.hubs]
        return [(one["messengers"], one["detached"]) for one in links] == [(count, 0) for count in clients]

    def _rooms_are_known(self) -> bool:
        """Whether each hub knows the rooms of its permanent clients."""
        return all(knows(hub, node, self.lives.rooms(node)) for node, hub in self.receivers)

    async def _until(self, condition: Callable[[], bool]) -> bool:
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
        names = [name for name in self.roles if name not in dict(DEATHS)]
        grown = ", ".join(f"{name} {self.growth(name) / 2**20:+.1f} MiB" for name in names)
        refused = sum(proxy.refused for proxy in self.proxies)
        return (
            f"{self.seconds:.0f} s, {self.rounds} rounds, {self.trouble.count} faults"
            f" {dict(self.trouble.done)}, {refused} dials answered by proxies, deaths {dict(self.deaths)},"
            f" {self.guests} guests, {self.lives.events} events, {self.lives.deliveries} deliveries,"
            f" {dict(self.lives.found) or 'none lost, twice or out of order'};"
            f" after the warm-up: {grown}"
        )


async def soak(
    seconds: float, seed: int, reactor: Any, folder: Path, *options: str, without: Collection[str] = ()
) -> tuple[str, list[str]]:
    """Run the soak test. Returns the summary and the faults."""
    wall = Wall(folder) if os.environ.get(CLOCK) else None
    site = Soak(seconds, seed, reactor, folder, options, wall)
    site.trouble.leave_out(without)
    try:
        wrong = await site.run()
        return site.summary(), wrong
    finally:
        await site.stop()


CLOCK = "CES_TEST_CLOCK"


def main(arguments: list[str]) -> int:
    """Run and print the results. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.soak")
    parser.add_argument("hours", type=float)
    parser.add_argument("seed", type=int)
    parser.add_argument("--wall-clock", action="store_const", const=["--wall-clock"], default=[])
    parser.add_argument("--without", action="append", default=[], help="leave out a kind of fault")
    chosen = parser.parse_args(arguments)
    if CLOCK not in os.environ:
        # The messengers of this process need a system clock that can be set, too: from the start.
        env = Wall(Path(tempfile.mkdtemp())).env
        os.execve(sys.executable, [sys.executable, "-m", "tests.stress.soak", *arguments], os.environ | env)
    folder = Path(os.environ[CLOCK]).parent

    async def run(reactor: Any) -> bool:
        seconds = chosen.hours * 3600
        summary, wrong = await soak(
            seconds, chosen.seed, reactor, folder, *chosen.wall_clock, without=chosen.without
        )
        print(f"seed {chosen.seed}: {summary}")
        print("\n".join(wrong[:SHOWN]) or "nothing was wrong")
        return not wrong

    try:
        return exit_status(run)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
