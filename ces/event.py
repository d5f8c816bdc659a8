"""The v2 event, which devices and services send to each other (docs/protocol.md section 10).

docs/api.md describes every name here.

>>> from datetime import UTC, datetime
>>> from ces.event import Device, Event, Room, Tag, rfc3339
>>> event = Event(
...     generating_system="ITB-1108-CP1",
...     timestamp=rfc3339(datetime(2026, 11, 23, 8, tzinfo=UTC)),
...     event_tags=(Tag.CORE_STATE, Tag.USER_GENERATED),
...     target_device=Device.of("ITB-1108-D1"),
...     affected_room=Room.of("ITB-1108"),
...     key="power",
...     value="on",
... )
>>> event.room
'ITB-1108'
>>> Event.from_json(event.to_json()) == event
True
>>> event.time.isoformat()
'2026-11-23T08:00:00+00:00'

A text that is not an event raises EventError. One sentence names the place:

>>> Event.from_json('{"key": "volume", "value": 30}')
Traceback (most recent call last):
ces.model.event.EventError: `$.value`: expected `str`, got `int`

Unknown keys are kept:

>>> Event.from_json('{"key": "power", "shade": "dim"}').extra["shade"]
'dim'

An event need not have a time stamp; `send` and the HTTP interfaces add the present time:

>>> print(Event(key="power").time)
None
"""

from __future__ import annotations

from ces.model.event import Device, Event, EventError, Room, Tag, rfc3339

__all__ = ["Device", "Event", "EventError", "Room", "Tag", "rfc3339"]
