"""From what an application sends to a record: typed events, mappings and JSON.

Pure: no Twisted, no clock, no logging. An event that cannot be sent is the application's mistake. It raises
ValueError or TypeError at once, with one sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from ces.model.event import Event, EventError
from ces.model.posted import event_room
from ces.model.wire import KnownRooms, Run, make_record


class Sending(Run):
    """A run of one record, and the Deferred of its `send`, whose type this module does not know."""

    __slots__ = ("answer",)
    answer: Any


Sendable = Event | Mapping[str, Any] | bytes | str


def make_run(
    event: Sendable, room: str | None, known: KnownRooms, limit: int, now: Callable[[], datetime]
) -> Sending:
    """Return the event as a run of one record.

    :param event: an Event, a mapping with the keys of one, or JSON. JSON is sent as it is.
    :param room: the record's room; "" is the blank room. None: the event's affected room, else the room of
        its target device.
    :param known: remembers rooms that have been checked.
    :param limit: limit for the record, in bytes.
    :param now: returns the present time. An Event or a mapping without a time stamp gets it.
    :raises TypeError: when the event or the room has a wrong type.
    :raises ValueError: when the event is not a v2 event, names no room while `room` is None, has a room that
        breaks the rules, or makes a record above the limit.
    """
    if room is not None and not isinstance(room, str):
        raise TypeError(f"a room is a str, not {type(room).__name__}")
    if isinstance(event, Mapping):
        event = _event_of(event)
    if isinstance(event, Event):
        if not event.timestamp:
            event = event.stamped(now())
        text = event.to_json()
        if room is None:
            room = event.room or event.target_device.room_id or None
    elif isinstance(event, bytes | str):
        text = event.encode() if isinstance(event, str) else event
        if room is None:
            room = event_room(text)
    else:
        raise TypeError(
            f"cannot send {type(event).__name__}: expected an Event, a dict, or JSON as bytes or str"
        )
    if room is None:
        raise ValueError(
            'the event names no room: set its affected room or pass room=; room="" sends it to the blank room'
        )
    tag = room.encode("utf-8", "surrogatepass")
    if isinstance(event, Event):
        known[tag]
        record = b"%b\n%b\n" % (tag, text)  # to_json() writes one line
    else:
        record = make_record(tag, text)
    if len(record) > limit:
        raise ValueError(f"the event makes a record of {len(record)} bytes; at most {limit} may be sent")
    return Sending(tag, [record])


def _event_of(mapping: Mapping[str, Any]) -> Event:
    try:
        return Event.from_json(msgspec.json.encode(dict(mapping)))
    except (TypeError, OverflowError, RecursionError) as error:
        raise EventError(f"the mapping cannot be written as JSON: {error}") from None
