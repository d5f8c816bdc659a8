"""What a side shows of its links: the parts of ``/status`` and ``/metrics`` that every role has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ces.link.protocol import Link
from ces.link.side import Side


def registrations(links: Iterable[Link]) -> list[dict[str, Any]]:
    """Those of the links that are alive."""
    return [registration(link) for link in links if not link.detached]


def registration(link: Link) -> dict[str, Any]:
    """One link: `buffer-utilization` and `buffer-capacity` are in bytes; what is unacknowledged is part of
    it.
    """
    return {
        "id": link.name,
        "dialect": link.dialect,
        "buffer-utilization": link.session.size,
        "buffer-capacity": link.outbox.limit,
        "received": link.records_in,
        "sent": link.outbox.taken,
        "malformed": link.malformed,
        "dropped": link.dropped,
        "unacknowledged": link.session.unacknowledged,
    }


def trouble(side: Side) -> dict[str, Any]:
    """Who was cut and is waited for, who is slow, who is held up for it, and how much waits in all."""
    return {
        "detached": [registration(link) for link in side.detached],
        "slow": [_slow(link) for link in side.slow],
        "held": [link.name for link in side.pressure.held],
        "waiting-bytes": side.tally.bytes,
        "waiting-limit": side.limits.total,
        "malformed": side.malformed,
        "dropped": side.dropped,
        "missed": side.missed,
        "refused": dict(side.refused),
    }


def _slow(link: Link) -> dict[str, Any]:
    """A link that something waits for: for how long it has taken nothing, and what it lost, by room."""
    rooms = link.outbox.dropped_rooms or {}
    return {
        "id": link.name,
        "seconds": link.slow_for,
        "waiting": link.session.size,
        "dropped": link.dropped,
        "dropped-rooms": {room.decode(): records for room, records in rooms.items()},
    }


def link_counters(side: Side, prefix: str) -> dict[str, tuple[str, str, Any]]:
    """What ``/metrics`` shows of every role's links: name -> (help, type, value)."""
    found = {
        "dropped_records": ("Records dropped: pushed out of a full outbox, or left in one.", side.dropped),
        "missed_records": ("Records that other sides said they had dropped.", side.missed),
        "malformed_records": ("Malformed records and texts received.", side.malformed),
        "detached_links": ("Links that were cut and may be resumed.", len(side.detached)),
        "slow_links": ("Links that something waits for.", len(side.slow)),
        "held_links": ("Links that are not read from, for the sake of slow ones.", len(side.pressure.held)),
        "waiting_bytes": ("Bytes that wait for links, the unacknowledged among them.", side.tally.bytes),
    }
    refused = {(("what", what),): count for what, count in side.refused.items()}
    return {
        f"{prefix}_refused": ("What was too much and was refused, by what it was.", "counter", refused)
    } | {
        f"{prefix}_{name}": (help, "counter" if name.endswith("_records") else "gauge", value)
        for name, (help, value) in found.items()
    }
