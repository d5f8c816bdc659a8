"""Whole processes that die, stall or come back together: ``python -m tests.stress.crashes KIND [SIZE]``.

====================  ====================================================================================
``hub [KILLS]``       kill -9 of a hub under traffic, again and again: clients are back within `BACK` seconds
                      after it listens, what was not acknowledged is sent again, and who missed an event has
                      been told of a possible gap for that very death
``slow [SECONDS]``    SIGSTOP of one consumer among 50 others: what the others get, and when, stays the same,
                      and the hub's memory within its bound
``burst [EVENTS]``    so many events at once for a consumer that takes `PACE` a second: none is lost, whoever
                      sends them is slowed down
``herd [CLIENTS]``    all clients of a hub come back at once, after kill -9 and after SIGTERM
``backoff [SECONDS]`` a hub that cannot be reached, in five ways: dials grow rarer, nothing hangs or spins
====================  ====================================================================================

Each prints what was seen, and ends with status 1 if that is not as it should be. `slow` compares a few
milliseconds: it wants a machine that does nothing else. That who feeds the stopped one is held for up to a
second (`ces.link.pressure`) shows in the longest time, and in no median of the seconds.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from statistics import median
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread

from ces.link.owner import LinkLimits
from ces.messenger import Messenger
from ces.uplink.reconnect import Dialler
from tests.support.certificates import endpoint, make_certificate, trusted
from tests.support.fleet import Role, free_port, until
from tests.support.numbered import ROOMS, Publisher, Subscriber
from tests.support.process import memory, unexpected

BACK = 5.0
"""Seconds after a hub listens again within which its clients are back."""

PAUSE = 0.02
ROOM_NAMES = [f"ITB-{number}" for number in range(ROOMS)]

Seen = dict[str, Any]


async def wait(seconds: float, reactor: Any) -> None:
    """Let so much time pass."""
    await task.deferLater(reactor, seconds)


async def reach(condition: Callable[[], object], seconds: float, reactor: Any) -> float:
    """Wait until it holds, so many seconds at the most; how long that took."""
    begun = time.monotonic()
    while not condition() and time.monotonic() < begun + seconds:
        await wait(0.02, reactor)
    return time.monotonic() - begun


# -- a hub that dies -----------------------------------------------------------------------------------------


class Witness(Subscriber):
    """A subscriber that notes which numbers it missed at which death of the hub, and of which it was told."""

    def __init__(self, messenger: Messenger) -> None:
        super().__init__(messenger)
        self.deaths = 0
        self.told: list[int] = []
        messenger.on_gap(lambda lost: self.told.append(self.deaths))


async def hub(kills: int, seed: int, reactor: Any, folder: Path, width: int = 5) -> Seen:
    """Kill a hub under traffic."""
    role = Role(folder, "ces-hub", free_port()).start()
    messengers = [Messenger(f"127.0.0.1:{role.port}", ROOM_NAMES, reactor=reactor) for _ in range(width)]
    witnesses = [Witness(messenger) for messenger in messengers]
    sending: set[Deferred[None]] = set()
    failed: list[object] = []
    again = 0

    def sender(messenger: Messenger) -> Callable[[str, dict[str, str]], None]:
        def send(room: str, event: dict[str, str]) -> None:
            sent = messenger.send(event, room)
            sending.add(sent)
            sent.addErrback(failed.append)
            sent.addBoth(lambda _: sending.discard(sent))

        return send

    publishers = [Publisher(f"p{n}", sender(m), seed + n) for n, m in enumerate(messengers)]
    back: list[float] = []
    try:
        for messenger in messengers:
            messenger.connect()
        await gatherResults([messenger.when_connected() for messenger in messengers])
        await wait(0.5, reactor)
        loops = [task.LoopingCall(publisher.speak) for publisher in publishers]
        for loop in loops:
            loop.start(PAUSE)
        for number in range(kills):
            await wait(0.3 + (number % 7) / 10, reactor)
            again += len(sending)
            await deferToThread(role.stop, signal.SIGKILL)
            for witness in witnesses:
                witness.deaths += 1
            await wait((number % 5) / 5, reactor)
            await deferToThread(role.start)
            back.append(await reach(lambda: all(m.connected for m in messengers), 4 * BACK, reactor))
            await wait(0.2, reactor)
        for loop in loops:
            loop.stop()
        await reach(lambda: not sending, 10, reactor)
        await wait(0.5, reactor)
        found = [
            witness.faults([p for p in publishers if p is not own])
            for witness, own in zip(witnesses, publishers, strict=True)
        ]
        told = [witness.told == list(range(1, kills + 1)) for witness in witnesses]
        return {
            "kills": kills,
            "events": sum(sum(publisher.said.values()) for publisher in publishers),
            "deliveries": sum(witness.count for witness in witnesses),
            "unacknowledged at a kill, sent again": again,
            "never acknowledged": len(sending) + len(failed),
            "missed": sum(one["lost"] for one in found),
            "twice": sum(one["twice"] for one in found),
            "told of every gap": all(told),
            "back within": round(max(back), 2),
            "unexpected": unexpected(role.logged()),
        }
    finally:
        await gatherResults([messenger.close() for messenger in messengers])
        role.stop()


def hub_is_right(seen: Seen) -> bool:
    """Whether a run of `hub` shows what it should, whatever else the machine does."""
    return (
        seen["unacknowledged at a kill, sent again"] > 0
        and seen["never acknowledged"] == 0
        and seen["told of every gap"]
        and seen["back within"] < 4 * BACK
        and seen["deliveries"] > seen["events"] > 0
        and seen["unexpected"] == []
    )


def hub_is_fine(seen: Seen) -> bool:
    """The same, and that the clients were back in time."""
    return hub_is_right(seen) and seen["back within"] <= BACK


# -- a consumer that stands still ----------------------------------------------------------------------------

LINK_BUFFER = 2 * 2**20
SLACK = 2 * 2**20

RATE = 40.0
"""Events a second for everybody: at 2,000 deliveries a second nothing here is busy, and who waits, waits for
the one that stands still."""

BULK = 32.0
BULK_SIZE = 32 * 1024
"""Events a second for the one that stands still alone, of so many bytes: its buffer is full in 2 seconds."""

WINDOW = 1.0
"""Seconds of which one 99th percentile is taken; the median of those is compared: what else the machine does
shows in some of them."""

CONSUMER = """
import sys
from twisted.internet import reactor
from ces.messenger import Messenger
messenger = Messenger(sys.argv[1], rooms=["A", "BULK"], reactor=reactor)
messenger.on_record(lambda event, room: None)
messenger.on_gap(lambda lost: print(lost, flush=True))
messenger.connect()
reactor.run()
"""


class Latencies:
    """How long the events of one phase took, in seconds, by window of time."""

    def __init__(self) -> None:
        self.windows: dict[int, list[float]] = {}
        self.seconds = 0.0
        self._since = time.monotonic()

    def add(self, event: bytes) -> None:
        now = time.monotonic()
        sent = float(event.partition(b'"value":"')[2].partition(b'"')[0])
        self.windows.setdefault(int((now - self._since) / WINDOW), []).append(now - sent)

    def end(self) -> None:
        """The phase is over."""
        self.seconds = time.monotonic() - self._since

    @property
    def rate(self) -> float:
        """Deliveries a second."""
        return sum(map(len, self.windows.values())) / self.seconds

    @property
    def whole(self) -> float:
        """The 99th percentile of all, in milliseconds."""
        return 1000 * _percentile([one for window in self.windows.values() for one in window])

    @property
    def longest(self) -> float:
        """In milliseconds."""
        return 1000 * max(max(window) for window in self.windows.values())


def _percentile(found: list[float]) -> float:
    return sorted(found)[int(len(found) * 0.99)]


def _windowed(*phases: Latencies) -> float:
    """The median, over the windows of these phases, of the 99th percentile, in milliseconds."""
    windows = [window for phase in phases for window in phase.windows.values()]
    return 1000 * median([_percentile(window) for window in windows])


async def slow(seconds: float, seed: int, reactor: Any, folder: Path, width: int = 50) -> Seen:
    """Stop one consumer of many for so long, and until it has been cut; look for as long before and after."""
    patience = f"--slow-timeout={seconds / 2:g}s"
    role = Role(folder, "ces-hub", free_port(), f"--link-buffer={LINK_BUFFER}", patience).start()
    address = f"127.0.0.1:{role.port}"
    phases: list[Latencies] = [Latencies()]
    consumers = [Messenger(address, ["A"], reactor=reactor) for _ in range(width)]
    gaps: list[int | None] = []
    for consumer in consumers:
        consumer.on_record(lambda event, room: phases[-1].add(event))
        consumer.on_gap(gaps.append)
    writer, bulk = Messenger(address, reactor=reactor), Messenger(address, reactor=reactor)
    messengers = [*consumers, writer, bulk]
    stopped = subprocess.Popen(
        [sys.executable, "-c", CONSUMER, address], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    text = "x" * BULK_SIZE

    def speak(count: int) -> None:
        for _ in range(count):
            writer.send({"key": "p", "value": repr(time.monotonic())}, "A")

    def fill(count: int) -> None:
        for _ in range(count):
            bulk.send({"key": "p", "data": text}, "BULK")

    def linked() -> list[Any]:
        return list(role.info()["nexus"]["messenger-mapping"].get("BULK", []))

    async def phase(until_closed: bool = False) -> tuple[int, int, bool]:
        """One phase: the most memory that the hub had, what it has dropped, whether the one was cut."""
        phases.append(now := Latencies())
        most, dropped, closed = 0, 0, False
        end = time.monotonic() + seconds
        while time.monotonic() < end or (until_closed and not closed and time.monotonic() < end + 30):
            await wait(seconds / 60, reactor)
            most = max(most, memory(role))
            nexus = (await deferToThread(role.info))["nexus"]
            dropped, closed = nexus["dropped"], len(nexus["messengers"]) == width + 2
        now.end()
        phases.append(Latencies())  # what comes between phases
        return most, dropped, closed

    talks = [task.LoopingCall.withCount(speak), task.LoopingCall.withCount(fill)]
    try:
        for messenger in messengers:
            messenger.connect()
        await gatherResults([messenger.when_connected() for messenger in messengers])
        assert stopped.stdout is not None
        await deferToThread(until, linked, "everybody is there", 30)
        for talk, rate in zip(talks, (RATE, BULK), strict=True):
            talk.start(1 / rate)
        await wait(max(1.0, seconds / 10), reactor)  # memory that is used once has been
        used = _cpu(role), _own_cpu(), time.monotonic()
        await phase()
        memory_before = memory(role)
        stopped.send_signal(signal.SIGSTOP)
        most, dropped, closed = await phase(until_closed=True)
        stopped.send_signal(signal.SIGCONT)
        giving_up = reactor.callLater(30, stopped.kill)
        told = await deferToThread(stopped.stdout.readline)
        giving_up.cancel()
        await deferToThread(until, linked, "it is back", 30)
        await phase()
        share = [
            round((now - then) / (time.monotonic() - used[2]), 2)
            for now, then in zip((_cpu(role), _own_cpu()), used, strict=False)
        ]
        before, during, after = phases[1::2]
        return {
            "stopped for": f"{during.seconds:.1f} s",
            "others": width,
            "rate before, during, after": [round(one.rate) for one in phases[1::2]],
            "rate ratio": round(2 * during.rate / (before.rate + after.rate), 3),
            "p99 of a second before, during, after, ms": [round(_windowed(one), 2) for one in phases[1::2]],
            "p99 ratio": round(_windowed(during) / _windowed(before, after), 2),
            "p99 of all, ms": [round(one.whole, 2) for one in phases[1::2]],
            "longest, ms": [round(one.longest) for one in phases[1::2]],
            "cores of the hub and of its clients": share,
            "memory grown": most - memory_before,
            "bound": LINK_BUFFER + SLACK,
            "dropped for the stopped one": dropped,
            "closed with 4408": closed and "closed with 4408" in role.logged(),
            "gap told to the stopped one": told.decode().strip(),
            "gaps told to others": len(gaps),
            "unexpected": unexpected(role.logged()),
        }
    finally:
        for talk in talks:
            if talk.running:
                talk.stop()
        stopped.kill()
        stopped.wait()
        if stopped.stdout is not None:
            stopped.stdout.close()
        await gatherResults([messenger.close() for messenger in messengers])
        role.stop()


def slow_is_right(seen: Seen) -> bool:
    """Whether a run of `slow` shows what it should, whatever else the machine does."""
    return (
        seen["memory grown"] <= seen["bound"]
        and seen["dropped for the stopped one"] > 0
        and seen["closed with 4408"]
        and seen["gap told to the stopped one"] != ""
        and seen["gaps told to others"] == 0
        and seen["unexpected"] == []
    )


def slow_is_fine(seen: Seen) -> bool:
    """The same, and that the others did not notice."""
    return slow_is_right(seen) and seen["rate ratio"] >= 0.9 and seen["p99 ratio"] <= 1.1


def _own_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


# -- a burst -------------------------------------------------------------------------------------------------

PACE = 5000
"""Events a second that the slow consumer takes."""

SLOW_CONSUMER = """
import sys, time
from twisted.internet import reactor
from ces.messenger import Messenger
messenger = Messenger(sys.argv[1], rooms=["A"], reactor=reactor)
pace, wanted = int(sys.argv[2]), int(sys.argv[3])
numbers, gaps = [], []
def take(event, room):
    time.sleep(1 / pace)
    numbers.append(int(event.partition(b'"value":"')[2].partition(b'"')[0]))
    if numbers[-1] == wanted - 1:
        print(len(numbers), numbers == sorted(set(numbers)), sum(gaps), flush=True)
messenger.on_record(take)
messenger.on_gap(gaps.append)
messenger.connect()
reactor.run()
"""


async def burst(events: int, seed: int, reactor: Any, folder: Path) -> Seen:
    """Send all events as fast as the hub takes them, many more than its buffers hold."""
    role = Role(folder, "ces-hub", free_port(), "--link-buffer=4MiB").start()
    address = f"127.0.0.1:{role.port}"
    consumer = subprocess.Popen(
        [sys.executable, "-c", SLOW_CONSUMER, address, str(PACE), str(events)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    text = "x" * 300
    writer = Messenger(address, reactor=reactor, spool=1000 * events)

    def there() -> object:
        return role.info()["nexus"]["messenger-mapping"].get("A")

    try:
        writer.connect()
        await writer.when_connected()
        await deferToThread(until, there, "the consumer is there", 30)
        begun = time.monotonic()
        for number in range(events):
            writer.send({"key": "p", "value": str(number), "data": text}, "A")
        await writer.flush(60 + 2 * events / PACE)
        took = time.monotonic() - begun
        assert consumer.stdout is not None
        arrived, in_order, told = (await deferToThread(consumer.stdout.readline)).decode().split()
        lasted = time.monotonic() - begun
        return {
            "events": events,
            "arrived": int(arrived),
            "once and in order": in_order == "True",
            "lost as told": int(told),
            "dropped": role.info()["nexus"]["dropped"],
            "taken by the hub within": round(took, 1),
            "arrived within": round(lasted, 1),
            "unexpected": unexpected(role.logged()),
        }
    finally:
        consumer.kill()
        consumer.wait()
        if consumer.stdout is not None:
            consumer.stdout.close()
        await writer.close()
        role.stop()


def burst_is_right(seen: Seen) -> bool:
    """Whether it shows what must hold however busy the machine is: a consumer that stands still loses."""
    return (
        seen["arrived"] + seen["dropped"] == seen["events"]
        and seen["once and in order"]
        and seen["lost as told"] == seen["dropped"]
        and seen["unexpected"] == []
    )


def burst_is_fine(seen: Seen) -> bool:
    """Whether a run of `burst` shows what it should."""
    return burst_is_right(seen) and seen["dropped"] == 0


# -- a herd --------------------------------------------------------------------------------------------------


HERD_BACK = 20.0
"""Seconds that everybody may take."""


async def herd(clients: int, seed: int, reactor: Any, folder: Path) -> Seen:
    """Let all clients of a hub come back at once."""
    role = Role(folder, "ces-hub", free_port()).start()
    messengers = [
        Messenger(f"127.0.0.1:{role.port}", [f"ITB-{n % 1000}"], reactor=reactor) for n in range(clients)
    ]
    seen: Seen = {"clients": clients}

    def subscribed() -> bool:
        nexus = role.info()["nexus"]
        return len(nexus["messengers"]) == clients and len(nexus["messenger-mapping"]) == min(clients, 1000)

    try:
        for start in range(0, clients, 100):
            for messenger in messengers[start : start + 100]:
                messenger.connect()
            await gatherResults([m.when_connected() for m in messengers[start : start + 100]])
        for name, number in (("kill -9", signal.SIGKILL), ("SIGTERM", signal.SIGTERM)):
            await deferToThread(until, subscribed, "everybody is there", 60)
            await deferToThread(role.stop, number)
            await deferToThread(role.start)
            took = await reach(lambda: all(m.connected for m in messengers), HERD_BACK, reactor)
            seen[f"back after {name}"] = round(took, 2)
            await deferToThread(until, subscribed, "everybody has its room", 60)
        seen["CPU seconds of the last hub"] = round(_cpu(role), 2)
        seen["unexpected"] = unexpected(role.logged())
        return seen
    finally:
        await gatherResults([messenger.close() for messenger in messengers])
        role.stop()


def _cpu(role: Role) -> float:
    assert role.process is not None
    fields = Path(f"/proc/{role.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def herd_is_fine(seen: Seen) -> bool:
    """Whether a run of `herd` shows what it should."""
    return max(seen["back after kill -9"], seen["back after SIGTERM"]) < HERD_BACK and not seen["unexpected"]


# -- a hub that cannot be reached ----------------------------------------------------------------------------


class Closer(Protocol):
    """Accepts, and closes."""

    def connectionMade(self) -> None:
        self.transport.loseConnection()


class Caller(Messenger):
    """A messenger that notes when it dials and why that failed."""

    def __init__(self, address: str, reactor: Any) -> None:
        super().__init__(address, ["A"], reactor=reactor, limits=LinkLimits(handshake=1.0))
        self.dials: list[float] = []
        self.reasons: list[str] = []

    def startedConnecting(self, connector: Any) -> None:
        self.dials.append(time.monotonic())
        super().startedConnecting(connector)

    def _ended(self, connector: Any, reason: str) -> None:
        self.reasons.append(reason)
        super()._ended(connector, reason)


async def backoff(seconds: float, seed: int, reactor: Any, folder: Path) -> Seen:
    """Dial hubs that cannot be reached, for so long, and until each has been dialled three times."""
    certificate, key = make_certificate(folder, days=-1)
    closer = reactor.listenTCP(0, Factory.forProtocol(Closer), interface="127.0.0.1")
    mute = reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")
    expired = await serverFromString(reactor, endpoint(certificate, key)).listen(
        Factory.forProtocol(Protocol)
    )
    callers = {
        "refused": Caller(f"127.0.0.1:{free_port()}", reactor),
        "accepts and closes": Caller(f"127.0.0.1:{closer.getHost().port}", reactor),
        "accepts and never answers": Caller(f"127.0.0.1:{mute.getHost().port}", reactor),
        "DNS failure": Caller("no-such-hub.invalid", reactor),
        "expired certificate": Caller(f"wss://localhost:{expired.getHost().port}", reactor),
    }
    begun = _own_cpu()
    try:
        with trusted(certificate):  # but for its date
            for caller in callers.values():
                caller.connect()
            await wait(seconds, reactor)
            await reach(lambda: all(len(caller.dials) >= 3 for caller in callers.values()), 30, reactor)
    finally:
        used, closing = _own_cpu() - begun, time.monotonic()
        await gatherResults([caller.close() for caller in callers.values()])
        took = time.monotonic() - closing
        for listening in (closer, mute, expired):
            await listening.stopListening()
    found = {
        name: {
            "dials": len(caller.dials),
            "gaps": [round(b - a, 2) for a, b in zip(caller.dials, caller.dials[1:], strict=False)],
            "reason": caller.reasons[0] if caller.reasons else "",
        }
        for name, caller in callers.items()
    }
    return {"seconds": seconds, **found, "CPU seconds": round(used, 2), "closed within": round(took, 2)}


def backoff_is_right(seen: Seen) -> bool:
    """Whether a run of `backoff` shows what it should, whatever else the machine does: dials grow rarer."""
    cases = [one for one in seen.values() if isinstance(one, dict)]
    return (
        all(one["dials"] >= 3 and one["reason"] for one in cases)
        and all(gap >= 0.5 * delay for one in cases for gap, delay in _delays(one["gaps"]))
        and "expired" in seen["expired certificate"]["reason"]
        and seen["CPU seconds"] < 0.1 * seen["seconds"] + 1
    )


def backoff_is_fine(seen: Seen) -> bool:
    """The same, and that no dial came late and nothing hung in the end; a dial takes a second at the most."""
    cases = [one for one in seen.values() if isinstance(one, dict)]
    on_time = all(gap <= 1.5 * delay + 1.5 for one in cases for gap, delay in _delays(one["gaps"]))
    return backoff_is_right(seen) and on_time and seen["closed within"] < 2


def _delays(gaps: list[float]) -> list[tuple[float, float]]:
    """Each gap, and what the delay before it was without chance."""
    return [(gap, min(Dialler.factor**number, Dialler.maxDelay)) for number, gap in enumerate(gaps)]


KINDS: dict[str, tuple[Callable[..., Coroutine[Any, Any, Seen]], Callable[[Seen], bool], int]] = {
    "hub": (hub, hub_is_fine, 50),
    "slow": (slow, slow_is_fine, 60),
    "burst": (burst, burst_is_fine, 100_000),
    "herd": (herd, herd_is_fine, 2000),
    "backoff": (backoff, backoff_is_fine, 60),
}


def main(arguments: list[str]) -> int:
    """Run one kind and say what was seen."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.crashes")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("size", type=int, nargs="?", help="kills, seconds, events or clients")
    chosen = parser.parse_args(arguments)
    run, is_fine, size = KINDS[chosen.kind]
    fine = False

    async def both(reactor: Any) -> None:
        nonlocal fine
        with tempfile.TemporaryDirectory() as folder:
            seen = await run(chosen.size or size, 1, reactor, Path(folder))
        print(f"{chosen.kind}:", seen, flush=True)
        fine = is_fine(seen)

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        task.react(lambda reactor: Deferred.fromCoroutine(both(reactor)))
    except SystemExit as ended:
        return 0 if fine and not ended.code else 1
    raise AssertionError("react ends by SystemExit")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
