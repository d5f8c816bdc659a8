"""The places of connections of which nothing is known yet."""

from __future__ import annotations

from twisted.internet.task import Clock

from ces.ops.entrance import GRACE, RESERVE, Entrance, Place


class Door:
    """An entrance whose places are numbered in the order in which they are taken.

    evicted: the numbers of those that were evicted.
    """

    def __init__(self, limit: int) -> None:
        self.refused: list[tuple[str, str]] = []
        self.evicted: list[int] = []
        self.places: list[Place] = []
        self.clock = Clock()
        self.entrance = Entrance(limit, lambda what, why: self.refused.append((what, why)), self.clock)

    def enter(self, host: str = "10.0.0.1", count: int = 1) -> None:
        for _ in range(count):
            number = len(self.places)
            self.places.append(self.entrance.enter(host, lambda number=number: self.evicted.append(number)))  # type: ignore[misc]


def test_a_newcomer_takes_the_place_of_who_waits_longest() -> None:
    door = Door(2)
    door.enter(count=2 + RESERVE)
    assert (len(door.entrance), door.evicted) == (2 + RESERVE, [])
    door.enter(count=2)
    assert (len(door.entrance), door.evicted) == (2 + RESERVE, [0, 1])
    why = f"there are {2 + RESERVE} connections that are no links, which is the limit"
    assert door.refused == 2 * [
        ("idle", f"{why}: a waiting connection from 10.0.0.1 gave way to a newer one")
    ]


def test_a_crowd_from_one_address_crowds_out_itself() -> None:
    door = Door(2)
    door.enter("10.0.0.1")
    door.enter("10.0.0.2", 100)
    door.enter("10.0.0.3")
    assert 0 not in door.evicted
    assert len(door.evicted) == 102 - 2 - RESERVE
    door.places[0].leave()
    door.enter("10.0.0.4")
    assert len(door.evicted) == 102 - 2 - RESERVE, "there was a place"


def test_nobody_has_to_go_in_his_first_second() -> None:
    door = Door(2)
    assert door.entrance.room() == 2 + RESERVE
    door.enter(count=2 + RESERVE)
    assert door.entrance.room() == 0
    door.clock.advance(GRACE)
    assert door.entrance.room() == 1
    door.enter()
    assert (door.evicted, door.entrance.room()) == ([0], 1)
    for place in door.places:
        place.is_answered()
        place.waits()
    assert door.entrance.room() == 0
    door.places[1].leave()
    assert door.entrance.room() == 1


def test_who_is_answered_is_not_evicted_and_waits_anew_after_it() -> None:
    door = Door(2)
    door.enter(count=2 + RESERVE)
    door.places[0].is_answered()
    assert not door.entrance.busy
    door.enter()
    assert door.evicted == [1]
    door.places[0].waits()
    door.enter(count=RESERVE + 1)
    assert 0 not in door.evicted
    door.enter()
    assert door.evicted[-1] == 0


def test_more_answers_than_the_limit_are_too_many() -> None:
    door = Door(2)
    door.enter(count=3)
    for place in door.places[:2]:
        place.is_answered()
    assert not door.entrance.busy
    door.places[2].is_answered()
    assert door.entrance.busy
    door.places[0].leave()
    assert not door.entrance.busy


def test_what_was_evicted_or_has_left_stays_away() -> None:
    door = Door(2)
    door.enter(count=2)
    assert door.entrance.make_room(1, "x") == 1
    for place in door.places:
        place.leave()
        place.is_answered()
        place.waits()
    assert len(door.entrance) == 0
    assert door.entrance.make_room(5, "x") == 0
