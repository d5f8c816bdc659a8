"""Hostile input against a live hub and a live repeater: ``python -m tests.stress.fuzz INPUTS SEED [FIRST]``.

Plays INPUTS inputs (`tests.stress.hostile`) to real processes, over `AT_ONCE` connections at a time. The
inputs of a connection depend only on the seed and its number. Meanwhile the hub repeatedly dials a hostile
hub (`tests.stress.hostile_hub`), and the repeater has hostile targets. Bystanders exchange numbered events
throughout, through the hub and through the repeater. An input counts once the other side has read it: it has
answered a ping after it, answered the request, or closed the connection. If it is unknown how much was read,
all inputs of a connection count as one. The run checks:

- a connection ends if and only if its input must end it;
- the bystanders' links stay open, and none of their events is lost, duplicated or out of order;
- each log line is one of ours: no traceback, and no line breaks from a client's text;
- the logs and the memory stay within limits;
- no link, session or descriptor of the hostile peers is left.

The number of a connection that ended wrongly is printed. FIRST starts from that number.
"""

from __future__ import annotations

import random
import re
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from ces.config.link import LinkSettings
from ces.messenger import Messenger
from tests.stress.differential import LIMIT
from tests.stress.hostile import ANSWERS, AWAY, CLOSE, EITHER, ENDS, FIN, LAST, STAYS, Plan, make_link
from tests.stress.hostile import ROOMS as HOSTILE_ROOMS
from tests.stress.hostile_http import make_requests
from tests.stress.hostile_hub import HostileHub, HostileTarget, make_lure
from tests.support.fleet import Role, free_port
from tests.support.links import frame
from tests.support.numbered import ROOMS, Outside, Publisher, Subscriber
from tests.support.process import descriptors, memory, unexpected
from tests.support.program import exit_status

AT_ONCE = 16
WRONG = 10
"""Number of faults after which the run stops."""

HTTP = 0.12
"""Share of connections that speak HTTP. The others are links."""

PATIENCE = 30.0
"""Timeout of a connection, in seconds."""

LURED = "lured"

WINDOW = 2.0
OPTIONS = (
    f"--message-limit={LIMIT}",
    f"--session-window={WINDOW}s",
    "--handshake-timeout=3s",
    "--buffer-limit=32MiB",
)
MEMORY = 64 * 2**20
"""Limit of a process's growth, in bytes: twice the hub's buffer limit."""

LOG_BYTES, LOG_BYTES_PER_SECOND = 50_000, 2000


class Attack(Protocol):
    """Plays a plan. `over` fires with the fault, or with "" when there was none."""

    def __init__(self, plan: Plan, clock: Any) -> None:
        self.plan = plan
        self.over: Deferred[str] = Deferred()
        self.session = ""
        self.closed_with: int | None = None
        self._clock = clock
        self._read = b""
        self._skip = 0
        self._opened = not plan.opening
        self._answered = self._ending = False
        self._timer: Any = None

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self._timer = self._clock.callLater(PATIENCE, self._late)
        if self.plan.opening:
            self.transport.write(self.plan.opening)
        if self.plan.eager or not self.plan.opening:
            self._send()

    def _send(self) -> None:
        plan = self.plan
        data = plan.data
        if plan.fate == ENDS:
            data = data[: plan.last]
        if plan.fate in (STAYS, ENDS):
            data += frame(9, LAST)
        if plan.deaf:
            self.transport.pauseProducing()
        step = max(1, -(-len(data) // plan.pieces))
        self._pieces = deque(data[at : at + step] for at in range(0, len(data), step))
        self._next()

    def _next(self) -> None:
        if self._timer is None:
            return
        if self._pieces:
            self.transport.write(self._pieces.popleft())
            self._clock.callLater(0, self._next)
            return
        if self.plan.deaf:
            self.transport.resumeProducing()
        if self.plan.fate == EITHER:
            self._leave(FIN)

    def dataReceived(self, data: bytes) -> None:
        self._read += data
        if self.plan.fate == ANSWERS or (self.plan.fate == EITHER and not self.plan.opening):
            return
        if not self._opened:
            head, end, self._read = self._read.partition(b"\r\n\r\n")
            if not end:
                self._read = head
                return
            self._opened = True
            if not head.startswith(b"HTTP/1.1 101"):
                self._finish(f"the handshake was answered with {head[:100]!r}")
                return
            if not self.plan.eager:
                self._send()
        self._frames()

    def _frames(self) -> None:
        """Handle the server's close frames, pongs and hello."""
        data = self._read
        at = 0
        while len(data) - at >= 2:
            length, start = data[at + 1], at + 2
            if length > 125:
                size = 2 if length == 126 else 8
                length, start = int.from_bytes(data[start : start + size], "big"), start + size
            if len(data) < start + length:
                break
            payload, opcode, at = data[start : start + length], data[at] & 15, start + length
            if opcode == 8:
                self.closed_with = int.from_bytes(payload[:2], "big")
                if not self.plan.rude:
                    self._write(frame(8, payload[:2]))
            elif opcode == 10 and payload == LAST:
                self._answered = True
                if self.plan.fate == STAYS:
                    self._leave(self.plan.ending)
                else:
                    self._write(self.plan.data[self.plan.last :])
            elif opcode == 1 and payload.startswith(b'{"hello"'):
                found = re.search(rb'"session":"(\w+)"', payload)
                self.session = found[1].decode() if found else ""
        self._read = data[at:]

    def _write(self, data: bytes) -> None:
        if not self._ending:
            self.transport.write(data)

    def _leave(self, how: str) -> None:
        if how in (CLOSE, AWAY):
            self._write(frame(8, b"\x03\xe8" if how == CLOSE else b"\x0f\xa1"))
        elif how == FIN:
            self.transport.loseWriteConnection()
        else:
            self.transport.abortConnection()
        self._ending = True

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._finish(self._verdict(reason))

    def _verdict(self, reason: Failure) -> str:
        plan = self.plan
        if plan.fate in (STAYS, ENDS) and not self._answered:
            return f"it was closed with {self.closed_with} too early: {reason.getErrorMessage()}"
        codes = [int(code) for code in re.findall(rb"HTTP/1\.[01] (\d{3}) ", self._read)]
        if 500 in codes:
            return "a request was answered with 500"
        if plan.fate == ANSWERS and len(codes) != plan.inputs:
            return f"{plan.inputs} requests had {len(codes)} answers: {codes}"
        return ""

    def _late(self) -> None:
        self._finish(f"nothing came of it within {PATIENCE:g} s")

    def _finish(self, wrong: str) -> None:
        if self._timer is None:
            return
        if self._timer.active():
            self._timer.cancel()
        self._timer = None
        self.transport.abortConnection()
        self.over.callback(wrong)


async def play(plan: Plan, port: int, reactor: Any) -> tuple[Attack, str]:
    """Play a plan to the process at a port. Returns the connection and its fault, "" for none."""
    attack = Attack(plan, reactor)
    await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), attack)
    return attack, await attack.over


class Fuzz:
    """The processes, the bystanders, and the results of the connections so far."""

    def __init__(self, folder: Path, reactor: Any, seed: object) -> None:
        self.reactor, self.seed = reactor, seed
        self.hub = Role(folder, "ces-hub", free_port(), *OPTIONS).start()
        routes = folder / "routes.toml"
        self._target = HostileTarget(seed, reactor)
        urls = (
            f"ws://{self._target.address}",
            f"http://{self._target.address}/x",
            f"http://127.0.0.1:{free_port()}",
        )
        routes.write_text(
            "[routes]\n"
            + "".join(f'"{room}" = ["{url}"]\n' for room, url in zip(HOSTILE_ROOMS, urls, strict=False))
        )
        hub = ("--hub", f"ws://127.0.0.1:{self.hub.port}", "--routes", str(routes), "--idle-ttl=60s")
        self.repeater = Role(folder, "ces-repeater", free_port(), *OPTIONS, *hub).start()
        self.roles = {"hub": self.hub, "repeater": self.repeater}
        self._messengers: list[Messenger] = []
        self.states: list[str] = []
        self._outside = Outside(self.repeater.port, LinkSettings(), reactor)
        speaker = self._messenger()
        self.publishers = [
            Publisher("inside", lambda room, event: speaker.send(event, room), 1),
            Publisher("outside", self._outside.send, 2),
        ]
        self.subscriber = Subscriber(self._messenger(*[f"ITB-{number}" for number in range(ROOMS)]))
        self.inputs = self.connections = 0
        self._trap = HostileHub(reactor)
        self.fates: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._known: deque[tuple[str, str]] = deque(maxlen=200)
        self._began = time.monotonic()

    def _messenger(self, *rooms: str) -> Messenger:
        messenger = Messenger(f"127.0.0.1:{self.hub.port}", rooms, reactor=self.reactor)
        messenger.connect()
        self._messengers.append(messenger)
        return messenger

    async def settle(self) -> None:
        """Wait for the bystanders, and measure the processes without hostile clients."""
        await gatherResults([messenger.when_connected() for messenger in self._messengers])
        await self._until(lambda: self._links() == [2, 1, 0, 0, 1], "the bystanders are there")
        for messenger in self._messengers:
            messenger.on_state(lambda state, *why: self.states.append(f"a bystander is {state}"))
        self._talk = [task.LoopingCall(publisher.speak) for publisher in self.publishers]
        for talk in self._talk:
            talk.start(0.02)
        self.before = {name: (memory(role), descriptors(role)) for name, role in self.roles.items()}
        self._peak = {name: memory(role) for name, role in self.roles.items()}
        self._began = time.monotonic()

    async def play(self, count: int, first: int = 0, report: int = 50_000) -> None:
        """Play `count` inputs, starting with connection number `first`."""
        self.connections = first
        goal, self._report, self._next_report = self.inputs + count, report, report
        attackers = [self._lure(goal), *(self._attack(goal) for _ in range(AT_ONCE))]
        await gatherResults([Deferred.fromCoroutine(one) for one in attackers])

    async def _attack(self, goal: int) -> None:
        while self.inputs < goal and len(self.wrong) < WRONG:
            number, self.connections = self.connections, self.connections + 1
            rng = random.Random(f"{self.seed} {number}")
            http = rng.random() < HTTP
            plan = make_requests(rng) if http else make_link(rng, self._known)
            await self.attack(plan, str(number))
            if self.inputs >= self._next_report:
                self._next_report += self._report
                self._peek()

    async def attack(self, plan: Plan, number: str) -> None:
        """Run one connection until it ends."""
        attack, wrong = await play(plan, self.roles[plan.role].port, self.reactor)
        if attack.session:
            self._known.append((attack.session, plan.node))
        self.inputs += 1 if plan.fate == EITHER else plan.inputs
        self.fates[plan.fate] += 1
        if wrong:
            self.wrong.append(f"connection {number} to the {plan.role}, which {plan.fate}: {wrong}")

    async def _lure(self, goal: int) -> None:
        """Make the hub dial the hostile hub repeatedly."""
        path, number = f"/interconnect/{self._trap.address}", 0
        while self.inputs < goal and len(self.wrong) < WRONG:
            lure = make_lure(random.Random(f"{self.seed} lure {number}"))
            over = self._trap.lay(lure)
            up, said = await deferToThread(self.hub.request, "POST", path)
            late = self.reactor.callLater(PATIENCE, over.cancel)
            try:
                await over
                late.cancel()
            except CancelledError:
                self.wrong.append(f"lure {number} has not ended within {PATIENCE:g} s")
            ended = (await deferToThread(self.hub.request, "DELETE", path))[0]
            if up not in (200, 502) or ended not in (200, 404):
                self.wrong.append(f"lure {number} was answered with {up} {said}, its end with {ended}")
            self.inputs += 1
            self.fates[LURED] += 1
            number += 1

    def _peek(self) -> None:
        for name, role in self.roles.items():
            self._peak[name] = max(self._peak[name], memory(role))
        grown = {name: f"{(self._peak[name] - self.before[name][0]) / 2**20:.1f} MiB" for name in self.roles}
        took = time.monotonic() - self._began
        print(
            f"{self.inputs} inputs, {self.connections} connections, {took:.0f} s, grown {grown}", flush=True
        )

    async def check(self) -> list[str]:
        """Check the processes after the hostile clients have gone. Returns the faults, as sentences."""
        found = [*self.wrong, *self.states]
        for talk in self._talk:
            talk.stop()
        self._peek()
        try:
            await self._until(
                lambda: not self.subscriber.faults(self.publishers)["lost"], "each event is there"
            )
            await self._until(lambda: self._links() == [2, 1, 0, 0, 1], "only the bystanders' links are left")
            await self._until(lambda: self._open_files() <= 0, "only the bystanders' descriptors are left")
            await self._until(
                lambda: self.hub.get("/interconnect")[1] == "[]\n", "no interconnection is left"
            )
        except AssertionError as late:
            found.append(f"{late}: {self._links()} links, {self._open_files()} descriptors too many")
        found += [
            f"the bystander counts {number} events {what}"
            for what, number in self.subscriber.faults(self.publishers).items()
            if number
        ]
        took = time.monotonic() - self._began
        for name, role in self.roles.items():
            if self._peak[name] - self.before[name][0] > MEMORY:
                found.append(f"the {name} has grown from {self.before[name][0]} to {self._peak[name]} bytes")
            found += [f"the {name} logged {line[:500]!r}" for line in unexpected(role.logged())[:5]]
            size = role.log.stat().st_size
            if size > LOG_BYTES + LOG_BYTES_PER_SECOND * took:
                found.append(f"the {name} logged {size} bytes in {took:.0f} s")
        return found

    def _links(self) -> list[int]:
        nexus = self.hub.info()["nexus"]
        links = [len(nexus[what]) for what in ("messengers", "repeaters", "hubs", "detached")]
        return [*links, len(self.repeater.info()["repeater"]["inbound"])]

    def _open_files(self) -> int:
        """The largest increase of a process's open descriptors since `settle`."""
        return max(descriptors(role) - self.before[name][1] for name, role in self.roles.items())

    async def _until(self, condition: Callable[[], object], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not await deferToThread(condition):
            if time.monotonic() > end:
                raise AssertionError(f"not within {PATIENCE:g} s: {what}")
            await task.deferLater(self.reactor, 0.1)

    def summary(self) -> str:
        """The results, on one line."""
        took = time.monotonic() - self._began
        grown = ", ".join(
            f"{name} {(self._peak[name] - self.before[name][0]) / 2**20:.1f} MiB" for name in self.roles
        )
        logged = ", ".join(
            f"{name} {role.log.stat().st_size // 1024} KiB" for name, role in self.roles.items()
        )
        return (
            f"{self.inputs} inputs on {sum(self.fates.values())} connections"
            f" ({', '.join(f'{n} {fate}' for fate, n in sorted(self.fates.items()))}) in {took:.0f} s;"
            f" {self._target.served} connections of the repeater to hostile targets;"
            f" bystanders {self.subscriber.count} events, {self.subscriber.faults(self.publishers)};"
            f" memory grew: {grown}; logs: {logged}"
        )

    async def stop(self) -> None:
        for talk in self._talk:
            if talk.running:
                talk.stop()
        await self._trap.stop()
        await self._target.stop()
        await gatherResults([*(m.close() for m in self._messengers), self._outside.close()])
        for role in (self.repeater, self.hub):
            role.stop()


async def fuzz(count: int, seed: object, reactor: Any, folder: Path, first: int = 0) -> tuple[str, list[str]]:
    """Play `count` inputs. Returns the summary and the faults."""
    site = Fuzz(folder, reactor, seed)
    await site.settle()
    try:
        await site.play(count, first)
        found = await site.check()
        return site.summary(), found
    finally:
        await site.stop()


def main(arguments: list[str]) -> int:
    """Run and print the results. Returns the exit status."""
    count, seed, *first = arguments

    async def run(reactor: Any) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            summary, wrong = await fuzz(
                int(count), seed, reactor, Path(folder), int(first[0]) if first else 0
            )
        print(f"seed {seed}: {summary}")
        print("\n".join(wrong) or "nothing was wrong")
        return not wrong

    return exit_status(run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
