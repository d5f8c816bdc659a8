"""The rooms that this side wants, as far as the other side of a link has to be told of them.

Pure. Owns the difference between what is wanted and what the other side knows; does not know who wants a room
or how messages are sent. What is announced is state: a room that is wanted and no longer wanted before the
other side could be told is not mentioned at all. The way of a room::

    changed() -> differs -> take() -> in flight -> acknowledge() -> known
                    |                    |
                    +---- resume(), restart(): what may be lost is announced again

Subscription changes are numbered in each session, from 1, as records are (docs/protocol.md section 5). An
older peer does not say how many it has taken: after a cut, it is told everything again.

Invariants::

    acknowledged <= sent <= acknowledged + WINDOW, with a peer that acknowledges changes
    a room that does not differ and is not in flight is known as it is wanted

Cost: nothing for a room that the other side knows; a dictionary entry for one that differs.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from itertools import islice

from ces.model.control import SubscriptionChange
from ces.session.queue import OutOfStep

PIECE_ROOMS, PIECE_BYTES = 1000, 32 * 1024
"""One subscription change has at most this many rooms, and ends with the room that exceeds so many bytes: in
JSON they are at most twice as many.
"""

WINDOW = 8
"""At most this many changes are in flight; of a peer that does not acknowledge them, the last ones count."""


class Interest:
    """What the other side of one link is still to be told.

    :param is_wanted: whether this side wants a room now.
    :param wanted: all rooms that it wants now.
    :param message_limit: the largest message in bytes, which is taken to be the other side's, too.
    :param reset: whether the other side may remember rooms of an earlier process, and must first remove all.
    """

    __slots__ = (
        "_differs",
        "_in_flight",
        "_is_wanted",
        "_numbered",
        "_piece",
        "_reset",
        "_wanted",
        "acknowledged",
        "sent",
    )

    def __init__(
        self,
        is_wanted: Callable[[bytes], bool],
        wanted: Callable[[], Iterable[bytes]],
        message_limit: int,
        reset: bool = False,
    ) -> None:
        self._is_wanted = is_wanted
        self._wanted = wanted
        self._reset = reset
        self._piece = min(PIECE_BYTES, message_limit // 4)
        self._numbered = False
        self._differs: OrderedDict[bytes, bool | None] = OrderedDict.fromkeys(wanted(), False)
        """Rooms to be announced, each with what the other side believes; None when that is not known. (A dict
        from whose front much was taken is slow to iterate.)
        """
        self._in_flight: deque[list[bytes]] = deque()
        """The rooms of each change that was sent and not acknowledged; none in the one that removes all."""
        self.sent = self.acknowledged = 0

    @property
    def due(self) -> bool:
        """Whether `take` has anything to say now."""
        return bool(self._reset or self._differs) and not self._shut

    @property
    def settled(self) -> bool:
        """Whether the other side knows everything."""
        return not (self._reset or self._differs or (self._numbered and self._in_flight))

    @property
    def _shut(self) -> bool:
        return self._numbered and len(self._in_flight) >= WINDOW

    def changed(self, rooms: Iterable[bytes]) -> None:
        """These rooms are wanted now and were not, or the other way round. Call it once for each change."""
        differs, is_wanted = self._differs, self._is_wanted
        for room in rooms:
            wanted = is_wanted(room)
            if room not in differs:
                differs[room] = not wanted
            elif differs[room] is wanted:
                del differs[room]

    def take(self) -> SubscriptionChange | None:
        """The next change to send; None when there is none, or when the other side must acknowledge first."""
        if self._shut:
            return None
        if self._reset:
            self._reset = False
            return self._sending([], create=False)
        if not self._differs:
            return None
        create: bool | None = None
        rooms: list[bytes] = []
        size = 0
        for room in islice(self._differs, PIECE_ROOMS):
            wanted = self._is_wanted(room)
            if create is None:
                create = wanted
            if wanted is create:
                rooms.append(room)
                size += len(room)
                if size > self._piece:
                    break
        for room in rooms:
            del self._differs[room]
        return self._sending(rooms, bool(create))

    def _sending(self, rooms: list[bytes], create: bool) -> SubscriptionChange:
        self.sent += 1
        self._in_flight.append(rooms)
        if not self._numbered and len(self._in_flight) > WINDOW:
            self._in_flight.popleft()
        return SubscriptionChange([room.decode() for room in rooms], create)

    # -- what the other side says ----------------------------------------------------------------------------

    def check(self, number: int) -> None:
        """Whether the other side can have taken `number` changes in this session.

        :raises OutOfStep: when it cannot.
        """
        if not self.acknowledged <= number <= self.sent:
            known = f"{self.acknowledged} acknowledged and {self.sent} sent changes of rooms"
            raise OutOfStep(f"{number} is not between {known}")

    def acknowledge(self, number: int) -> None:
        """The other side has taken the first `number` changes.

        :raises OutOfStep: when that cannot be.
        """
        self.check(number)
        while self.acknowledged < number:
            self.acknowledged += 1
            self._in_flight.popleft()

    def resume(self, number: int | None) -> None:
        """The session goes on after a cut. The other side has `number` changes; None when it did not say.

        :raises OutOfStep: when that cannot be.
        """
        if number is None or not self._numbered:
            self.restart(number is not None)
            return
        self.acknowledge(number)
        if self._in_flight and not self._in_flight[0]:
            self._reset = True
        self._doubt()
        self.sent = number

    def restart(self, numbered: bool) -> None:
        """A new session begins: the other side is told of every room again.

        :param numbered: whether it acknowledges changes.
        """
        if self._in_flight and not self._in_flight[0]:
            self._reset = True
        self._doubt()
        differs: OrderedDict[bytes, bool | None] = OrderedDict.fromkeys(self._wanted())
        differs.update((room, None) for room, known in self._differs.items() if known is not False)
        self._differs = differs
        self._numbered = numbered
        self.sent = self.acknowledged = 0

    def _doubt(self) -> None:
        """What was in flight may be lost: the other side's belief about these rooms is not known."""
        for rooms in self._in_flight:
            self._differs.update(dict.fromkeys(rooms))
        self._in_flight.clear()
