"""Numbered events that flow from a messenger at one hub to a messenger at another, until they are stopped.

`Flow` sends and receives in two threads, so that a test can meanwhile do something to the hubs. `Flow.faults`
is empty when every event has arrived, once and in order.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise

from tests.support.fleet import PATIENCE, Role, until
from tests.support.raw import RawLink

BURST = 8
"""Events that are sent at a time."""

PAUSE = 0.0005
"""Seconds between two bursts."""

PROBED = "PROBED"
"""A room of its own."""

QUIET = 1.0
"""What has not come within so many seconds after the last event does not come any more."""


@contextmanager
def running(role: Role) -> Iterator[Role]:
    """Start a process, and stop it in the end, whatever comes of it."""
    try:
        yield role.start()
    finally:
        role.stop()


def faults(numbers: list[int], sent: int) -> dict[str, int]:
    """How many of the events 0 to `sent` - 1 are lost, have come twice, or after a later one.

    What there is none of is left out: all is well when it is empty.
    """
    counts = Counter(numbers)
    found = {
        "lost": sent - len(counts),
        "twice": sum(count - 1 for count in counts.values()),
        "out of order": sum(later < earlier for earlier, later in pairwise(numbers)),
    }
    return {what: count for what, count in found.items() if count}


def probe(publisher: RawLink, subscriber: RawLink, room: str) -> None:
    """Return when events of a room get from one to the other: what is sent before all hubs know of a
    subscription reaches nobody. Neither counts what was sent for it.
    """

    def arrived() -> bool:
        publisher.send(0, 1, room)
        subscriber.read_until_quiet(0.1)
        return bool(subscriber.numbers)

    until(arrived, f"an event arrives in {room}")
    publisher.settle()
    subscriber.read_until_quiet(0.2)
    subscriber.numbers.clear()


def reach(source: Role, destination: Role) -> None:
    """Return when the events of one hub get to the other, which has told it by now what it wants."""
    subscriber = RawLink.dial(destination.port, "/connect/messenger", "probed")
    subscriber.tell({"rooms": [PROBED], "create": True})
    publisher = RawLink.dial(source.port, "/connect/messenger", "probing")
    probe(publisher, subscriber, PROBED)
    subscriber.end_in_good_order()
    publisher.end_in_good_order()


class Flow:
    """One direction, in a room of its own.

    sent: how many events have been sent.
    numbers: those of the events that have arrived.
    """

    def __init__(self, source: Role, destination: Role, room: str) -> None:
        self.room = room
        self.sent = 0
        self._subscriber = RawLink.dial(destination.port, "/connect/messenger", f"subscriber-{room}")
        self._subscriber.tell({"rooms": [room], "create": True})
        self._publisher = RawLink.dial(source.port, "/connect/messenger", f"publisher-{room}")
        probe(self._publisher, self._subscriber, room)
        self._flowing, self._stopping, self._ended = threading.Event(), threading.Event(), threading.Event()
        self._resting = threading.Event()
        self._sending = threading.Thread(target=self._send, daemon=True)
        self._receiving = threading.Thread(target=self._receive, daemon=True)

    @property
    def numbers(self) -> list[int]:
        return self._subscriber.numbers

    def start(self) -> Flow:
        """Send from now on."""
        self._flowing.set()
        self._sending.start()
        self._receiving.start()
        return self

    def goes_on(self, count: int = 200) -> None:
        """Return when so many more events have arrived than before."""
        before = len(self.numbers)
        until(lambda: len(self.numbers) >= before + count, f"events flow in {self.room}")

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Send nothing meanwhile; it begins when all that was sent has been acknowledged and has arrived."""
        self._flowing.clear()
        until(lambda: self._resting.is_set(), f"nothing is sent in {self.room}")
        with suppress(AssertionError):  # what does not arrive is found in the end
            until(lambda: len(self.numbers) >= self.sent, "all has arrived", QUIET)
        yield
        self._flowing.set()

    def hush(self) -> None:
        """Send no more; return when all that was sent has been acknowledged."""
        self._stopping.set()
        self._sending.join(PATIENCE)

    def stop(self) -> None:
        """Send no more; return when no more arrives."""
        self.hush()
        self._ended.set()
        self._receiving.join(PATIENCE)
        self._publisher.end_in_good_order()
        self._subscriber.end_in_good_order()

    def faults(self) -> dict[str, int]:
        """What is wrong with the events that have arrived (`faults`), and how many were announced as lost."""
        found = faults(self.numbers, self.sent)
        return found | ({"announced as lost": self._subscriber.lost} if self._subscriber.lost else {})

    def _send(self) -> None:
        publisher = self._publisher
        while not self._stopping.wait(PAUSE):
            if self._flowing.is_set():
                self._resting.clear()
                publisher.send(self.sent, BURST, self.room)
                self.sent += BURST
            elif not self._resting.is_set():
                publisher.settle()
                self._resting.set()
        publisher.settle()

    def _receive(self) -> None:
        while not self._ended.is_set():
            self._subscriber.read_until_quiet(0.1)
        if len(self.numbers) < self.sent:
            self._subscriber.read_until_quiet(QUIET)
