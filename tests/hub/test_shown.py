"""What a hub shows of itself is bounded, says what it leaves out, and is built in short steps."""

from __future__ import annotations

import gc
from time import thread_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ces.hub.shown import LISTENERS, RoomsAsked, rooms, status
from ces.link.shown import SHOWN, SHOWN_SLOW, registration
from ces.model.wire import CES2
from ces.ops.views import to_json
from tests.support.hubs import Floor
from tests.support.views import built


def test_the_status_has_the_shape_that_monitoring_decodes() -> None:
    floor = Floor()
    reader = floor.link("messenger", "ITB-1", "ITB-2", dialect=CES2, node="reader")
    nexus = built(status(floor.hub))
    assert nexus["messengers"] == [registration(reader)]
    brief = {
        "id": "messenger reader",
        "buffer-utilization": 0,
        "buffer-capacity": floor.hub.settings.link_buffer,
    }
    assert nexus["messenger-mapping"] == {"ITB-1": [brief], "ITB-2": [brief]}
    assert nexus["totals"] == {"hubs": 0, "messengers": 1, "repeaters": 0, "rooms": 2, "subscriptions": 2}
    assert nexus["left-out"] == {}


def test_each_list_is_bounded_and_says_what_it_leaves_out() -> None:
    floor = Floor()
    readers = [floor.link("messenger", "ALL", f"ITB-{number}", dialect=CES2) for number in range(2000)]
    for reader in readers[:1200]:
        floor.plugs[reader].blocked = True
        reader.blocked(floor.plugs[reader])
    floor.send(floor.link("repeater"), "ALL", "a")
    for reader in readers[1200:]:
        floor.cut(reader)
    nexus = built(status(floor.hub))
    assert [len(nexus[name]) for name in ("messengers", "slow", "detached")] == [SHOWN, SHOWN_SLOW, 800]
    assert len(nexus["messenger-mapping"]) == SHOWN
    assert [one["id"] for one in nexus["messenger-mapping"]["ALL"]] == [
        one.name for one in readers[:LISTENERS]
    ]
    assert nexus["left-out"] == {
        "messengers": 200,
        "slow": 1200 - SHOWN_SLOW,
        "rooms": 2001 - SHOWN,
        "listeners": 1200 - LISTENERS,
    }
    assert nexus["totals"]["messengers"] == 1200
    assert nexus["totals"]["rooms"] == 2001


def test_the_status_does_not_grow_with_what_others_subscribe_to() -> None:
    floor = Floor()
    for number in range(20):
        floor.link("messenger", *[f"{number:03}-{room:05}" + "x" * 240 for room in range(5000)], dialect=CES2)
    view = status(floor.hub)
    longest = 0.0
    gc.disable()
    try:
        while True:
            began = thread_time()
            try:
                next(view)
            except StopIteration as end:
                body = to_json(end.value)
                break
            finally:
                longest = max(longest, thread_time() - began)
    finally:
        gc.enable()
    assert len(body) < 2**20
    assert longest < 0.05, "the longest step, in seconds of the processor's time"


# -- rooms ---------------------------------------------------------------------------------------------------


def names(answer: dict[str, Any]) -> list[str]:
    return [one["room"] for one in answer["rooms"]]


def test_rooms_are_shown_with_those_who_listen() -> None:
    floor = Floor()
    readers = [floor.link("messenger", "ITB-1", "ITB-2", dialect=CES2, node=f"m{n}") for n in range(12)]
    floor.link("hub", "ITB-2", "JKB-1", dialect=CES2, node="other")
    answer = built(rooms(floor.hub, RoomsAsked()))
    assert answer["of"] == 3
    assert answer["next"] is None
    first, second, third = answer["rooms"]
    assert first == {
        "room": "ITB-1",
        "messengers": 12,
        "hubs": 0,
        "listeners": [one.name for one in readers[:LISTENERS]],
    }
    assert (second["messengers"], second["hubs"]) == (12, 1)
    assert third == {"room": "JKB-1", "messengers": 0, "hubs": 1, "listeners": ["hub other"]}


def test_rooms_are_found_by_prefix_and_by_link() -> None:
    floor = Floor()
    floor.link("messenger", "ITB-1", "JKB-1", "*", "", dialect=CES2, node="a")
    floor.link("messenger", "ITB-2", dialect=CES2, node="b")
    assert names(built(rooms(floor.hub, RoomsAsked()))) == ["", "*", "ITB-1", "ITB-2", "JKB-1"]
    assert names(built(rooms(floor.hub, RoomsAsked(prefix=b"ITB")))) == ["ITB-1", "ITB-2"]
    assert names(built(rooms(floor.hub, RoomsAsked(link="messenger b")))) == ["ITB-2"]
    assert names(built(rooms(floor.hub, RoomsAsked(link="messenger c")))) == []
    floor.link("messenger", "ITB-1", "ITB-3", dialect=CES2, node="b")
    assert names(built(rooms(floor.hub, RoomsAsked(link="messenger b")))) == ["ITB-1", "ITB-2", "ITB-3"]


@given(
    st.sets(st.text("AB", max_size=4), max_size=30),
    st.sets(st.text("AB", max_size=4), max_size=30),
    st.text("AB", max_size=2),
    st.integers(1, 5),
)
def test_page_by_page_every_room_is_shown_once_and_in_order(
    messengers: set[str], hubs: set[str], prefix: str, limit: int
) -> None:
    floor = Floor()
    floor.link("messenger", *messengers, dialect=CES2)
    floor.link("hub", *hubs, dialect=CES2, node="other")
    expected = sorted(room for room in messengers | hubs if room.startswith(prefix))
    found: list[str] = []
    after = None
    while True:
        answer = built(rooms(floor.hub, RoomsAsked(prefix.encode(), after, limit)))
        assert answer["of"] == len(expected)
        found += names(answer)
        if answer["next"] is None:
            break
        assert len(answer["rooms"]) == limit
        after = answer["next"].encode()
    assert found == expected


@pytest.mark.parametrize("gone", ["room", "link"])
def test_what_goes_while_rooms_are_looked_at_is_no_error(gone: str) -> None:
    floor = Floor()
    reader = floor.link("messenger", "ITB-1", dialect=CES2)
    view = rooms(floor.hub, RoomsAsked())
    next(view)
    if gone == "link":
        floor.close(reader)
    else:
        floor.hub.routes.unsubscribe(reader, None)
    assert built(view)["rooms"] == [{"room": "ITB-1", "messengers": 0, "hubs": 0, "listeners": []}]
    view = status(floor.hub)
    floor.link("messenger", "ITB-1", "ITB-2", dialect=CES2)
    for _ in range(3):
        next(view)
    floor.close(floor.hub.routes.links("messenger")[0])
    built(view)
