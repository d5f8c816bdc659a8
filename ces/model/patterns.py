"""Sets of rooms, as people write them.

Grammar::

    pattern = room | prefix "*"           ITB-1108, ITB-*, *; the prefix may be blank, which is every room

A pattern only adds rooms: a set that has ``ITB-*`` and ``ITB-1108`` has every room that either of them has.

Cost: to ask a set is one set look-up, and one comparison for each prefix. To ask an index is one dict look-up
for the room, and one for each length of a prefix in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from ces.model.wire import EVERY_ROOM, room_fault

L = TypeVar("L")


def pattern_fault(pattern: str) -> str | None:
    """Why `pattern` is neither a room nor a prefix of rooms, as a sentence; None when it is one."""
    if "*" in pattern[:-1]:
        return f"{EVERY_ROOM.decode()!r} may stand only at the end"
    return room_fault(pattern.encode("utf-8", "surrogatepass"))


class Rooms:
    """A set of rooms. ``room in rooms`` asks it. Immutable.

    :param patterns: each as the grammar says, which the caller has checked (`pattern_fault`).

    exact: the rooms that are named, but for those that a prefix has.
    prefixes: the prefixes, but for those that a shorter one has.
    everything: whether it has every room.
    """

    __slots__ = ("everything", "exact", "prefixes")

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        found: list[bytes] = []
        written = [pattern.encode() for pattern in patterns]
        for prefix in sorted(pattern[:-1] for pattern in written if pattern.endswith(EVERY_ROOM)):
            if not prefix.startswith(tuple(found)):
                found.append(prefix)
        self.prefixes = tuple(found)
        rooms = [pattern for pattern in written if not pattern.endswith(EVERY_ROOM)]
        self.exact = frozenset(room for room in rooms if not room.startswith(self.prefixes))
        self.everything = self.prefixes == (b"",)

    def __contains__(self, room: bytes) -> bool:
        return room in self.exact or room.startswith(self.prefixes)

    def __bool__(self) -> bool:
        return bool(self.exact or self.prefixes)

    @property
    def patterns(self) -> tuple[str, ...]:
        """The fewest patterns that have these rooms, in order."""
        return tuple(
            sorted([room.decode() for room in self.exact] + [f"{p.decode()}*" for p in self.prefixes])
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rooms) and (self.exact, self.prefixes) == (other.exact, other.prefixes)

    def __hash__(self) -> int:
        return hash((self.exact, self.prefixes))

    def __repr__(self) -> str:
        return f"Rooms({list(self.patterns)})"


EVERY = Rooms(["*"])
NONE = Rooms()


class KnownAnswers(dict[bytes, bool]):
    """The answers of a set, remembered: ``answers[room]`` is a dict look-up for a room that was asked before.

    :param bound: limit of rooms. A full memory is cleared.
    """

    def __init__(self, rooms: Rooms, bound: int = 4096) -> None:
        super().__init__()
        self._rooms = rooms
        self._bound = bound

    def __missing__(self, room: bytes) -> bool:
        if len(self) >= self._bound:
            self.clear()
        answer = self[room] = room in self._rooms
        return answer


class PatternIndex(Generic[L]):
    """Finds whose sets have a room, among any number of sets."""

    def __init__(self) -> None:
        self._sets: dict[L, Rooms] = {}
        self._exact: dict[bytes, dict[L, None]] = {}
        self._prefixes: dict[bytes, dict[L, None]] = {}
        self._lengths: Counter[int] = Counter()
        """Prefixes by their length."""

    def __contains__(self, owner: L) -> bool:
        return owner in self._sets

    def __len__(self) -> int:
        return len(self._sets)

    def add(self, owner: L, rooms: Rooms) -> None:
        """Add a set; its owner's earlier one is removed."""
        self.remove(owner)
        self._sets[owner] = rooms
        for room in rooms.exact:
            self._exact.setdefault(room, {})[owner] = None
        for prefix in rooms.prefixes:
            if prefix not in self._prefixes:
                self._lengths[len(prefix)] += 1
            self._prefixes.setdefault(prefix, {})[owner] = None

    def remove(self, owner: L) -> None:
        """Remove the set of `owner`, if there is one."""
        rooms = self._sets.pop(owner, NONE)
        for room in rooms.exact:
            _take_out(self._exact, room, owner)
        for prefix in rooms.prefixes:
            if _take_out(self._prefixes, prefix, owner):
                self._lengths[len(prefix)] -= 1
                self._lengths += Counter()  # drops what is at zero

    def having(self, room: bytes) -> Iterator[L]:
        """The owners of the sets that have `room`, each once."""
        yield from self._exact.get(room, ())
        for length in self._lengths:
            if length <= len(room):
                yield from self._prefixes.get(room[:length], ())


def _take_out(table: dict[bytes, dict[L, None]], key: bytes, owner: L) -> bool:
    """Whether `key` has gone with its last owner."""
    owners = table[key]
    del owners[owner]
    if not owners:
        del table[key]
    return not owners
