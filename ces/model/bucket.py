"""A token bucket: limits the rate of a sender and the size of its bursts."""

from __future__ import annotations


class Bucket:
    """Starts full with `burst` tokens, and gains `rate` tokens a second up to `burst`.

    :param rate: tokens gained per second.
    :param burst: the largest number of tokens held.
    :param now: the current time in seconds, on the same clock as in `take`.
    """

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._since = now

    def take(self, count: float, now: float) -> bool:
        """Take `count` tokens.

        :return: False when there were too few. The tokens are taken all the same: the level becomes negative.
        """
        level = min(self._burst, self._level + (now - self._since) * self._rate) - count
        self._level, self._since = level, now
        return level >= 0
