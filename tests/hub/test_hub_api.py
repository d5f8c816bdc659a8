"""The hub's HTTP side, asked without sockets."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from treq.testing import StubTreq
from twisted.internet.defer import Deferred

from ces.hub.api import HubApi
from ces.hub.interconnect import Interconnections
from ces.ops.logging import LogLevels
from tests.support.hubs import Floor


def test_events_that_are_posted_without_a_time_stamp_get_the_present_time() -> None:
    floor = Floor()
    reader = floor.link("messenger", "*")
    now = datetime(2026, 11, 23, 8, tzinfo=UTC)
    interconnections = Interconnections(floor.hub, floor.clock)
    api = HubApi(floor.hub, interconnections, floor.clock, LogLevels(), now=lambda: now)
    treq = StubTreq(api.app.resource())
    answers: list[Any] = []

    async def post() -> None:
        response = await treq.post("http://hub:7100/event", data=b'[{"key":"a"}, {"timestamp": "noon"}]')
        answers.append(response.code)

    Deferred.fromCoroutine(post()).addErrback(lambda failure: failure.raiseException())
    treq.flush()
    floor.clock.advance(0)
    assert answers == [200]
    assert floor.sent(reader) == [
        b'\n{"key":"a","timestamp":"2026-11-23T08:00:00Z"}\n',
        b'\n{"timestamp": "noon"}\n',
    ]
