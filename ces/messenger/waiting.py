"""Deferreds that wait for the same thing, and the errors that a messenger's Deferreds end with."""

from __future__ import annotations

import builtins
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError

import ces

T = TypeVar("T")
K = TypeVar("K")


class Closed(ces.Error):
    """The messenger was closed while this was waited for, or before."""


class Dropped(ces.Error):
    """The event was not sent: newer ones pushed it out of the spool, or the messenger was closed."""


class Kept(Dropped):
    """The event was not sent before the messenger was closed, and is kept on disk: the next messenger whose
    spool is in that directory sends it.
    """


class TimedOut(ces.Error, builtins.TimeoutError, DeferredTimeoutError):
    """It did not happen in time; the text says why. Caught as Python's TimeoutError and as Twisted's."""


class TooManyWaiting(ces.Error, RuntimeError):
    """More Deferreds would wait than the messenger allows: the caller asks again before it was answered."""


class Waiting(Generic[T, K]):
    """Deferreds in the order in which they were asked for, each with a key that says for what.

    One that is cancelled leaves the queue.

    :param bound: how many may wait at a time.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._keys: dict[Deferred[T], K] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def wait(self, key: K) -> Deferred[T]:
        """A Deferred at the end of the queue.

        :raises TooManyWaiting: when the queue is full.
        """
        if len(self._keys) >= self._bound:
            raise TooManyWaiting(f"{self._bound} already wait; wait for an answer before asking again")
        waiting: Deferred[T] = Deferred(self._forget)
        self._keys[waiting] = key
        return waiting

    def first(self) -> K:
        """The key of the one that has waited longest; there must be one."""
        return next(iter(self._keys.values()))

    def pop(self) -> Deferred[T]:
        """Remove the one that has waited longest, for the caller to fire; there must be one."""
        waiting = next(iter(self._keys))
        del self._keys[waiting]
        return waiting

    def fail(self, error: Exception) -> None:
        """Fire all that wait with an error."""
        waiting, self._keys = list(self._keys), {}
        for deferred in waiting:
            deferred.errback(error)

    def _forget(self, waiting: Deferred[T]) -> None:
        del self._keys[waiting]
