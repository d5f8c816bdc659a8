"""Measures each step of an event's way through the hub separately, on one core.

    python -m benchmarks.budget

Every figure is in microseconds per record, the best of several tries. The load is that of ``1-to-1``: each
read delivers four ces.2 messages of 64 events, or the same events in ces.1.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from benchmarks.wire import Ces1, Ces2, events
from ces.model import frames
from ces.model.routing import MESSENGER, HubRoutes
from ces.model.wire import KnownRooms, Run, pack, read_ces1, read_ces2

ROOM = "ITB-1108"
BATCH = 64
MESSAGES = 4
RECORDS = BATCH * MESSAGES
LIMIT = 1024 * 1024


def per_record(step: Callable[[], object], times: int = 300, tries: int = 7) -> float:
    """Microseconds per record of `step`, which handles `RECORDS` records in each call."""
    best = float("inf")
    for _ in range(tries):
        began = time.perf_counter()
        for _ in range(times):
            step()
        best = min(best, time.perf_counter() - began)
    return best / times / RECORDS * 1e6


def steps(dialect: str) -> dict[str, float]:
    """The cost of each step in one dialect."""
    speech = Ces2() if dialect == "ces.2" else Ces1()
    data = speech.publish(ROOM, events(400, ROOM, BATCH)) * MESSAGES
    read = read_ces2 if dialect == "ces.2" else read_ces1
    known = KnownRooms()
    payloads = frames.scan(data, True, LIMIT).payloads
    runs = read(payloads, known, [])
    routes: HubRoutes[object] = HubRoutes()
    here, there = object(), object()
    routes.join(here, MESSENGER)
    routes.join(there, MESSENGER)
    routes.subscribe(there, [ROOM.encode()])
    pending: list[Run] = []

    def route() -> None:
        for run in runs:
            for _ in routes.destinations(run.room, MESSENGER, here).links:
                pending.append(run)
        pending.clear()

    def encode() -> list[bytes]:
        if dialect == "ces.2":
            return frames.gathered(pack(runs))
        return [frames.frames(record for run in runs for record in run.records)]

    encoded = encode()
    ends = socket.socketpair()
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * len(data))

    def through_the_kernel() -> None:
        ends[0].sendmsg(encoded)
        ends[1].recv(256 * 1024)

    return {
        "frames out of bytes (unmask)": per_record(lambda: frames.scan(data, True, LIMIT)),
        "records out of messages (check)": per_record(lambda: read(payloads, known, [])),
        "route": per_record(route),
        "frames for the subscribers, once for all of them": per_record(encode),
        "the kernel: one send and one receive": per_record(through_the_kernel),
    }


def main() -> None:
    """Print the table."""
    columns = {dialect: steps(dialect) for dialect in ("ces.2", "ces.1")}
    print(f"{'us per record':50s}" + "".join(f"{dialect:>8s}" for dialect in columns))
    for step in columns["ces.2"]:
        print(f"{step:50s}" + "".join(f"{column[step]:8.3f}" for column in columns.values()))


if __name__ == "__main__":
    main()
