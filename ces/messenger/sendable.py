"""What an application may send, as a record: typed events, mappings and JSON.

Pure: no Twisted, no clock, no logging. What cannot be sent is a ValueError with one sentence; that is the
application's mistake and told to it at once, unlike a hub that is away.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ces.model.event import Event, EventError
from ces.model.posted import event_room
from ces.model.wire import KnownRooms, Run, make_record


class Sending(Run):
    """A run of one record and who waits to hear what becomes of it (a Deferred, which this floor does not
    know).
    """

    __slots__ = ("answer",)
    answer: Any


Sendable = Event | Mapping[str, Any] | bytes | str


def make_run(event: Sendable, room: str | None, known: KnownRooms, limit: int) -> Sending:
    """The event as a run of one record.

    :param event: an Event, a mapping with the keys of one, or its JSON, which is sent as it is.
    :param room: to tag it with; by default the event's affected room, else its target device's, else a blank
        one.
    :param limit: the largest record, in bytes.
    :raises ValueError: when it is no event, its room is none, or the record is too large.
    """
    if isinstance(event, Mapping):
        event = _event_of(event)
    if isinstance(event, Event):
        text = event.to_json()
        if room is None:
            room = event.room or event.target_device.room_id
    elif isinstance(event, bytes | str):
        text = event.encode() if isinstance(event, str) else event
        if room is None:
            room = event_room(text) or ""
    else:
        raise ValueError(
            f"cannot send {type(event).__name__}: expected an Event, a dict, or JSON as bytes or str"
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
