"""Log levels that can change at run time, and rate limits that keep repeated lines from flooding the log.

Every logger of a process comes from one :class:`LogLevels`. It passes events on to Twisted's own publisher,
so twistd's ``--logfile`` and ``--logger`` work as usual.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import cast

from twisted.internet.interfaces import IReactorTime
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, globalLogPublisher

LEVELS: tuple[str, ...] = tuple(level.name for level in LogLevel.iterconstants())


class LogLevels:
    """The log level of one process, and its loggers.

    :param level: the lowest level that is logged: debug, info, warn, error or critical.
    :param publish: called with each event at or above the level.
    :raises ValueError: when there is no such level; the text is a sentence.
    """

    def __init__(
        self, level: str = "info", publish: Callable[[LogEvent], object] = globalLogPublisher
    ) -> None:
        self._publish = publish
        self.set(level)

    @property
    def level(self) -> str:
        """The name of the current level."""
        return cast(str, self._least.name)

    def set(self, level: str) -> None:
        """Change the level. It applies to existing loggers too.

        :raises ValueError: when there is no such level; the text is a sentence.
        """
        if level not in LEVELS:
            raise ValueError(f"there is no log level {level!r}; expected one of {', '.join(LEVELS)}")
        self._least = LogLevel.levelWithName(level)

    def logger(self, namespace: str) -> Logger:
        """A logger that follows the current level."""
        return Logger(namespace=namespace, observer=cast(ILogObserver, self._observe))

    def _observe(self, event: LogEvent) -> None:
        if event["log_level"] >= self._least:
            self._publish(event)


class _Muted:
    """When a key was last logged, and how many lines were left out since then."""

    __slots__ = ("left_out", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.left_out = 0


class Limited:
    """A logger that writes at most one line per key and interval.

    The first line of a key is written at once. The next written line says how many were left out. Fields may
    come from untrusted peers, so texts are escaped (`printable`).

    Cost of a line that is left out: one dict lookup and one reading of the clock. There is no timer.

    :param interval: seconds between two lines of one key.
    :param keys: limit of keys that are tracked separately. While all of them are busy, new keys share one.
    """

    def __init__(self, log: Logger, clock: IReactorTime, interval: float = 10.0, keys: int = 100) -> None:
        self._log = log
        self._clock = clock
        self._interval = interval
        self._keys = keys
        self._muted: OrderedDict[str, _Muted] = OrderedDict()  # least recently written first
        self._others: _Muted | None = None

    def debug(self, key: str, format: str, **fields: object) -> None:
        """Log at level debug. Lines with the same `key` share one rate limit."""
        self._emit(LogLevel.debug, key, format, fields)

    def info(self, key: str, format: str, **fields: object) -> None:
        """Log at level info. Lines with the same `key` share one rate limit."""
        self._emit(LogLevel.info, key, format, fields)

    def warn(self, key: str, format: str, **fields: object) -> None:
        """Log at level warn. Lines with the same `key` share one rate limit."""
        self._emit(LogLevel.warn, key, format, fields)

    def error(self, key: str, format: str, **fields: object) -> None:
        """Log at level error. Lines with the same `key` share one rate limit."""
        self._emit(LogLevel.error, key, format, fields)

    def _emit(self, level: LogLevel, key: str, format: str, fields: dict[str, object]) -> None:
        now = self._clock.seconds()
        muted = self._muted.get(key) or self._room_for(key, now)
        if muted is not None and now - muted.since < self._interval:
            muted.left_out += 1
            return
        if muted is None:
            self._muted[key] = _Muted(now)
        else:
            if muted.left_out:
                format += " ({left_out} more like this in the last {period:.0f} s)"
                fields |= {"left_out": muted.left_out, "period": now - muted.since}
            muted.since, muted.left_out = now, 0
            if muted is not self._others:
                self._muted.move_to_end(key)
        self._log.emit(level, format, **{name: printable(value) for name, value in fields.items()})

    def _room_for(self, key: str, now: float) -> _Muted | None:
        """None when a new key can be tracked separately, else the entry that all further keys share."""
        if len(self._muted) < self._keys:
            return None
        oldest = next(iter(self._muted.values()))
        if now - oldest.since >= self._interval:
            self._muted.popitem(last=False)
            return None
        if self._others is None:
            self._others = _Muted(now - self._interval)
        return self._others


def printable(value: object) -> object:
    """Escape the unprintable characters of a text, such as line breaks and terminal commands.

    Any other value is returned unchanged.
    """
    if not isinstance(value, str) or value.isprintable():
        return value
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in value
    )
