"""What ``await messenger.send(event)`` costs an application that sends one event after the other.

    python -m benchmarks.sends
    python -m benchmarks.sends --seconds 10

A real hub runs on one core, and this process with a `Messenger` on another. It prints the median and the 99th
percentile of the time from `send` to its acknowledgement, in milliseconds, and the number of sends a second.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from benchmarks.peers import LOAD_CORE, Server, core, hub
from benchmarks.throughput import EVENT
from benchmarks.wire import event
from ces.event import Event
from ces.messenger import Messenger

ROOM = "ITB-1000"
WARM_UP = 0.5


async def measure(server: Server, seconds: float, reactor: Any) -> list[float]:
    """Send for so long; the seconds that each send took."""
    sample = Event.from_json(event(EVENT, ROOM))
    messenger = Messenger("ws://{}:{}".format(*server.address), reactor=reactor)
    messenger.connect()
    await messenger.when_connected()
    took: list[float] = []
    begun = time.perf_counter()
    while (now := time.perf_counter()) < begun + WARM_UP + seconds:
        await messenger.send(sample)
        if now >= begun + WARM_UP:
            took.append(time.perf_counter() - now)
    await messenger.close()
    return took


def main(arguments: list[str]) -> None:
    """Measure, and print one line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sends", description="Sends one by one.")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long to send, after a warm-up")
    seconds = parser.parse_args(arguments).seconds
    server = hub("--hold-time=0")
    os.sched_setaffinity(0, {core(LOAD_CORE)})

    async def run(reactor: Any) -> None:
        took = await measure(server, seconds, reactor)
        median, high = 1000 * statistics.median(took), 1000 * statistics.quantiles(took, n=100)[-1]
        print(f"median {median:.2f} ms, p99 {high:.2f} ms, {len(took) / sum(took):,.0f} sends a second")

    try:
        react(lambda reactor: Deferred.fromCoroutine(run(reactor)))
    finally:
        server.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
