"""What a side shows of its links: the parts of ``/status`` and ``/metrics`` that every role has.

Each list is bounded, since others decide how many links, rooms and names there are. What a list leaves out is
counted (`Shown.left_out`). Lists are built in steps of bounded time (`ces.ops.views`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from heapq import nlargest
from typing import Any, TypeVar

from ces.link.link import Link
from ces.link.side import Side
from ces.ops.views import Build

SHOWN = 1000
"""Limit of links, and of rooms, in one list of ``/status``."""

SHOWN_SLOW = 100
"""Limit of slow links in ``/status``. Each may have the names of 32 rooms."""

STEP = 100
"""Links that are shown in one step."""

T = TypeVar("T")


class Shown:
    """Lists for one answer.

    left_out: how many each list leaves out, by its name. Complete lists are not named.
    """

    def __init__(self) -> None:
        self.left_out: dict[str, int] = {}

    def rest(self, name: str, left_out: int) -> None:
        """Count what the list `name` leaves out."""
        if left_out:
            self.left_out[name] = left_out

    def listed(
        self, name: str, links: Iterable[T], show: Callable[[T], Any], limit: int = SHOWN
    ) -> Generator[None, None, list[Any]]:
        """The first `limit` of `links`, each as `show` shows it."""
        every = list(links)
        self.rest(name, max(0, len(every) - limit))
        found = []
        for number, link in enumerate(every[:limit], 1):
            found.append(show(link))
            if not number % STEP:
                yield
        return found


def registration(link: Link) -> dict[str, Any]:
    """One link: `buffer-utilization` and `buffer-capacity` are in bytes; what is unacknowledged is part of
    it.
    """
    return {
        "id": link.name,
        "principal": link.login.principal.name,
        "dialect": link.dialect,
        "buffer-utilization": link.queue.size,
        "buffer-capacity": link.queue.limit,
        "received": link.records_in,
        "sent": link.queue.taken,
        "malformed": link.malformed,
        "dropped": link.dropped,
        "unacknowledged": link.queue.unacknowledged,
    }


def trouble(side: Side[Link], shown: Shown) -> Build:
    """The links that are detached, slow or paused, and how much waits in all."""
    detached = yield from shown.listed("detached", side.detached, registration)
    # The fullest first: they are what an operator looks for.
    slowest = nlargest(SHOWN_SLOW, side.slow, key=_waiting)
    shown.rest("slow", len(side.slow) - len(slowest))
    yield
    return {
        "detached": detached,
        "slow": (yield from shown.listed("slow", slowest, _slow)),
        "held": (yield from shown.listed("held", side.pressure.paused, _name)),
        "waiting-bytes": side.tally.bytes,
        "waiting-limit": side.settings.buffer_limit,
        "malformed": side.malformed,
        "dropped": side.dropped,
        "missed": side.missed,
        "refused": dict(side.refused),
    }


def _waiting(link: Link) -> int:
    return link.queue.size


def _name(link: Link) -> str:
    return link.name


def _slow(link: Link) -> dict[str, Any]:
    """A link that something waits for: for how long it has taken nothing, and what it lost, by room."""
    rooms = link.queue.dropped_rooms or {}
    return {
        "id": link.name,
        "seconds": link.stalled_for,
        "waiting": link.queue.size,
        "dropped": link.dropped,
        "dropped-rooms": {room.decode(): records for room, records in rooms.items()},
    }


def link_counters(side: Side[Link], prefix: str) -> dict[str, tuple[str, str, Any]]:
    """What ``/metrics`` shows of every role's links: name -> (help, type, value)."""
    found = {
        "dropped_records": ("Records dropped: evicted from a full send queue, or left in one.", side.dropped),
        "missed_records": ("Records that other sides said they had dropped.", side.missed),
        "malformed_records": ("Malformed records and texts received.", side.malformed),
        "detached_links": ("Links that were cut and may be resumed.", len(side.detached)),
        "slow_links": ("Links that something waits for.", len(side.slow)),
        "held_links": ("Links that are not read from, for the sake of slow ones.", len(side.pressure.paused)),
        "waiting_bytes": ("Bytes that wait for links, the unacknowledged among them.", side.tally.bytes),
    }
    refused = {(("what", what),): count for what, count in side.refused.items()}
    return {f"{prefix}_refused": ("What was refused, by what it was.", "counter", refused)} | {
        f"{prefix}_{name}": (help, "counter" if name.endswith("_records") else "gauge", value)
        for name, (help, value) in found.items()
    }
