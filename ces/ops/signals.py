"""Services that handle signals. A signal may come in the middle of anything: what it asks for is done in the
reactor's next turn.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from twisted.application.service import Service


class Hangup(Service):
    """SIGHUP, which would end the process: does all of `acts`, in order, while the service runs."""

    def __init__(self, acts: Sequence[Callable[[], None]], reactor: Any) -> None:
        self._acts = acts
        self._reactor = reactor
        self._before: Any = signal.SIG_DFL

    def startService(self) -> None:
        """Install the signal handler."""
        super().startService()
        self._before = signal.signal(signal.SIGHUP, self._hung_up) or signal.SIG_DFL

    def stopService(self) -> None:
        """Restore the previous signal handler."""
        super().stopService()
        signal.signal(signal.SIGHUP, self._before)

    def _hung_up(self, number: int, frame: FrameType | None) -> None:
        # A signal can interrupt any code, so this runs in the reactor's next turn.
        for act in self._acts:
            self._reactor.callFromThread(act)


class Termination(Service):
    """SIGTERM and SIGINT, from when the reactor runs on.

    Twisted's own handlers log, then stop the reactor. A signal that comes while a line is being written would
    wait for ever for the lock of the log, which it has interrupted, and so would the process.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def startService(self) -> None:
        """Install the signal handlers once the reactor has installed its own."""
        super().startService()
        self._reactor.callWhenRunning(self._install)

    def _install(self) -> None:
        for number in self.SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):
                signal.signal(number, self._later(handler))

    def _later(self, handler: Callable[[int, FrameType | None], Any]) -> Callable[[int, Any], None]:
        return lambda number, frame: self._reactor.callFromThread(handler, number, None)
