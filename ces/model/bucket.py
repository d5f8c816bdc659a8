"""A token bucket: how much somebody may send a second, and how much at once."""

from __future__ import annotations


class Bucket:
    """Holds `burst` tokens at most, full at first, and gets `rate` more a second.

    :param now: the time, in seconds, on the clock that `take` is told of.
    """

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._since = now

    def take(self, count: float, now: float) -> bool:
        """Take so many tokens; False when there were too few, and then what is missing is owed."""
        level = min(self._burst, self._level + (now - self._since) * self._rate) - count
        self._level, self._since = level, now
        return level >= 0
