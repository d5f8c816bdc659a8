"""Rooms of all links together: nobody can take them all; what was refused is granted when there is room."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ces.hub.api import counters
from ces.hub.shown import status
from ces.hub.subscriptions import GRANTS, REMEMBERED, REMEMBERED_EACH, STEP_SECONDS, Short
from ces.link.link import Link
from ces.model.control import Error, SubscriptionChange
from ces.model.wire import CES1, CES2
from ces.session.life import GOING_AWAY
from tests.support.hubs import Floor
from tests.support.views import built


def rooms(count: int, name: str = "") -> list[str]:
    return [f"{name}-{number}" for number in range(count)]


def add(floor: Floor, link: Link, names: list[str]) -> None:
    for start in range(0, len(names), 1000):
        floor.hub.told(link, SubscriptionChange(names[start : start + 1000], True))


def has(floor: Floor, link: Link) -> int:
    return len(floor.hub.routes.rooms(link))


def settle(floor: Floor) -> None:
    """Let rooms be granted until there is nothing more to do."""
    floor.clock.advance(0)
    while floor.clock.getDelayedCalls():
        floor.clock.advance(STEP_SECONDS)


def greedy(floor: Floor, count: int, each: int = 1000) -> list[Link]:
    """Links from different places that ask for so many rooms each."""
    links = []
    for number in range(count):
        link = floor.link("messenger", dialect=CES2, node=f"greedy-{number}", host=f"10.0.0.{number}")
        add(floor, link, rooms(each, str(number)))
        links.append(link)
    return links


def test_ten_greedy_links_cannot_keep_a_newcomer_from_its_room() -> None:
    floor = Floor(subscription_limit=5000, room_limit=1000)
    greedy(floor, 10)
    for dialect in (CES1, CES2):
        newcomer, writer = floor.link("messenger", "ITB-1", dialect=dialect), floor.link("messenger")
        floor.send(writer, "ITB-1", "a")
        assert len(floor.sent(newcomer)) == 1
    assert floor.hub.routes.wants <= 5000


MANY: Any = {"subscription_limit": 50_000, "room_limit": 50_000, "link_limit": 20, "session_limit": 10}


def full() -> tuple[Floor, list[Link]]:
    """A hub whose rooms are nearly all taken, and those who have them. A newcomer gets less than 400."""
    floor = Floor(**MANY)
    big: list[Link] = []
    while True:
        link = floor.link("messenger", dialect=CES2, host=f"10.0.0.{len(big)}")
        share = floor.hub.subscriptions.room(link)
        if share < 400:
            floor.close(link)
            return floor, big
        add(floor, link, rooms(share, str(len(big))))
        big.append(link)


def test_what_was_refused_is_granted_when_there_is_room_again_and_all_is_said() -> None:
    floor, big = full()
    late = floor.link("messenger", dialect=CES2, node="late", host="10.1.0.1")
    old = floor.link("messenger", dialect=CES1, host="10.1.0.2")
    for link in (late, old):
        add(floor, link, rooms(400, link.name))
    lacks = {link: 400 - has(floor, link) for link in (late, old)}
    assert all(0 < lack < 400 for lack in lacks.values())
    assert {Short(late, lacks[late], 0), Short(old, lacks[old], 0)} <= set(floor.hub.subscriptions.shorts(10))
    (told,) = [one for one in floor.told(late) if isinstance(one, Error)]
    assert told.reason == (
        f"{lacks[late]} rooms beyond its share of 50000, the limit of all links together:"
        f" {lacks[late]} wait until others are given up"
    )
    assert floor.told(old) == []
    nexus = built(status(floor.hub))
    assert {"id": old.name, "waiting": lacks[old], "forgotten": 0} in nexus["short"]
    found = counters(floor.hub)
    assert found["ces_hub_short_links"][2] == len(nexus["short"])
    assert found["ces_hub_waiting_subscriptions"][2] == sum(one["waiting"] for one in nexus["short"])
    assert any(f"for {late.name}" in line for line in floor.lines)
    for link in big:
        floor.close(link)
    settle(floor)
    assert [has(floor, link) for link in (late, old)] == [400, 400]
    assert built(status(floor.hub))["short"] == []
    assert any("has every room that it lacked" in line for line in floor.lines)
    writer = floor.link("messenger")
    floor.send(writer, f"{old.name}-399", "a")
    assert len(floor.sent(old)) == 1


def test_rooms_that_are_granted_are_announced_to_other_hubs() -> None:
    floor, big = full()
    late = floor.link("messenger", dialect=CES2, host="10.1.0.1")
    add(floor, late, rooms(400, "late"))
    assert b"late-399" not in floor.hub.routes.rooms(late)
    other = floor.link("hub", dialect=CES2, node="other")
    for link in big:
        floor.close(link)
    settle(floor)
    assert other.interest is not None
    assert set(floor.hub.routes.wanted()) == {room.encode() for room in rooms(400, "late")}
    taken = 0
    told: set[str] = set()
    while not other.interest.settled:
        changes = [one for one in floor.told(other)[taken:] if isinstance(one, SubscriptionChange)]
        taken = len(floor.told(other))
        for change in changes:
            told = told | set(change.rooms) if change.create else told - set(change.rooms or told)
        other.acknowledged_changes(floor.plugs[other], other.interest.sent)
    assert told == set(rooms(400, "late"))


def test_a_link_that_asks_again_and_gets_all_is_short_no_longer() -> None:
    floor, big = full()
    late = floor.link("messenger", dialect=CES2, host="10.1.0.1")
    add(floor, late, rooms(400, "late"))
    assert floor.hub.subscriptions.short == 1
    for link in big:
        floor.close(link)
    add(floor, late, rooms(400, "late"))
    assert (has(floor, late), floor.hub.subscriptions.short, floor.hub.subscriptions.waiting) == (400, 0, 0)
    settle(floor)


def test_a_link_that_no_longer_wants_what_it_lacks_does_not_get_it() -> None:
    floor, big = full()
    late, other = (floor.link("messenger", dialect=CES2, host=f"10.1.0.{number}") for number in (1, 2))
    for link in (late, other):
        add(floor, link, rooms(400, "late"))
    assert floor.hub.subscriptions.short >= 2
    floor.hub.told(late, SubscriptionChange(["late-399", "late-0"], False))
    floor.hub.told(other, SubscriptionChange())
    for link in big:
        floor.close(link)
    settle(floor)
    assert [has(floor, link) for link in (late, other)] == [398, 0]
    assert (floor.hub.subscriptions.short, floor.hub.subscriptions.waiting) == (0, 0)


@pytest.mark.parametrize("dialect", [CES1, CES2])
def test_what_is_remembered_is_bounded_and_who_must_ask_again_is_told_when(dialect: str) -> None:
    floor, big = full()
    late = floor.link("messenger", dialect=dialect, host="10.1.0.1")
    add(floor, late, rooms(2000, "late"))
    (short,) = floor.hub.subscriptions.shorts(10)
    assert short.forgotten > 0
    assert has(floor, late) + short.waiting + short.forgotten == 2000
    assert floor.hub.subscriptions.waiting <= 50_000 // REMEMBERED // REMEMBERED_EACH
    for link in big:
        floor.close(link)
    settle(floor)
    assert floor.hub.subscriptions.short == 0
    assert any("subscribe to them again" in line for line in floor.lines)
    if dialect == CES1:
        assert floor.plugs[late].closed == GOING_AWAY
    else:
        assert isinstance(floor.told(late)[-1], Error)
        add(floor, late, rooms(2000, "late"))
        assert (has(floor, late), floor.hub.subscriptions.short) == (2000, 0)


def test_very_many_rooms_are_granted_a_part_at_a_time() -> None:
    floor = Floor(subscription_limit=200_000, room_limit=100_000)
    big = greedy(floor, 1)[0]
    add(floor, big, rooms(100_000, "big"))
    late = floor.link("messenger", dialect=CES2, host="10.1.0.1")
    add(floor, late, rooms(60_000, "late"))
    before = has(floor, late)
    floor.close(big)
    while floor.hub.subscriptions.short:
        at = has(floor, late)
        floor.clock.advance(STEP_SECONDS)
        assert has(floor, late) - at <= 2 * GRANTS
    assert has(floor, late) > before


class Wants(RuleBasedStateMachine):
    """Links that come from four places, ask for rooms, give rooms up and go; small ones and big ones."""

    def __init__(self) -> None:
        super().__init__()
        self.floor = Floor(subscription_limit=600, room_limit=300, link_limit=10, session_limit=10)
        self.wanted: dict[Link, dict[str, None]] = {}
        self.big: set[Link] = set()

    @rule(place=st.integers(1, 4), count=st.integers(1, 12), dialect=st.sampled_from([CES1, CES2]))
    def a_small_one_comes(self, place: int, count: int, dialect: str) -> None:
        if len(self.wanted) < 8:
            self._come(place, rooms(count, f"small-{place}"), dialect)

    @rule(place=st.integers(1, 4), count=st.integers(100, 300))
    def a_big_one_comes(self, place: int, count: int) -> None:
        if len(self.wanted) < 8:
            self.big.add(self._come(place, rooms(count, f"big-{place}"), CES2))

    def _come(self, place: int, names: list[str], dialect: str) -> Link:
        link = self.floor.link("messenger", dialect=dialect, host=f"10.0.0.{place}")
        add(self.floor, link, names)
        self.wanted[link] = dict.fromkeys(names)
        return link

    def _pick(self, data: st.DataObject) -> Link | None:
        return data.draw(st.sampled_from(list(self.wanted))) if self.wanted else None

    @rule(data=st.data(), first=st.integers(0, 200), count=st.integers(1, 20))
    def one_gives_rooms_up(self, data: st.DataObject, first: int, count: int) -> None:
        link = self._pick(data)
        names = [] if link is None else list(self.wanted[link])[first : first + count]
        if link is not None and names:
            self.floor.hub.told(link, SubscriptionChange(names, False))
            for name in names:
                del self.wanted[link][name]

    @rule(data=st.data())
    def one_asks_for_all_it_wants_again(self, data: st.DataObject) -> None:
        link = self._pick(data)
        if link is not None:
            add(self.floor, link, list(self.wanted[link]))

    @rule(data=st.data())
    def one_leaves(self, data: st.DataObject) -> None:
        link = self._pick(data)
        if link is not None:
            self._leave(link)

    def _leave(self, link: Link) -> None:
        self.floor.close(link)
        del self.wanted[link]
        self.big.discard(link)

    @rule(seconds=st.sampled_from([0, STEP_SECONDS, 1]))
    def time_passes(self, seconds: float) -> None:
        self.floor.clock.advance(seconds)

    @invariant()
    def all_is_within_the_limit_and_nothing_is_made_up(self) -> None:
        hub = self.floor.hub
        assert hub.routes.wants == sum(has(self.floor, link) for link in self.wanted) <= 600
        assert hub.subscriptions.waiting <= 60
        waiting = 0
        for link, count, forgotten in hub.subscriptions.shorts(100):
            waiting += count
            assert has(self.floor, link) + count + forgotten >= len(self.wanted[link])
        assert waiting == hub.subscriptions.waiting
        for link, names in self.wanted.items():
            assert hub.routes.rooms(link) <= {name.encode() for name in names}

    def teardown(self) -> None:
        """When everything big has gone, everybody has all that he wants and the hub has not forgotten."""
        for link in list(self.big):
            self._leave(link)
        settle(self.floor)
        for link in self.wanted:
            add(self.floor, link, list(self.wanted[link]))
        settle(self.floor)
        for link, names in self.wanted.items():
            assert self.floor.hub.routes.rooms(link) == {name.encode() for name in names}
        assert (self.floor.hub.subscriptions.short, self.floor.hub.subscriptions.waiting) == (0, 0)
        assert not self.floor.clock.getDelayedCalls()


TestWants: Any = Wants.TestCase
TestWants.settings = settings(max_examples=60, stateful_step_count=25)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8))
@settings(max_examples=20)
def test_small_links_that_were_refused_have_everything_when_the_big_ones_have_gone(sizes: list[int]) -> None:
    """Nobody asks again: what was refused was remembered."""
    floor = Floor(subscription_limit=10_000, room_limit=5000, link_limit=20, session_limit=10)
    big = [floor.link("messenger", dialect=CES2, host=f"10.0.{number}.1") for number in range(12)]
    for number, link in enumerate(big):
        add(floor, link, rooms(5000, str(number)))
    small = [floor.link("messenger", host=f"10.1.0.{number}") for number in range(len(sizes))]
    for number, (link, size) in enumerate(zip(small, sizes, strict=True)):
        add(floor, link, rooms(size, f"small-{number}"))
        assert has(floor, link) >= min(size, 3), "the first few are never refused"
    for link in big:
        floor.close(link)
    settle(floor)
    assert [has(floor, link) for link in small] == sizes
