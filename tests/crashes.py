"""Whole processes that die, stand still or come back together: ``python -m tests.crashes hub|slow|herd|backoff``.

====================  ====================================================================================
``hub [KILLS]``       kill -9 of a hub under traffic, again and again: clients are back within `BACK` seconds
                      after it listens, what was not acknowledged is sent again, and who missed an event has
                      been told of a possible gap for that very death
``slow [SECONDS]``    SIGSTOP of one consumer among 50 others: what the others get, and when, stays the same,
                      and the hub's memory within its bound
``herd [CLIENTS]``    all clients of a hub come back at once, after kill -9 and after SIGTERM
``backoff [SECONDS]`` a hub that cannot be reached, in five ways: dials grow rarer, nothing hangs or spins
====================  ====================================================================================

Each prints what was seen, and ends with status 1 if that is not as it should be.
"""

from __future__ import annotations

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
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread

from ces.link.owner import LinkLimits
from ces.messenger import Messenger
from tests.fleet import Role, free_port, until
from tests.numbered import ROOMS, Publisher, Subscriber
from tests.process import memory, unexpected

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


def hub_is_fine(seen: Seen) -> bool:
    """Whether a run of `hub` shows what it should."""
    return (
        seen["never acknowledged"] == 0
        and seen["told of every gap"]
        and seen["back within"] <= BACK
        and seen["deliveries"] > seen["events"] > 0
        and seen["unexpected"] == []
    )


# -- a consumer that stands still ----------------------------------------------------------------------------

LINK_BUFFER = 2 * 2**20
SLACK = 2 * 2**20
RATE = 400.0
"""Events a second, each to all consumers."""

WINDOW = 1.0
"""Seconds of which one 99th percentile is taken; the median of those is compared."""

CONSUMER = """
import sys
from twisted.internet import reactor
from ces.messenger import Messenger
messenger = Messenger(sys.argv[1], rooms=["A"], reactor=reactor)
messenger.on_record(lambda room, event: None)
messenger.on_gap(lambda lost: print(lost, flush=True))
messenger.connect()
reactor.run()
"""


class Latencies:
    """What consumers saw, by phase and by window of time."""

    def __init__(self) -> None:
        self.windows: dict[int, list[float]] = {}
        self._since = time.monotonic()

    def add(self, room: bytes, event: bytes) -> None:
        now = time.monotonic()
        sent = float(event.partition(b'"value":"')[2].partition(b'"')[0])
        self.windows.setdefault(int((now - self._since) / WINDOW), []).append(now - sent)

    def percentile(self) -> float:
        """The median, over windows, of the 99th percentile, in milliseconds."""
        found = [sorted(one)[int(len(one) * 0.99)] for one in list(self.windows.values())[:-1]]
        return 1000 * median(found)

    def rate(self) -> float:
        """The median, over windows, of deliveries a second."""
        return median([len(one) / WINDOW for one in list(self.windows.values())[:-1]])


async def slow(seconds: float, seed: int, reactor: Any, folder: Path, width: int = 50) -> Seen:
    """Stop one consumer of many for a while."""
    role = Role(
        folder, "ces-hub", free_port(), f"--link-buffer={LINK_BUFFER}", f"--slow-timeout={seconds / 2}s"
    ).start()
    address = f"127.0.0.1:{role.port}"
    latencies = Latencies()
    consumers = [Messenger(address, ["A"], reactor=reactor) for _ in range(width)]
    gaps: list[int | None] = []
    for consumer in consumers:
        consumer.on_record(lambda room, event: latencies.add(room, event))
        consumer.on_gap(gaps.append)
    writer = Messenger(address, reactor=reactor)
    messengers = [*consumers, writer]
    stopped = subprocess.Popen(
        [sys.executable, "-c", CONSUMER, address], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    # The kernel's buffers take their share before anything waits in the hub: what it takes to fill all.
    text = "x" * max(200, int(8 * (LINK_BUFFER + 4 * 2**20) / (RATE * seconds)))

    def speak(count: int) -> None:
        for _ in range(count):
            writer.send({"key": "p", "value": repr(time.monotonic()), "data": text}, "A")

    def linked() -> list[Any]:
        return list(role.info()["nexus"]["messenger-mapping"].get("A", []))

    try:
        for messenger in messengers:
            messenger.connect()
        await gatherResults([messenger.when_connected() for messenger in messengers])
        assert stopped.stdout is not None
        await deferToThread(until, lambda: len(linked()) == width + 1, "everybody is there", 30)
        speaking = task.LoopingCall.withCount(speak)
        speaking.start(1 / RATE)
        await wait(max(2.0, seconds / 10), reactor)  # memory that is used once has been
        before = latencies = Latencies()
        await wait(seconds, reactor)
        memory_before = memory(role)
        stopped.send_signal(signal.SIGSTOP)
        during = latencies = Latencies()
        grown, closed, dropped = 0, False, 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await wait(seconds / 60, reactor)
            grown = max(grown, memory(role) - memory_before)
            nexus = (await deferToThread(role.info))["nexus"]
            dropped = nexus["dropped"]
            closed = closed or len(nexus["messengers"]) == width + 1
        stopped.send_signal(signal.SIGCONT)
        told = await deferToThread(stopped.stdout.readline)
        speaking.stop()
        return {
            "stopped for": f"{seconds:g} s",
            "others": width,
            "rate before and during": [round(before.rate()), round(during.rate())],
            "rate ratio": round(during.rate() / before.rate(), 3),
            "p99 before and during, ms": [round(before.percentile(), 2), round(during.percentile(), 2)],
            "p99 ratio": round(during.percentile() / before.percentile(), 2),
            "memory grown": grown,
            "bound": LINK_BUFFER + SLACK,
            "dropped for the stopped one": dropped,
            "closed with 4408": closed and "closed with 4408" in role.logged(),
            "gap told to the stopped one": told.decode().strip(),
            "gaps told to others": len(gaps),
            "unexpected": unexpected(role.logged()),
        }
    finally:
        stopped.kill()
        stopped.wait()
        if stopped.stdout is not None:
            stopped.stdout.close()
        await gatherResults([messenger.close() for messenger in messengers])
        role.stop()


def slow_is_fine(seen: Seen) -> bool:
    """Whether a run of `slow` shows what it should."""
    return (
        seen["rate ratio"] >= 0.9
        and seen["p99 ratio"] <= 1.1
        and seen["memory grown"] <= seen["bound"]
        and seen["dropped for the stopped one"] > 0
        and seen["closed with 4408"]
        and seen["gap told to the stopped one"] != ""
        and seen["gaps told to others"] == 0
        and seen["unexpected"] == []
    )


# -- a herd --------------------------------------------------------------------------------------------------


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
            took = await reach(lambda: all(m.connected for m in messengers), 60, reactor)
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
    return max(seen["back after kill -9"], seen["back after SIGTERM"]) <= 4 * BACK and not seen["unexpected"]


# -- a hub that cannot be reached ----------------------------------------------------------------------------


class Closer(Protocol):
    """Accepts, and closes."""

    def connectionMade(self) -> None:
        self.transport.loseConnection()


def expired_certificate(folder: Path) -> tuple[str, str]:
    """Make a certificate of 127.0.0.1 that is trusted from now on, but has expired; its file and its key's."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now - timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "expired.pem", folder / "expired.key"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    os.environ["SSL_CERT_FILE"] = str(cert_file)
    return str(cert_file), str(key_file)


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
    """Dial hubs that cannot be reached."""
    from twisted.internet.endpoints import serverFromString

    closer = reactor.listenTCP(0, Factory.forProtocol(Closer), interface="127.0.0.1")
    mute = reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")
    cert, key = expired_certificate(folder)
    port = free_port()
    tls = await serverFromString(
        reactor, f"ssl:{port}:interface=127.0.0.1:certKey={cert}:privateKey={key}"
    ).listen(Factory.forProtocol(Protocol))
    callers = {
        "refused": Caller(f"127.0.0.1:{free_port()}", reactor),
        "accepts and closes": Caller(f"127.0.0.1:{closer.getHost().port}", reactor),
        "accepts and never answers": Caller(f"127.0.0.1:{mute.getHost().port}", reactor),
        "DNS failure": Caller("no-such-hub.invalid", reactor),
        "expired certificate": Caller(f"wss://localhost:{port}", reactor),
    }
    begun = resource.getrusage(resource.RUSAGE_SELF)
    for caller in callers.values():
        caller.connect()
    await wait(seconds, reactor)
    ended = resource.getrusage(resource.RUSAGE_SELF)
    closing = time.monotonic()
    await gatherResults([caller.close() for caller in callers.values()])
    took = time.monotonic() - closing
    for listening in (closer, mute, tls):
        await listening.stopListening()
    found = {
        name: {
            "dials": len(caller.dials),
            "gaps": [round(b - a, 1) for a, b in zip(caller.dials, caller.dials[1:], strict=False)],
            "reason": caller.reasons[0] if caller.reasons else "",
        }
        for name, caller in callers.items()
    }
    cpu = ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime
    return {"seconds": seconds, **found, "CPU seconds": round(cpu, 2), "closed within": round(took, 2)}


def backoff_is_fine(seen: Seen) -> bool:
    """Whether a run of `backoff` shows what it should: 1, 2, 4 seconds, half to one and a half of each."""
    cases = [one for one in seen.values() if isinstance(one, dict)]
    at_most = next(n for n in range(1, 40) if 0.5 * (min(2**n, 30 * n) - 1) >= seen["seconds"]) + 1
    return (
        all(2 <= one["dials"] <= at_most and one["reason"] for one in cases)
        and "expire" in seen["expired certificate"]["reason"]
        and seen["CPU seconds"] < 0.1 * seen["seconds"] + 1
        and seen["closed within"] < 2
    )


KINDS: dict[str, tuple[Callable[..., Coroutine[Any, Any, Seen]], Callable[[Seen], bool], int]] = {
    "hub": (hub, hub_is_fine, 50),
    "slow": (slow, slow_is_fine, 60),
    "herd": (herd, herd_is_fine, 2000),
    "backoff": (backoff, backoff_is_fine, 60),
}


def main(arguments: list[str]) -> int:
    """Run one kind and say what was seen."""
    run, is_fine, size = KINDS[arguments[0]]
    size = int(arguments[1]) if len(arguments) > 1 else size
    fine = False

    async def both(reactor: Any) -> None:
        nonlocal fine
        with tempfile.TemporaryDirectory() as folder:
            seen = await run(size, 1, reactor, Path(folder))
        print(f"{arguments[0]}:", seen, flush=True)
        fine = is_fine(seen)

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    task.react(lambda reactor: Deferred.fromCoroutine(both(reactor)))
    return 0 if fine else 1


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except SystemExit as ended:
        sys.exit(ended.code)
