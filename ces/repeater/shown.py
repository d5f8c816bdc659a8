"""What a repeater shows of itself: ``info`` of ``/status``, and the dead letters."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from ces.link.link import Link
from ces.link.shown import Shown, trouble
from ces.model.event import rfc3339
from ces.ops.views import Build
from ces.repeater.inbound import place_of
from ces.repeater.repeater import Repeater
from ces.repeater.undelivered import Entry, Undelivered

LETTERS_BYTES = 8 * 2**20
"""Size of events, in bytes, after which an answer to ``GET /undelivered`` adds no more."""

LETTERS_STEP = 50
"""Dead letters that are shown in one step."""

_json = msgspec.json.Decoder(msgspec.Raw).decode


def info(repeater: Repeater) -> Build:
    """``info`` of ``/status``: the hub link, the routes, each target, and the links from outside."""
    shown = Shown()
    visitors = repeater.visitors()
    inbound = yield from shown.listed("inbound", visitors, _visitor)
    state = {
        "id": repeater.name,
        "hub": repeater.hub.status(),
        "routes": repeater.routes,
        "targets": repeater.pool.status(),
        "undelivered": repeater.pool.undelivered.status(),
        "inbound": inbound,
        "received": dict(repeater.received_records),
        "unrouted": repeater.unrouted,
        **(yield from trouble(repeater.side, shown)),
        "totals": {"inbound": len(visitors)},
        "left-out": shown.left_out,
    }
    return {"node": repeater.node, "repeater": state}


def _visitor(link: Link) -> dict[str, Any]:
    room, name = place_of(link.path)
    return {
        "id": name,
        "room": room,
        "peer": link.peer,
        "dialect": link.dialect,
        "received": link.records_in,
        "malformed": link.malformed,
    }


def letters(kept: Undelivered, limit: int, target: str | None) -> Build:
    """The answer to ``GET /undelivered``: how many dead letters there are, and the newest of them.

    :param limit: how many events are shown, as long as they are within `LETTERS_BYTES`.
    :param target: of this target only; None for all.
    """
    newest: list[dict[str, Any]] = []
    size = 0
    found: list[tuple[Entry, bytes]] = []
    for entry, event in kept.newest(target):  # at once: what is kept changes between two steps
        if len(found) >= limit or size > LETTERS_BYTES:
            break
        found.append((entry, event))
        size += len(event)
    state = {**kept.status(), "targets": kept.by_target()}
    for number, (entry, event) in enumerate(found, 1):
        newest.append(_letter(entry, event))
        if not number % LETTERS_STEP:
            yield
    return {**state, "newest": newest}


def _letter(entry: Entry, event: bytes) -> dict[str, Any]:
    try:
        event.decode()  # msgspec does not check that raw values are UTF-8
        as_it_came: object = _json(event)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        as_it_came = event.decode("utf-8", "replace")
    return {
        "target": entry.target,
        "room": entry.room.decode("utf-8", "replace"),
        "when": rfc3339(datetime.fromtimestamp(entry.when, UTC)),
        "why": entry.why,
        "event": as_it_came,
    }
