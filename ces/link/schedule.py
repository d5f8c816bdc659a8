"""Steps that are due now and then, and survive errors.

A step has at most one delayed call. Whatever it does may raise: the error is logged, the step is done again
later, and what else is due is not affected. All periodic work of links and hubs goes this way; nothing else
schedules itself again at the end of its own work.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

AGAIN = 1.0
"""A step that has raised is done again after this time, in seconds."""


class Step:
    """Something that is done when it is due.

    :param clock: the reactor, or a test's Clock.
    :param do: does it. Returns after how many seconds it is due again; None when it is not.
    :param what: what it does, for the log.
    """

    __slots__ = ("_call", "_clock", "_do", "_log", "_what")

    def __init__(self, clock: IReactorTime, do: Callable[[], float | None], what: str, log: Logger) -> None:
        self._clock = clock
        self._do = do
        self._what = what
        self._log = log
        self._call: IDelayedCall | None = None

    @property
    def waits(self) -> bool:
        """Whether it is due at some time."""
        return self._call is not None

    def within(self, seconds: float) -> None:
        """It is due after `seconds`, or earlier if it was."""
        if self._call is None:
            self._call = self._clock.callLater(seconds, self._run)
        elif self._call.getTime() > self._clock.seconds() + seconds:
            self._call.reset(seconds)

    def cancel(self) -> None:
        """It is not due any more."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _run(self) -> None:
        self._call = None
        try:
            again = self._do()
        except Exception:  # the step must go on whatever has become of this one
            self._log.failure("unexpected error in {what}; it is done again", what=self._what)
            again = AGAIN
        if again is not None:
            self.within(again)
