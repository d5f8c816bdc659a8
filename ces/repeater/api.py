"""The repeater's HTTP side: one port, one Klein application.

======================================  ===============================================================
``GET /connect/{room}/{id}``            WebSocket upgrade; what comes on the link is inserted
``POST /send``                          one v2 event or a JSON array of them, inserted
``GET /status /health /metrics /log-level``, ``PUT /log-level/{level}``   `ces.ops.http`
======================================  ===============================================================
"""

from __future__ import annotations

from typing import Any

from klein import Klein
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource

from ces.link.server import LinkResource, ServingFactory, upgrade_fault
from ces.link.shown import link_counters
from ces.model.posted import MalformedEvent, read_posted
from ces.ops.http import add_common_routes, text
from ces.ops.logging import LogLevels
from ces.repeater.inbound import OUTSIDE, NoPlace, place_of, read_outside
from ces.repeater.repeater import Repeater


class RepeaterApi:
    """The routes of one repeater. `app.resource()` is what a Site serves."""

    def __init__(self, repeater: Repeater, reactor: Any, levels: LogLevels) -> None:
        self._repeater = repeater
        self._factory = ServingFactory(repeater.side, OUTSIDE, reactor, read_outside())
        self.app = Klein()
        # A link may be for the blank room (/connect//id), which a branch does not take.
        self.app.url_map.merge_slashes = False
        self.app.route("/connect", methods=["GET"])(self._connect)
        self.app.route("/connect/", methods=["GET"], branch=True)(self._connect)
        self.app.route("/connect//<path:id>", methods=["GET"])(self._connect)
        self.app.route("/send", methods=["POST"])(self._send)
        add_common_routes(
            self.app,
            bin="ces-repeater",
            clock=reactor,
            levels=levels,
            info=lambda: {"node": repeater.node, "repeater": repeater.status()},
            counters=lambda: counters(repeater),
            sick=lambda: repeater.hub.away,
        )

    def _connect(self, request: IRequest, id: str = "") -> IResource | bytes:
        try:
            place_of(request.path.decode("ascii", "replace"))
        except NoPlace as fault:
            return text(request, 400, str(fault))
        missing = upgrade_fault(request)
        if missing is not None:
            request.setHeader("Upgrade", "websocket")
            return text(request, 426, missing)
        return LinkResource(self._factory)

    def _send(self, request: IRequest) -> bytes:
        try:
            runs = read_posted(request.content.read(), self._repeater.side.limits.message)
        except MalformedEvent as fault:
            return text(request, 400, str(fault))
        self._repeater.insert(runs)
        return text(request, 200, "ok")


def counters(repeater: Repeater) -> dict[str, tuple[str, str, Any]]:
    """What ``/metrics`` shows of a repeater: name -> (help, type, value or {labels: value})."""
    side, hub, pool = repeater.side, repeater.hub, repeater.pool
    return {
        "ces_repeater_received_records": (
            "Records received, by where they came from.",
            "counter",
            {(("kind", kind),): count for kind, count in repeater.received_records.items()},
        ),
        "ces_repeater_inserted_records": ("Records written to the hub.", "counter", hub.spool.taken),
        "ces_repeater_spool_bytes": ("Bytes that wait for the hub.", "gauge", hub.spool.size),
        "ces_repeater_hub_up": ("Whether there is a link to the hub.", "gauge", int(hub.away is None)),
        "ces_repeater_sent_records": ("Records given to targets.", "counter", pool.total("sent")),
        "ces_repeater_target_bytes": ("Bytes that wait for targets.", "gauge", pool.waiting),
        "ces_repeater_target_failures": (
            "Dials, links and requests to targets that failed.",
            "counter",
            pool.total("failures"),
        ),
        "ces_repeater_unrouted_records": (
            "Records from the hub without a route.",
            "counter",
            repeater.unrouted,
        ),
        "ces_repeater_inbound_links": ("Live links from outside.", "gauge", repeater.inbound),
        **link_counters(side, "ces_repeater"),
    }
