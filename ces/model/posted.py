"""Events that come in the body of an HTTP request: one v2 event, or a JSON array of them."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

import ces
from ces.model.wire import MalformedRecord, Run, make_record

EVENT_DEPTH = 64
"""So deeply an event may be nested, unless told otherwise; a v2 event without data has a depth of 2."""

EVENTS = 10_000
"""At most so many events in one body: more would hold up everybody else for a second and longer."""


class _Place(msgspec.Struct, frozen=True):
    room: str | None = msgspec.field(default=None, name="roomID")


class _Tagged(msgspec.Struct, frozen=True):
    """As much of an event as says where it belongs."""

    affected: _Place | None = msgspec.field(default=None, name="affected-room")
    target: _Place | None = msgspec.field(default=None, name="target-device")


class MalformedEvent(ces.Error, ValueError):
    """A body that holds no event, or an event that cannot be tagged; the text says where in a sentence."""


_tagged = msgspec.json.Decoder(_Tagged).decode
_items = msgspec.json.Decoder(Annotated[list[msgspec.Raw], msgspec.Meta(max_length=EVENTS)]).decode
_any = msgspec.json.Decoder(msgspec.Raw).decode


def event_room(event: bytes) -> str | None:
    """The room that an event names: its affected room, else its target device's, else None.

    :raises MalformedEvent: when it is no JSON object, or names a room that is not text.
    """
    tags = _tags(event)
    return _room(tags.affected) or _room(tags.target)


def tag_event(event: bytes, otherwise: str | None = None) -> Run:
    """A bare event as a run of one record, for the room that it affects.

    :param otherwise: the room of one that affects none; by default its target device's, or the blank room.
    :raises MalformedEvent: when it cannot be.
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


def read_posted(body: bytes, limit: int, depth: int = EVENT_DEPTH) -> list[Run]:
    """The events in a request's body, each tagged with the room that it names.

    :param limit: the largest record, in bytes: a larger one would close every link that it is sent on.
    :param depth: how deeply an event may be nested.
    :raises MalformedEvent: naming the byte or the item that is wrong; then none of them is to be used.
    """
    try:
        body.decode()  # msgspec does not look into the strings that it leaves as they are
        single = body.lstrip()[:1] != b"["
        items = [bytes(_any(body))] if single else [bytes(item) for item in _items(body)]
    except msgspec.ValidationError:
        raise MalformedEvent(f"The array holds more than {EVENTS} events, the most that is taken.") from None
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedEvent(f"The body is not JSON: {error}.") from None
    runs: list[Run] = []
    for number, item in enumerate(items, 1):
        try:
            if is_deeper(item, depth):
                raise MalformedEvent(f"it is nested more than {depth} deep")
            runs.append(_within(tag_event(item), limit))
        except MalformedEvent as fault:
            where = "The body" if single else f"Item {number} of the array"
            raise MalformedEvent(f"{where} is not an event: {fault}.") from None
    return runs


def is_deeper(text: bytes, depth: int) -> bool:
    """Whether good JSON is nested more than `depth` deep: ``{"a": []}`` has a depth of 2."""
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
