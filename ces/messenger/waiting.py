"""A bounded queue of waiting Deferreds, and the errors that a messenger's Deferreds fail with."""

from __future__ import annotations

import builtins
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError

import ces

T = TypeVar("T")
K = TypeVar("K")


class Closed(ces.Error):
    """The messenger is closed, or was closed during the wait."""


class NotSent(ces.Error):
    """The messenger did not send the event. Either `Dropped` or `Kept`."""


class Dropped(NotSent):
    """The event is lost: newer events pushed it out of the spool, or the messenger is closed."""


class Kept(NotSent):
    """The messenger was closed before it sent the event. The event is on disk.

    The next messenger with the same spool directory sends it.
    """


class TimedOut(ces.Error, builtins.TimeoutError, DeferredTimeoutError):
    """The timeout has passed; the text says what was missing. Both Python's and Twisted's TimeoutError."""


class TooManyWaiting(ces.Error, RuntimeError):
    """The limit of waiting Deferreds is reached: the caller asks again without awaiting the answers."""


class Waiting(Generic[T, K]):
    """A queue of Deferreds, each with a key. A Deferred that is cancelled leaves the queue.

    :param bound: limit for the number of Deferreds in the queue.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._keys: dict[Deferred[T], K] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def wait(self, key: K) -> Deferred[T]:
        """Add a Deferred at the end of the queue and return it.

        :raises TooManyWaiting: when the queue is full.
        """
        if len(self._keys) >= self._bound:
            raise TooManyWaiting(f"{self._bound} already wait; wait for an answer before asking again")
        waiting: Deferred[T] = Deferred(self._forget)
        self._keys[waiting] = key
        return waiting

    def first(self) -> K:
        """Return the key of the first Deferred. The queue must not be empty."""
        return next(iter(self._keys.values()))

    def pop(self) -> Deferred[T]:
        """Remove the first Deferred and return it; the caller must fire it. The queue must not be empty."""
        waiting = next(iter(self._keys))
        del self._keys[waiting]
        return waiting

    def fail(self, error: Exception) -> None:
        """Empty the queue: each Deferred fails with the error."""
        waiting, self._keys = list(self._keys), {}
        for deferred in waiting:
            deferred.errback(error)

    def _forget(self, waiting: Deferred[T]) -> None:
        del self._keys[waiting]
