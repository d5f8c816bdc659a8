"""Measures deliveries per second, latency, event sizes, and the way through two hubs.

Each measurement starts the servers that it needs, measures one peer once, and returns numbers.
"""

from __future__ import annotations

import gc
import math
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.load import Connection, Poll, Run, Stream, drive, settle
from benchmarks.peers import LOAD_CORE, PEERS, SECOND_CORE, Peer, Server, core, hub, plain_hub
from benchmarks.wire import STAMP, Speech, event, events

EVENT = 400
"""Size of an event's JSON, in bytes, without a protocol's overhead."""

VARIETY = 8

LATENCY_RATE = 1000.0
LATENCY_SUBSCRIBERS = 100

SIZES = (100, 400, 1024, 4096, 16384, 65536, 262144)

Numbers = dict[str, float]


@dataclass(frozen=True)
class Load:
    """A load: every room has one publisher and `per_room` subscribers.

    batch: records per write. In ces.2 a write is one message; in other protocols it is one message per
    record. windows: limits of records that a publisher has sent and its subscribers have not yet received.
    Each load
        runs once with each window. Each server keeps its better result, because windows suit servers
        differently.
    """

    rooms: int
    per_room: int
    batch: int
    windows: tuple[int, ...]
    size: int = EVENT


LOADS = {
    "fan-out": Load(rooms=1, per_room=100, batch=64, windows=(1024, 4096)),
    "campus": Load(rooms=200, per_room=5, batch=8, windows=(256, 1024)),
    "20-to-20": Load(rooms=20, per_room=1, batch=8, windows=(1024, 4096)),
    "1-to-1": Load(rooms=1, per_room=1, batch=64, windows=(1024, 4096)),
}


@dataclass(frozen=True)
class Pace:
    """The duration of each measurement, in seconds, and its scale."""

    seconds: float = 3.0
    warm_up: float = 1.0
    scale: float = 1.0
    """Factor for the numbers of links and rooms, in measurements of these."""


def join(
    peer: Peer, load: Load, window: int, publish_at: tuple[str, int], subscribe_at: tuple[str, int]
) -> list[Stream]:
    """Open the connections of a load and subscribe."""
    speech, streams = peer.speech, []
    for number in range(load.rooms):
        room = f"ITB-{1000 + number}"
        told = event(load.size, room)
        publisher = Connection(speech, publish_at, speech.counter(room, told))
        subscribers = [
            Connection(speech, subscribe_at, speech.counter(room, told)) for _ in range(load.per_room)
        ]
        for subscriber in subscribers:
            subscriber.subscribe([room])
        streams.append(
            Stream(publisher, chunks(speech, room, load.batch, load.size), load.batch, window, subscribers)
        )
    settle(connections(streams))
    return streams


def chunks(speech: Speech, room: str, batch: int, size: int = EVENT) -> list[bytes]:
    """The prepared writes of a publisher: `VARIETY` batches, all events of which differ."""
    return [speech.publish(room, events(size, room, batch, i * batch)) for i in range(VARIETY)]


def connections(streams: list[Stream]) -> list[Connection]:
    """All connections of a load."""
    return [c for stream in streams for c in (stream.connection, *stream.subscribers)]


def close(streams: list[Stream]) -> None:
    """Close all connections of a load."""
    for connection in connections(streams):
        connection.close()


def throughput(peer: Peer, load: Load, pace: Pace) -> Numbers:
    """Measure one load on one server. The result is that of the best window; losses of all windows count."""
    runs = [_with_window(peer, load, window, pace) for window in load.windows]
    best = max(runs, key=lambda run: run["per_cpu"])
    return best | {"lost": sum(run["lost"] for run in runs)}


def _with_window(peer: Peer, load: Load, window: int, pace: Pace) -> Numbers:
    server = peer.start()
    try:
        streams = join(peer, load, window, server.address, server.address)
        run = drive(streams, server.cpu, pace.seconds, pace.warm_up)
        close(streams)
        return run.numbers() | {"window": window}
    finally:
        server.stop()


def through_two_hubs(peer: Peer, load: Load, pace: Pace) -> Numbers:
    """Measure with publishers at one hub and subscribers at another. The CPU time is that of both hubs."""
    start: Callable[..., Server] = plain_hub if peer.name == "plain" else hub
    with ExitStack() as stack:
        second = start(on=SECOND_CORE)
        stack.callback(second.stop)
        port = second.address[1]
        first = plain_hub(port) if peer.name == "plain" else hub("--interconnect", f"ws://127.0.0.1:{port}")
        stack.callback(first.stop)
        streams = join(peer, load, load.windows[-1], first.address, second.address)
        _until_linked(streams)
        run = drive(streams, lambda: first.cpu() + second.cpu(), pace.seconds, pace.warm_up)
        close(streams)
        return run.numbers() | {"cores": float(2 if core(SECOND_CORE) != core(LOAD_CORE) else 1.5)}


def _until_linked(streams: list[Stream]) -> None:
    """Publish records until each subscriber has received one. Resets the counts of received records."""
    for stream in streams:
        (subscriber,) = stream.subscribers
        end = time.monotonic() + 10
        while not subscriber.received:
            if time.monotonic() > end:
                raise RuntimeError("nothing came through the two hubs within 10 s")
            stream.connection.socket.sendall(stream.chunks[0])
            time.sleep(0.05)
            subscriber.start()
            subscriber.read(memoryview(bytearray(1 << 20)))
        settle([stream.connection])
        time.sleep(0.5)  # records between the hubs arrive
        while subscriber.read(memoryview(bytearray(1 << 20))):
            pass
        subscriber.received = 0


def latency(peer: Peer, pace: Pace) -> Numbers:
    """One-way latency of 1,000 events/s to 100 subscribers, in ms. One process sends and receives."""
    load = Load(rooms=1, per_room=LATENCY_SUBSCRIBERS, batch=1, windows=(1,))
    server = peer.start()
    try:
        streams = join(peer, load, 1, server.address, server.address)
        times, run = _paced(streams[0], peer, server.cpu, pace)
        close(streams)
        times.sort()
        return run.numbers() | {
            "p50_ms": percentile(times, 50) / 1e6,
            "p99_ms": percentile(times, 99) / 1e6,
            "max_ms": times[-1] / 1e6,
        }
    finally:
        server.stop()


def percentile(ordered: list[int], percent: float) -> int:
    """The smallest value that `percent` percent of the values do not exceed.

    :param ordered: at least one value, in ascending order.
    """
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


class Stamps:
    """Reads the time stamps in the bytes that a subscriber receives, independent of the protocol."""

    _stamp = re.compile(rb'"value":"(\d{16})"')

    def __init__(self, times: list[int]) -> None:
        self._times = times
        self._rest = b""

    def __call__(self, data: bytes) -> None:
        now = time.perf_counter_ns()
        data, end = self._rest + data, 0
        for found in self._stamp.finditer(data):
            self._times.append(now - int(found[1]))
            end = found.end()
        self._rest = data[max(end, len(data) - 40) :]


def stamped(message: bytes, tail: int, told: bytes) -> Callable[[int], bytes]:
    """A function that writes a time stamp into a prepared message, which may be masked.

    :param message: a message with one event.
    :param tail: number of bytes after the event.
    :param told: the event.
    """
    start = len(message) - tail - len(told) + told.index(STAMP)
    head, rest = message[:start], message[start + len(STAMP) :]
    key = int.from_bytes(message[start : start + len(STAMP)], "big") ^ int.from_bytes(STAMP, "big")
    return lambda now: head + (int.from_bytes(b"%016d" % now, "big") ^ key).to_bytes(len(STAMP), "big") + rest


def _paced(stream: Stream, peer: Peer, cpu: Callable[[], float], pace: Pace) -> tuple[list[int], Run]:
    told = event(EVENT, "ITB-1000")
    make = stamped(peer.speech.publish("ITB-1000", [told]), peer.speech.tail, told)
    times: list[int] = []
    for subscriber in stream.subscribers:
        subscriber.seen = Stamps(times)
    poll = Poll([stream.connection, *stream.subscribers])
    gc.collect()
    gc.disable()
    try:
        send_paced(stream, make, poll, pace.warm_up)
        settle_paced(stream, poll)
        times.clear()
        before = sum(s.received for s in stream.subscribers)
        began, cpu_began = time.monotonic(), cpu()
        busy = send_paced(stream, make, poll, pace.seconds)
        lasted, used = time.monotonic() - began, cpu() - cpu_began
        settle_paced(stream, poll)
    finally:
        gc.enable()
    received = sum(s.received for s in stream.subscribers)
    return times, Run(lasted, received - before, used, busy, stream.sent * len(stream.subscribers), received)


def send_paced(stream: Stream, make: Callable[[int], bytes], poll: Poll, seconds: float) -> float:
    """Send at a constant rate for `seconds`. Returns the seconds in which there was something to do."""
    began = now = due = time.monotonic()
    idle, end = 0.0, began + seconds
    while now < end:
        if now >= due:
            due += 1 / LATENCY_RATE
            stream.sent += 1
            stream.connection.write(make(time.perf_counter_ns()))
        happened = poll.once(0)
        before, now = now, time.monotonic()
        if not happened:
            idle += now - before
    return now - began - idle


def settle_paced(stream: Stream, poll: Poll) -> None:
    """Wait for the remaining deliveries, 2 s at most."""
    end = time.monotonic() + 2
    while min(s.received for s in stream.subscribers) < stream.sent and time.monotonic() < end:
        poll.once(0.01)


def size(peer: Peer, bytes_each: int, pace: Pace) -> Numbers:
    """Bytes of events per second, from one publisher to one subscriber, for one event size."""
    batch = max(1, min(64, 65000 // (bytes_each + 10)))
    window = max(4 * batch, min(4096, 4 * 1024 * 1024 // bytes_each))
    numbers = throughput(peer, Load(1, 1, batch, (window,), bytes_each), pace)
    return numbers | {"bytes_per_s": numbers["rate"] * bytes_each}


ROWS: dict[str, Callable[[str, Pace], Numbers]] = {
    **{
        name: lambda peer, pace, load=load: throughput(PEERS[peer], load, pace)  # type: ignore[misc]  # mypy infers no lambda with a default
        for name, load in LOADS.items()
    },
    "latency": lambda peer, pace: latency(PEERS[peer], pace),
    "hub-to-hub": lambda peer, pace: through_two_hubs(PEERS[peer], LOADS["1-to-1"], pace),
    **{
        f"size-{n}": lambda peer, pace, n=n: size(PEERS[peer], n, pace)  # type: ignore[misc]  # mypy infers no lambda with a default
        for n in SIZES
    },
}
"""The measurements by row. Each takes the peer's name and the pace, and returns numbers."""
