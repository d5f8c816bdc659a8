"""Where an event goes: source decides destination (docs/protocol.md section 6).

Owns who is connected, who wants which room and whose turn it is among the repeaters; does not send.
`destinations` answers with a `Group`, the caller puts the run into each member's outbox. Links are opaque
hashable values.

Answers are cached per source kind and room, so that routing a run is one dict look-up; a change of one room
forgets that room's answers, a change that concerns every room forgets all. The cache is bounded in rooms and
in the links that its answers hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from typing import Generic, TypeVar

from ces.model.wire import EVERY_ROOM

HUB, MESSENGER, REPEATER = KINDS = ("hub", "messenger", "repeater")

LINKS_BOUND = 1_000_000
"""The answers that are kept hold about so many links together, each in some 50 bytes."""

WITHOUT_BOUND = 1024
"""A group remembers itself without one link or another as long as these hold no more links together."""

L = TypeVar("L")


class _Space:
    """How many more links the answers of one table may hold."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left


class Group(Generic[L]):
    """The links that an event goes to.

    links: messengers and hubs, each once.
    repeater: whether one repeater gets it too (`HubRoutes.next_repeater` says which).
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
        """The same group less the link that sent the event."""
        if source is None or source not in self._members:
            return self
        less = self._without.get(source)
        if less is None:
            if len(self._without) * len(self.links) >= WITHOUT_BOUND:
                self._without.clear()
            full = self._space.left <= 0
            links = tuple(link for link in self.links if link is not source)
            less = Group(links, self.repeater, self._space)
            if not full:  # if it is, the next room that is new makes room
                self._without[source] = less
        return less


class HubRoutes(Generic[L]):
    """The routing table of one hub.

    :param in_room: whether this is an in-room hub, which does not pass events from repeaters on to hubs.
    :param cache_bound: how many rooms' answers are kept per source kind.
    :param links_bound: about how many links those answers hold together.
    """

    def __init__(
        self, in_room: bool = False, cache_bound: int = 65536, links_bound: int = LINKS_BOUND
    ) -> None:
        self._in_room = in_room
        self._cache_bound = cache_bound
        self._links_bound = links_bound
        self._space = _Space(links_bound)
        self.wants = 0
        """How many rooms all links want, each counted once for each link."""
        self._kinds: dict[L, str] = {}
        self._rooms_of: dict[L, dict[bytes, None]] = {}
        self._by_room: dict[str, dict[bytes, dict[L, None]]] = {MESSENGER: {}, HUB: {}}
        self._repeaters: list[L] = []
        self._turn = 0
        self._cache: dict[str, dict[bytes, Group[L]]] = {kind: {} for kind in KINDS}

    def join(self, link: L, kind: str, everything: bool = False) -> None:
        """A link has come.

        :param everything: whether it gets every room without asking, as a hub does that cannot announce its
            interest.
        """
        self._kinds[link] = kind
        self._rooms_of[link] = {}
        if kind == REPEATER:
            self._repeaters.append(link)
        elif everything:
            self.subscribe(link, [EVERY_ROOM])

    def leave(self, link: L) -> list[bytes]:
        """A link has gone; to leave twice is to leave once.

        :return: the rooms that no messenger wants any more.
        """
        kind = self._kinds.get(link)
        if kind is None:
            return []
        ended = self.unsubscribe(link, None)
        del self._kinds[link], self._rooms_of[link]
        self.rest(link)
        return ended

    def rest(self, link: L) -> None:
        """A repeater gets nothing more until it is replaced."""
        if link in self._repeaters:
            place = self._repeaters.index(link)
            del self._repeaters[place]
            self._turn -= place < self._turn

    def replace(self, old: L, new: L) -> None:
        """`new` takes the place of `old`, with all that it wants."""
        kind = self._kinds.pop(old)
        self._kinds[new] = kind
        rooms = self._rooms_of[new] = self._rooms_of.pop(old)
        if kind == REPEATER:
            self.rest(old)
            self._repeaters.append(new)
            return
        table = self._by_room[kind]
        for room in rooms:
            links = table[room]
            del links[old]
            links[new] = None
        self._forget(list(rooms))

    def subscribe(self, link: L, rooms: Iterable[bytes]) -> list[bytes]:
        """Add rooms to what a link wants; ``*`` is every room.

        :return: the rooms that no messenger wanted before.
        """
        mine = self._rooms_of[link]
        kind = self._kinds[link]
        table = self._by_room[kind]
        new = [room for room in dict.fromkeys(rooms) if room not in mine]
        mine.update(dict.fromkeys(new))
        self.wants += len(new)
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
        """Remove rooms from what a link wants; None removes all.

        :return: the rooms that no messenger wants any more.
        """
        mine = self._rooms_of[link]
        kind = self._kinds[link]
        table = self._by_room.get(kind, {})
        if rooms is None:
            old, self._rooms_of[link] = list(mine), {}
        else:
            old = [room for room in dict.fromkeys(rooms) if room in mine]
            for room in old:
                del mine[room]
        self.wants -= len(old)
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
        """The answers for these rooms may not hold any more."""
        for cache in self._cache.values():
            if len(rooms) > len(cache) or EVERY_ROOM in rooms:
                cache.clear()
            else:
                for room in rooms:
                    cache.pop(room, None)

    def destinations(self, room: bytes, source_kind: str, source: L | None = None) -> Group[L]:
        """Where an event for `room` goes that came from `source`, a link of kind `source_kind`."""
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
        if room != EVERY_ROOM and not any(room in rooms for rooms in self._by_room.values()):
            # All rooms that nobody wants by name share one group.
            return self.destinations(EVERY_ROOM, source_kind)
        links: dict[L, None] = {}
        kinds = [MESSENGER]
        if source_kind == MESSENGER or (source_kind == REPEATER and not self._in_room):
            kinds.append(HUB)
        for kind in kinds:
            for wanted in (room, EVERY_ROOM):
                links.update(self._by_room[kind].get(wanted, {}))
        return Group(tuple(links), source_kind == MESSENGER, self._space)

    def next_repeater(self, backlogged: Callable[[L], bool]) -> L | None:
        """The repeater whose turn it is, over backlogged ones while there is another; None without any."""
        repeaters = self._repeaters
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

    def links(self, kind: str) -> list[L]:
        """The links of a kind, in the order in which they came."""
        return [link for link, its_kind in self._kinds.items() if its_kind == kind]

    def rooms(self, link: L) -> Set[bytes]:
        """The rooms that a link wants, as they are now and will be."""
        return self._rooms_of[link].keys()

    def wanted(self) -> list[bytes]:
        """The rooms that messengers want, ``*`` included: what a hub announces to other hubs."""
        return list(self._by_room[MESSENGER])

    def is_wanted(self, room: bytes) -> bool:
        """Whether a messenger wants `room` (or ``*``) by that name."""
        return room in self._by_room[MESSENGER]

    def messengers_by_room(self) -> dict[bytes, list[L]]:
        """The messengers that want each room."""
        return {room: list(links) for room, links in self._by_room[MESSENGER].items()}

    def __contains__(self, link: L) -> bool:
        return link in self._kinds


class RepeaterRoutes:
    """Which targets an event for a room goes out to.

    :param routes: pattern -> targets; a pattern is a room, a prefix with a trailing ``*`` (``ITB-*``), or
        ``*``.
    :param cache_bound: how many rooms' answers are kept.
    """

    def __init__(self, routes: dict[str, tuple[str, ...]], cache_bound: int = 65536) -> None:
        self._exact = {p.encode(): targets for p, targets in routes.items() if not p.endswith("*")}
        self._prefixes = {p[:-1].encode(): targets for p, targets in routes.items() if p.endswith("*")}
        self._cache_bound = cache_bound
        self._cache: dict[bytes, tuple[str, ...]] = {}

    def targets(self, room: bytes) -> tuple[str, ...]:
        """The targets for `room`, each once: those of the room itself, then prefixes', longer first."""
        found = self._cache.get(room)
        if found is None:
            every: dict[str, None] = dict.fromkeys(self._exact.get(room, ()))
            for end in range(len(room), -1, -1):
                every.update(dict.fromkeys(self._prefixes.get(room[:end], ())))
            if len(self._cache) >= self._cache_bound:
                self._cache.clear()
            found = self._cache[room] = tuple(every)
        return found
