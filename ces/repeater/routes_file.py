"""Parses the routes file, which names the targets for the events of each room.

Grammar (TOML 1.0)::

    [routes]
    "ITB-1108" = ["ws://itb-1108-cp1:7101", "https://collector/event"]    # one room
    "ITB-*"    = ["wss://itb-gateway"]                                    # every room that begins with ITB-
    "*"        = ["central:7101"]                                         # every room

Owns the grammar and the error texts. Targets are addresses (`ces.model.address`). They are returned as full
URLs, so that two spellings of one target count as one.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

import ces
from ces.config.values import did_you_mean
from ces.model.address import HTTP_SCHEMES, REPEATER_PORT, WEBSOCKET_SCHEMES, AddressError, parse_address
from ces.model.wire import EVERY_ROOM, room_fault

Routes = dict[str, tuple[str, ...]]
"""Targets by pattern, as `ces.model.routing.RepeaterRoutes` takes them."""

TABLE = "routes"


class RoutesError(ces.Error, ValueError):
    """The routes cannot be used. The text is one sentence that names the file, the line and the key."""


def target_url(text: str) -> str:
    """The full URL of a target.

    :raises ces.model.address.AddressError: when `text` is not an address.
    """
    return parse_address(text, REPEATER_PORT, WEBSOCKET_SCHEMES + HTTP_SCHEMES).url()


def load(path: str) -> Routes:
    """Read the routes from a file.

    :raises RoutesError: when the file cannot be read or contains an error. The caller must then use none of
        it.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise RoutesError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise RoutesError(f"{path}: cannot be read: it is not UTF-8") from None
    return parse(text, path)


def parse(text: str, name: str) -> Routes:
    """Parse routes.

    :param text: the content of a routes file.
    :param name: the file's name in error texts.
    :raises RoutesError: as `load` does.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RoutesError(_syntax(str(error), text, name)) from None
    except RecursionError:
        raise RoutesError(f"{name}: values are nested too deeply to be routes") from None
    places = _Places(text, name)
    for key in tables:
        if key != TABLE:
            hint = did_you_mean(key, [TABLE]) or f"; expected [{TABLE}] alone"
            raise RoutesError(f"{places.of(key)}: there is no such table{hint}")
    if not isinstance(tables.get(TABLE), dict):
        raise RoutesError(f"{name}: expected a table [{TABLE}]")
    return {pattern: _targets(pattern, value, places) for pattern, value in tables[TABLE].items()}


def _targets(pattern: str, value: Any, places: _Places) -> tuple[str, ...]:
    fault = room_fault(pattern.encode("utf-8", "surrogatepass"))
    if "*" in pattern[:-1]:
        fault = f"{EVERY_ROOM.decode()!r} may stand only at the end"
    if fault is not None:
        raise RoutesError(f"{places.of(pattern)}: this is neither a room nor a prefix of rooms: {fault}")
    if not isinstance(value, list) or not all(isinstance(target, str) for target in value):
        raise RoutesError(
            f'{places.of(pattern)}: expected a list of targets such as ["ws://host:{REPEATER_PORT}"]'
        )
    urls = []
    for target in value:
        try:
            urls.append(target_url(target))
        except AddressError as error:
            raise RoutesError(f"{places.of(pattern, target)}: {error}") from None
    return tuple(dict.fromkeys(urls))


class _Places:
    """Finds the line of a key or value, for error texts."""

    def __init__(self, text: str, name: str) -> None:
        self._lines = text.splitlines()
        self._name = name

    def of(self, key: str, value: str = "") -> str:
        """The place of a key, or of the text `value` after that key."""
        written = re.compile(rf"\s*(?:\[+\s*)?([\"']?){re.escape(key)}\1\s*[=.\]]")
        found = 0
        for number, line in enumerate(self._lines, 1):
            if not found and written.match(line):
                found = number
            if found and value in line:
                return f"{self._name}, line {number}: {key!r}"
        return f"{self._name}, line {found}: {key!r}" if found else f"{self._name}: {key!r}"


def _syntax(error: str, text: str, name: str) -> str:
    match = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", error, re.DOTALL)
    if match is None:
        return f"{name}: {error}"
    where = f"column {match[3]}" if match[3] else "the end of the file"
    line = match[2] or max(1, len(text.splitlines()))
    return f"{name}, line {line}: {match[1][:1].lower() + match[1][1:]} at {where}"
