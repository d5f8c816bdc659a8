"""The hub's HTTP side, asked without sockets."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from treq.testing import StubTreq
from twisted.internet.defer import Deferred

from ces.hub.api import HubApi
from ces.hub.interconnect import SERVED, Interconnections, hub_address
from ces.model.wire import CES2
from ces.ops.logging import LogLevels
from tests.support.hubs import Floor
from tests.support.network import Network


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


class Asked:
    """A hub's HTTP side with links to two hubs: the one at the address "other", and one with that node."""

    def __init__(self) -> None:
        self.floor = Floor()
        interconnections = Interconnections(self.floor.hub, Network())
        interconnections.keep(hub_address("other"))
        self.link = self.floor.link("hub", dialect=CES2, node="other")
        api = HubApi(self.floor.hub, interconnections, self.floor.clock, LogLevels())
        self._treq = StubTreq(api.app.resource())

    def delete(self, path: str) -> tuple[int, str]:
        return self._ask("DELETE", f"/interconnect/{path}")

    def get(self, path: str) -> tuple[int, str]:
        return self._ask("GET", path)

    def _ask(self, method: str, path: str) -> tuple[int, str]:
        answers: list[tuple[int, str]] = []

        async def ask() -> None:
            response = await self._treq.request(method, f"http://hub:7100{path}")
            answers.append((response.code, (await response.content()).decode()))

        Deferred.fromCoroutine(ask()).addErrback(lambda failure: failure.raiseException())
        self._treq.flush()
        (answer,) = answers
        return answer


DIALLED = {"address": "ws://other:7100", "direction": "out", "node": ""}


def test_a_link_to_another_hub_is_ended_by_its_address_or_its_node_and_the_answer_says_which() -> None:
    asked = Asked()
    served = {"address": asked.link.peer, "direction": "in", "node": "other"}
    code, body = asked.delete("address/other:7100")
    assert (code, json.loads(body)) == (200, {"ended": [DIALLED]})
    assert asked.link.connected
    code, body = asked.delete("node/other")
    assert (code, json.loads(body)) == (200, {"ended": [served]})
    assert asked.delete("address/other") == (404, "There is no link to the address 'other'.")
    assert asked.delete("node/other") == (404, "There is no link to a hub with the node 'other'.")


def test_without_a_kind_a_name_ends_what_it_can_only_mean() -> None:
    asked = Asked()
    code, said = asked.delete("other")
    assert (code, said) == (
        409,
        "'other' is the address of one link and the node of another: say which with DELETE"
        " /interconnect/address/... or /interconnect/node/....",
    )
    code, body = asked.delete("other:7100")
    assert (code, json.loads(body)) == (200, {"ended": [DIALLED]})
    assert asked.delete("nobody") == (404, "There is no link to 'nobody'.")
    assert asked.delete("ftp://x")[0] == 400


def test_the_rooms_are_shown_as_the_query_says() -> None:
    asked = Asked()
    asked.floor.link("messenger", "ITB-1", "ITB 2", "JKB-1", dialect=CES2, node="me")
    code, body = asked.get("/rooms?prefix=ITB&limit=1&link=messenger%20me")
    assert (code, json.loads(body)) == (
        200,
        {
            "rooms": [{"room": "ITB 2", "messengers": 1, "hubs": 0, "listeners": ["messenger me"]}],
            "of": 2,
            "next": "ITB 2",
        },
    )
    code, body = asked.get("/rooms?prefix=ITB&after=ITB%202")
    assert [one["room"] for one in json.loads(body)["rooms"]] == ["ITB-1"]


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("limit=0", "Parameter 'limit': expected a whole number from 1 to 1000, got '0'."),
        ("perfix=A", "Parameter 'perfix': there is no such parameter; did you mean prefix?"),
        ("prefix=A&prefix=B", "Parameter 'prefix': it is given more than once."),
        ("prefix=%ff", "The query is not UTF-8."),
    ],
)
def test_a_wrong_parameter_is_answered_with_a_sentence(query: str, sentence: str) -> None:
    assert Asked().get(f"/rooms?{query}") == (400, sentence)


def test_the_links_are_shown_as_the_query_says() -> None:
    asked = Asked()
    asked.floor.link("messenger", "ITB-1", dialect=CES2, node="me")
    asked.floor.link("messenger", "ITB-1", "ITB-2", dialect=CES2, node="you")
    code, body = asked.get("/links?kind=messenger&room=ITB-1&sort=rooms&limit=1&offset=0&left=0&name=m")
    answer = json.loads(body)
    assert (code, answer["of"], answer["left"]) == (200, 2, [])
    assert [one["id"] for one in answer["links"]] == ["messenger you"]
    code, sentence = asked.get("/links?kind=person")
    assert (code, sentence) == (
        400,
        "Parameter 'kind': expected one of hub, messenger, repeater, got 'person'.",
    )
    code, sentence = asked.get("/links?sort=size")
    assert code == 400
    assert sentence.startswith("Parameter 'sort': expected one of name, rooms, age,")


def test_a_list_of_hubs_that_dialled_this_one_is_bounded() -> None:
    asked = Asked()
    for number in range(SERVED + 10):
        asked.floor.link("hub", dialect=CES2, node=f"h{number}")
    code, body = asked.get("/interconnect")
    assert (code, len(json.loads(body))) == (200, SERVED + 1)
