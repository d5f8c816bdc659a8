"""Who may be connected before anything is known of him.

A connection has a place here from its first byte until it has become a link, or is gone::

    nothing sent, a part of a head or of a body   -+
    an answer that is not read                     +-> WAITS for the peer: may be evicted
    silent between two requests                    |
    a WebSocket without a hello                   -+
    a complete request                            --> ANSWERED: stays

The number of places is limited. At the limit a newcomer is not refused: of the address with the most places,
the connection that has waited longest is evicted (`ces.model.shares`). So a crowd from one address evicts
itself. No connection is evicted in its first second (`GRACE`): when thousands come back at once, those that
are in finish first, and the others wait to be accepted (`Entrance.room`).

Fewer requests are answered at a time than there are places, by `RESERVE`. So newcomers can always be heard:
those that ask for ``/livez``, or for a WebSocket, which may be a link that comes back.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from ces.model.shares import Shares, network_of

RESERVE = 16
"""Places beyond the requests that may be answered at a time."""

GRACE = 1.0
"""Seconds for which a connection may wait for its peer before it has to give way."""


class Place:
    """The place of one connection.

    host: the address that it comes from.
    evict: ends the connection at once; its owner sets it.
    since: since when it is the peer's turn, in seconds of the clock.
    """

    __slots__ = ("_entrance", "evict", "host", "since")

    def __init__(self, entrance: Entrance, host: str, evict: Callable[[], None]) -> None:
        self._entrance = entrance
        self.host = host
        self.evict = evict
        self.since = 0.0

    def waits(self) -> None:
        """It is the peer's turn, from now on."""
        self._entrance.waits(self)

    def is_answered(self) -> None:
        """It is our turn: its request is complete."""
        self._entrance.is_answered(self)

    def leave(self) -> None:
        """Give the place up. To do so twice is to do so once."""
        self._entrance.leave(self)


class Entrance:
    """The places of all connections to one role, whichever port they come to.

    :param limit: requests that are answered at a time; there are `RESERVE` more places than that.
    :param refused: callback for each connection that was evicted; gets the word ``idle`` and the reason.
    :param clock: the reactor, or a test's Clock.
    """

    def __init__(self, limit: int, refused: Callable[[str, str], None], clock: IReactorTime) -> None:
        self.limit = limit
        self._clock = clock
        self._refused = refused
        self._waiting: Shares[Place] = Shares()
        self._answered: set[Place] = set()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._answered)

    @property
    def places(self) -> int:
        """The limit of connections."""
        return self.limit + RESERVE

    @property
    def busy(self) -> bool:
        """Whether more requests are answered than may be, the latest one included."""
        return len(self._answered) > self.limit

    def room(self) -> int:
        """How many newcomers may be accepted now."""
        left = self.places - len(self)
        if left > 0:
            return left
        place = self._waiting.first()
        return int(place is not None and self._clock.seconds() - place.since >= GRACE)

    def enter(self, host: str, evict: Callable[[], None]) -> Place:
        """A connection came. When all places are taken, another one is evicted.

        :param host: the address that it comes from; "" when it has none.
        :param evict: ends the connection at once.
        """
        if len(self) >= self.places:
            self.make_room(1, f"there are {self.places} connections that are no links, which is the limit")
        place = Place(self, host, evict)
        self._wait(place)
        return place

    def _wait(self, place: Place) -> None:
        place.since = self._clock.seconds()
        self._waiting.add(place, network_of(place.host))

    def make_room(self, count: int, why: str) -> int:
        """Evict connections that wait for their peers.

        :param count: how many, at most.
        :param why: the limit that was reached.
        :return: how many were evicted.
        """
        for done in range(count):
            place = self._waiting.first()
            if place is None:
                return done
            self.leave(place)
            where = f" from {place.host}" if place.host else ""
            self._refused("idle", f"{why}: a waiting connection{where} gave way to a newer one")
            place.evict()
        return count

    def waits(self, place: Place) -> None:
        """See `Place.waits`."""
        if place in self._answered:
            self._answered.discard(place)
            self._wait(place)

    def is_answered(self, place: Place) -> None:
        """See `Place.is_answered`."""
        if place in self._waiting:
            self._waiting.discard(place)
            self._answered.add(place)

    def leave(self, place: Place) -> None:
        """See `Place.leave`."""
        self._waiting.discard(place)
        self._answered.discard(place)
