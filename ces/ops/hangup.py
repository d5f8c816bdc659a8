"""A service that handles SIGHUP. Without it the signal ends the process."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from twisted.application.service import Service


class Hangup(Service):
    """Does all of `acts`, in order, from the reactor after each SIGHUP, while the service runs."""

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
