"""Runs one command on the reactor until it is done or asked to stop.

Owns the process's signals and the reactor's life; knows nothing of what a command does. The first SIGINT,
SIGTERM or SIGHUP asks the command to stop, which it does in its own time; further ones change nothing.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.python.failure import Failure

__all__ = ["Command", "Reactor", "Stopping", "run"]

Reactor: TypeAlias = Any
"""The reactor: no one interface of Twisted's names time, TCP, processes and threads together."""

_T = TypeVar("_T")
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopping:
    """Whether a command has been asked to stop: said once, awaited anywhere."""

    def __init__(self, clock: Reactor) -> None:
        self._clock = clock
        self._waiting: set[Deferred[bool]] = set()
        self.requested = False

    def request(self) -> None:
        """Ask the command to stop; asking again changes nothing."""
        self.requested = True
        for waiting in tuple(self._waiting):
            waiting.callback(True)

    def within(self, seconds: float | None) -> Deferred[bool]:
        """Wait so long, or for ever (None), unless stopping is requested before; tells whether it is."""
        if self.requested:
            return succeed(True)
        waiting: Deferred[bool] = Deferred()
        timer = None if seconds is None else self._clock.callLater(seconds, waiting.callback, False)
        self._waiting.add(waiting)

        def over(answer: bool | Failure) -> bool | Failure:
            self._waiting.discard(waiting)
            if timer is not None and timer.active():
                timer.cancel()
            return answer

        return waiting.addBoth(over)

    def cancels(self, waited_for: Deferred[_T]) -> Deferred[_T]:
        """The same Deferred, which is cancelled when stopping is requested before it has fired."""
        asked = self.within(None)
        asked.addCallbacks(lambda _: waited_for.cancel(), lambda failure: failure.trap(CancelledError))

        def over(answer: _T | Failure) -> _T | Failure:
            asked.cancel()
            return answer

        return waited_for.addBoth(over)


class Command(Protocol):
    """What runs: it returns the process's exit status, soon after stopping was requested."""

    def __call__(self, reactor: Reactor, stopping: Stopping, /) -> Coroutine[Any, Any, int]: ...


def run(command: Command) -> int:
    """Run the command on the process's reactor; returns its exit status, or raises what it raised."""
    from twisted.internet import reactor as the_reactor

    reactor: Reactor = the_reactor
    stopping = Stopping(reactor)
    ended: list[int | Failure] = []

    def request(*_: object) -> None:
        # A signal may come in the middle of anything; the request is made between two turns.
        reactor.callFromThread(stopping.request)

    def begin() -> None:
        for number in _SIGNALS:
            signal.signal(number, request)
        done: Deferred[int] = Deferred.fromCoroutine(command(reactor, stopping))
        done.addBoth(ended.append)
        done.addBoth(lambda _: reactor.stop())

    before: dict[int, Callable[..., Any] | int | None] = {n: signal.getsignal(n) for n in _SIGNALS}
    reactor.callWhenRunning(begin)
    reactor.run()
    for number, handler in before.items():
        signal.signal(number, handler)
    (answer,) = ended
    if isinstance(answer, Failure):
        answer.raiseException()
    return int(answer)
