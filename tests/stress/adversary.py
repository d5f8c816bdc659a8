"""Who misbehaves hurts only himself: ``python -m tests.stress.adversary MINUTES SEED [--only KIND]``.

A hub, a repeater and an HTTP target serve a well-behaved fleet, which lives in this process: publishers at a
modest rate, subscribers that check every event, an outside service, a monitor that asks ``/health``, and
newcomers. Attacks (`tests.stress.attacks`) come one after the other, each for some seconds, from another
address and in a process of its own. In each phase the run judges:

- the bystanders' latency: its 99th percentile exceeds that of the phase before all attacks by at most
  `EXTRA`; the same for the answers to ``/health``;
- the events (`tests.support.lives`): none lost, twice or out of order, no gap;
- newcomers: each gets its link within `NEWCOMER` seconds;
- the memory: the hub and the repeater grow by no more than docs/reliability.md states for what the attack
  does;
- the logs: no unexpected line.

**What the machine does is not the hub's doing.** Other processes run on this machine, the attackers among
them. A clock of lost time counts how long the hub or the repeater has waited for a processor (Linux tells, in
``/proc/PID/schedstat``), or how late this process was: whichever is most, in each tick. What has passed on
that clock between the sending of an event and its arrival is taken off its latency. A hub that computes for a
second is found nevertheless: it does not wait then. A phase that is only too slow is tried again, up to
`TRIES` times, if much of it was lost time.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred, TimeoutError, gatherResults
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.internet.threads import deferToThread

from ces.config.link import LinkSettings
from ces.messenger import Messenger
from ces.model.event import Event
from tests.stress.attacks import KINDS, LINK, MIB, Attack, Target, command
from tests.support.fleet import Role, free_port, until
from tests.support.history import NONE
from tests.support.lives import Lives
from tests.support.numbered import ROOM_NAMES, Outside, Publisher, Subscriber
from tests.support.process import memory, unexpected
from tests.support.program import exit_status
from tests.support.rooms import knows
from tests.support.sink import Sink
from tests.support.wall import Wall

EXTRA = 0.050
"""How much later than without attacks the 99th percentile may be, in seconds."""

FREEZE = 1.0
"""On a machine that is busy otherwise, only a latency of so many seconds is a fault."""

NEWCOMER = 5.0
PHASE = 8.0
BASELINE = 10.0
SETTLE = 60.0
"""Limit of the time in which what is on its way arrives after a phase, in seconds."""

TRIES = 3
BUSY = 0.3
"""A phase is tried again if its lost time is more than this part of it."""

PUBLISHERS, SUBSCRIBERS = 4, 6
PAUSE = 0.04
BULK_PAUSE = 0.03
BULK = "x" * 32 * 1024
"""A publisher that is not judged sends events of this size, for a room that only attackers want. Who sends
much may be paused for consumers that cannot keep up; who sends little may not.
"""

LINK_BUFFER, BUFFERS = MIB, 64 * MIB
OPTIONS = (f"--link-buffer={LINK_BUFFER}", f"--buffer-limit={BUFFERS}", "--session-window=10s")

WEIGHT = 3
"""The memory of records is less than so many times what they count for (docs/reliability.md)."""

SLACK = 16 * MIB
"""What Python's allocator may hold beside."""

TICK = 0.02
SHOWN = 2000
"""Characters of what is wrong that are printed."""


class LostTime:
    """The clock of what the machine has taken from the processes that serve and measure.

    total: the lost seconds so far.
    """

    def __init__(self) -> None:
        self._times = [0.0]
        self._lost = [0.0]

    def tick(self, now: float, *lost: float) -> None:
        """What each process has lost since the tick before.

        At any time an event is in one process. What that one has lost is no more than what any has.
        """
        self._lost.append(self._lost[-1] + min(max(lost), now - self._times[-1]))
        self._times.append(now)

    @property
    def total(self) -> float:
        return self._lost[-1]

    def between(self, start: float, end: float) -> float:
        """How much was lost between these two times, and in the ticks around them."""
        first = max(0, bisect_right(self._times, start) - 1)
        last = min(len(self._times) - 1, bisect_left(self._times, end))
        return self._lost[last] - self._lost[first]

    def forget(self) -> None:
        """Earlier times are not asked for any more."""
        del self._times[:-1], self._lost[:-1]


class Machine:
    """Measures the lost time of the processes of a hub and a repeater, and of this one."""

    def __init__(self, lost: LostTime, reactor: Any, roles: Collection[Role]) -> None:
        self._clock = lost
        self._files = [f"/proc/{role.process.pid}/schedstat" for role in roles if role.process]
        self._waited = [0.0 for _ in self._files]
        self._due = time.monotonic()
        self._loop = task.LoopingCall(self._tick)
        self._loop.clock = reactor
        self._loop.start(TICK)

    def _tick(self) -> None:
        now = time.monotonic()
        waited = [self._wait(name) for name in self._files]
        since = [one - before for one, before in zip(waited, self._waited, strict=True)]
        self._clock.tick(now, now - self._due, *since)
        self._waited, self._due = waited, now + TICK

    def _wait(self, name: str) -> float:
        """For how long a process has been ready to run, and did not, in seconds."""
        try:
            with open(name) as file:
                return int(file.read().split()[1]) / 1e9
        except OSError:
            return 0.0  # it has ended

    def stop(self) -> None:
        self._loop.stop()


class Latencies:
    """From when to when each event, or each answer, was on its way."""

    def __init__(self) -> None:
        self.all: list[tuple[float, float]] = []

    def p99(self, lost: LostTime | None = None) -> float:
        """The 99th percentile in seconds, less what the machine took."""
        return self._at(0.99, lost)

    def longest(self, lost: LostTime | None = None) -> float:
        """The longest, in seconds, less what the machine took."""
        return self._at(1.0, lost)

    def _at(self, share: float, lost: LostTime | None) -> float:
        if not self.all:
            return float("inf")
        took = [end - start - (lost.between(start, end) if lost else 0) for start, end in self.all]
        took.sort()
        return max(0.0, took[min(len(took) - 1, int(len(took) * share))])


class Monitor(Protocol):
    """Asks for ``/health`` on one connection, again and again."""

    REQUEST = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._call: Any = None
        self._since = 0.0
        self.latencies = Latencies()
        self.lost = 0
        """How often its connection has ended."""

    def connectionMade(self) -> None:
        self._ask()

    def _ask(self) -> None:
        self._call = None
        self._since = time.monotonic()
        self.transport.write(self.REQUEST)

    def dataReceived(self, data: bytes) -> None:
        if data.startswith(b"HTTP/1.1 200"):
            self.latencies.all.append((self._since, time.monotonic()))
        if self._call is None:
            self._call = self._reactor.callLater(0.05, self._ask)

    @property
    def asks(self) -> tuple[float, float]:
        """How long the present answer has been outstanding."""
        return self._since, time.monotonic()

    def connectionLost(self, reason: Any = None) -> None:
        self.lost += 1
        self.stop()

    def stop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None


class Fleet:
    """The well-behaved clients of a hub and of its repeater, and the processes that serve them."""

    def __init__(self, seed: int, reactor: Any, folder: Path) -> None:
        self.reactor = reactor
        self.lives = Lives()
        self.events = Latencies()
        self.newcomers: list[float] = []
        self._sent: dict[tuple[str, int], float] = {}
        self._talks: list[task.LoopingCall] = []
        (folder / "clock").mkdir()
        wall = Wall(folder / "clock")
        self.sink = Sink("sink", {"p0"}, self.lives, reactor)
        routes = folder / "routes.toml"
        routes.write_text(f'[routes]\n"ITB-*" = ["{self.sink.url}"]\n')
        self.hub = Role(
            folder, "ces-hub", free_port(), *OPTIONS, "--node-id=the-hub", name="hub", env=wall.env
        ).start()
        hub = f"--hub=127.0.0.1:{self.hub.port}"
        options = (hub, "--idle-ttl=600s", f"--routes={routes}", f"--buffer-limit={BUFFERS}")
        self.repeater = Role(
            folder, "ces-repeater", free_port(), *options, name="repeater", env=wall.env
        ).start()
        self.messengers: list[Messenger] = []
        self.publishers = [self._publisher(f"p{number}", seed + number) for number in range(PUBLISHERS)]
        self.messengers.append(bulk := self._messenger())
        self._bulk = bulk
        self.outside = Outside(self.repeater.port, LinkSettings(), reactor)
        self.publishers.append(self._publishes("o", self.outside.send, seed))
        self.subscribers = [self._subscriber(f"s{number}") for number in range(SUBSCRIBERS)]
        self.lives.sink("sink", ROOM_NAMES)
        self.lives.route("p0", "sink", "hub", "repeater", order=NONE)
        nodes = ("the-hub", *(one.name for one in self.subscribers))
        self.target = Target(self.hub.port, self.repeater.port, nodes, str(folder / "clock"))
        self.lost = LostTime()
        self.machine = Machine(self.lost, reactor, self.roles)
        self.monitor = Monitor(reactor)

    @property
    def roles(self) -> tuple[Role, Role]:
        return self.hub, self.repeater

    def _messenger(self, *rooms: str, node: str = "") -> Messenger:
        one = Messenger(f"127.0.0.1:{self.hub.port}", rooms, reactor=self.reactor, node=node)
        one.connect()
        return one

    def _publisher(self, name: str, seed: int) -> Publisher:
        messenger = self._messenger()
        self.messengers.append(messenger)
        return self._publishes(name, lambda room, event: messenger.send(event, room), seed)

    def _publishes(self, name: str, send: Any, seed: int) -> Publisher:
        def noted(room: str, event: bytes) -> Deferred[None]:
            self._sent[name, publisher.said.total() - 1] = time.monotonic()
            answer: Deferred[None] = send(room, event)
            return answer

        publisher = Publisher(name, noted, seed, self.lives)
        return publisher

    def _subscriber(self, name: str) -> Subscriber:
        messenger = self._messenger(*ROOM_NAMES, node=name)
        self.messengers.append(messenger)
        self.lives.client(name, "hub", ROOM_NAMES)
        self.lives.limit("hub", name, LINK_BUFFER)
        for number in range(PUBLISHERS):
            self.lives.route(f"p{number}", name, "hub")
        self.lives.route("o", name, "repeater", "hub")
        subscriber = Subscriber(messenger, name, self.lives)
        messenger.on_event(self._arrived)
        return subscriber

    def _arrived(self, event: Event, room: str) -> None:
        sent = self._sent.get((event.key, int(event.user)))
        if sent is not None:
            self.events.all.append((sent, time.monotonic()))

    async def ready(self) -> None:
        """Wait until everybody is there."""
        await gatherResults([messenger.when_connected() for messenger in self.messengers])

        def known() -> bool:
            repeaters = self.hub.info()["nexus"]["repeaters"]
            return bool(repeaters) and all(knows(self.hub, one.name, ROOM_NAMES) for one in self.subscribers)

        await deferToThread(until, known, "the hub knows the fleet")
        factory = ClientFactory.forProtocol(lambda: self.monitor)
        factory.noisy = False
        self.reactor.connectTCP("127.0.0.1", self.hub.port, factory)
        self.lives.begin()

    def talk(self) -> None:
        """Begin to publish."""
        bulk = {"key": "bulk", "data": BULK}
        speakers: list[tuple[Callable[[], object], float]]
        speakers = [(publisher.speak, PAUSE) for publisher in self.publishers]
        speakers.append((lambda: self._bulk.send(bulk, "BULK"), BULK_PAUSE))
        for speak, pause in speakers:
            self._talks.append(talk := task.LoopingCall(speak))
            talk.clock = self.reactor
            talk.start(pause)

    def hush(self) -> None:
        """Publish no more."""
        for talk in self._talks:
            talk.stop()
        self._talks.clear()

    async def newcomer(self) -> None:
        """One more client connects, and leaves."""
        began = time.monotonic()
        one = self._messenger(*ROOM_NAMES[:1])
        try:
            await one.when_connected().addTimeout(2 * NEWCOMER, self.reactor)
            self.newcomers.append(time.monotonic() - began - self.lost.between(began, time.monotonic()))
        except TimeoutError:
            self.newcomers.append(float("inf"))
        await one.close(1.0)

    def begin(self) -> None:
        """Forget what was measured."""
        self.events, self.monitor.latencies, self.newcomers = Latencies(), Latencies(), []
        self._sent.clear()
        self.lost.forget()

    async def stop(self) -> None:
        self.hush()
        self.machine.stop()
        self.monitor.stop()
        if self.monitor.transport is not None:
            self.monitor.transport.loseConnection()
        await gatherResults([*(one.close(2.0) for one in self.messengers), self.outside.close()])
        await deferToThread(self.repeater.stop)
        await deferToThread(self.hub.stop)
        await self.sink.stop()


@dataclass
class Phase:
    """What was measured in one phase; times in seconds, memory in bytes.

    p99, longest: of the bystanders' events. plain: the 99th percentile with what the machine took. health:
    the 99th percentile of answers to ``/health``. lost: the share of lost time. grown: of hub and repeater.
    """

    kind: str
    p99: float
    plain: float
    longest: float
    health: float
    health_longest: float
    lost: float
    newcomer: float
    grown: tuple[int, int]
    stated: int = 0
    done: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        return [f"{self.kind}: {fault}" for fault in [*self.wrong, *self.slow]]

    def __str__(self) -> str:
        def ms(seconds: float) -> str:
            return f"{seconds * 1000:.0f}"

        grown = "/".join(f"{one / MIB:.1f}" for one in self.grown)
        done = "/".join(str(number) for number in self.done.values()) or "-"
        return (
            f"{self.kind:22} {ms(self.p99):>6} {ms(self.plain):>6} {ms(self.longest):>7} {ms(self.health):>7}"
            f" {ms(self.health_longest):>7} {self.lost:5.0%} {ms(self.newcomer):>6} {grown:>12}"
            f" {self.stated / MIB:>6.0f} {done:>14}  {'; '.join(self.wrong + self.slow)[:SHOWN] or 'ok'}"
        )


HEAD = (
    f"{'attack':22} {'p99':>6} {'plain':>6} {'longest':>7} {'/health':>7} {'longest':>7} {'lost':>5}"
    f" {'joined':>6} {'MiB grown':>12} {'stated':>6} {'done/refused':>14}"
)


class Adversary:
    """A fleet that is attacked.

    :param gross: judge latencies by `FREEZE` alone.
    """

    def __init__(self, seed: int, reactor: Any, folder: Path, gross: bool = False) -> None:
        self.random = random.Random(seed)
        self.reactor = reactor
        self.fleet = Fleet(seed, reactor, folder)
        self._gross = gross
        self._read = [0 for _ in self.fleet.roles]
        self.baseline = Phase("none", 0, 0, 0, 0, 0, 0, 0, (0, 0))

    async def run(self, seconds: float, kinds: Collection[str], phase: float = PHASE) -> list[Phase]:
        """Attack until so many seconds have passed, and at least once in each way."""
        print(HEAD)
        await self.fleet.ready()
        await self._phase("warm-up", BASELINE / 3)
        self.baseline = await self._phase("none", BASELINE if phase >= PHASE else phase)
        self._judge(self.baseline, None)
        print(self.baseline, flush=True)
        end = time.monotonic() + seconds
        phases = [self.baseline]
        while len(phases) == 1 or time.monotonic() < end:
            deck = list(kinds)
            self.random.shuffle(deck)
            for kind in deck:
                phases.append(await self._tried(kind, phase))
                if self._dead() or (time.monotonic() > end and len(phases) > len(kinds)):
                    return phases
        return phases

    def _dead(self) -> bool:
        """Whether the hub or the repeater has ended."""
        return any(role.process is None or role.process.poll() is not None for role in self.fleet.roles)

    async def _tried(self, kind: str, seconds: float) -> Phase:
        for _ in range(TRIES):
            seen = await self._phase(kind, seconds)
            self._judge(seen, KINDS[kind])
            print(seen, flush=True)
            if seen.wrong or not seen.slow or not (self._gross or seen.lost > BUSY):
                break
        return seen

    async def _phase(self, kind: str, seconds: float) -> Phase:
        fleet = self.fleet
        fleet.begin()
        before = [memory(role) for role in fleet.roles]
        most = list(before)
        attack: subprocess.Popen[bytes] | None = None
        seed = self.random.getrandbits(32)
        fleet.talk()
        if kind in KINDS:
            attack = subprocess.Popen(
                command(kind, seed, fleet.target), stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            assert attack.stdout is not None
            await deferToThread(attack.stdout.readline)  # it begins
            fleet.begin()
        lost, began = fleet.lost.total, time.monotonic()
        joining = []
        while (now := time.monotonic()) < began + seconds:
            joining.append(Deferred.fromCoroutine(fleet.newcomer()))
            while time.monotonic() < min(now + 1, began + seconds):
                await self._wait(0.1)
                most = [max(*pair) for pair in zip(most, map(memory, fleet.roles), strict=True)]
        share = (fleet.lost.total - lost) / (time.monotonic() - began)
        fleet.hush()
        wrong: list[str] = []
        idle: list[str] = []
        done: dict[str, int] = {}
        for role in fleet.roles:
            if role.process is not None and role.process.poll() is not None:
                wrong.append(f"{role.name} has ended with {role.process.poll()}: {role.logged()[-1500:]}")
        if attack is not None:
            attack.terminate()
            said, errors = await deferToThread(attack.communicate)
            done = json.loads(said or b"{}")
            if not done.get("done"):
                idle.append(f"nothing was attacked: {done} {errors.decode()[-1500:]}")
        await gatherResults(joining)
        await self._until_complete()
        found = [str(finding)[:300] for finding in fleet.lives.end()]
        if found and not self._dead():
            said = await deferToThread(fleet.repeater.info)
            found.append(f"the repeater said {said['repeater']}"[:1500])
        wrong += found
        asked = fleet.monitor.asks
        if not fleet.monitor.latencies.all or asked[1] - asked[0] > FREEZE:
            fleet.monitor.latencies.all.append(asked)
        if fleet.monitor.lost:
            wrong.append("the monitor's connection was cut")
        for index, role in enumerate(fleet.roles):
            log = role.logged()
            new, self._read[index] = log[self._read[index] :], len(log)
            wrong += [f"{role.name} logged {line[:300]!r}" for line in unexpected(new)[:3]]
        events, health = fleet.events, fleet.monitor.latencies
        return Phase(
            kind,
            events.p99(fleet.lost),
            events.p99(),
            events.longest(fleet.lost),
            health.p99(fleet.lost),
            health.longest(fleet.lost),
            share,
            max(fleet.newcomers, default=0.0),
            (most[0] - before[0], most[1] - before[1]),
            done=done,
            wrong=wrong,
            slow=idle,
        )

    def _judge(self, seen: Phase, attack: type[Attack] | None) -> None:
        """Add what is wrong with the measurements."""
        if attack is not None:
            waits = WEIGHT * BUFFERS if attack.waits else 0
            seen.stated = attack.stated + attack.links * LINK + waits + SLACK
            for role, grown in zip(self.fleet.roles, seen.grown, strict=True):
                if grown > seen.stated:
                    seen.wrong.append(f"{role.name} grew by {grown / MIB:.1f} MiB of {seen.stated / MIB:.0f}")
        if seen.newcomer > NEWCOMER:
            seen.slow.append(f"a newcomer waited {seen.newcomer:.1f} s")
        if self._gross:
            for what, longest in (("an event", seen.longest), ("/health", seen.health_longest)):
                if longest > FREEZE:
                    seen.slow.append(f"{what} took {longest:.1f} s")
            return
        for what, now, before in (
            ("events", seen.p99, self.baseline.p99),
            ("/health", seen.health, self.baseline.health),
        ):
            if now > before + EXTRA:
                seen.slow.append(f"the p99 of {what} is {1000 * now:.0f} ms; it was {1000 * before:.0f}")

    async def _until_complete(self) -> None:
        end = time.monotonic() + SETTLE
        while not self.fleet.lives.complete and time.monotonic() < end:
            await self._wait(0.1)
        await self._wait(0.2)

    async def _wait(self, seconds: float) -> None:
        await task.deferLater(self.reactor, seconds)


async def adversary(
    seconds: float,
    seed: int,
    reactor: Any,
    folder: Path,
    kinds: Collection[str] = tuple(KINDS),
    phase: float = PHASE,
    gross: bool = False,
) -> list[Phase]:
    """Attack a fleet in turn. Returns what was measured, the time without an attack first."""
    site = Adversary(seed, reactor, folder, gross)
    try:
        return await site.run(seconds, kinds, phase)
    finally:
        await site.fleet.stop()


def main(arguments: list[str]) -> int:
    """Run and print the results. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.adversary")
    parser.add_argument("minutes", type=float)
    parser.add_argument("seed", type=int)
    parser.add_argument("--only", action="append", choices=list(KINDS), help="only attacks of this kind")
    parser.add_argument("--phase", type=float, default=PHASE, help="seconds of an attack")
    chosen = parser.parse_args(arguments)

    async def run(reactor: Any) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            kinds = chosen.only or tuple(KINDS)
            seconds = 60 * chosen.minutes
            phases = await adversary(seconds, chosen.seed, reactor, Path(folder), kinds, chosen.phase)
        faults = [fault for phase in phases for fault in phase.faults]
        print(f"seed {chosen.seed}: {len(phases) - 1} attacks")
        print("\n".join(faults) or "nobody else was hurt")
        return not faults

    return exit_status(run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
