"""Collects the failures that reach Twisted's log during a test."""

from __future__ import annotations

import gc

from twisted.logger import LogEvent, formatEvent
from twisted.python.failure import Failure


class LoggedFailures:
    """The failures that reached Twisted's log during one test. The test fails unless it flushes them."""

    def __init__(self) -> None:
        self._events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_failure") is not None:
            self._events.append(event)

    def flush(self, *kinds: type[BaseException]) -> list[Failure]:
        """Remove and return the failures of these exception types; without arguments, all failures."""
        gc.collect()  # An unhandled Deferred error is logged when the Deferred is collected.
        taken, kept = [], []
        for event in self._events:
            wanted = not kinds or event["log_failure"].check(*kinds)
            (taken if wanted else kept).append(event)
        self._events = kept
        return [event["log_failure"] for event in taken]

    def describe(self) -> list[str]:
        return [f"{formatEvent(event)}\n{event['log_failure'].getTraceback()}" for event in self._events]
