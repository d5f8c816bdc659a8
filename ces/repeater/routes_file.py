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

from typing import Any

import ces
from ces.config.toml import Document, TomlError, read_document
from ces.config.values import did_you_mean
from ces.model.address import HTTP_SCHEMES, REPEATER_PORT, WEBSOCKET_SCHEMES, AddressError, parse_address
from ces.model.patterns import pattern_fault

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
        return _routes(read_document(path))
    except TomlError as error:
        raise RoutesError(str(error)) from None


def parse(text: str, name: str) -> Routes:
    """Parse routes.

    :param text: the content of a routes file.
    :param name: the file's name in error texts.
    :raises RoutesError: as `load` does.
    """
    try:
        return _routes(Document(text, name))
    except TomlError as error:
        raise RoutesError(str(error)) from None


def _routes(document: Document) -> Routes:
    for key in document.values:
        if key != TABLE:
            hint = did_you_mean(key, [TABLE]) or f"; expected [{TABLE}] alone"
            raise RoutesError(f"{document.place((key,))}: {key!r}: there is no such table{hint}")
    routes = document.values.get(TABLE)
    if not isinstance(routes, dict):
        raise RoutesError(f"{document.name}: expected a table [{TABLE}]")
    return {pattern: _targets(pattern, value, document) for pattern, value in routes.items()}


def _targets(pattern: str, value: Any, document: Document) -> tuple[str, ...]:
    def fault(text: str, target: str = "") -> RoutesError:
        return RoutesError(f"{document.place((TABLE, pattern), target)}: {pattern!r}: {text}")

    not_a_pattern = pattern_fault(pattern)
    if not_a_pattern is not None:
        raise fault(f"this is neither a room nor a prefix of rooms: {not_a_pattern}")
    if not isinstance(value, list) or not all(isinstance(target, str) for target in value):
        raise fault(f'expected a list of targets such as ["ws://host:{REPEATER_PORT}"]')
    urls = []
    for target in value:
        try:
            urls.append(target_url(target))
        except AddressError as error:
            raise fault(str(error), target) from None
    return tuple(dict.fromkeys(urls))
