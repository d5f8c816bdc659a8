"""Formats one event as one line of text.

Owns columns and colours, and keeps control characters from the wire away from the terminal. Does not know the
terminal: the caller passes its width, the time zone, and whether to use colours.
"""

from __future__ import annotations

from datetime import tzinfo
from typing import Final

from ces.model.event import Event, Tag

__all__ = ["event_line", "printable"]

RESET: Final = "\x1b[0m"
BOLD, DIM, RED, GREEN, YELLOW, MAGENTA, CYAN = (f"\x1b[{code}m" for code in (1, 2, 31, 32, 33, 35, 36))

# An event gets the colour of the first of these tags that it has. Urgent tags come first.
_COLOURS: Final = (
    (Tag.ALERT, MAGENTA),
    (Tag.ERROR, RED),
    (Tag.HEARTBEAT, DIM),
    (Tag.USER_GENERATED, GREEN),
    (Tag.METRICS, DIM),
    (Tag.HARDWARE_INFO, CYAN),
)
_ROOM, _DEVICE, _KEY, _VALUE = 10, 6, 18, 24  # column widths that fit most texts
_LONGEST_VALUE: Final = 40


def event_line(event: Event, room: str, *, zone: tzinfo | None, width: int, colour: bool = False) -> str:
    """Time of day, room, device, key, value and tags, cut to `width` columns.

    A blank room, a blank device and an unreadable time are shown as "-".

    :param room: the room that the event was routed by.
    :param zone: the time zone to show; None means that of the machine.
    """
    device = event.target_device.device_id
    if room and device.startswith(f"{room}-"):
        device = device[len(room) + 1 :]
    columns = [
        _time(event, zone).ljust(12),
        (printable(room) or "-").ljust(_ROOM),
        (printable(device) or "-").ljust(_DEVICE),
        printable(event.key).ljust(_KEY),
        _cut(printable(event.value), _LONGEST_VALUE).ljust(_VALUE),
        printable(" ".join(event.event_tags)),
    ]
    text = "  ".join(columns).rstrip()
    text = _cut(text, width)
    paint = next((paint for tag, paint in _COLOURS if tag in event.event_tags), "") if colour else ""
    return f"{paint}{text}{RESET}" if paint else text


def printable(text: str) -> str:
    """The text with every unprintable character replaced by "?"."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def _time(event: Event, zone: tzinfo | None) -> str:
    if event.time is None:
        return "-"
    try:
        return event.time.astimezone(zone).strftime("%H:%M:%S.%f")[:12]
    except OverflowError:
        return "-"
