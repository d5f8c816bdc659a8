"""The routing tables: which links an event goes to (docs/protocol.md section 6).

`HubRoutes` owns the set of links, their subscriptions, and the round robin among the repeaters. It does not
send: `destinations` returns a `Group`, and the caller puts the run into each member's send queue. Links are
opaque hashable values.

Cost: routing a run is one dict lookup, because groups are cached per source kind and room. A change of one
room drops that room's groups; a change that concerns every room drops all. The cache is bounded in rooms and
in the links that its groups hold.

A link may be *limited* to some rooms. For such a link ``*`` means those rooms. This is looked at when a group
is found, and so costs an event nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Set
from itertools import chain, islice
from typing import Generic, TypeVar

from ces.model.patterns import PatternIndex, Rooms
from ces.model.wire import EVERY_ROOM

HUB, MESSENGER, REPEATER = KINDS = ("hub", "messenger", "repeater")

STEP_ROOMS = 1000
"""Rooms that a link gives up at a time when it leaves."""

LINKS_BOUND = 1_000_000
"""Limit of the links that all cached groups hold together (approximate). Each takes about 50 bytes."""

WITHOUT_BOUND = 1024
"""Limit of the links that a group's cached copies without one link hold together."""

L = TypeVar("L")


class _Space:
    """How many more links the cached groups of one table may hold."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left


class Group(Generic[L]):
    """The links that an event goes to.

    links: messengers and hubs, each once.
    repeater: whether one repeater gets the event too; `HubRoutes.next_repeater` chooses it.
    """

    __slots__ = ("_members", "_space", "_without", "links", "repeater")

    def __init__(self, links: tuple[L, ...], repeater: bool, space: _Space) -> None:
        self.links = links
        self._space = space
        space.left -= len(links)
        self.repeater = repeater
        self._members = frozenset(links)
        self._without: dict[L, Group[L]] = {}

    def among(self, links: Iterable[L]) -> list[L]:
        """Those of `links` that are members."""
        return [link for link in links if link in self._members]

    def without(self, source: L | None) -> Group[L]:
        """This group without `source`, the link that sent the event."""
        if source is None or source not in self._members:
            return self
        less = self._without.get(source)
        if less is None:
            if len(self._without) * len(self.links) >= WITHOUT_BOUND:
                self._without.clear()
            full = self._space.left <= 0
            links = tuple(link for link in self.links if link is not source)
            less = Group(links, self.repeater, self._space)
            if not full:  # `HubRoutes.destinations` clears a full cache; until then nothing is added
                self._without[source] = less
        return less


class HubRoutes(Generic[L]):
    """The routing table of one hub.

    :param in_room: whether this is an in-room hub, which does not pass events from repeaters on to hubs.
    :param cache_bound: limit of rooms in the cache, per source kind.
    :param links_bound: approximate limit of the links that all cached groups hold together.
    """

    def __init__(
        self, in_room: bool = False, cache_bound: int = 65536, links_bound: int = LINKS_BOUND
    ) -> None:
        self._in_room = in_room
        self._cache_bound = cache_bound
        self._links_bound = links_bound
        self._space = _Space(links_bound)
        self.wants = 0
        """The number of subscriptions: the sum of all links' rooms."""
        self._kinds: dict[L, str] = {}
        self._rooms_of: dict[L, dict[bytes, None]] = {}
        self._by_room: dict[str, dict[bytes, dict[L, None]]] = {MESSENGER: {}, HUB: {}}
        self._limits: dict[L, Rooms] = {}
        self._within: dict[str, PatternIndex[L]] = {MESSENGER: PatternIndex(), HUB: PatternIndex()}
        """The limited links that want every room, by kind."""
        self._repeaters: list[L] = []
        self._limited_repeaters = 0
        self._turn = 0
        self._cache: dict[str, dict[bytes, Group[L]]] = {kind: {} for kind in KINDS}

    def join(self, link: L, kind: str, everything: bool = False, limit: Rooms | None = None) -> None:
        """Add a link.

        :param limit: the only rooms that it may have; None for all. The caller subscribes it to no other.
        :param everything: whether the link gets every room without a subscription. A hub in ces.1 does, since
            it cannot announce its interest.
        """
        self._kinds[link] = kind
        self._rooms_of[link] = {}
        self.restrict(link, limit)
        if kind == REPEATER:
            self._repeaters.append(link)
        elif everything:
            self.subscribe(link, [EVERY_ROOM])

    def leave(self, link: L) -> list[bytes]:
        """Remove a link. Does nothing if it was removed before.

        :return: the rooms that no messenger wants any more.
        """
        return [room for ended in self.leaving(link) for room in ended]

    def leaving(self, link: L) -> Iterator[list[bytes]]:
        """As `leave`, in steps of `STEP_ROOMS`: what no messenger wants any more after each.

        Until the last, the link may still be among the destinations of its other rooms.
        """
        kind = self._kinds.get(link)
        if kind is None:
            return
        self.restrict(link, None)
        rooms = self._rooms_of.pop(link)
        self.rest(link)
        del self._kinds[link]
        first = [EVERY_ROOM] if EVERY_ROOM in rooms else []
        steps = chain(first, (room for room in rooms if room != EVERY_ROOM))
        while old := list(islice(steps, STEP_ROOMS)):
            yield self._withdraw(link, kind, old)

    def rest(self, link: L) -> None:
        """Take a repeater out of the round robin. It gets nothing more until `wake` is called for it."""
        if link in self._repeaters:
            place = self._repeaters.index(link)
            del self._repeaters[place]
            self._turn -= place < self._turn

    def wake(self, link: L) -> None:
        """Put a repeater back into the round robin."""
        if self._kinds.get(link) == REPEATER and link not in self._repeaters:
            self._repeaters.append(link)

    def subscribe(self, link: L, rooms: Iterable[bytes]) -> list[bytes]:
        """Subscribe a link to rooms; ``*`` is every room.

        :return: the rooms that no messenger wanted before.
        """
        mine = self._rooms_of[link]
        kind = self._kinds[link]
        table = self._by_room[kind]
        new = [room for room in dict.fromkeys(rooms) if room not in mine]
        mine.update(dict.fromkeys(new))
        self.wants += len(new)
        if EVERY_ROOM in new and link in self._limits:
            self._within[kind].add(link, self._limits[link])
        began: list[bytes] = []
        for room in new:
            links = table.get(room)
            if links is None:
                table[room] = {link: None}
                began.append(room)
            else:
                links[link] = None
        self._forget(new)
        return began if kind == MESSENGER else []

    def unsubscribe(self, link: L, rooms: Iterable[bytes] | None) -> list[bytes]:
        """Unsubscribe a link from rooms; None means all of its rooms.

        :return: the rooms that no messenger wants any more.
        """
        mine = self._rooms_of[link]
        if rooms is None:
            old, self._rooms_of[link] = list(mine), {}
        else:
            old = [room for room in dict.fromkeys(rooms) if room in mine]
            for room in old:
                del mine[room]
        return self._withdraw(link, self._kinds[link], old)

    def _withdraw(self, link: L, kind: str, old: list[bytes]) -> list[bytes]:
        table = self._by_room.get(kind, {})
        self.wants -= len(old)
        if EVERY_ROOM in old and link in self._limits:
            self._within[kind].remove(link)
        ended: list[bytes] = []
        for room in old:
            links = table[room]
            if len(links) == 1:
                del table[room]
                ended.append(room)
            else:
                del links[link]
        self._forget(old)
        return ended if kind == MESSENGER else []

    def _forget(self, rooms: list[bytes]) -> None:
        """Drop the cached groups of these rooms."""
        for cache in self._cache.values():
            if len(rooms) > len(cache) or EVERY_ROOM in rooms:
                cache.clear()
            else:
                for room in rooms:
                    cache.pop(room, None)

    def destinations(self, room: bytes, source_kind: str, source: L | None = None) -> Group[L]:
        """The links that an event goes to.

        :param room: the event's room.
        :param source_kind: the kind of the link that sent the event.
        :param source: that link, which does not get its own event; None when the event came over HTTP.
        """
        cache = self._cache[source_kind]
        group = cache.get(room)
        if group is None:
            if len(cache) >= self._cache_bound:
                cache.clear()
            if self._space.left <= 0:
                for every in self._cache.values():
                    every.clear()
                self._space.left = self._links_bound
            group = cache[room] = self._find(room, source_kind)
        return group.without(source)

    def _find(self, room: bytes, source_kind: str) -> Group[L]:
        limited = [
            index for index in self._within.values() if index and next(index.having(room), None) is not None
        ]
        if room != EVERY_ROOM and not (limited or any(room in rooms for rooms in self._by_room.values())):
            # All rooms that no link wants by name, and no limited link by ``*``, share one group.
            return self.destinations(EVERY_ROOM, source_kind)
        links: dict[L, None] = {}
        kinds = [MESSENGER]
        if source_kind == MESSENGER or (source_kind == REPEATER and not self._in_room):
            kinds.append(HUB)
        for kind in kinds:
            by_room, within = self._by_room[kind], self._within[kind]
            every = by_room.get(EVERY_ROOM, {})
            if room != EVERY_ROOM:
                links.update(by_room.get(room, {}))
                links.update(dict.fromkeys(within.having(room)))
            links.update(dict.fromkeys(link for link in every if link not in within) if within else every)
        return Group(tuple(links), source_kind == MESSENGER, self._space)

    def next_repeater(self, room: bytes, backlogged: Callable[[L], bool]) -> L | None:
        """The next repeater of the round robin that may have events of `room`.

        :param backlogged: whether a repeater's queue is backlogged. It is then skipped, unless all are.
        :return: None when there is no repeater.
        """
        repeaters = self._repeaters
        if self._limited_repeaters:
            return self._next_limited(room, backlogged)
        if not repeaters:
            return None
        first = self._turn % len(repeaters)
        place = first
        while backlogged(repeaters[place]):
            place = (place + 1) % len(repeaters)
            if place == first:
                break
        self._turn = place + 1
        return repeaters[place]

    def _next_limited(self, room: bytes, backlogged: Callable[[L], bool]) -> L | None:
        repeaters, limits = self._repeaters, self._limits
        places = [(self._turn + offset) % len(repeaters) for offset in range(len(repeaters))]
        may = [place for place in places if (limit := limits.get(repeaters[place])) is None or room in limit]
        if not may:
            return None
        place = next((place for place in may if not backlogged(repeaters[place])), may[0])
        self._turn = place + 1
        return repeaters[place]

    def restrict(self, link: L, limit: Rooms | None) -> None:
        """Limit a link to some rooms; None for all. The caller unsubscribes it from others, but for ``*``."""
        kind = self._kinds[link]
        before = self._limits.pop(link, None)
        if limit is not None:
            self._limits[link] = limit
        self._limited_repeaters += (kind == REPEATER) * ((limit is not None) - (before is not None))
        if EVERY_ROOM in self._rooms_of[link]:
            if limit is None:
                self._within[kind].remove(link)
            else:
                self._within[kind].add(link, limit)
            self._forget([EVERY_ROOM])

    @property
    def limits_repeaters(self) -> bool:
        """Whether any repeater is limited."""
        return bool(self._limited_repeaters)

    def limit(self, link: L) -> Rooms | None:
        """The only rooms that a link may have; None for all."""
        return self._limits.get(link)

    def links(self, kind: str) -> list[L]:
        """The links of a kind, in the order in which they joined."""
        return [link for link, its_kind in self._kinds.items() if its_kind == kind]

    def rooms(self, link: L) -> Set[bytes]:
        """The rooms that a link wants: a live view, which follows later changes."""
        return self._rooms_of[link].keys()

    def wanted(self, kind: str = MESSENGER) -> list[bytes]:
        """The rooms that messengers want, ``*`` included, or those that hubs do. A hub announces the rooms of
        its messengers to other hubs.
        """
        return list(self._by_room[kind])

    def is_wanted(self, room: bytes) -> bool:
        """Whether a messenger has subscribed to `room` by name. ``*`` counts only as the name ``*``."""
        return room in self._by_room[MESSENGER]

    def first_wanted(self, limit: int) -> list[bytes]:
        """The first `limit` rooms that messengers want, the oldest first."""
        return list(islice(self._by_room[MESSENGER], limit))

    def wanted_rooms(self) -> int:
        """How many rooms messengers want."""
        return len(self._by_room[MESSENGER])

    def listeners(self, room: bytes, kind: str = MESSENGER) -> list[L]:
        """The links of a kind that have subscribed to `room` by name, in the order in which they did."""
        return list(self._by_room[kind].get(room, ()))

    def __contains__(self, link: L) -> bool:
        return link in self._kinds


class RepeaterRoutes:
    """The routing table of one repeater: which targets an event goes to.

    :param routes: targets by pattern. A pattern is a room, a prefix with a trailing ``*`` (``ITB-*``), or
        ``*``.
    :param cache_bound: limit of rooms in the cache.
    """

    def __init__(self, routes: dict[str, tuple[str, ...]], cache_bound: int = 65536) -> None:
        self._exact = {p.encode(): targets for p, targets in routes.items() if not p.endswith("*")}
        self._prefixes = {p[:-1].encode(): targets for p, targets in routes.items() if p.endswith("*")}
        self._cache_bound = cache_bound
        self._cache: dict[bytes, tuple[str, ...]] = {}

    def targets(self, room: bytes) -> tuple[str, ...]:
        """The targets for `room`, each once: first those of the room itself, then those of matching prefixes,
        the longest first.
        """
        found = self._cache.get(room)
        if found is None:
            every: dict[str, None] = dict.fromkeys(self._exact.get(room, ()))
            for end in range(len(room), -1, -1):
                every.update(dict.fromkeys(self._prefixes.get(room[:end], ())))
            if len(self._cache) >= self._cache_bound:
                self._cache.clear()
            found = self._cache[room] = tuple(every)
        return found
