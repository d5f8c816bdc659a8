"""The routes file: which targets the events of a room go out to.

Grammar (TOML 1.0)::

    [routes]
    "ITB-1108" = ["ws://itb-1108-cp1:7101", "https://collector/event"]    # one room
    "ITB-*"    = ["wss://itb-gateway"]                                    # every room that begins so
    "*"        = ["central:7101"]                                         # every room

Owns the file's form and what is said of a bad one; does not know who uses the routes. Targets are addresses
(`ces.model.address`), given back in full, so that one target written in two ways is one.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

import ces
from ces.config.values import did_you_mean
from ces.model.address import HTTP_SCHEMES, WEBSOCKET_SCHEMES, AddressError, parse_address
from ces.model.wire import EVERY_ROOM, room_fault
from ces.repeater.settings import DEFAULT_PORT

Routes = dict[str, tuple[str, ...]]
"""Pattern of a room -> targets, as `ces.model.routing.RepeaterRoutes` takes them."""

TABLE = "routes"


class RoutesError(ces.Error, ValueError):
    """Routes that cannot be used; the text is one sentence that names file, line and key."""


def target_url(text: str) -> str:
    """A target's address in full.

    :raises ces.model.address.AddressError: when it is none.
    """
    return parse_address(text, DEFAULT_PORT, WEBSOCKET_SCHEMES + HTTP_SCHEMES).url()


def load(path: str) -> Routes:
    """Read the routes in a file.

    :raises RoutesError: when it cannot be read, or is wrong in any place: then nothing of it is to be used.
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
    """Read routes; `name` is the file's in errors.

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
            f'{places.of(pattern)}: expected a list of targets such as ["ws://host:{DEFAULT_PORT}"]'
        )
    urls = []
    for target in value:
        try:
            urls.append(target_url(target))
        except AddressError as error:
            raise RoutesError(f"{places.of(pattern, target)}: {error}") from None
    return tuple(dict.fromkeys(urls))


class _Places:
    """Where in the file something stands."""

    def __init__(self, text: str, name: str) -> None:
        self._lines = text.splitlines()
        self._name = name

    def of(self, key: str, value: str = "") -> str:
        """The place of a key, or of a text in the value that follows it."""
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
