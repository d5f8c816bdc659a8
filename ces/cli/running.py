"""Runs one command on the reactor until it is done or asked to stop.

Owns the process's signals and the reactor's lifetime. Does not know what a command does. The first SIGINT,
SIGTERM or SIGHUP asks the command to stop, and the command may take time to do so. Further signals change
nothing.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.python.failure import Failure

__all__ = ["Command", "Reactor", "Stopping", "run"]

Reactor: TypeAlias = Any
"""The reactor. Twisted has no single interface for time, TCP, processes and threads."""

_T = TypeVar("_T")
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopping:
    """The request that a command stop. It is made once and can be awaited anywhere."""

    def __init__(self, clock: Reactor) -> None:
        self._clock = clock
        self._waiting: set[Deferred[bool]] = set()
        self.requested = False

    def request(self) -> None:
        """Ask the command to stop. Further calls change nothing."""
        self.requested = True
        for waiting in tuple(self._waiting):
            waiting.callback(True)

    def within(self, seconds: float | None) -> Deferred[bool]:
        """Wait for the request.

        :param seconds: the timeout; None means no timeout.
        :return: fires with whether stopping was requested.
        """
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
        """Cancel `waited_for` if stopping is requested before it fires. Returns the same Deferred."""
        asked = self.within(None)
        asked.addCallbacks(lambda _: waited_for.cancel(), lambda failure: failure.trap(CancelledError))

        def over(answer: _T | Failure) -> _T | Failure:
            asked.cancel()
            return answer

        return waited_for.addBoth(over)


class Command(Protocol):
    """A command. It returns the process's exit status, and must end soon after stopping is requested."""

    def __call__(self, reactor: Reactor, stopping: Stopping, /) -> Coroutine[Any, Any, int]: ...


def run(command: Command) -> int:
    """Run a command on the global reactor and return its exit status. Its exceptions are raised here."""
    from twisted.internet import reactor as the_reactor

    reactor: Reactor = the_reactor
    stopping = Stopping(reactor)
    ended: list[int | Failure] = []

    def request(*_: object) -> None:
        # A signal can interrupt any code, so the request is made in the reactor's next turn.
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
