"""Text messages: subscription changes and the control messages of ces.2 (docs/protocol.md sections 4 and 5).

Grammar::

    subscription = {"rooms": [room, ...], "create": true | false}
    control      = {"hello": {"node": ID, "session": SID | null, "received": N
                              [, "resumed": bool, "window": SECONDS]
                              [, "changes": N] [, "gaps": N] [, "instance": ID] [, "offered": true]}}
                 | {"ack": N [, "changes": N]} | {"gap": {"lost": N}}
                 | {"error": {"code": CODE, "reason": TEXT}}

A message without any of the control keys is a subscription change. Unknown keys are ignored.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

import ces
from ces.model.wire import room_fault


class MalformedControl(ces.Error, ValueError):
    """A text message is neither a subscription change nor a control message. The text says why."""


Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class SubscriptionChange(msgspec.Struct, frozen=True):
    """Rooms to add (``create`` is true) or to remove. To remove an empty list is to remove all rooms."""

    rooms: list[str] = []
    create: bool = False


class Hello(msgspec.Struct, frozen=True, omit_defaults=False):
    """The first message of either side.

    session: None when the sender has no session to resume.
    changes: subscription changes that the sender has taken in the session; it acknowledges further ones.
    gaps: gaps that it was told of in the session.
    instance: tells a process from another one that has the same node.
    offered: the serving side has this session with the node that has dialled, which may resume it by a second
        hello.
    """

    node: str
    session: Annotated[str, msgspec.Meta(max_length=128)] | None = None
    received: Count = 0
    resumed: bool | msgspec.UnsetType = msgspec.UNSET
    window: float | msgspec.UnsetType = msgspec.UNSET
    changes: Count | msgspec.UnsetType = msgspec.UNSET
    gaps: Count | msgspec.UnsetType = msgspec.UNSET
    instance: Annotated[str, msgspec.Meta(max_length=128)] | msgspec.UnsetType = msgspec.UNSET
    offered: bool | msgspec.UnsetType = msgspec.UNSET


class Ack(msgspec.Struct, frozen=True):
    """The sender has taken the first `records` records, and the first `changes` subscription changes."""

    records: Count
    changes: Count | None


class Gap(msgspec.Struct, frozen=True):
    """`lost` records were evicted from the sender's queue at this point of the stream."""

    lost: Count


class Error(msgspec.Struct, frozen=True):
    """Reports a fault in what the other side sent. ``code`` is one of docs/protocol.md section 9."""

    code: int
    reason: str


class _Text(msgspec.Struct, frozen=True, omit_defaults=True):
    """Any text message."""

    hello: Hello | None = None
    ack: Count | None = None
    changes: Count | None = None
    gap: Gap | None = None
    error: Error | None = None
    rooms: list[str] | None = None
    create: bool = False


Message = SubscriptionChange | Hello | Gap | Error
"""The messages that `write_control` writes. Acknowledgements are frequent: `ack_text` writes them."""

NODE_LENGTH = 128

_UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
_decode = msgspec.json.Decoder(_Text).decode
_encode = msgspec.json.Encoder().encode


def read_control(text: bytes) -> Message | Ack | int:
    """Parse a text message. An acknowledgement of records alone is returned as its number.

    :raises MalformedControl: when the text is not a JSON object of the grammar, or when a room or a node
        breaks its rules.
    """
    try:
        message = _decode(text)
    except _UNREADABLE as error:
        raise MalformedControl(f"the text message cannot be read: {error}") from None
    if message.hello is not None:
        node = message.hello.node
        if not node or len(node) > NODE_LENGTH or not node.isascii() or not node.isprintable() or " " in node:
            raise MalformedControl(
                f"the node of a hello is 1 to {NODE_LENGTH} printable ASCII characters without spaces"
            )
        return message.hello
    if message.ack is not None:
        return message.ack if message.changes is None else Ack(message.ack, message.changes)
    if message.gap is not None:
        return message.gap
    if message.error is not None:
        return message.error
    if message.rooms is None and not message.create:
        return SubscriptionChange()
    rooms = message.rooms or []
    for room in rooms:
        fault = room_fault(room.encode("utf-8", "surrogatepass"))
        if fault is not None:
            raise MalformedControl(f"room {room[:80]!r} cannot be subscribed to: {fault}")
    return SubscriptionChange(rooms, message.create)


def write_control(message: Message) -> bytes:
    """The JSON text of a message."""
    if isinstance(message, SubscriptionChange):
        return _encode(message)
    return _encode({type(message).__name__.lower(): message})


def ack_text(records: int, changes: int | None = None) -> bytes:
    """The JSON text of an acknowledgement of records, and of subscription changes if there are any."""
    if changes is None:
        return b'{"ack":%d}' % records
    return b'{"ack":%d,"changes":%d}' % (records, changes)


class _Ack(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A message with an acknowledgement and no other key."""

    ack: Count


_decode_ack = msgspec.json.Decoder(_Ack).decode


def ack_number(text: bytes) -> int | None:
    """The number of a plain acknowledgement. On None, the caller passes the text to `read_control`."""
    try:
        return _decode_ack(text).ack
    except _UNREADABLE:
        return None
