"""Two clocks: the wall clock, for people, and the reactor's, for everything else.

Pure packages read neither: their callers pass the present time.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

from twisted.internet.base import DelayedCall, ReactorBase
from twisted.internet.interfaces import IReactorTime
from twisted.python import runtime


def utc_now() -> datetime:
    """Return the present time in UTC."""
    return datetime.now(UTC)


def use_monotonic_time(clock: IReactorTime) -> None:
    """Make the timers of a Twisted reactor independent of the system clock.

    Twisted's ``reactor.seconds`` is ``time.time``. When the system clock is set back by an hour, even
    ``callLater(0)`` waits for an hour; when it is set forward, every timeout has passed. From this call on,
    ``reactor.seconds`` counts on by the monotonic clock from where it was, for all users of the reactor. What
    is scheduled keeps its time. Other clocks, and reactors that have a clock of their own, stay as they are.
    """
    if not isinstance(clock, ReactorBase) or clock.seconds is not runtime.seconds:
        return
    monotonic = time.monotonic
    offset = runtime.seconds() - monotonic()

    def seconds() -> float:
        return monotonic() + offset

    clock.seconds = seconds
    for call in clock.getDelayedCalls():
        if isinstance(call, DelayedCall):
            call.seconds = seconds  # by which it is reset and delayed
