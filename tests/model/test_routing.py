"""Where events go, against slow models written straight from docs/protocol.md section 6."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ces.model.patterns import Rooms
from ces.model.routing import (
    HUB,
    KINDS,
    MESSENGER,
    REPEATER,
    WITHOUT_BOUND,
    HubRoutes,
    RepeaterRoutes,
)

ROOMS = [b"", b"A", b"AB", b"B", b"C", b"*"]
limits = st.none() | st.lists(st.sampled_from(["", "A*", "B", "AB*"])).map(Rooms)
room_lists = st.lists(st.sampled_from(ROOMS), max_size=4)


class SlowHub:
    """The rules, link by link: every question goes through all links."""

    def __init__(self, in_room: bool) -> None:
        self.in_room = in_room
        self.kinds: dict[str, str] = {}
        self.wants: dict[str, set[bytes]] = {}
        self.line: list[str] = []
        """The repeaters that take their turns."""
        self.limits: dict[str, Rooms] = {}
        self.last_repeater: str | None = None

    def out_of_line(self, link: str) -> None:
        """This repeater takes its turn no more."""
        if link not in self.line:
            return
        place = self.line.index(link)
        if link == self.last_repeater:
            # The one before it in line is then the one that was last; without one, the line begins anew.
            self.last_repeater = self.line[place - 1] if place else None
        del self.line[place]

    def wanted(self) -> set[bytes]:
        """What messengers want."""
        return {room for link, rooms in self.wants.items() if self.kinds[link] == MESSENGER for room in rooms}

    def gets(self, link: str, room: bytes, source_kind: str, source: str | None) -> bool:
        if link == source or self.kinds[link] == REPEATER or not {room, b"*"} & self.wants[link]:
            return False
        if link in self.limits and room not in self.limits[link]:
            return False
        if self.kinds[link] == MESSENGER:
            return True
        return source_kind == MESSENGER or (source_kind == REPEATER and not self.in_room)


class Routing(RuleBasedStateMachine):
    """Random joins, leaves, rests, subscriptions and events."""

    @initialize(in_room=st.booleans(), cache_bound=st.sampled_from([1, 2, 100]))
    def start(self, in_room: bool, cache_bound: int) -> None:
        self.routes: HubRoutes[str] = HubRoutes(in_room, cache_bound)
        self.slow = SlowHub(in_room)
        self.joins = 0

    @rule(kind=st.sampled_from(KINDS), ces1=st.booleans(), limit=limits)
    def join(self, kind: str, ces1: bool, limit: Rooms | None) -> None:
        self.joins += 1
        link = f"{kind} {self.joins}"
        everything = kind == HUB and ces1
        self.routes.join(link, kind, everything, limit)
        if limit is not None:
            self.slow.limits[link] = limit
        assert self.routes.limit(link) == limit
        self.slow.kinds[link] = kind
        self.slow.wants[link] = {b"*"} if everything else set()
        if kind == REPEATER:
            self.slow.line.append(link)

    def pick(self, data: st.DataObject, *kinds: str) -> str | None:
        links = [link for link, kind in self.slow.kinds.items() if kind in kinds]
        return data.draw(st.sampled_from(links)) if links else None

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        link = self.pick(data, *KINDS)
        if link is None:
            return
        before = self.slow.wanted()
        self.slow.out_of_line(link)
        del self.slow.kinds[link], self.slow.wants[link]
        ended = self.routes.leave(link)
        assert sorted(ended) == sorted(before - self.slow.wanted())
        assert self.routes.leave(link) == []

    @rule(data=st.data(), wakes=st.booleans())
    def rest(self, data: st.DataObject, wakes: bool) -> None:
        link = self.pick(data, *KINDS)
        if link is None:
            return
        for _ in range(2):  # twice is once
            self.routes.rest(link)
        self.slow.out_of_line(link)
        if wakes:
            self.wake(link)

    def wake(self, link: str) -> None:
        for _ in range(2):
            self.routes.wake(link)
        if self.slow.kinds[link] == REPEATER and link not in self.slow.line:
            self.slow.line.append(link)

    @rule(data=st.data())
    def one_wakes(self, data: st.DataObject) -> None:
        link = self.pick(data, *KINDS)
        if link is not None:
            self.wake(link)

    @rule(data=st.data(), rooms=room_lists)
    def subscribe(self, data: st.DataObject, rooms: list[bytes]) -> None:
        link = self.pick(data, MESSENGER, HUB)
        if link is None:
            return
        limit = self.slow.limits.get(link)
        rooms = [room for room in rooms if limit is None or room == b"*" or room in limit]
        before = self.slow.wanted()
        self.slow.wants[link] |= set(rooms)
        assert sorted(self.routes.subscribe(link, rooms)) == sorted(self.slow.wanted() - before)

    @rule(data=st.data(), rooms=st.none() | room_lists)
    def unsubscribe(self, data: st.DataObject, rooms: list[bytes] | None) -> None:
        link = self.pick(data, MESSENGER, HUB)
        if link is None:
            return
        before = self.slow.wanted()
        self.slow.wants[link] -= self.slow.wants[link] if rooms is None else set(rooms)
        assert sorted(self.routes.unsubscribe(link, rooms)) == sorted(before - self.slow.wanted())

    @rule(data=st.data(), room=st.sampled_from(ROOMS[:-1]), kind=st.sampled_from(KINDS), posted=st.booleans())
    def event(self, data: st.DataObject, room: bytes, kind: str, posted: bool) -> None:
        source = None if posted else self.pick(data, kind)
        group = self.routes.destinations(room, kind, source)
        assert sorted(group.links) == sorted(
            link for link in self.slow.kinds if self.slow.gets(link, room, kind, source)
        )
        assert group.repeater == (kind == MESSENGER)

    @rule(data=st.data(), room=st.sampled_from(ROOMS[:-1]))
    def one_repeater(self, data: st.DataObject, room: bytes) -> None:
        line = self.slow.line
        backlogged = set(data.draw(st.lists(st.sampled_from(line)))) if line else set()
        start = line.index(self.slow.last_repeater) + 1 if self.slow.last_repeater in line else 0
        in_turn = [
            link
            for link in line[start:] + line[:start]
            if link not in self.slow.limits or room in self.slow.limits[link]
        ]
        free = [link for link in in_turn if link not in backlogged]
        expected = (free or in_turn or [None])[0]
        assert self.routes.next_repeater(room, backlogged.__contains__) == expected
        self.slow.last_repeater = expected or self.slow.last_repeater

    @invariant()
    def what_it_shows_agrees(self) -> None:
        if not hasattr(self, "routes"):
            return
        assert sorted(self.routes.wanted()) == sorted(self.slow.wanted())
        for room in ROOMS:
            assert self.routes.is_wanted(room) == (room in self.slow.wanted())
        for kind in KINDS:
            assert self.routes.links(kind) == [link for link, its in self.slow.kinds.items() if its == kind]
        for link, rooms in self.slow.wants.items():
            assert link in self.routes
            assert set(self.routes.rooms(link)) == rooms
        rooms = self.routes.first_wanted(1000)
        assert (len(rooms), self.routes.first_wanted(1)) == (self.routes.wanted_rooms(), rooms[:1])
        assert {room: set(self.routes.listeners(room)) for room in rooms} == {
            room: {
                link
                for link, rooms in self.slow.wants.items()
                if room in rooms and self.slow.kinds[link] == MESSENGER
            }
            for room in self.slow.wanted()
        }


TestRouting = Routing.TestCase
TestRouting.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)


# -- what the model does not see ---------------------------------------------------------------------------


def test_a_link_that_holds_a_room_and_the_star_is_there_once() -> None:
    routes: HubRoutes[str] = HubRoutes()
    routes.join("m", MESSENGER)
    routes.subscribe("m", [b"A", b"*", b"A"])
    assert routes.destinations(b"A", HUB).links == ("m",)
    routes.unsubscribe("m", [b"*"])
    assert routes.destinations(b"A", HUB).links == ("m",)
    assert routes.destinations(b"B", HUB).links == ()


def test_rooms_that_nobody_names_share_one_answer() -> None:
    routes: HubRoutes[str] = HubRoutes()
    routes.join("all", MESSENGER)
    routes.subscribe("all", [b"*"])
    assert routes.destinations(b"A", HUB) is routes.destinations(b"B", HUB)
    routes.subscribe("all", [b"B"])
    assert routes.destinations(b"B", HUB).links == ("all",)


def test_a_group_without_its_senders_is_remembered_within_a_bound() -> None:
    routes: HubRoutes[int] = HubRoutes()
    for link in range(100):
        routes.join(link, MESSENGER)
        routes.subscribe(link, [b"*"])
    group = routes.destinations(b"A", MESSENGER)
    for link in range(100):
        assert set(routes.destinations(b"A", MESSENGER, link).links) == set(range(100)) - {link}
        assert len(group._without) * len(group.links) <= WITHOUT_BOUND + len(group.links)
    assert group.without(99) is group.without(99)


def test_answers_are_remembered_within_a_bound() -> None:
    routes: HubRoutes[str] = HubRoutes(cache_bound=10)
    for number in range(100):
        routes.destinations(b"%d" % number, MESSENGER)
        assert len(routes._cache[MESSENGER]) <= 10
    repeater = RepeaterRoutes({"*": ("t",)}, cache_bound=10)
    for number in range(100):
        assert repeater.targets(b"%d" % number) == ("t",)
        assert len(repeater._cache) <= 10


def test_the_answers_that_are_remembered_hold_so_many_links_and_no_more() -> None:
    routes: HubRoutes[int] = HubRoutes(links_bound=1000)
    for link in range(50):
        routes.join(link, MESSENGER)
        routes.subscribe(link, [b"*", *[b"%d" % number for number in range(link)]])
    for number in range(50):
        for link in range(50):
            room, kind = b"%d" % number, (MESSENGER, HUB)[link % 2]
            assert set(routes.destinations(room, kind, link).links) == set(range(50)) - {link}
            groups = [group for cache in routes._cache.values() for group in cache.values()]
            kept = {id(group): group for group in groups}.values()
            held = sum(len(g.links) + sum(len(w.links) for w in g._without.values()) for g in kept)
            assert held <= 1000 + 50


def test_backlogged_repeaters_are_used_when_there_is_no_other() -> None:
    routes: HubRoutes[str] = HubRoutes()
    assert routes.next_repeater(b"A", lambda link: True) is None
    for link in ("r1", "r2"):
        routes.join(link, REPEATER)
    assert [routes.next_repeater(b"A", lambda link: True) for _ in range(4)] == ["r1", "r2", "r1", "r2"]


patterns = st.sampled_from(["", "*", "I*", "ITB*", "ITB-*", "ITB-1", "ITB-1*", "ITB-11", "B", "B*", "Ü*"])
targets = st.lists(st.sampled_from(["t1", "t2", "t3", "t4"]), max_size=3).map(tuple)


@given(
    st.dictionaries(patterns, targets), st.sampled_from(["", "I", "ITB-1", "ITB-11", "ITB-2", "B", "X", "Üb"])
)
def test_a_repeater_sends_to_every_target_whose_pattern_fits_once(
    routes: dict[str, tuple[str, ...]], room: str
) -> None:
    fitting = [p for p in routes if p == room or (p.endswith("*") and room.startswith(p[:-1]))]
    # The room itself first, then prefixes, longer ones first.
    fitting.sort(key=lambda p: (p.endswith("*"), -len(p.encode())))
    expected = tuple(dict.fromkeys(target for pattern in fitting for target in routes[pattern]))
    found = RepeaterRoutes(routes)
    assert found.targets(room.encode()) == expected
    assert found.targets(room.encode()) == expected


def test_a_repeater_that_rests_gets_nothing_and_others_take_their_turns() -> None:
    routes: HubRoutes[str] = HubRoutes()
    for link in ("r1", "r2", "r3"):
        routes.join(link, REPEATER)
    assert routes.next_repeater(b"A", lambda link: False) == "r1"
    routes.rest("r1")
    assert routes.links(REPEATER) == ["r1", "r2", "r3"]
    assert [routes.next_repeater(b"A", lambda link: False) for _ in range(3)] == ["r2", "r3", "r2"]
    routes.wake("r1")
    assert [routes.next_repeater(b"A", lambda link: False) for _ in range(3)] == ["r3", "r1", "r2"]


def test_a_messenger_that_rests_goes_on_to_get_what_it_wants() -> None:
    routes: HubRoutes[str] = HubRoutes()
    routes.join("m", MESSENGER)
    routes.subscribe("m", [b"A"])
    routes.rest("m")
    assert routes.destinations(b"A", HUB).links == ("m",)


def test_a_repeater_that_has_left_does_not_wake() -> None:
    routes: HubRoutes[str] = HubRoutes()
    routes.join("r", REPEATER)
    routes.leave("r")
    routes.wake("r")
    assert routes.next_repeater(b"A", lambda link: False) is None


def test_a_repeater_whose_turn_it_is_keeps_it_when_the_one_before_it_leaves() -> None:
    routes: HubRoutes[str] = HubRoutes()
    routes.join("first", REPEATER)
    assert routes.next_repeater(b"A", lambda link: False) == "first"
    routes.join("second", REPEATER)
    routes.leave("first")
    routes.join("third", REPEATER)
    assert [routes.next_repeater(b"A", lambda link: False) for _ in range(3)] == ["second", "third", "second"]
