"""Events in the body of an HTTP request: one v2 event, or a JSON array of them.

Pure: the caller passes the present time, which events without a time stamp get.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from datetime import datetime
from typing import Annotated

import msgspec

import ces
from ces.model.event import rfc3339
from ces.model.wire import MalformedRecord, Run, make_record

EVENTS = 10_000
"""Limit for the events in one body."""

STEP = 200
"""Events that are read at a time."""


class _Place(msgspec.Struct, frozen=True):
    room: str | None = msgspec.field(default=None, name="roomID")


class _Tagged(msgspec.Struct, frozen=True):
    """The part of an event that names its room."""

    affected: _Place | None = msgspec.field(default=None, name="affected-room")
    target: _Place | None = msgspec.field(default=None, name="target-device")


class MalformedEvent(ces.Error, ValueError):
    """Not an event, or an event that cannot be tagged. The text is one sentence that names the place."""


_tagged = msgspec.json.Decoder(_Tagged).decode
_items = msgspec.json.Decoder(Annotated[list[msgspec.Raw], msgspec.Meta(max_length=EVENTS)]).decode
_any = msgspec.json.Decoder(msgspec.Raw).decode
_keys = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def event_room(event: bytes) -> str | None:
    """Return the room that an event names: its affected room, else its target device's, else None.

    :raises MalformedEvent: when the event is not a JSON object, or names a room that is not text.
    """
    tags = _tags(event)
    return _room(tags.affected) or _room(tags.target)


def tag_event(event: bytes, otherwise: str | None = None) -> Run:
    """Return a bare event as a run of one record, for its affected room.

    :param otherwise: the room when the event names no affected room. Default: the room of its target device,
        else the blank room.
    :raises MalformedEvent: when the event is not a JSON object, or its room breaks the rules.
    """
    tags = _tags(event)
    named = _room(tags.affected) or (_room(tags.target) if otherwise is None else otherwise)
    room = (named or "").encode("utf-8", "surrogatepass")
    try:
        return Run(room, [make_record(room, event)])
    except MalformedRecord as fault:
        raise MalformedEvent(str(fault)) from None


def _tags(event: bytes) -> _Tagged:
    try:
        return _tagged(event)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedEvent(str(error) or type(error).__name__) from None


def _room(place: _Place | None) -> str | None:
    return (place.room or None) if place is not None else None


def stamp_event(event: bytes, moment: datetime) -> bytes:
    """Return the event with `moment` as its time stamp when its own is absent, null or empty.

    All other values stay as they are written. An event that has a time stamp is returned unchanged, even when
    the time stamp is not RFC 3339.

    :raises MalformedEvent: when the event is not a JSON object.
    """
    try:
        keys = _keys(event)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedEvent(str(error) or type(error).__name__) from None
    if bytes(keys.get("timestamp", b"null")) not in (b"null", b'""'):
        return event
    keys["timestamp"] = msgspec.Raw(b'"%b"' % rfc3339(moment).encode())
    return msgspec.json.encode(keys)


def reading_posted(body: bytes, limit: int, depth: int, now: datetime) -> Generator[None, None, list[Run]]:
    """Return the events in a request's body, each tagged with the room that it names. Takes steps of `STEP`
    events: a few milliseconds each.

    :param limit: limit for one record, in bytes. A larger record would close every link that it is sent on.
    :param depth: limit for the nesting of an event. A v2 event without data has a depth of 2.
    :param now: the time stamp of events that have none.
    :raises MalformedEvent: when any event is wrong, with the byte or the item. The caller must then use none.
    """
    try:
        body.decode()  # msgspec does not check that raw values are UTF-8
        single = body.lstrip()[:1] != b"["
        items = [_any(body)] if single else _items(body)
    except msgspec.ValidationError:
        raise MalformedEvent(f"The array holds more than {EVENTS} events, which is the limit.") from None
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedEvent(f"The body is not JSON: {error}.") from None
    runs: list[Run] = []
    for number, raw in enumerate(items, 1):
        try:
            item = bytes(raw)
            if len(item) > limit:
                raise MalformedEvent(
                    f"it makes a record of more than {len(item)} bytes; at most {limit} may be sent"
                )
            if is_deeper(item, depth):
                raise MalformedEvent(f"it is nested more than {depth} deep")
            runs.append(_within(tag_event(stamp_event(item, now)), limit))
        except MalformedEvent as fault:
            where = "The body" if single else f"Item {number} of the array"
            raise MalformedEvent(f"{where} is not an event: {fault}.") from None
        if number % STEP == 0:
            yield
    return runs


def is_deeper(text: bytes, depth: int) -> bool:
    """Whether `text`, which must be valid JSON, is nested deeper than `depth`. ``{"a": []}`` is 2 deep."""
    if text.count(b"{") + text.count(b"[") <= depth:
        return False
    brackets = _NO_BRACKET.sub(b"", text).translate(_SQUARE)
    for _ in range(depth):
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


_NO_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*+"|[^][{}"]++', re.DOTALL)
_SQUARE = bytes.maketrans(b"{}", b"[]")


def _within(run: Run, limit: int) -> Run:
    if run.size > limit:
        raise MalformedEvent(f"it makes a record of {run.size} bytes; at most {limit} may be sent")
    return run
