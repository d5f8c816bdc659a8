"""An application process with a messenger, which either sends as fast as possible or receives.

``python -m benchmarks.member send PORT SIZE ROOM SECONDS`` ends after SECONDS and prints the number of sent
events. ``... receive PORT SIZE ROOM EVERY`` sends one event back for every EVERY events that it receives.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import react

from benchmarks.wire import event
from ces.event import Event
from ces.messenger import Messenger

AT_A_TIME = 1024
"""Batch size of the sender. After each batch it waits until the batch before has been acknowledged. Waiting
for the same batch could take 100 ms, which is not what is measured.
"""


async def send(messenger: Messenger, sample: Event, seconds: float) -> None:
    """Send new events for `seconds`, then print their number."""
    room, device, source, data = (
        sample.affected_room,
        sample.target_device,
        sample.generating_system,
        sample.data,
    )
    stamp, tags = sample.timestamp, sample.event_tags
    sent, end = 0, time.monotonic() + seconds
    earlier = last = succeed(None)
    while time.monotonic() < end:
        await earlier
        earlier = last
        for _ in range(AT_A_TIME):
            sent += 1
            last = messenger.send(
                Event(
                    generating_system=source,
                    timestamp=stamp,
                    event_tags=tags,
                    target_device=device,
                    affected_room=room,
                    key="power",
                    value=f"{sent:016}",
                    data=data,
                )
            )
    await messenger.close()
    print(sent, flush=True)


async def receive(messenger: Messenger, sample: Event, every: int) -> None:
    """Receive until killed. Sends `sample` back after every `every` events."""
    got = 0

    def count(event: Event, room: str) -> None:
        nonlocal got
        got += 1
        if not got % every:
            messenger.send(sample)

    messenger.on_event(count)
    await Deferred()


def main(reactor: Any, what: str, port: str, size: str, room: str, how: str) -> Deferred[None]:
    """Run the command `what`: ``send`` or ``receive``."""
    sample = Event.from_json(event(int(size), room))
    messenger = Messenger(
        f"ws://127.0.0.1:{port}", rooms=[room] if what == "receive" else [], reactor=reactor
    )
    messenger.connect()

    async def run() -> None:
        await messenger.when_connected()
        await (
            send(messenger, sample, float(how)) if what == "send" else receive(messenger, sample, int(how))
        )

    return Deferred.fromCoroutine(run())


if __name__ == "__main__":
    react(main, sys.argv[1:])
