"""Batches writes: one write per link and reactor turn.

Owns the set of links with queued records. Flushes them with `callLater(0)`, after all reads of the reactor
turn have been handled. Links whose queues hold the same runs share the encoded bytes.

A turn that receives much data is flushed in between, so that latency does not grow with the number of busy
links.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ces.link.schedule import Step
from ces.session.queue import Batch

Encoded = tuple[list[bytes], int]
"""Frames as buffers to write in order, and their total size in bytes."""


class Memo:
    """A cache of the frames encoded in this turn, for links whose queues hold the same runs.

    frames: encoded frames, by dialect and runs.
    batch, encoded: the latest batch that a link took (in a session, without a gap), and its frames.
    """

    __slots__ = ("batch", "encoded", "frames")

    def __init__(self) -> None:
        self.frames: dict[tuple[object, ...], Encoded] = {}
        self.batch: Batch | None = None
        self.encoded: Encoded = [], 0


FLUSH_BYTES = 256 * 1024
"""Bytes received in one turn that cause a flush, while they are still in the processor's cache."""


class Flushable(Protocol):
    """The part of a link that a turn uses."""

    def flush(self, memo: Memo) -> None:
        """Write the queued records. `memo` is shared by all links that are flushed together."""

    def broke(self) -> None:
        """An error in this program while it did that: it costs this link, and no other."""


class Group(Protocol):
    """The links that are added to a turn: a routing group, or a link, which is its own group."""

    @property
    def links(self) -> Sequence[Flushable]: ...


class Turn:
    """The links to flush at the end of this reactor turn.

    :param clock: the reactor, or a test's Clock.
    :param log: for errors.
    :param flushed: called when all of them are flushed.
    """

    def __init__(self, clock: IReactorTime, log: Logger, flushed: Callable[[], None] = lambda: None) -> None:
        self._flushed = flushed
        self._groups: set[Group] = set()
        self._bytes = 0
        self._scheduled = False
        self._step = Step(clock, self._end, "the end of a turn", log)

    def add(self, group: Group) -> None:
        """Flush these links at the end of the turn. Call it after putting runs into their queues."""
        self._groups.add(group)
        if not self._scheduled:
            self._scheduled = True
            self._step.within(0)

    def took(self, size: int) -> None:
        """Count bytes that were received and routed. Flushes at once when `FLUSH_BYTES` is reached."""
        self._bytes += size
        if self._bytes >= FLUSH_BYTES:
            self.flush()

    def _end(self) -> None:
        self._scheduled = False
        self.flush()

    def flush(self) -> None:
        """Flush all added links now."""
        groups, self._groups = self._groups, set()
        self._bytes = 0
        memo = Memo()
        for group in groups:
            for link in group.links:
                try:
                    link.flush(memo)
                except Exception:
                    link.broke()
                    memo = Memo()
        self._flushed()
