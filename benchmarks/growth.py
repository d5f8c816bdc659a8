"""Measures the cost of many links and rooms for our hub: memory, throughput, and stalls when links leave."""

from __future__ import annotations

import resource
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.load import TIMEOUT, Connection, Poll, drive, settle
from benchmarks.peers import PEERS, Server, hub
from benchmarks.throughput import (
    EVENT,
    Load,
    Numbers,
    Pace,
    Stamps,
    close,
    connections,
    join,
    percentile,
    send_paced,
    settle_paced,
    stamped,
)
from benchmarks.wire import Ces2, event, masked
from tests.support.certificates import make_certificate

IDLE = 10_000
IDLE_ROOMS = 10
"""Rooms that each idle link subscribes to in `growth`, 100,000 in total."""

SUBSCRIBERS, ROOMS_EACH = 1000, 1000
SUBSCRIPTION_LIMIT = 2 * SUBSCRIBERS * ROOMS_EACH
"""They all come from one address, which may not have all that there is."""

LEAVER_ROOMS = 100_000
ROOMS_AT_A_TIME = 1000
"""Rooms in one subscription change, as in our messenger."""

CLOSE = 8
"""The opcode (RFC 6455 section 5.2)."""

SPEECH = Ces2()


@contextmanager
def serving(endpoint: str = "tcp:{}:interface=127.0.0.1") -> Iterator[Server]:
    """Run a hub without links."""
    # Raise the limit of descriptors to the maximum. The hub inherits it.
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    server = hub("--subscription-limit", str(SUBSCRIPTION_LIMIT), endpoint=endpoint)
    try:
        yield server
    finally:
        server.stop()


def link(server: Server, number: int = 0, tls: ssl.SSLContext | None = None) -> Connection:
    """Open one messenger's link. Links use several loopback addresses, because one has too few ports."""
    counter = SPEECH.counter("ITB-0000", event(EVENT))
    return Connection(SPEECH, server.address, counter, source=f"127.0.0.{2 + number // 5000}", tls=tls)


def room(number: int) -> str:
    """A room without publishers. Its name is longer than those in the loads."""
    return f"ITB-{number:06}"


def idle_links(
    server: Server, count: int, rooms_each: int, tls: ssl.SSLContext | None = None
) -> list[Connection]:
    """Open `count` links, each subscribed to `rooms_each` rooms of its own."""
    links = []
    for number in range(count):
        new = link(server, number, tls)
        new.subscribe([room(number * rooms_each + i) for i in range(rooms_each)])
        links.append(new)
        if len(links) % 100 == 0:
            settle(links[-100:])
    settle(links[-(count % 100) :] if count % 100 else [])
    return links


def idle_memory(secure: bool, pace: Pace) -> Numbers:
    """Resident bytes of the hub per idle messenger that is subscribed to its own room."""
    count = int(IDLE * pace.scale)
    with TemporaryDirectory() as folder:
        tls, endpoint = None, "tcp:{}:interface=127.0.0.1"
        if secure:
            certificate, key = make_certificate(Path(folder))
            tls = ssl.create_default_context(cafile=certificate)
            tls.check_hostname = False
            endpoint = f"ssl:{{}}:interface=127.0.0.1:privateKey={key}:certKey={certificate}"
        with serving(endpoint) as server:
            first = idle_links(server, 100, 1, tls)  # excludes memory that is allocated only once
            before = server.memory()
            links = idle_links(server, count, 1, tls)
            each = (server.memory() - before) / count
            for connection in first + links:
                connection.close()
        return {"links": count, "bytes_each": each}


def leave(everyone: list[Connection]) -> None:
    """Close connections with a closing handshake. After a cut, a hub would keep their sessions and events."""
    for connection in everyone:
        connection.socket.settimeout(TIMEOUT)
        connection.socket.sendall(masked((1000).to_bytes(2, "big"), CLOSE))
    for connection in everyone:
        while connection.socket.recv(65536):
            pass
        connection.socket.close()


def growth(pace: Pace) -> Numbers:
    """Deliveries per CPU-second of 50 publishers to 50 subscribers, alone and beside many idle links."""
    load = Load(rooms=50, per_room=1, batch=8, windows=(1024,))
    with serving() as server:
        streams = join(PEERS["ces.2"], load, load.windows[0], server.address, server.address)
        alone = drive(streams, server.cpu, pace.seconds, pace.warm_up)
        leave(connections(streams))
        others = idle_links(server, int(IDLE * pace.scale), IDLE_ROOMS)
        streams = join(PEERS["ces.2"], load, load.windows[0], server.address, server.address)
        beside = drive(streams, server.cpu, pace.seconds, pace.warm_up, others)
        close(streams)
        for connection in others:
            connection.close()
    return {
        "alone": alone.numbers()["per_cpu"],
        "beside": beside.numbers()["per_cpu"],
        "kept": beside.numbers()["per_cpu"] / alone.numbers()["per_cpu"],
        "lost": alone.numbers()["lost"] + beside.numbers()["lost"],
    }


def subscribing(pace: Pace) -> Numbers:
    """Seconds until many links have subscribed to many rooms each. Up to 100 links share a room."""
    links, rooms_each = int(SUBSCRIBERS * pace.scale), ROOMS_EACH
    with serving() as server:
        joined = [link(server, number) for number in range(links)]
        settle(joined)
        changes = [
            SPEECH.subscribe([room(number * 10 + i) for i in range(rooms_each)]) for number in range(links)
        ]
        began = time.monotonic()
        for connection, change in zip(joined, changes, strict=True):
            connection.socket.sendall(change)
        settle(joined)
        seconds = time.monotonic() - began
        for connection in joined:
            connection.close()
    return {"seconds": seconds, "subscriptions": links * rooms_each}


def leaving(pace: Pace) -> Numbers:
    """The longest latency of an event between other links while a link with very many rooms leaves.

    The probe sends an event every millisecond. `usual_ms` is the longest latency in the second before.
    """
    with serving() as server:
        (probe,) = join(PEERS["ces.2"], Load(1, 1, 1, (1,)), 1, server.address, server.address)
        leaver = link(server)
        for start in range(0, int(LEAVER_ROOMS * pace.scale), ROOMS_AT_A_TIME):
            leaver.subscribe([room(start + i) for i in range(ROOMS_AT_A_TIME)])
        settle([leaver])
        times: list[int] = []
        probe.subscribers[0].seen = Stamps(times)
        poll = Poll([probe.connection, *probe.subscribers])
        told = event(EVENT, "ITB-1000")
        make = stamped(SPEECH.publish("ITB-1000", [told]), SPEECH.tail, told)

        def probing(seconds: float) -> None:
            send_paced(probe, make, poll, seconds)
            settle_paced(probe, poll)

        probing(0.5)
        times.clear()
        probing(1.0)
        usual = sorted(times)
        times.clear()
        leaver.close()
        probing(2.0)
        close([probe])
    return {
        "usual_ms": usual[-1] / 1e6,
        "usual_p50_ms": percentile(usual, 50) / 1e6,
        "stall_ms": max(times) / 1e6,
        "lost": float(probe.sent - probe.subscribers[0].received),
    }
