"""Principals: what each may do.

A principal may connect as some kinds, send events for some rooms, and get the events of some rooms. A
connection has one principal for as long as it lives.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import ces
from ces.model.patterns import EVERY, NONE, Rooms

MESSENGER, REPEATER, HUB, OUTSIDE = "messenger", "repeater", "hub", "outside"
"""Kinds of links that a principal may dial."""

METRICS, STATUS, ADMIN = "metrics", "status", "admin"
"""Kinds of requests: read ``/metrics``; read ``/status`` and the like; change what the process does."""

KINDS = (MESSENGER, REPEATER, HUB, OUTSIDE, METRICS, STATUS, ADMIN)


class Unknown(ces.Error):
    """Who shows this is nobody that is known. The text says why; it is for the log and names no secret."""


@dataclass(frozen=True)
class Principal:
    """Somebody who is known, with all that it may do.

    kinds: those of `KINDS` that it may be.
    publish: rooms for which it may send events.
    subscribe: rooms whose events it may get.
    """

    name: str
    kinds: frozenset[str]
    publish: Rooms = NONE
    subscribe: Rooms = NONE


@dataclass(frozen=True)
class Login:
    """Who a connection or a request is.

    until: when it ends, in seconds since the epoch; None when it does not end by itself.
    proof: by which it was found, to be looked at again (`ces.access.table.Access.renew`); None where there is
        nothing to look at.
    """

    principal: Principal
    until: float | None = None
    proof: Hashable | None = field(default=None, repr=False, compare=False)


ANYONE = Login(Principal("", frozenset(KINDS), EVERY, EVERY))
"""Everybody on this machine, where there is no access file; and the other side of each link that this process
dials.
"""

GUEST = Login(Principal("", frozenset(KINDS) - {ADMIN}, EVERY, EVERY))
"""Everybody on other machines, where there is no access file: nobody there administers without a name."""
