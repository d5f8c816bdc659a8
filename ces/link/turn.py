"""One write per link and reactor turn.

Owns the list of links that something waits for, and flushes them once all reads of a reactor turn have been
handled (a `callLater(0)` runs then). Links whose outboxes hold the same runs share the encoded bytes.

A turn in which very much arrives is flushed on the way: latency does not grow with the number of busy
readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from ces.model.wire import Run
from ces.session.session import Batch

Encoded = tuple[list[bytes], int]
"""Frames as buffers to be written one after the other, and how many bytes they are."""


class Memo:
    """What links have sent in this turn, for others for which the same runs wait.

    frames: encoded once, by dialect and runs.
    batch, encoded: what the latest link took, in a session and without a gap, and its frames.
    """

    __slots__ = ("batch", "encoded", "frames")

    def __init__(self) -> None:
        self.frames: dict[tuple[object, ...], Encoded] = {}
        self.batch: Batch | None = None
        self.encoded: Encoded = [], 0


FLUSH_BYTES = 256 * 1024
"""So many bytes received in one turn are passed on before more is read, while the processor's cache still has
them."""


class Flushable(Protocol):
    """A link, as far as a turn knows it."""

    def flush(self, memo: Memo) -> None:
        """Write what waits; `memo` holds what others have sent in this turn."""


class Group(Protocol):
    """What is added to a turn: a routing group, or a link (which is its own group)."""

    @property
    def links(self) -> Sequence[Flushable]: ...


class Turn:
    """The links to be flushed at the end of this reactor turn.

    :param clock: calls back when the turn has ended.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._groups: set[Group] = set()
        self._bytes = 0
        self._scheduled = False

    def add(self, group: Group) -> None:
        """Something was put into the outboxes of these links."""
        self._groups.add(group)
        if not self._scheduled:
            self._scheduled = True
            self._clock.callLater(0, self._end)

    def took(self, runs: Sequence[Run]) -> None:
        """These runs arrived and have been routed: flush now when enough has come in this turn."""
        for run in runs:
            self._bytes += run.size
        if self._bytes >= FLUSH_BYTES:
            self.flush()

    def _end(self) -> None:
        self._scheduled = False
        self.flush()

    def flush(self) -> None:
        """Flush every link that was added."""
        groups, self._groups = self._groups, set()
        self._bytes = 0
        memo = Memo()
        for group in groups:
            for link in group.links:
                link.flush(memo)
