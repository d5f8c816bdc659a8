"""The v2 event and its JSON text (docs/protocol.md section 10).

Owns the field names, their defaults, and the two ways between text and value. Does not know routes, links,
records or the clock: a time stamp is whatever the sender wrote.

    event  = { "generating-system": id,  "timestamp": RFC 3339,  "event-tags": [tag...] / null,
               "target-device": device,  "affected-room": room,
               "key": text,  "value": text,  "user": text,  ["data": any JSON],  [unknown: any JSON]... }
    device = { ["buildingID": id],  ["roomID": id],  ["deviceID": id],  [unknown]... }
    room   = { ["buildingID": id],  ["roomID": id],  [unknown]... }

A known key that is absent or null has its default. What is empty among the keys in brackets is left out
again, as the fleet's Go services do (`omitempty`); the others are always written. Unknown keys are kept in
`extra` and written last.

Cost: the ordinary event goes through one typed call of msgspec each way; 400 bytes take 0.6 us to read and
0.3 us to write. An event with unknown keys or nulls makes that call refuse; sorting it out takes 6 us.
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
    """Not a v2 event; the text is one sentence that says where and what."""


class Tag:
    """The common tags (docs/protocol.md section 10). Any other text is a legal tag as well."""

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
    """What room, device and event share: unknown keys are kept.

    gc=False is safe because a value decoded from JSON has no cycles; it keeps a full inbox out of the
    collector's way.
    """

    extra: MappingProxyType[str, Any] = msgspec.field(default=_NOTHING, name=_EXTRA)


class Room(_Part, frozen=True, kw_only=True, rename={"building_id": "buildingID", "room_id": "roomID"}):
    """`affected-room`: the room that an event is about."""

    building_id: str = ""
    room_id: str = ""

    @classmethod
    def of(cls, identifier: str) -> Room:
        """The room in an id: `ITB-1108` (building `ITB`) in that of the room and in `ITB-1108-D1`.

        An id of another form names no building: it is taken as the room's id as it stands.
        """
        building, room = _building_and_room(identifier)
        return cls(building_id=building, room_id=room or identifier)


class Device(
    _Part,
    frozen=True,
    kw_only=True,
    rename={"building_id": "buildingID", "room_id": "roomID", "device_id": "deviceID"},
):
    """`target-device`: the device that an event is about."""

    building_id: str = ""
    room_id: str = ""
    device_id: str = ""

    @classmethod
    def of(cls, identifier: str) -> Device:
        """The device `BLDG-ROOM-DEVICE` with its room and building; an id of another form stands alone."""
        if identifier.count("-") < 2:
            return cls(device_id=identifier)
        building, room = _building_and_room(identifier)
        return cls(building_id=building, room_id=room, device_id=identifier)


class Event(_Part, frozen=True, kw_only=True, rename="kebab"):
    """One v2 event: a device in a room has a key with a value.

    `value` is always text, numbers and JSON texts included. `data` is any JSON, None when there is none.
    `extra` holds the keys that this version does not know.
    """

    # Factories instead of plain defaults: omit_defaults then writes these keys even when they are empty.
    generating_system: str = msgspec.field(default_factory=str)
    timestamp: str = msgspec.field(default_factory=str)
    event_tags: tuple[str, ...] = msgspec.field(default_factory=lambda: ())
    target_device: Device = msgspec.field(default_factory=Device)
    affected_room: Room = msgspec.field(default_factory=Room)
    key: str = msgspec.field(default_factory=str)
    value: str = msgspec.field(default_factory=str)
    user: str = msgspec.field(default_factory=str)
    data: Any = None

    @staticmethod
    def from_json(text: bytes | str) -> Event:
        """The event of a JSON text in UTF-8; raises EventError, never anything else, whatever the text is."""
        try:
            return _decode_event(text)
        except msgspec.ValidationError:
            return _event_by_keys(text)
        except (ValueError, RecursionError) as error:
            raise EventError(_sentence(error)) from None

    def to_json(self) -> bytes:
        """The event as one line of JSON without its LF; raises EventError when `data` or `extra` is not JSON.

        As JSON knows no NaN and no infinities, those in `data` become null.
        """
        try:
            if self.extra or self.target_device.extra or self.affected_room.extra:
                return _encode(_with_extra(self))
            return _encode(self)
        except (TypeError, ValueError, RecursionError) as error:
            raise EventError(f"the event cannot be written as JSON: {_lower(str(error))}") from None

    @property
    def room(self) -> str:
        """The affected room's id, "" when the event has none: the room that its record is tagged with."""
        return self.affected_room.room_id

    @property
    def time(self) -> datetime:
        """The time stamp with its offset, cut to microseconds; raises EventError when it is not RFC 3339."""
        match = _RFC3339.fullmatch(self.timestamp)
        try:
            if match is None:
                raise ValueError
            return datetime.fromisoformat(f"{match[1]}T{match[2]}{(match[3] or '')[:7]}{match[4].upper()}")
        except ValueError:
            raise EventError(
                f"`$.timestamp`: expected an RFC 3339 time, got {self.timestamp!r:.80}"
            ) from None


def rfc3339(moment: datetime) -> str:
    """An aware datetime as an event's time stamp, in UTC; raises EventError when it is not one in UTC."""
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
    """The slow way: nulls take their defaults, unknown keys go to `extra`, what is wrong gets its place."""
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
    known: object = tree  # convert() refuses what is no object and says what it is
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
    # What is known wins over an `extra` of the same name: a key is never written twice.
    return {**part.extra, **tree} if not part.extra.keys().isdisjoint(tree) else {**tree, **part.extra}


_PLACE: Final = re.compile(r"(.*) - at `(?:key in )?\$(.*)`", re.DOTALL)


def _sentence(error: Exception, place: str = "$") -> str:
    """What msgspec or the UTF-8 codec says, with the place in front."""
    text = str(error)
    if isinstance(error, msgspec.ValidationError):
        match = _PLACE.fullmatch(text)
        return f"`{place}{match[2]}`: {_lower(match[1])}" if match else f"`{place}`: {_lower(text)}"
    if isinstance(error, RecursionError):
        return "`$`: the JSON is nested too deeply"
    return f"`$`: {_lower(text) if text.startswith('Input') else text}"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
