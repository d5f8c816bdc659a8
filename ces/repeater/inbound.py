"""Parses what outside services send: the path of their link, and its messages.

Grammar::

    path    = "/connect/" room "/" id           both percent-encoded; the room may be blank
    message = record | event                    an event begins with "{", a record never does

An event without a record is tagged with the room that it affects, or with the room of the path when it names
none (docs/protocol.md section 7).
"""

from __future__ import annotations

from itertools import groupby
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import ces
from ces.link.link import Read, read_by_dialect
from ces.model.posted import MalformedEvent, tag_event
from ces.model.wire import Run, event_room_fault

OUTSIDE = "outside"
"""The kind of links that outside services and other repeaters dial."""


class NoPlace(ces.Error, ValueError):
    """The path is not that of a link. The text is a sentence."""


class Place(NamedTuple):
    """The content of a link's path: the room that it is for, and the id of the service that dials."""

    room: str
    id: str


def place_of(path: str) -> Place:
    """Parse the path of a link.

    :param path: the path of the request, still percent-encoded.
    :raises NoPlace: when it is not the path of a link.
    """
    parts = path.split("/")
    if len(parts) != 4 or not parts[3]:
        raise NoPlace(
            "Connect to /connect/{room}/{id}: the room that the events are for, and a name of your own."
        )
    room, name = (unquote_to_bytes(part) for part in parts[2:])
    fault = event_room_fault(room)
    if fault is not None:
        raise NoPlace(f"A link cannot be for that room: {fault}.")
    fault = event_room_fault(name)
    if fault is not None:
        raise NoPlace(f"A link cannot have that id: {fault.replace('the room', 'the id')}.")
    return Place(room.decode(), name.decode())


def is_bare(message: bytes) -> bool:
    """Whether a message is an event without a record."""
    return message[:1] == b"{"


def read_outside() -> Read:
    """Make a parser for the messages of outside services. It has its own cache of valid rooms.

    Cost: that of parsing records, and one comparison per message when no message is a bare event.
    """
    read_records = read_by_dialect()

    def read(dialect: str, path: str, messages: list[bytes], faults: list[str]) -> list[Run]:
        if not any([message[:1] == b"{" for message in messages]):
            return read_records(dialect, path, messages, faults)
        room = place_of(path).room
        runs: list[Run] = []
        for bare, stretch in groupby(messages, is_bare):
            if not bare:
                runs += read_records(dialect, path, list(stretch), faults)
                continue
            for event in stretch:
                try:
                    runs.append(tag_event(event, room))
                except MalformedEvent as fault:
                    faults.append(f"the event cannot be tagged with its room: {fault}")
        return runs

    return read
