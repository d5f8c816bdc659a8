"""How much is logged: a level that can change while the process runs, and lines that cannot flood the log.

Every logger of a process comes from one :class:`LogLevels`; what passes it goes on to Twisted's own
publisher, so that twistd's ``--logfile``, ``--logger`` and the rest work as they always do.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import cast

from twisted.internet.interfaces import IReactorTime
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, globalLogPublisher

LEVELS: tuple[str, ...] = tuple(level.name for level in LogLevel.iterconstants())


class LogLevels:
    """The level of one process, and its loggers.

    :param level: the least level that is logged: debug, info, warn, error or critical.
    :param publish: where events at or above the level go.
    :raises ValueError: when there is no such level; the text is a sentence.
    """

    def __init__(
        self, level: str = "info", publish: Callable[[LogEvent], object] = globalLogPublisher
    ) -> None:
        self._publish = publish
        self.set(level)

    @property
    def level(self) -> str:
        """The name of the level now."""
        return cast(str, self._least.name)

    def set(self, level: str) -> None:
        """Log from this level on; loggers that were made before follow.

        :raises ValueError: when there is no such level; the text is a sentence.
        """
        if level not in LEVELS:
            raise ValueError(f"there is no log level {level!r}; expected one of {', '.join(LEVELS)}")
        self._least = LogLevel.levelWithName(level)

    def logger(self, namespace: str) -> Logger:
        """A logger whose events are let through by the level of the moment."""
        return Logger(namespace=namespace, observer=cast(ILogObserver, self._observe))

    def _observe(self, event: LogEvent) -> None:
        if event["log_level"] >= self._least:
            self._publish(event)


class _Muted:
    """When a key was last logged, and how many lines it has left out since."""

    __slots__ = ("left_out", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.left_out = 0


class Limited:
    """A logger that writes at most one line per key and interval, however often it is called.

    The first line of a key is written at once; the next one that is written says how many were left out. To
    leave a line out costs one dict lookup and one reading of the clock; no timer is kept. What fields hold
    may come from anyone: texts are written `printable`.

    :param interval: seconds between two lines of one key.
    :param keys: how many keys are told apart; when more are busy, what is new shares one key.
    """

    def __init__(self, log: Logger, clock: IReactorTime, interval: float = 10.0, keys: int = 100) -> None:
        self._log = log
        self._clock = clock
        self._interval = interval
        self._keys = keys
        self._muted: OrderedDict[str, _Muted] = OrderedDict()  # the one that was written longest ago in front
        self._others: _Muted | None = None

    def debug(self, key: str, format: str, **fields: object) -> None:
        """Log at level debug; `key` says which lines are alike."""
        self._emit(LogLevel.debug, key, format, fields)

    def info(self, key: str, format: str, **fields: object) -> None:
        """Log at level info; `key` says which lines are alike."""
        self._emit(LogLevel.info, key, format, fields)

    def warn(self, key: str, format: str, **fields: object) -> None:
        """Log at level warn; `key` says which lines are alike."""
        self._emit(LogLevel.warn, key, format, fields)

    def error(self, key: str, format: str, **fields: object) -> None:
        """Log at level error; `key` says which lines are alike."""
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
        """None when a new key may be told apart; what it shares with others when too many are busy."""
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
    """A text without line breaks, terminal commands and the like, which stand escaped; any other value as it
    is.
    """
    if not isinstance(value, str) or value.isprintable():
        return value
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in value
    )
