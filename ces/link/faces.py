"""The face of a link: what an operator wants to know of it, and of links that have left.

Costs a link nothing while nobody looks: rates come from counters that were there already, and are kept from
one look to the next (`Link.looked`).
"""

from __future__ import annotations

from collections.abc import Callable, Set
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple

from ces.link.link import Link
from ces.model.event import rfc3339

FIRST_ROOMS = 10
"""Limit of rooms that are shown with a link."""

DEPARTED = 100
"""Limit of links that have left and are still shown."""

TEXT = 200
"""Limit of the characters that are shown of a text from outside."""

LEAST_SECONDS = 1.0
"""Rates are of at least this time, in seconds."""


class Departed(NamedTuple):
    """A link that has left. Times are in seconds, on the clock of its side."""

    name: str
    kind: str
    address: str
    dialect: str
    since: float
    until: float
    reason: str
    received: int
    sent: int
    dropped: int


def departed(link: Link, now: float) -> Departed:
    """What is remembered of a link that leaves."""
    return Departed(
        link.name,
        link.kind,
        link.peer,
        link.dialect,
        link.since,
        now,
        link.ended[:TEXT],
        link.records_in,
        link.queue.taken,
        link.dropped,
    )


def rates(link: Link, now: float) -> tuple[float, float]:
    """Records per second that came and went since the link was last looked at, or since it joined."""
    when, came, went, rate_in, rate_out = link.looked or (link.since, 0, 0, 0.0, 0.0)
    seconds = now - when
    if seconds < LEAST_SECONDS:
        if link.looked is not None:
            return rate_in, rate_out
        seconds = LEAST_SECONDS
    received, sent = link.records_in, link.queue.taken
    rate_in, rate_out = (received - came) / seconds, (sent - went) / seconds
    link.looked = (now, received, sent, rate_in, rate_out)
    return rate_in, rate_out


def rate_in(link: Link, now: float) -> float:
    """Records per second that came."""
    return rates(link, now)[0]


def rate_out(link: Link, now: float) -> float:
    """Records per second that went."""
    return rates(link, now)[1]


def round_trip(link: Link, now: float) -> float:
    """The round-trip time of the last ping, in seconds; -1 when it is not known."""
    known = None if link.connection is None else link.connection.round_trip
    return -1.0 if known is None else known


def silent(link: Link, now: float) -> float:
    """Seconds since anything came on the connection; -1 without one."""
    return -1.0 if link.connection is None else now - link.connection.heard


def stalled(link: Link, now: float) -> float:
    """Seconds for which the link has taken nothing of what waits; -1 when nothing waits."""
    return -1.0 if link.stalled_since is None else now - link.stalled_since


SORTS: dict[str, Callable[[Link, float], Any]] = {
    "age": lambda link, now: now - link.since,
    "dropped": lambda link, now: link.dropped,
    "in": rate_in,
    "in-flight": lambda link, now: link.queue.unacknowledged,
    "malformed": lambda link, now: link.malformed,
    "out": rate_out,
    "received": lambda link, now: link.records_in,
    "resumes": lambda link, now: link.resumes,
    "round-trip": round_trip,
    "sent": lambda link, now: link.queue.taken,
    "silent": silent,
    "stalled": stalled,
    "waiting": lambda link, now: link.queue.settled_bytes + link.queue.in_flight_bytes,
}
"""What links can be sorted by, the largest first: a function of the link and the present time."""


def face(link: Link, rooms: Set[bytes], now: float, time: datetime) -> dict[str, Any]:
    """What is shown of a link.

    :param rooms: those that it is subscribed to.
    :param now: seconds on the clock of its side.
    :param time: the same moment as people write it.
    """
    connection, pressure = link.connection, link.side.pressure
    received, sent = rates(link, now)
    return {
        "id": link.name,
        "kind": link.kind,
        "node": link.node,
        "address": link.peer,
        "agent": "" if connection is None else connection.agent,
        "dialect": link.dialect,
        "connected": link.connected,
        "reason": link.ended[:TEXT],
        "since": rfc3339(time - timedelta(seconds=now - link.since)),
        "resumes": link.resumes,
        "rooms": len(rooms),
        "first-rooms": [room.decode() for room in islice(rooms, FIRST_ROOMS)],
        "received": link.records_in,
        "sent": link.queue.taken,
        "in": round(received, 1),
        "out": round(sent, 1),
        "waiting": link.queue.size,
        "capacity": link.queue.limit,
        "in-flight": link.queue.unacknowledged,
        "dropped": link.dropped,
        "malformed": link.malformed,
        "round-trip": _known(round_trip(link, now)),
        "silent": _known(silent(link, now)),
        "congested": link in pressure.congested,
        "paused": link in pressure.paused,
        "stalled": _known(stalled(link, now)),
    }


def _known(seconds: float) -> float | None:
    return None if seconds < 0 else round(seconds, 6)


def past_face(link: Departed, now: float, time: datetime) -> dict[str, Any]:
    """What is shown of a link that has left."""
    return {
        "id": link.name,
        "kind": link.kind,
        "address": link.address,
        "dialect": link.dialect,
        "since": rfc3339(time - timedelta(seconds=now - link.since)),
        "until": rfc3339(time - timedelta(seconds=now - link.until)),
        "reason": link.reason,
        "received": link.received,
        "sent": link.sent,
        "dropped": link.dropped,
    }
