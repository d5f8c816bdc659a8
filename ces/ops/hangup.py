"""SIGHUP as a service: what it means to a role, instead of the end that it means to a process by default."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.application.service import Service


class Hangup(Service):
    """Calls `act` in a turn of the reactor when SIGHUP has come, as long as the service runs."""

    def __init__(self, act: Callable[[], None], reactor: Any) -> None:
        self._act = act
        self._reactor = reactor
        self._before: Any = signal.SIG_DFL

    def startService(self) -> None:
        """Take the signal."""
        super().startService()
        self._before = signal.signal(signal.SIGHUP, self._hung_up) or signal.SIG_DFL

    def stopService(self) -> None:
        """Give the signal back to whoever had it."""
        super().stopService()
        signal.signal(signal.SIGHUP, self._before)

    def _hung_up(self, number: int, frame: FrameType | None) -> None:
        # A signal comes in the middle of anything: the reactor's next turn is a better place.
        self._reactor.callFromThread(self._act)
