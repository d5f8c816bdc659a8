"""Processes that die, stall or reconnect together: ``python -m tests.stress.crashes KIND [SIZE]``.

====================  ====================================================================================
``hub [KILLS]``       repeated kill -9 of a hub under traffic: clients reconnect within `BACK` seconds after
                      it listens, unacknowledged events are sent again, a client that missed an event has
                      been told of a possible gap for the same kill, and all else arrives once and in order
``slow [SECONDS]``    SIGSTOP of one consumer beside 50 others: the others' rate and latency stay the same,
                      and the hub's memory stays within its limit
``burst [EVENTS]``    a burst of events for a consumer that handles `PACE` a second: none is lost, and the
                      publisher is slowed down
``herd [CLIENTS]``    all clients of a hub reconnect at once, after kill -9 and after SIGTERM
``backoff [SECONDS]`` a hub that is unreachable, in five ways: the delay between dials grows, and nothing
                      hangs or spins
====================  ====================================================================================

Each prints its results, and ends with status 1 if they are wrong. `slow` compares a few milliseconds, so the
machine should be otherwise idle. The hub pauses the stopped consumer's publisher for up to a second
(`ces.link.pressure`). This affects the longest latency but not the medians.
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

from ces.config.link import LinkSettings
from ces.messenger import Messenger, State
from ces.uplink.dialler import Dialler
from tests.support.certificates import endpoint, make_certificate, trusted
from tests.support.fleet import Role, free_port, until
from tests.support.lives import Lives
from tests.support.numbered import ROOM_NAMES, Publisher, Subscriber
from tests.support.process import memory, unexpected
from tests.support.program import exit_status
from tests.support.rooms import knows

BACK = 5.0
"""Timeout for clients to reconnect after a hub listens again, in seconds."""

PAUSE = 0.02
BUFFER = 8 * 2**20
"""The default limit of the queue of a link."""


Seen = dict[str, Any]


async def wait(seconds: float, reactor: Any) -> None:
    """Wait for `seconds`."""
    await task.deferLater(reactor, seconds)


async def reach(condition: Callable[[], object], seconds: float, reactor: Any) -> float:
    """Wait until `condition` is true, at most for `seconds`. Returns the time that it took, in seconds."""
    begun = time.monotonic()
    while not condition() and time.monotonic() < begun + seconds:
        await wait(0.02, reactor)
    return time.monotonic() - begun


# -- a hub that dies -----------------------------------------------------------------------------------------


class Witness(Subscriber):
    """A subscriber that records at which kill of the hub it was told of a gap."""

    def __init__(self, messenger: Messenger, name: str, lives: Lives) -> None:
        super().__init__(messenger, name, lives)
        self.deaths = 0
        self.told: list[int] = []
        messenger.on_gap(lambda lost: self.told.append(self.deaths))


async def hub(kills: int, seed: int, reactor: Any, folder: Path, width: int = 5) -> Seen:
    """Kill a hub under traffic `kills` times. Returns the results.

    After each kill, what came of the events is judged by what both ends know.
    """
    role = Role(folder, "ces-hub", free_port()).start()
    address = f"127.0.0.1:{role.port}"
    messengers = [Messenger(address, ROOM_NAMES, reactor=reactor, node=f"w{n}") for n in range(width)]
    lives = Lives()
    witnesses = [Witness(messenger, f"w{n}", lives) for n, messenger in enumerate(messengers)]
    for number, witness in enumerate(witnesses):
        lives.client(witness.name, "hub", ROOM_NAMES)
        lives.limit("hub", witness.name, BUFFER)
        for other in range(width):
            if other != number:
                lives.route(f"p{other}", witness.name, "hub")
    sending: set[Deferred[None]] = set()
    failed: list[object] = []
    again = 0

    def sender(messenger: Messenger) -> Callable[[str, bytes], Deferred[None]]:
        def send(room: str, event: bytes) -> Deferred[None]:
            sent = messenger.send(event, room)
            answer: Deferred[None] = Deferred()  # for `Lives`, which ends the failure of an event

            def acknowledged(_: object) -> None:
                sending.discard(sent)
                answer.callback(None)

            def dropped(failure: Any) -> None:
                sending.discard(sent)
                failed.append(failure)
                answer.errback(failure)

            sending.add(sent)
            sent.addCallbacks(acknowledged, dropped)
            return answer

        return send

    publishers = [Publisher(f"p{n}", sender(m), seed + n, lives) for n, m in enumerate(messengers)]
    back: list[float] = []
    findings: list[str] = []

    def rooms_are_known() -> bool:
        return all(knows(role, witness.name, ROOM_NAMES) for witness in witnesses)

    def no_more_comes() -> bool:
        return lives.complete or (lives.answered and time.monotonic() > lives.arrived + 1)

    try:
        for messenger in messengers:
            messenger.connect()
        await gatherResults([messenger.when_connected() for messenger in messengers])
        await deferToThread(until, rooms_are_known, "the hub knows all rooms")
        lives.begin()
        for number in range(kills):
            loops = [task.LoopingCall(publisher.speak) for publisher in publishers]
            for loop in loops:
                loop.start(PAUSE)
            await wait(0.3 + (number % 7) / 10, reactor)
            again += len(sending)
            await deferToThread(role.stop, signal.SIGKILL)
            lives.die("hub")
            for witness in witnesses:
                witness.deaths += 1
            await wait((number % 5) / 5, reactor)
            await deferToThread(role.start)
            back.append(await reach(lambda: all(m.connected for m in messengers), 4 * BACK, reactor))
            await deferToThread(until, rooms_are_known, "the hub knows all rooms", 4 * BACK)
            await wait(0.2, reactor)
            for loop in loops:
                loop.stop()
            await reach(no_more_comes, 10, reactor)
            findings += [str(finding) for finding in lives.end()]
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
            "findings": findings,
            "back within": round(max(back), 2),
            "unexpected": unexpected(role.logged()),
        }
    finally:
        await gatherResults([messenger.close() for messenger in messengers])
        role.stop()


def hub_is_right(seen: Seen) -> bool:
    """Whether the results of `hub` are right, on a busy machine too."""
    return (
        seen["unacknowledged at a kill, sent again"] > 0
        and seen["never acknowledged"] == 0
        and seen["told of every gap"]
        and seen["findings"] == []
        and seen["back within"] < 4 * BACK
        and seen["deliveries"] > seen["events"] > 0
        and seen["unexpected"] == []
    )


def hub_is_fine(seen: Seen) -> bool:
    """Whether the results of `hub` are right, and the clients reconnected in time."""
    return hub_is_right(seen) and seen["back within"] <= BACK


# -- a stalled consumer --------------------------------------------------------------------------------------

LINK_BUFFER = 2 * 2**20
SLACK = 2 * 2**20

RATE = 40.0
"""Events a second for all consumers. At 2,000 deliveries a second nothing is busy, so any delay is caused by
the stalled consumer.
"""

BULK = 32.0
BULK_SIZE = 32 * 1024
"""Events a second for the stalled consumer only, and their size in bytes. Its buffer is full in 2 seconds."""

WINDOW = 1.0
"""Seconds in one window. A 99th percentile is taken per window, and the medians of these are compared,
because other processes on the machine disturb only some windows.
"""

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
    """The latencies of one phase's events, in seconds, by window."""

    def __init__(self) -> None:
        self.windows: dict[int, list[float]] = {}
        self.seconds = 0.0
        self._since = time.monotonic()

    def add(self, event: bytes) -> None:
        now = time.monotonic()
        sent = float(event.partition(b'"value":"')[2].partition(b'"')[0])
        self.windows.setdefault(int((now - self._since) / WINDOW), []).append(now - sent)

    def end(self) -> None:
        """End the phase."""
        self.seconds = time.monotonic() - self._since

    @property
    def rate(self) -> float:
        """Deliveries a second."""
        return sum(map(len, self.windows.values())) / self.seconds

    @property
    def whole(self) -> float:
        """The 99th percentile of all latencies, in milliseconds."""
        return 1000 * _percentile([one for window in self.windows.values() for one in window])

    @property
    def longest(self) -> float:
        """The longest latency, in milliseconds."""
        return 1000 * max(max(window) for window in self.windows.values())


def _percentile(found: list[float]) -> float:
    return sorted(found)[int(len(found) * 0.99)]


def _windowed(*phases: Latencies) -> float:
    """The median of the windows' 99th percentiles in these phases, in milliseconds."""
    windows = [window for phase in phases for window in phase.windows.values()]
    return 1000 * median([_percentile(window) for window in windows])


async def slow(seconds: float, seed: int, reactor: Any, folder: Path, width: int = 50) -> Seen:
    """Stop one of many consumers for `seconds` and until the hub has closed its link.

    Measures the others during, and for the same time before and after. Returns the results.
    """
    # What waits for a link counts as dropped once its connection is gone: two seconds after the close.
    timeouts = (f"--slow-timeout={seconds / 2:g}s", "--handshake-timeout=2s")
    role = Role(folder, "ces-hub", free_port(), f"--link-buffer={LINK_BUFFER}", *timeouts).start()
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

    async def phase(until_closed: bool = False) -> tuple[int, bool]:
        """Run one phase. Returns the hub's peak memory, and whether it closed the link."""
        phases.append(now := Latencies())
        most, closed = 0, False
        end = time.monotonic() + seconds
        while time.monotonic() < end or (until_closed and not closed and time.monotonic() < end + 30):
            await wait(seconds / 60, reactor)
            most = max(most, memory(role))
            nexus = (await deferToThread(role.info))["nexus"]
            # What waits for it is kept when it was closed: it must sleep until that is too much.
            closed = len(nexus["messengers"]) == width + 2 and nexus["dropped"] > 0
        now.end()
        phases.append(Latencies())  # for events between phases
        return most, closed

    talks = [task.LoopingCall.withCount(speak), task.LoopingCall.withCount(fill)]
    try:
        for messenger in messengers:
            messenger.connect()
        await gatherResults([messenger.when_connected() for messenger in messengers])
        assert stopped.stdout is not None
        await deferToThread(until, linked, "everybody is there", 30)
        for talk, rate in zip(talks, (RATE, BULK), strict=True):
            talk.start(1 / rate)
        await wait(max(1.0, seconds / 10), reactor)  # lets the hub allocate what it needs only once
        used = _cpu(role), _own_cpu(), time.monotonic()
        await phase()
        memory_before = memory(role)
        stopped.send_signal(signal.SIGSTOP)
        most, closed = await phase(until_closed=True)
        stopped.send_signal(signal.SIGCONT)
        giving_up = reactor.callLater(30, stopped.kill)
        told = await deferToThread(stopped.stdout.readline)
        giving_up.cancel()
        await deferToThread(until, linked, "it is back", 30)
        # What waited for it is lost once its connection has ended, for which it had to go on.
        dropped = (await deferToThread(role.info))["nexus"]["dropped"]
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
    """Whether the results of `slow` are right, on a busy machine too."""
    return (
        seen["memory grown"] <= seen["bound"]
        and seen["dropped for the stopped one"] > 0
        and seen["closed with 4408"]
        and seen["gap told to the stopped one"] != ""
        and seen["gaps told to others"] == 0
        and seen["unexpected"] == []
    )


def slow_is_fine(seen: Seen) -> bool:
    """Whether the results of `slow` are right, and the other consumers were not affected."""
    return slow_is_right(seen) and seen["rate ratio"] >= 0.9 and seen["p99 ratio"] <= 1.1


def _own_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


# -- a burst -------------------------------------------------------------------------------------------------

PACE = 5000
"""Events a second that the slow consumer handles."""

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
    """Send events as fast as the hub accepts them, more than fit into its buffers. Returns the results."""
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
    """Whether the results of `burst` are right. On a busy machine the consumer may stall and lose events."""
    return (
        seen["arrived"] + seen["dropped"] == seen["events"]
        and seen["once and in order"]
        and seen["lost as told"] == seen["dropped"]
        and seen["unexpected"] == []
    )


def burst_is_fine(seen: Seen) -> bool:
    """Whether the results of `burst` are right, and no event was lost."""
    return burst_is_right(seen) and seen["dropped"] == 0


# -- a herd --------------------------------------------------------------------------------------------------


HERD_BACK = 20.0
"""Timeout for all clients to reconnect, in seconds."""


async def herd(clients: int, seed: int, reactor: Any, folder: Path) -> Seen:
    """Make all clients of a hub reconnect at once. Returns the results."""
    role = Role(folder, "ces-hub", free_port()).start()
    messengers = [
        Messenger(f"127.0.0.1:{role.port}", [f"ITB-{n % 1000}"], reactor=reactor) for n in range(clients)
    ]
    seen: Seen = {"clients": clients}

    def subscribed() -> bool:
        totals = role.info()["nexus"]["totals"]
        return (totals["messengers"], totals["rooms"]) == (clients, min(clients, 1000))

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
    """Whether the results of `herd` are right."""
    return max(seen["back after kill -9"], seen["back after SIGTERM"]) < HERD_BACK and not seen["unexpected"]


# -- a hub that cannot be reached ----------------------------------------------------------------------------


class Closer(Protocol):
    """Accepts a connection and closes it."""

    def connectionMade(self) -> None:
        self.transport.loseConnection()


class Caller:
    """A messenger, when it dialled and why each dial failed."""

    def __init__(self, address: str, reactor: Any) -> None:
        settings = LinkSettings(handshake_timeout=1.0)
        self.messenger = Messenger(address, ["A"], reactor=reactor, settings=settings)
        self.dials: list[float] = []
        self.reasons: list[str] = []
        self.messenger.on_state(self._changed)

    def _changed(self, state: State) -> None:
        if state is State.CONNECTING:
            self.dials.append(time.monotonic())
        elif state is State.WAITING:
            self.reasons.append(self.messenger.reason)


async def backoff(seconds: float, seed: int, reactor: Any, folder: Path) -> Seen:
    """Dial unreachable hubs for `seconds`, and until each has had three dials. Returns the results."""
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
        with trusted(certificate):  # so that only its date is wrong
            for caller in callers.values():
                caller.messenger.connect()
            await wait(seconds, reactor)
            await reach(lambda: all(len(caller.dials) >= 3 for caller in callers.values()), 30, reactor)
    finally:
        used, closing = _own_cpu() - begun, time.monotonic()
        await gatherResults([caller.messenger.close() for caller in callers.values()])
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
    """Whether the delays between dials grow as they should, on a busy machine too."""
    cases = [one for one in seen.values() if isinstance(one, dict)]
    return (
        all(one["dials"] >= 3 and one["reason"] for one in cases)
        and all(gap >= 0.5 * delay for one in cases for gap, delay in _delays(one["gaps"]))
        and "expired" in seen["expired certificate"]["reason"]
        and seen["CPU seconds"] < 0.1 * seen["seconds"] + 1
    )


def backoff_is_fine(seen: Seen) -> bool:
    """Whether the results of `backoff` are right, no dial was late, and closing did not hang.

    A dial takes a second at most.
    """
    cases = [one for one in seen.values() if isinstance(one, dict)]
    on_time = all(gap <= 1.5 * delay + 1.5 for one in cases for gap, delay in _delays(one["gaps"]))
    return backoff_is_right(seen) and on_time and seen["closed within"] < 2


def _delays(gaps: list[float]) -> list[tuple[float, float]]:
    """Each gap between dials, with its nominal delay, which has no random part."""
    return [(gap, min(Dialler.factor**number, Dialler.maxDelay)) for number, gap in enumerate(gaps)]


KINDS: dict[str, tuple[Callable[..., Coroutine[Any, Any, Seen]], Callable[[Seen], bool], int]] = {
    "hub": (hub, hub_is_fine, 50),
    "slow": (slow, slow_is_fine, 60),
    "burst": (burst, burst_is_fine, 100_000),
    "herd": (herd, herd_is_fine, 2000),
    "backoff": (backoff, backoff_is_fine, 60),
}


def main(arguments: list[str]) -> int:
    """Run one kind and print the results. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.crashes")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("size", type=int, nargs="?", help="kills, seconds, events or clients")
    chosen = parser.parse_args(arguments)
    run, is_fine, size = KINDS[chosen.kind]

    async def both(reactor: Any) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            seen = await run(chosen.size or size, 1, reactor, Path(folder))
        print(f"{chosen.kind}:", seen, flush=True)
        return bool(is_fine(seen))

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return exit_status(both)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
