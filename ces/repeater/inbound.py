"""What comes in on links from outside: records, or bare events that are tagged here.

Grammar::

    path    = "/connect/" room "/" id           both percent-encoded; the room may be blank
    message = record | event                    an event begins with "{", which no record does

A bare event is for the room that it affects, or for the path's when it names none (docs/protocol.md section
7).
"""

from __future__ import annotations

from itertools import groupby
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import ces
from ces.link.protocol import Link
from ces.link.server import Read, read_by_dialect
from ces.model.posted import MalformedEvent, tag_event
from ces.model.wire import Run, event_room_fault

OUTSIDE = "outside"
"""The kind of links that an outside service or another repeater has dialled."""


class NoPlace(ces.Error, ValueError):
    """A path that is not one of a link; the text is a sentence."""


class Place(NamedTuple):
    """What a link's path says: the room that it is for, and who it is."""

    room: str
    id: str


def place_of(path: str) -> Place:
    """Read the path of a link, as it stands in the request.

    :raises NoPlace: with a sentence.
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
        raise NoPlace(f"A link cannot bear that id: {fault.replace('the room', 'the id')}.")
    return Place(room.decode(), name.decode())


def is_bare(message: bytes) -> bool:
    """Whether a message is an event without its room."""
    return message[:1] == b"{"


def read_outside() -> Read:
    """Read messages from outside, with a memory of good rooms of its own.

    Cost: where no message is bare, a look at each one's first byte beside what reading records costs.
    """
    read_records = read_by_dialect()

    def read(link: Link, messages: list[bytes], faults: list[str]) -> list[Run]:
        if not any([message[:1] == b"{" for message in messages]):
            return read_records(link, messages, faults)
        room = place_of(link.path).room
        runs: list[Run] = []
        for bare, stretch in groupby(messages, is_bare):
            if not bare:
                runs += read_records(link, list(stretch), faults)
                continue
            for event in stretch:
                try:
                    runs.append(tag_event(event, room))
                except MalformedEvent as fault:
                    faults.append(f"the event cannot be tagged with its room: {fault}")
        return runs

    return read
