"""The hub's HTTP side: one port, one Klein application.

==========================================  =========  =======================================================
``GET /connect/{kind}``                     the kind   WebSocket upgrade; ``messenger``, ``repeater``, ``hub``
``POST /interconnect/{address}``            admin      link to a hub: 200 once it is up; ``?retry=true``: 202
                                                       at once
``GET /interconnect``                       status     every link to another hub, with its state
``DELETE /interconnect/address/{address}``  admin      end the link to an address; the answer says what was
                                                       ended
``DELETE /interconnect/node/{node}``        admin      end every link to the hub with this node
``DELETE /interconnect/{name}``             admin      either, if the name can only mean one of them; 409 if
                                                       not
``GET /links``                              status     the face of each link, and who has left; `LINKS_QUERY`
``GET /rooms``                              status     rooms and who listens; `ROOMS_QUERY`
``POST /event``                             messenger  one v2 event or a JSON array of them, routed as from a
                                                       messenger
``GET /status`` and others                             what every role has: `ces.ops.http`
==========================================  =========  =======================================================

The second column is the kind that the principal who asks must have (`ces.ops.gate`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource

from ces.access.principal import ADMIN, STATUS
from ces.access.table import Open
from ces.config.values import choice, integer
from ces.hub import shown
from ces.hub.hub import Hub
from ces.hub.interconnect import (
    ADDRESS,
    NODE,
    Ambiguous,
    Interconnections,
    IsItself,
    TooMany,
    Unreachable,
    hub_address,
)
from ces.link.faces import DEPARTED, SORTS
from ces.link.serving import LinkResource, ServingFactory, refusal
from ces.link.shown import link_counters
from ces.model.address import AddressError
from ces.model.posted import reading_posted
from ces.model.routing import KINDS, MESSENGER
from ces.ops.answers import json_answer, text
from ces.ops.clock import utc_now
from ces.ops.gate import Gate, Guarded, login_of
from ces.ops.http import add_common_routes
from ces.ops.logging import LogLevels
from ces.ops.query import read_query
from ces.ops.views import Views, ready

LINKS_QUERY: dict[str, Callable[[str], Any]] = {
    "kind": choice("KIND", KINDS).parse,
    "room": str.encode,
    "name": str,
    "sort": choice("ORDER", (shown.NAME_SORT, shown.ROOMS_SORT, *SORTS)).parse,
    "limit": integer(1, shown.LINKS_AT_MOST).parse,
    "offset": integer(0, 10**6).parse,
    "left": integer(0, DEPARTED).parse,
}
"""The parameters of ``GET /links``."""

ROOMS_QUERY: dict[str, Callable[[str], Any]] = {
    "prefix": str.encode,
    "after": str.encode,
    "limit": integer(1, shown.ROOMS_AT_MOST).parse,
    "link": str,
}
"""The parameters of ``GET /rooms``."""


class HubApi:
    """The routes of one hub. `app.resource()` is what a Site serves.

    :param gate: judges who asks; by default anyone may do everything.
    :param now: the present time, which a posted event without a time stamp gets.
    """

    def __init__(
        self,
        hub: Hub,
        interconnections: Interconnections,
        reactor: Any,
        levels: LogLevels,
        gate: Gate | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._hub = hub
        self._now = now
        self._gate = gate = gate or Gate(Open(), hub.side.refuse)
        self._interconnections = interconnections
        self._views = Views(reactor, hub.side.refuse)
        self._factories = {kind: ServingFactory(hub, hub.side, kind, reactor) for kind in KINDS}
        self.app = Klein()
        # An address in a path may be a URL: its two slashes stay two.
        self.app.url_map.merge_slashes = False
        # Which kind a link needs stands in its path: `_connect` asks the gate itself.
        self.app.route("/connect", methods=["GET"])(self._connect)
        self.app.route("/connect/", methods=["GET"], branch=True)(self._connect)
        route = Guarded(self.app, gate).route
        route("/interconnect", "GET", STATUS, self._list)
        route("/interconnect/<path:address>", "POST", ADMIN, self._interconnect)
        route("/interconnect/<path:name>", "DELETE", ADMIN, self._end)
        route("/interconnect/address/<path:name>", "DELETE", ADMIN, self._end_address)
        route("/interconnect/node/<path:name>", "DELETE", ADMIN, self._end_node)
        route("/event", "POST", MESSENGER, self._event)
        route("/links", "GET", STATUS, self._links)
        route("/rooms", "GET", STATUS, self._rooms)
        add_common_routes(
            self.app,
            gate,
            bin="ces-hub",
            clock=reactor,
            levels=levels,
            views=self._views,
            info=lambda: shown.info(hub),
            counters=lambda: counters(hub),
        )

    def _connect(self, request: IRequest) -> IResource | bytes:
        kind = b"/".join(request.postpath).decode("utf-8", "replace")
        factory = self._factories.get(kind)
        if factory is None:
            return text(
                request,
                400,
                f"There is no link of kind {kind[:80]!r}: connect to /connect/ with {', '.join(KINDS)}.",
            )
        refused = self._gate.fault(request, kind) or refusal(request, self._hub.side)
        if refused is not None:
            return text(request, *refused)
        login = login_of(request)
        return LinkResource(factory, login, self._gate.lasts(login))

    def _list(self, request: IRequest) -> Deferred[None]:
        return self._views.answer(request, "interconnect", lambda: ready(self._interconnections.status()))

    async def _interconnect(self, request: IRequest, address: str) -> bytes:
        try:
            target = hub_address(address)
        except AddressError as error:
            return text(request, 400, f"{error}.")
        try:
            if (request.args.get(b"retry") or [b"false"])[0].lower() in (b"true", b"1"):
                self._interconnections.keep(target)
                return text(request, 202, f"trying to reach {target.url()} until it answers")
            await self._interconnections.connect(target)
        except TooMany as error:
            return text(request, 503, f"{error}.")
        except IsItself as error:
            return text(request, 409, f"{error}.")
        except Unreachable as error:
            return text(request, 502, f"No hub could be reached at {target.url()}: {error}.")
        return text(request, 200, "ok")

    async def _end(self, request: IRequest, name: str) -> bytes:
        try:
            ended = await self._interconnections.end(name)
        except Ambiguous as error:
            how = "say which with DELETE /interconnect/address/... or /interconnect/node/..."
            return text(request, 409, f"{error}: {how}.")
        except AddressError as error:
            return text(request, 400, f"{error}.")
        return _ended(request, ended, repr(name))

    async def _end_address(self, request: IRequest, name: str) -> bytes:
        try:
            ended = await self._interconnections.end(name, ADDRESS)
        except AddressError as error:
            return text(request, 400, f"{error}.")
        return _ended(request, ended, f"the address {name!r}")

    async def _end_node(self, request: IRequest, name: str) -> bytes:
        ended = await self._interconnections.end(name, NODE)
        return _ended(request, ended, f"a hub with the node {name!r}")

    async def _event(self, request: IRequest) -> bytes:
        settings = self._hub.settings
        reading = reading_posted(
            request.content.read(), settings.message_limit, settings.json_depth, self._now()
        )
        runs = await self._hub.side.slices.finish(reading)
        refused = self._gate.publish_fault(request, runs)
        if refused is not None:
            return text(request, *refused)
        if not self._hub.posted(runs):
            return text(request, 503, "Too many events are waiting to be routed: send this again later.")
        return text(request, 200, "Processing event")

    def _links(self, request: IRequest) -> Deferred[None]:
        asked = shown.LinksAsked(**read_query(request, LINKS_QUERY))
        return self._views.answer(request, asked, lambda: shown.links(self._hub, asked))

    def _rooms(self, request: IRequest) -> Deferred[None]:
        asked = shown.RoomsAsked(**read_query(request, ROOMS_QUERY))
        return self._views.answer(request, asked, lambda: shown.rooms(self._hub, asked))


def _ended(request: IRequest, ended: list[dict[str, Any]], what: str) -> bytes:
    if not ended:
        return text(request, 404, f"There is no link to {what}.")
    return json_answer(request, {"ended": ended})


def counters(hub: Hub) -> dict[str, tuple[str, str, Any]]:
    """What ``/metrics`` shows of a hub: name -> (help, type, value or {label: value})."""
    side, routes = hub.side, hub.routes
    return {
        "ces_hub_received_records": (
            "Records received, by the kind of link they came from.",
            "counter",
            {(("kind", kind),): count for kind, count in hub.received_records.items()},
        ),
        "ces_hub_sent_records": ("Records written to links.", "counter", hub.sent),
        "ces_hub_unrouted_records": ("Records that nobody wanted.", "counter", hub.unrouted),
        "ces_hub_held_records": ("Records that wait for a repeater.", "gauge", hub.held.records),
        "ces_hub_held_dropped_records": ("Records that no repeater came for.", "counter", hub.held.dropped),
        "ces_hub_links": (
            "Live links, by kind.",
            "gauge",
            {(("kind", kind),): sum(link.connected for link in routes.links(kind)) for kind in KINDS},
        ),
        "ces_hub_short_links": (
            "Links that have fewer rooms than they asked for.",
            "gauge",
            hub.subscriptions.short,
        ),
        "ces_hub_subscriptions": ("Rooms that links are subscribed to, of all links.", "gauge", routes.wants),
        "ces_hub_waiting_subscriptions": (
            "Rooms that links asked for and get when others are given up.",
            "gauge",
            hub.subscriptions.waiting,
        ),
        **link_counters(side, "ces_hub"),
    }
