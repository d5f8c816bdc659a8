"""What a side shows of its links: the parts of ``/status`` and ``/metrics`` that every role has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ces.link.link import Link
from ces.link.side import Side


def registrations(links: Iterable[Link]) -> list[dict[str, Any]]:
    """Those of the links that are connected."""
    return [registration(link) for link in links if link.connected]


def registration(link: Link) -> dict[str, Any]:
    """One link: `buffer-utilization` and `buffer-capacity` are in bytes; what is unacknowledged is part of
    it.
    """
    return {
        "id": link.name,
        "dialect": link.dialect,
        "buffer-utilization": link.queue.size,
        "buffer-capacity": link.queue.limit,
        "received": link.records_in,
        "sent": link.queue.taken,
        "malformed": link.malformed,
        "dropped": link.dropped,
        "unacknowledged": link.queue.unacknowledged,
    }


def trouble(side: Side[Link]) -> dict[str, Any]:
    """The links that are detached, slow or paused, and how much waits in all."""
    return {
        "detached": [registration(link) for link in side.detached],
        "slow": [_slow(link) for link in side.slow],
        "held": [link.name for link in side.pressure.paused],
        "waiting-bytes": side.tally.bytes,
        "waiting-limit": side.settings.buffer_limit,
        "malformed": side.malformed,
        "dropped": side.dropped,
        "missed": side.missed,
        "refused": dict(side.refused),
    }


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
    return {
        f"{prefix}_refused": ("What was too much and was refused, by what it was.", "counter", refused)
    } | {
        f"{prefix}_{name}": (help, "counter" if name.endswith("_records") else "gauge", value)
        for name, (help, value) in found.items()
    }
