"""What a setting's value may be, and how it is written.

A value is written in the same way on the command line, in the environment and in a file::

    seconds = number ["ms" | "s" | "m" | "h" | "d"]          30, 30s, 2m
    size    = number ["B" | unit]                            65536, 512k, 1MiB: powers of 1024
    unit    = "k" | "M" | "G" | "KiB" | "MiB" | "GiB"        in any case
    flag    = true | false | yes | no | 1 | 0 | on | off

A :class:`Kind` reads and shows such values and knows their bounds. It does not know where a value was
written: :mod:`ces.config.settings` puts the place in front of each error.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import ces
from ces.model.address import WEBSOCKET_SCHEMES, parse_address
from ces.model.host import parse_host, parse_origin

T = TypeVar("T")

LOG_LEVELS = ("debug", "info", "warn", "error", "critical")

_NUMBER = r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*"
_SECONDS = {"ms": 0.001, "s": 1, "": 1, "m": 60, "h": 3600, "d": 86400}
_SIZES = {"": 1, "b": 1, "k": 2**10, "kib": 2**10, "m": 2**20, "mib": 2**20, "g": 2**30, "gib": 2**30}
_TRUE = ("true", "yes", "1", "on")
_FALSE = ("false", "no", "0", "off")


class SettingError(ces.Error):
    """A setting cannot be used. The text is one sentence: the place, what is wrong, what is expected."""


@dataclass(frozen=True)
class Kind(Generic[T]):
    """The values that an option takes.

    metavar: the placeholder for a value in ``--help``.
    expected: what a value must be, for error texts.
    parse: reads a text. Raises ValueError, which says what is wrong and what is expected.
    native: the TOML types that are accepted beside a string.
    show: writes a value as ``--help`` and the documentation show it.
    least, most: the bounds, both allowed; None for a kind that has no order.
    """

    metavar: str
    expected: str
    parse: Callable[[str], T]
    native: tuple[type, ...] = ()
    show: Callable[[T], str] = str
    least: T | None = None
    most: T | None = None

    @property
    def values(self) -> str:
        """The values that are allowed, for the documentation: the bounds where there are any."""
        if self.least is None or self.most is None:
            return self.expected
        return f"{self.show(self.least)} to {self.show(self.most)}"


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """``"; did you mean X?"`` for the name nearest to a wrong one; empty when no name is near."""
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def show_seconds(value: float) -> str:
    """``90`` as ``90s``, ``0.5`` as ``0.5s``."""
    return f"{value:g}s"


def show_size(value: int) -> str:
    """``1048576`` as ``1MiB``; in bytes when it is not a whole number of a unit."""
    for unit in ("GiB", "MiB", "KiB"):
        whole, rest = divmod(value, _SIZES[unit.lower()])
        if whole and not rest:
            return f"{whole}{unit}"
    return f"{value}B"


def _kind(
    metavar: str,
    expected: str,
    read: Callable[[str], T | None],
    native: tuple[type, ...] = (),
    show: Callable[[T], str] = str,
    least: T | None = None,
    most: T | None = None,
) -> Kind[T]:
    """A kind whose reader returns None for a text that it cannot read."""

    def parse(text: str) -> T:
        value = read(text.strip())
        if value is None:
            raise ValueError(f"expected {expected}, got {text!r}")
        return value

    return Kind(metavar, expected, parse, native, show, least, most)


def seconds(least: float, most: float = 86400) -> Kind[float]:
    """A time in seconds, from `least` to `most`; by default up to a day."""

    def read(text: str) -> float | None:
        match = re.fullmatch(_NUMBER + "(ms|s|m|h|d|)", text)
        value = float(match[1]) * _SECONDS[match[2]] if match else -1.0
        return value if least <= value <= most else None

    expected = f"a time of {show_seconds(least)} to {show_seconds(most)} such as 30, 30s or 2m"
    return _kind("SECONDS", expected, read, (int, float), show_seconds, least, most)


def size(least: int, most: int = 2**40) -> Kind[int]:
    """A number of bytes, from `least` to `most`."""

    def read(text: str) -> int | None:
        match = re.fullmatch(_NUMBER + "(b|[kmg](?:ib)?|)", text.lower())
        value = float(match[1]) * _SIZES[match[2]] if match else -1.0
        return int(value) if value.is_integer() and least <= value <= most else None

    expected = f"a size of {show_size(least)} to {show_size(most)} such as 65536, 512k or 1MiB"
    return _kind("BYTES", expected, read, (int,), show_size, least, most)


def integer(least: int, most: int) -> Kind[int]:
    """A whole number, from `least` to `most`."""

    def read(text: str) -> int | None:
        value = int(text) if re.fullmatch("[0-9]{1,15}", text) else -1
        return value if least <= value <= most else None

    return _kind("N", f"a whole number from {least} to {most}", read, (int,), str, least, most)


def _read_flag(text: str) -> bool | None:
    return text.lower() in _TRUE if text.lower() in _TRUE + _FALSE else None


flag: Kind[bool] = _kind("", "true or false", _read_flag, (bool,), lambda value: "on" if value else "off")


def any_value_is_true(text: str) -> bool:
    """Read a flag that the fleet sets to any word: only ``false``, ``0`` and ``no`` mean false."""
    return text.strip().lower() not in ("false", "0", "no")


def word(metavar: str, most: int = 128) -> Kind[str]:
    """One to `most` printable ASCII characters without spaces."""
    pattern = re.compile(rf"[!-~]{{1,{most}}}")
    expected = f"1 to {most} printable ASCII characters without spaces"
    return _kind(metavar, expected, lambda text: text if pattern.fullmatch(text) else None)


def plain(metavar: str) -> Kind[str]:
    """Any text that is not blank."""
    return _kind(metavar, "a text that is not blank", lambda text: text or None)


def choice(metavar: str, names: Sequence[str]) -> Kind[str]:
    """One of `names`, in upper or lower case."""
    expected = f"one of {', '.join(names)}"
    return _kind(metavar, expected, lambda text: text.lower() if text.lower() in names else None)


def address(default_port: int, schemes: tuple[str, ...] = WEBSOCKET_SCHEMES) -> Kind[str]:
    """An address that :func:`ces.model.address.parse_address` can read. The value is the text as written."""

    def parse(text: str) -> str:
        parse_address(text, default_port, schemes)
        return text.strip()

    return Kind("ADDRESS", "host, host:port or a URL such as ws://host:port", parse)


def _read_origin(text: str) -> str | None:
    parsed = parse_origin(text)
    return str(parsed) if parsed is not None else text if text in ("null", "*") else None


origin: Kind[str] = _kind("ORIGIN", "an origin such as https://panel.example.edu, null or *", _read_origin)
"""Where a web page comes from, in lower case and without a default port."""


def _read_host(text: str) -> str | None:
    parsed = parse_host(text)
    return parsed.name if parsed is not None and parsed.name and parsed.port is None else None


host: Kind[str] = _kind("HOST", "a host name without a port, or *", _read_host)
"""The name of a host, in lower case. ``*`` is a name, too, as far as the grammar is concerned."""
