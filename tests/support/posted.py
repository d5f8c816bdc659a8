"""Reads the events of a request's body at once; a role takes steps."""

from __future__ import annotations

from datetime import datetime

from ces.model.posted import reading_posted
from ces.model.wire import Run


def read_posted(body: bytes, limit: int, depth: int, now: datetime) -> list[Run]:
    """What `reading_posted` returns after its last step."""
    reading = reading_posted(body, limit, depth, now)
    while True:
        try:
            next(reading)
        except StopIteration as end:
            runs: list[Run] = end.value
            return runs
