"""One event as one line for people.

Owns columns, colours and what of an event may reach a terminal: control characters from the wire never do.
Does not know the terminal; the caller says its width, the time zone, and whether colours are wanted.
"""

from __future__ import annotations

from datetime import tzinfo
from typing import Final

from ces.model.event import Event, Tag

__all__ = ["event_line", "printable"]

RESET: Final = "\x1b[0m"
BOLD, DIM, RED, GREEN, YELLOW, MAGENTA, CYAN = (f"\x1b[{code}m" for code in (1, 2, 31, 32, 33, 35, 36))

# The first tag that an event has decides its colour; what is urgent comes first.
_COLOURS: Final = (
    (Tag.ALERT, MAGENTA),
    (Tag.ERROR, RED),
    (Tag.HEARTBEAT, DIM),
    (Tag.USER_GENERATED, GREEN),
    (Tag.METRICS, DIM),
    (Tag.HARDWARE_INFO, CYAN),
)
_ROOM, _DEVICE, _KEY, _VALUE = 10, 6, 18, 24  # columns that most rooms, devices, keys and values fit into
_LONGEST_VALUE: Final = 40


def event_line(event: Event, room: str, *, zone: tzinfo | None, width: int, colour: bool = False) -> str:
    """Time of day, room, device, key, value and tags, cut to `width` columns.

    room: the one the event was tagged with on its way. zone: None means the machine's own. An event whose
    time cannot be read shows none; a room that is blank shows as "-".
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
    """The text with everything that could steer a terminal replaced by "?"."""
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
