"""The v2 event and its JSON text (docs/protocol.md section 10).

Owns the field names, their defaults, decoding and encoding. Does not know routes, links, records or the
clock. A time stamp is kept as the text that the sender wrote.

    event  = { "generating-system": id,  ["timestamp": RFC 3339],  "event-tags": [tag...] / null,
               "target-device": device,  "affected-room": room,
               "key": text,  "value": text,  "user": text,  ["data": any JSON],  [unknown: any JSON]... }
    device = { ["buildingID": id],  ["roomID": id],  ["deviceID": id],  [unknown]... }
    room   = { ["buildingID": id],  ["roomID": id],  [unknown]... }

A known key that is absent or null gets its default. The keys in brackets are written only when they have a
value; the others are always written. The fleet's Go services do the same, except for the time stamp: they
refuse an empty one and accept an event without one. Unknown keys are kept in `extra` and written last.

Cost: an ordinary event takes one typed call of msgspec each way. 400 bytes take 0.6 us to decode and 0.3 us
to encode. That call refuses an event with unknown keys or nulls; decoding it key by key takes 6 us.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, TypeVar

import msgspec

import ces

__all__ = ["Device", "Event", "EventError", "Room", "Tag", "rfc3339"]

# No peer's key decodes into this field: msgspec builds no mapping proxies, so even a key of this very name
# takes the slow way and is kept like any other unknown one.
_EXTRA: Final = "(unknown keys)"
_NOTHING: Final[MappingProxyType[str, Any]] = MappingProxyType({})


class EventError(ces.Error, ValueError):
    """Not a v2 event. The text is one sentence that names the place and the fault."""


class Tag:
    """The common tags (docs/protocol.md section 10). Any other text is a legal tag, too."""

    HEARTBEAT: Final = "heartbeat"
    CORE_STATE: Final = "core-state"
    DETAIL_STATE: Final = "detail-state"
    ERROR: Final = "error"
    USER_GENERATED: Final = "user-generated"
    AUTO_GENERATED: Final = "auto-generated"
    STARTUP: Final = "startup"
    ROOM_DIVIDE: Final = "roomdivide"
    METRICS: Final = "metrics"
    ALERT: Final = "alert"
    ROOM_SYSTEM: Final = "room-system"
    HARDWARE_INFO: Final = "hardware-info"
    ACTIVE_SIGNAL: Final = "active-signal"
    UI_COMMUNICATION: Final = "ui-communication"


class _Part(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    repr_omit_defaults=True,
    forbid_unknown_fields=True,
    gc=False,
):
    """Common to room, device and event: keeps unknown keys in `extra`.

    With gc=False the garbage collector skips these objects, so a full inbox does not slow it down. That is
    safe: a value decoded from JSON has no cycles.
    """

    extra: MappingProxyType[str, Any] = msgspec.field(default=_NOTHING, name=_EXTRA)


class Room(_Part, frozen=True, kw_only=True, rename={"building_id": "buildingID", "room_id": "roomID"}):
    """The room that an event is about: `affected-room` in JSON."""

    building_id: str = ""
    room_id: str = ""

    @classmethod
    def of(cls, identifier: str) -> Room:
        """Return the room that an id names.

        Both `ITB-1108` and `ITB-1108-D1` name the room `ITB-1108` in the building `ITB`. An id of another
        form becomes the room's id, without a building.
        """
        building, room = _building_and_room(identifier)
        return cls(building_id=building, room_id=room or identifier)


class Device(
    _Part,
    frozen=True,
    kw_only=True,
    rename={"building_id": "buildingID", "room_id": "roomID", "device_id": "deviceID"},
):
    """The device that an event is about: `target-device` in JSON."""

    building_id: str = ""
    room_id: str = ""
    device_id: str = ""

    @classmethod
    def of(cls, identifier: str) -> Device:
        """Return the device that an id names.

        `ITB-1108-D1` is a device in the room `ITB-1108` of the building `ITB`. An id of another form becomes
        the device's id, without room and building.
        """
        if identifier.count("-") < 2:
            return cls(device_id=identifier)
        building, room = _building_and_room(identifier)
        return cls(building_id=building, room_id=room, device_id=identifier)


class Event(_Part, frozen=True, kw_only=True, rename="kebab"):
    """One v2 event: a key of a device in a room has a value. Every field is optional; events are immutable.

    generating_system: the system that sends the event.
    timestamp: RFC 3339, or "" for none. `rfc3339` makes one from a datetime.
    event_tags: what the event is about; see `Tag`.
    target_device, affected_room: the device and the room.
    key, value: both are text. Write a number as text.
    user: the person who caused the event.
    data: any JSON value, or None for none.
    extra: keys that this version does not know, as a mapping.
    """

    # omit_defaults leaves out a field that equals a plain default. A default factory keeps it in.
    generating_system: str = msgspec.field(default_factory=str)
    timestamp: str = ""
    event_tags: tuple[str, ...] = msgspec.field(default_factory=lambda: ())
    target_device: Device = msgspec.field(default_factory=Device)
    affected_room: Room = msgspec.field(default_factory=Room)
    key: str = msgspec.field(default_factory=str)
    value: str = msgspec.field(default_factory=str)
    user: str = msgspec.field(default_factory=str)
    data: Any = None

    @staticmethod
    def from_json(text: bytes | str) -> Event:
        """Decode an event from JSON (UTF-8 when it is bytes).

        :raises EventError: when the text is not a v2 event. Nothing else is raised, whatever the text is.
        """
        try:
            return _decode_event(text)
        except msgspec.ValidationError:
            return _event_by_keys(text)
        except (ValueError, RecursionError) as error:
            raise EventError(_sentence(error)) from None

    def to_json(self) -> bytes:
        """Encode the event as JSON on one line, without a line feed.

        An empty time stamp is left out. NaN and infinities in `data` become null, because JSON has none.

        :raises EventError: when the event cannot be written as JSON, for example because of its `data`.
        """
        try:
            if self.extra or self.target_device.extra or self.affected_room.extra:
                return _encode(_with_extra(self))
            return _encode(self)
        except (TypeError, ValueError, RecursionError) as error:
            raise EventError(f"the event cannot be written as JSON: {_lower(str(error))}") from None

    @property
    def room(self) -> str:
        """The id of the affected room; "" when the event names none."""
        return self.affected_room.room_id

    @property
    def time(self) -> datetime | None:
        """The time stamp as an aware datetime, cut to microseconds.

        None when the event has no time stamp, or one that is not RFC 3339. Never raises.
        """
        match = _RFC3339.fullmatch(self.timestamp)
        if match is None:
            return None
        try:
            return datetime.fromisoformat(f"{match[1]}T{match[2]}{(match[3] or '')[:7]}{match[4].upper()}")
        except ValueError:
            return None

    def stamped(self, moment: datetime) -> Event:
        """Return the event with `moment` as its time stamp, or the event itself when it has a time stamp.

        :param moment: an aware datetime.
        :raises EventError: as `rfc3339` does.
        """
        return self if self.timestamp else msgspec.structs.replace(self, timestamp=rfc3339(moment))


def rfc3339(moment: datetime) -> str:
    """Return an aware datetime as an event's time stamp, in UTC.

    :raises EventError: when the datetime has no time zone, or its year in UTC is not within 1 to 9999.
    """
    if moment.utcoffset() is None:
        raise EventError(f"a time stamp needs a time zone, {moment.isoformat()} has none")
    try:
        return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
    except OverflowError:
        raise EventError(f"{moment.isoformat()} is not a date in UTC") from None


_decode_event: Final = msgspec.json.Decoder(Event).decode
_decode_any: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode

_RFC3339: Final = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)

_P = TypeVar("_P", bound=_Part)


def _building_and_room(identifier: str) -> tuple[str, str]:
    building, _, rest = identifier.partition("-")
    room = rest.partition("-")[0]
    return (building, f"{building}-{room}") if building and room else ("", "")


def _event_by_keys(text: bytes | str) -> Event:
    """Decode key by key: nulls become defaults, unknown keys go to `extra`, and errors name their place."""
    try:
        tree = _decode_any(text)
    except (ValueError, RecursionError) as error:
        raise EventError(_sentence(error)) from None
    if isinstance(tree, dict):
        for name, part in (("target-device", Device), ("affected-room", Room)):
            if name in tree:
                tree[name] = _part_by_keys(part, tree[name], f"$.{name}")
    return _part_by_keys(Event, tree, "$")


def _part_by_keys(part: type[_P], tree: object, place: str) -> _P:
    if tree is None and part is not Event:
        return part()
    known: object = tree  # convert() refuses anything but an object, with the right sentence
    extra: dict[str, Any] = {}
    if isinstance(tree, dict):
        names = set(part.__struct_encode_fields__) - {_EXTRA}
        known = {name: value for name, value in tree.items() if name in names and value is not None}
        extra = {name: value for name, value in tree.items() if name not in names}
    try:
        value = msgspec.convert(known, part)
    except msgspec.ValidationError as error:
        raise EventError(_sentence(error, place)) from None
    return msgspec.structs.replace(value, extra=MappingProxyType(extra)) if extra else value


def _with_extra(part: _Part) -> dict[str, Any]:
    names = zip(part.__struct_fields__, part.__struct_encode_fields__, part.__struct_defaults__, strict=True)
    tree: dict[str, Any] = {}
    for attribute, name, default in names:
        value = getattr(part, attribute)
        if isinstance(value, _Part):
            tree[name] = _with_extra(value)
        elif attribute != "extra" and value != default:
            tree[name] = value
    # A known key wins over an `extra` of the same name: JSON must not hold a key twice.
    return {**part.extra, **tree} if not part.extra.keys().isdisjoint(tree) else {**tree, **part.extra}


_PLACE: Final = re.compile(r"(.*) - at `(?:key in )?\$(.*)`", re.DOTALL)


def _sentence(error: Exception, place: str = "$") -> str:
    """The message of msgspec or of the UTF-8 codec, with the place in front."""
    text = str(error)
    if isinstance(error, msgspec.ValidationError):
        match = _PLACE.fullmatch(text)
        return f"`{place}{match[2]}`: {_lower(match[1])}" if match else f"`{place}`: {_lower(text)}"
    if isinstance(error, RecursionError):
        return "`$`: the JSON is nested too deeply"
    return f"`$`: {_lower(text) if text.startswith('Input') else text}"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
