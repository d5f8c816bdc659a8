"""What a hub shows of itself: ``info`` of ``/status``, its links, and the rooms that are listened to.

The envelope is what the fleet's monitoring decodes: lists of links with `id`, `buffer-capacity` and
`buffer-utilization`. Each list is bounded; `totals` and `left-out` say what there is beyond it, and ``GET
/links`` and ``GET /rooms`` show that page by page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from heapq import nlargest, nsmallest
from itertools import islice
from typing import Any

from ces.hub.hub import Hub
from ces.hub.subscriptions import Short
from ces.link.faces import SORTS, face, past_face
from ces.link.link import Link
from ces.link.shown import SHOWN, STEP, Shown, registration, trouble
from ces.model.routing import HUB, KINDS, MESSENGER
from ces.model.wire import EVERY_ROOM
from ces.ops.clock import utc_now
from ces.ops.views import Build

LISTENERS = 10
"""Limit of links that ``/status`` and ``/rooms`` show for one room."""

ROOMS, ROOMS_AT_MOST = 100, 1000
"""Default and largest number of rooms in an answer to ``GET /rooms``."""

ROOMS_STEP = 5000
"""Rooms that are looked at in one step."""


LINKS, LINKS_AT_MOST = 100, 1000
"""Default and largest number of links in an answer to ``GET /links``."""

LINKS_STEP = 1000
"""Links that are looked at, but not shown, in one step."""

LEFT = 10
"""Default number of links that have left in an answer to ``GET /links``."""

NAME_SORT, ROOMS_SORT = "name", "rooms"
"""Orders of links besides `ces.link.faces.SORTS`. Only by name the least comes first."""


@dataclass(frozen=True)
class LinksAsked:
    """What ``GET /links`` asks for.

    kind: links of this kind. room: those that get the events of this room, by its name or by ``*``. name:
    those whose name has this in it. sort: an order; None for that of their kinds, and in which they joined.
    limit, offset: so many of them, without the first ones. left: how many of those that have left.
    """

    kind: str | None = None
    room: bytes | None = None
    name: str = ""
    sort: str | None = None
    limit: int = LINKS
    offset: int = 0
    left: int = LEFT


@dataclass(frozen=True)
class RoomsAsked:
    """What ``GET /rooms`` asks for.

    prefix: the rooms that begin so. after: those that come after this one, bytewise. limit: the first so
    many of them. link: those of the links with this name.
    """

    prefix: bytes = b""
    after: bytes | None = None
    limit: int = ROOMS
    link: str | None = None


def info(hub: Hub) -> Build:
    """``info`` of ``/status``."""
    return {"node": hub.node, "nexus": (yield from status(hub))}


def status(hub: Hub) -> Build:
    """``info.nexus`` of ``/status``. Links that have no connection are in `detached` only."""
    shown = Shown()
    lists: dict[str, Any] = {}
    totals: dict[str, int] = {}
    for kind in KINDS:
        connected = [link for link in hub.routes.links(kind) if link.connected]
        totals[f"{kind}s"] = len(connected)
        yield
        lists[f"{kind}s"] = yield from shown.listed(f"{kind}s", connected, registration)
    lists["messenger-mapping"] = yield from _mapping(hub, shown)
    lists |= yield from trouble(hub.side, shown)
    lists["short"] = [_short(one) for one in hub.subscriptions.shorts(SHOWN)]
    shown.rest("short", hub.subscriptions.short - len(lists["short"]))
    yield
    totals |= {"rooms": hub.routes.wanted_rooms(), "subscriptions": hub.routes.wants}
    return {**lists, "totals": totals, "left-out": shown.left_out}


def _mapping(hub: Hub, shown: Shown) -> Build:
    """The first rooms that messengers want, each with the first of those that are connected."""
    routes = hub.routes
    rooms = routes.first_wanted(SHOWN)
    shown.rest("rooms", routes.wanted_rooms() - len(rooms))
    mapping: dict[str, list[dict[str, Any]]] = {}
    beyond = 0
    for number, room in enumerate(rooms, 1):
        connected = [link for link in routes.listeners(room) if link.connected]
        mapping[room.decode()] = [_brief(link) for link in connected[:LISTENERS]]
        beyond += max(0, len(connected) - LISTENERS)
        if not number % STEP or len(connected) > STEP:
            yield
    shown.rest("listeners", beyond)
    return mapping


def _short(short: Short) -> dict[str, Any]:
    return {"id": short.link.name, "waiting": short.waiting, "forgotten": short.forgotten}


def _brief(link: Link) -> dict[str, Any]:
    """A link as the fleet's monitoring decodes it."""
    return {
        "id": link.name,
        "buffer-utilization": link.queue.size,
        "buffer-capacity": link.queue.limit,
    }


def links(hub: Hub, asked: LinksAsked) -> Build:
    """The answer to ``GET /links``: the faces of links, detached ones included, and who has left."""
    now, time = hub.side.keepalive.seconds(), utc_now()
    found = _of_kind(hub, asked) if asked.room is None else _listening(hub, asked.room, asked.kind)
    yield
    if asked.name:
        named: list[Link] = []
        for start in range(0, len(found), LINKS_STEP):
            named += [link for link in found[start : start + LINKS_STEP] if asked.name in link.name]
            yield
        found = named
    page = yield from _sorted(hub, found, asked, now)
    faces = []
    for number, link in enumerate(page, 1):
        if link in hub.routes:
            faces.append(face(link, hub.routes.rooms(link), now, time))
        if not number % STEP:
            yield
    left = [past_face(one, now, time) for one in islice(hub.departed, asked.left)]
    return {"links": faces, "of": len(found), "left": left}


def _of_kind(hub: Hub, asked: LinksAsked) -> list[Link]:
    kinds = KINDS if asked.kind is None else (asked.kind,)
    return [link for kind in kinds for link in hub.routes.links(kind)]


def _listening(hub: Hub, room: bytes, kind: str | None) -> list[Link]:
    found: dict[Link, None] = {}
    for each in (MESSENGER, HUB):
        if kind in (None, each):
            for name in (room, EVERY_ROOM):
                found.update(dict.fromkeys(hub.routes.listeners(name, each)))
    return list(found)


def _sorted(hub: Hub, found: list[Link], asked: LinksAsked, now: float) -> Build:
    """The page of links that is asked for. Links with the same value stay in the order that they had."""
    end = asked.offset + asked.limit
    if asked.sort is None:
        return found[asked.offset : end]
    value = _rooms_counted(hub) if asked.sort == ROOMS_SORT else SORTS.get(asked.sort, _name)
    pick, sign = (nsmallest, 1) if asked.sort == NAME_SORT else (nlargest, -1)
    entries: list[tuple[Any, int]] = []
    for start in range(0, len(found), LINKS_STEP):
        piece = found[start : start + LINKS_STEP]
        entries += [(value(link, now), sign * number) for number, link in enumerate(piece, start)]
        yield
    page = pick(end, entries)[asked.offset :]
    return [found[sign * number] for _, number in page]


def _name(link: Link, now: float) -> str:
    return link.name


def _rooms_counted(hub: Hub) -> Callable[[Link, float], int]:
    routes = hub.routes
    return lambda link, now: len(routes.rooms(link)) if link in routes else 0


def rooms(hub: Hub, asked: RoomsAsked) -> Build:
    """The answer to ``GET /rooms``: rooms in bytewise order, with those who listen to them.

    The rooms may change while they are looked at: what is shown may be of the beginning or of the end.
    """
    routes = hub.routes
    first: list[bytes] = []
    found = 0
    for names, known in (yield from _named(hub, asked.link)):
        for start in range(0, len(names), ROOMS_STEP):
            piece = [room for room in names[start : start + ROOMS_STEP] if room.startswith(asked.prefix)]
            if known is not None:
                piece = [room for room in piece if not known(room)]
            found += len(piece)
            if asked.after is not None:
                piece = [room for room in piece if room > asked.after]
            if len(first) > asked.limit:
                piece = [room for room in piece if room < first[-1]]
            first = nsmallest(asked.limit + 1, [*first, *piece])
            yield
    shown = []
    for number, room in enumerate(first[: asked.limit], 1):
        listeners = {kind: routes.listeners(room, kind) for kind in (MESSENGER, HUB)}
        links = [*listeners[MESSENGER], *listeners[HUB]]
        shown.append(
            {
                "room": room.decode(),
                "messengers": len(listeners[MESSENGER]),
                "hubs": len(listeners[HUB]),
                "listeners": [link.name for link in links[:LISTENERS]],
            }
        )
        if not number % STEP or len(links) > STEP:
            yield
    more = len(first) > asked.limit and asked.limit > 0
    return {"rooms": shown, "of": found, "next": first[asked.limit - 1].decode() if more else None}


def _named(hub: Hub, link: str | None) -> Build:
    """The names of rooms, in lists; each with a function that tells which of them were in a list before."""
    routes = hub.routes
    if link is None:
        return [(routes.wanted(), None), (routes.wanted(HUB), routes.is_wanted)]
    named: set[bytes] = set()
    for kind in (MESSENGER, HUB):
        for one in routes.links(kind):
            if one.name == link:
                named.update(routes.rooms(one))
        yield
    return [(list(named), None)]
