"""``GET /links``: the face of each link, found, sorted and page by page; and who has left, and why."""

from __future__ import annotations

from typing import Any

import pytest

from ces.hub.shown import LinksAsked, links
from ces.link.faces import DEPARTED, FIRST_ROOMS, SORTS
from ces.link.link import Link
from ces.model.control import SubscriptionChange
from ces.model.wire import CES1, CES2
from tests.support.hubs import Floor
from tests.support.views import built


def asked(floor: Floor, **more: Any) -> dict[str, Any]:
    return built(links(floor.hub, LinksAsked(**more)))


def ids(answer: dict[str, Any]) -> list[str]:
    return [one["id"] for one in answer["links"]]


def block(floor: Floor, link: Link) -> None:
    floor.plugs[link].blocked = True
    link.blocked(floor.plugs[link])


@pytest.fixture
def floor() -> Floor:
    return Floor()


def test_a_link_is_shown_with_all_that_is_known_of_it(floor: Floor) -> None:
    rooms = [f"ITB-{number}" for number in range(30)]
    reader = floor.link("messenger", *rooms, dialect=CES2, node="reader", host="10.0.0.1")
    plug = floor.plugs[reader]
    plug.agent, plug.round_trip = "a browser", 0.0123
    floor.clock.advance(5)
    plug.heard = floor.clock.seconds() - 2
    writer = floor.link("messenger")
    floor.send(writer, "ITB-1", "a", "b")
    (face, _) = asked(floor)["links"]
    assert face.pop("since").endswith("Z")
    assert face == {
        "id": "messenger reader",
        "kind": "messenger",
        "node": "reader",
        "address": plug.peer,
        "agent": "a browser",
        "dialect": CES2,
        "connected": True,
        "reason": "",
        "resumes": 0,
        "rooms": 30,
        "first-rooms": rooms[:FIRST_ROOMS],
        "received": 0,
        "sent": 2,
        "in": 0.0,
        "out": 0.4,
        "waiting": reader.queue.size,
        "capacity": reader.queue.limit,
        "in-flight": 2,
        "dropped": 0,
        "malformed": 0,
        "round-trip": 0.0123,
        "silent": 2,
        "congested": False,
        "paused": False,
        "stalled": None,
    }


def test_the_rates_are_of_the_time_since_the_last_look(floor: Floor) -> None:
    reader, writer = floor.link("messenger", "ITB-1"), floor.link("messenger")
    asked(floor)
    for _ in range(2):
        for _ in range(10):
            floor.send(writer, "ITB-1", "a")
        writer.records_in += 10
        floor.clock.advance(2)
        for _ in range(2):  # the second look comes too early for a rate of its own
            shown = {one["id"]: (one["in"], one["out"]) for one in asked(floor)["links"]}
            assert (shown[reader.name], shown[writer.name]) == ((0, 5), (5, 0))
    floor.clock.advance(2)
    assert [one["out"] for one in asked(floor)["links"]] == [0, 0]


def test_a_link_that_was_cut_is_shown_and_says_why_and_how_often_it_was_back(floor: Floor) -> None:
    reader = floor.link("messenger", dialect=CES2)
    floor.cut(reader)
    (face,) = asked(floor)["links"]
    assert (face["connected"], face["reason"]) == (False, "the connection was cut")
    assert (face["silent"], face["round-trip"], face["agent"]) == (None, None, "")
    floor.resume(reader)
    (face,) = asked(floor)["links"]
    assert (face["connected"], face["reason"], face["resumes"]) == (True, "", 1)


def test_links_are_found_by_kind_name_and_room(floor: Floor) -> None:
    floor.link("messenger", "ITB-1", dialect=CES2, node="a")
    floor.link("messenger", "*", dialect=CES2, node="b")
    floor.link("messenger", "JKB-1", dialect=CES2, node="c")
    floor.link("hub", "ITB-1", dialect=CES2, node="a")
    floor.link("repeater", dialect=CES2, node="r")
    assert asked(floor)["of"] == 5
    assert ids(asked(floor, kind="messenger")) == ["messenger a", "messenger b", "messenger c"]
    assert ids(asked(floor, room=b"ITB-1")) == ["messenger a", "messenger b", "hub a"]
    assert ids(asked(floor, room=b"ITB-1", kind="hub")) == ["hub a"]
    assert ids(asked(floor, room=b"nobody's")) == ["messenger b"]
    assert ids(asked(floor, name=" a")) == ["hub a", "messenger a"]


@pytest.mark.parametrize("sort", [None, "name", *SORTS])
def test_page_by_page_each_link_is_shown_once_in_every_order(floor: Floor, sort: str | None) -> None:
    everybody = [floor.link("messenger", dialect=CES2, node=f"m{number}") for number in range(25)]
    for number, link in enumerate(everybody):
        floor.hub.told(link, SubscriptionChange([f"ITB-{room}" for room in range(number)], True))
        link.malformed = 25 - number
    found: list[str] = []
    for offset in range(0, 30, 10):
        answer = asked(floor, sort=sort, limit=10, offset=offset)
        assert answer["of"] == 25
        found += ids(answer)
    assert sorted(found) == sorted(link.name for link in everybody)
    if sort == "malformed" or sort is None:
        assert found == [link.name for link in everybody]
    if sort == "rooms":
        assert found == [link.name for link in everybody[::-1]]


def test_the_links_for_which_most_waits_come_first(floor: Floor) -> None:
    fast, slow, slower = (floor.link("messenger", f"ITB-{number}") for number in range(3))
    writer = floor.link("messenger")
    for link, count in ((slow, 1), (slower, 5)):
        block(floor, link)
        for _ in range(count):
            floor.send(writer, f"ITB-{1 if link is slow else 2}", "a")
    floor.clock.advance(3)
    answer = asked(floor, sort="waiting", limit=3)
    assert ids(answer)[:2] == [slower.name, slow.name]
    assert [one["stalled"] for one in answer["links"]] == [3, 3, None]
    assert fast.name in ids(answer) or writer.name in ids(answer)


def test_those_that_left_are_shown_with_their_reason_and_only_the_latest(floor: Floor) -> None:
    for _ in range(DEPARTED + 5):
        link = floor.link("messenger", dialect=CES1)
        floor.clock.advance(1)
        floor.close(link)
    answer = asked(floor, left=DEPARTED)
    assert len(answer["left"]) == DEPARTED
    newest = answer["left"][0]
    assert newest["id"] == link.name
    assert newest["reason"] == "closed by the other side with 1000"
    assert newest["since"] < newest["until"]
    assert len(asked(floor, left=2)["left"]) == 2


def test_a_link_that_leaves_while_links_are_looked_at_is_no_error(floor: Floor) -> None:
    everybody = [floor.link("messenger") for _ in range(3)]
    for sort in (None, "rooms"):
        view = links(floor.hub, LinksAsked(sort=sort))
        next(view)
        floor.close(everybody.pop())
        assert len(built(view)["links"]) in (len(everybody), len(everybody) + 1)
