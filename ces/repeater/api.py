"""The repeater's HTTP API: one port, one Klein application.

============================  =======  =====================================================================
``GET /connect/{room}/{id}``  outside  WebSocket upgrade; events that arrive on the link are inserted
``POST /send``                outside  inserts one v2 event or a JSON array of v2 events
``GET /undelivered``          admin    the dead letters; shows the newest ``?limit=100`` events
``POST /undelivered/retry``   admin    sends the dead letters to their targets again
``DELETE /undelivered``       admin    removes the dead letters
``GET /status`` and others             what every role has: `ces.ops.http`
============================  =======  =====================================================================

The second column is the kind that the principal who asks must have (`ces.ops.gate`).

``?target=URL`` restricts the ``/undelivered`` routes to the dead letters of one target.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource

from ces.access.principal import ADMIN
from ces.access.table import Open
from ces.config.values import integer
from ces.link.serving import LinkResource, ServingFactory, refusal
from ces.link.shown import link_counters
from ces.model.posted import reading_posted
from ces.ops.answers import json_answer, text
from ces.ops.clock import utc_now
from ces.ops.gate import Gate, Guarded, login_of
from ces.ops.http import add_common_routes
from ces.ops.logging import LogLevels
from ces.ops.query import read_query
from ces.ops.views import Views, to_compact_json
from ces.repeater import shown
from ces.repeater.inbound import OUTSIDE, NoPlace, place_of, read_outside
from ces.repeater.repeater import Repeater
from ces.repeater.routes_file import target_url
from ces.uplink.spool_file import SpoolFile

SHOWN, SHOWN_AT_MOST = 100, 10_000
"""Default and largest number of events in an answer to ``GET /undelivered``."""


class RepeaterApi:
    """The routes of one repeater. The caller serves `app.resource()` with a Site.

    :param gate: judges who asks; by default anyone may do everything.
    :param now: the present time, which a posted event without a time stamp gets.
    """

    def __init__(
        self,
        repeater: Repeater,
        reactor: Any,
        levels: LogLevels,
        gate: Gate | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._repeater = repeater
        self._now = now
        self._views = Views(reactor, repeater.side.refuse)
        self._gate = gate = gate or Gate(Open(), repeater.side.refuse)
        self._factory = ServingFactory(repeater, repeater.side, OUTSIDE, reactor, read_outside())
        self.app = Klein()
        # A link may be for the blank room (/connect//id), which a branch route does not match.
        self.app.url_map.merge_slashes = False
        # The gate is asked after the path, by `_connect` itself.
        self.app.route("/connect", methods=["GET"])(self._connect)
        self.app.route("/connect/", methods=["GET"], branch=True)(self._connect)
        self.app.route("/connect//<path:id>", methods=["GET"])(self._connect)
        route = Guarded(self.app, gate).route
        route("/send", "POST", OUTSIDE, self._send)
        route("/undelivered", "GET", ADMIN, self._undelivered)
        route("/undelivered", "DELETE", ADMIN, self._remove)
        route("/undelivered/retry", "POST", ADMIN, self._retry)
        add_common_routes(
            self.app,
            gate,
            bin="ces-repeater",
            clock=reactor,
            levels=levels,
            views=self._views,
            info=lambda: shown.info(repeater),
            counters=lambda: counters(repeater),
            sick=lambda: repeater.hub.away,
        )

    def _connect(self, request: IRequest, id: str = "") -> IResource | bytes:
        try:
            place_of(request.path.decode("ascii", "replace"))
        except NoPlace as fault:
            return text(request, 400, str(fault))
        refused = self._gate.fault(request, OUTSIDE) or refusal(request, self._repeater.side)
        if refused is not None:
            return text(request, *refused)
        login = login_of(request)
        return LinkResource(self._factory, login, self._gate.lasts(login))

    async def _send(self, request: IRequest) -> bytes:
        settings = self._repeater.settings
        reading = reading_posted(
            request.content.read(), settings.message_limit, settings.json_depth, self._now()
        )
        runs = await self._repeater.side.slices.finish(reading)
        refused = self._gate.publish_fault(request, runs)
        if refused is not None:
            return text(request, *refused)
        self._repeater.insert(runs)
        return text(request, 200, "ok")

    def _undelivered(self, request: IRequest) -> Deferred[None]:
        asked = read_query(request, {"limit": integer(0, SHOWN_AT_MOST).parse, "target": target_url})
        limit, target = asked.get("limit", SHOWN), asked.get("target")
        kept = self._repeater.pool.undelivered
        key = ("undelivered", limit, target)
        return self._views.answer(request, key, lambda: shown.letters(kept, limit, target), to_compact_json)

    def _retry(self, request: IRequest) -> bytes:
        target = read_query(request, {"target": target_url}).get("target")
        pool = self._repeater.pool
        return json_answer(request, {"retried": pool.retry(target), "undelivered": pool.undelivered.records})

    def _remove(self, request: IRequest) -> bytes:
        target = read_query(request, {"target": target_url}).get("target")
        kept = self._repeater.pool.undelivered
        return json_answer(request, {"removed": kept.remove(target), "undelivered": kept.records})


def _spool_file(file: SpoolFile | None) -> dict[str, tuple[str, str, Any]]:
    if file is None:
        return {}
    return {
        "ces_repeater_spool_disk_records": ("Records for the hub that are on disk.", "gauge", file.records),
        "ces_repeater_spool_disk_bytes": ("Bytes of the records for the hub on disk.", "gauge", file.bytes),
        "ces_repeater_spool_unwritten_records": (
            "Records for the hub in memory only, because the spool on disk cannot be written.",
            "gauge",
            file.unwritten,
        ),
        "ces_repeater_spool_failures": (
            "Failed writes to the spool on disk.",
            "counter",
            file.failures,
        ),
        "ces_repeater_spool_damaged_records": (
            "Records for the hub that were lost because the disk has changed them.",
            "counter",
            file.damaged,
        ),
    }


def counters(repeater: Repeater) -> dict[str, tuple[str, str, Any]]:
    """The metrics of a repeater, by name: help text, type, and a value or one value per label set."""
    side, hub, pool = repeater.side, repeater.hub, repeater.pool
    undelivered = pool.undelivered
    return {
        "ces_repeater_received_records": (
            "Records received, by kind of source.",
            "counter",
            {(("kind", kind),): count for kind, count in repeater.received_records.items()},
        ),
        "ces_repeater_inserted_records": ("Records written to the hub.", "counter", hub.spool.queue.taken),
        "ces_repeater_spool_bytes": ("Bytes that wait for the hub.", "gauge", hub.spool.queue.size),
        **_spool_file(hub.spool.file),
        "ces_repeater_hub_up": ("Whether there is a link to the hub.", "gauge", int(hub.away is None)),
        "ces_repeater_sent_records": ("Records given to targets.", "counter", pool.total("sent")),
        "ces_repeater_target_bytes": ("Bytes that wait for targets.", "gauge", pool.waiting),
        "ces_repeater_target_failures": (
            "Failed dials, links and requests to targets.",
            "counter",
            pool.total("failures"),
        ),
        "ces_repeater_undelivered_records": (
            "Records that targets did not get, kept to be sent again.",
            "gauge",
            undelivered.records,
        ),
        "ces_repeater_undelivered_bytes": ("Bytes of the undelivered records.", "gauge", undelivered.bytes),
        "ces_repeater_undelivered_retried_records": (
            "Undelivered records that were sent to their targets again.",
            "counter",
            undelivered.retried,
        ),
        "ces_repeater_undelivered_removed_records": (
            "Undelivered records removed on request.",
            "counter",
            undelivered.removed,
        ),
        "ces_repeater_undelivered_lost_records": (
            "Undelivered records that were lost for lack of space.",
            "counter",
            undelivered.lost,
        ),
        "ces_repeater_unrouted_records": (
            "Records from the hub without a route.",
            "counter",
            repeater.unrouted,
        ),
        "ces_repeater_inbound_links": ("Live links from outside.", "gauge", repeater.inbound),
        **link_counters(side, "ces_repeater"),
    }
