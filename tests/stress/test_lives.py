"""The rounds of a run: what is judged in which, and that nothing of one is forgotten in the next."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed

from tests.support.history import LOST, NOWHERE, TOO_MANY, TWICE, UNANSWERED, UNKNOWN, UNWANTED
from tests.support.lives import Lives

ROOM, OTHER = "A", "B"


def make() -> Lives:
    """One sender and one receiver at a hub, in the first round."""
    lives = Lives()
    lives.route("p", "s", "hub")
    lives.client("s", "hub", [ROOM])
    lives.limit("hub", "s", 1000)
    lives.begin()
    return lives


def sent(lives: Lives, *numbers: int, room: str = ROOM) -> None:
    """Send events, which are acknowledged."""
    for number in numbers:
        lives.send("p", number, room, 400)
        lives.answer("p", number, succeed(None))


def judged(lives: Lives) -> list[str]:
    return [finding.what for finding in lives.end()]


def test_a_round_in_which_all_arrives_is_complete_and_gives_no_finding() -> None:
    lives = make()
    sent(lives, 0, 1)
    assert not lives.complete and lives.owed == {"s": 2}
    for number in (0, 1):
        lives.arrive("s", "p", number)
    assert lives.complete and lives.explained
    assert judged(lives) == []


def test_what_does_not_arrive_is_found_in_its_round_and_not_in_the_next() -> None:
    lives = make()
    sent(lives, 0, 1)
    lives.arrive("s", "p", 1)
    assert not lives.complete
    assert judged(lives) == [NOWHERE]
    assert lives.complete
    sent(lives, 2)
    lives.arrive("s", "p", 2)
    assert judged(lives) == []
    assert lives.found == {NOWHERE: 1}


def test_what_arrives_again_in_a_later_round_is_found() -> None:
    lives = make()
    sent(lives, 0)
    lives.arrive("s", "p", 0)
    lives.arrive("s", "p", 0)
    assert judged(lives) == [TWICE]
    lives.arrive("s", "p", 0)
    assert judged(lives) == [UNKNOWN]


def test_a_loss_that_is_announced_explains_a_round_but_must_be_one() -> None:
    lives = make()
    sent(lives, 0, 1, 2)
    lives.announce("s", 3)
    assert lives.explained and not lives.complete
    assert judged(lives) == []  # more was sent than the queue holds
    sent(lives, 3, 4)
    lives.announce("s", 2)
    assert judged(lives) == [LOST]
    lives.announce("s", 1)
    assert TOO_MANY in judged(lives)


def test_an_event_without_an_answer_is_found_and_its_late_answer_is_not_of_the_next_round() -> None:
    lives = make()
    late: Deferred[None] = Deferred()
    lives.send("p", 0, ROOM, 400)
    lives.answer("p", 0, late)
    lives.arrive("s", "p", 0)
    assert not lives.complete
    assert judged(lives) == [UNANSWERED]
    lives.send("p", 1, ROOM, 400)
    late.callback(None)
    lives.answer("p", 1, fail(ValueError()))
    assert lives.answered


def test_a_room_counts_from_the_round_after_its_subscription() -> None:
    lives = make()
    lives.want("s", OTHER)
    sent(lives, 0, room=OTHER)
    assert lives.complete
    assert judged(lives) == []
    sent(lives, 1, room=OTHER)
    assert lives.owed == {"s": 1}
    assert judged(lives) == [NOWHERE]
    lives.leave("s", OTHER)
    sent(lives, 2, room=OTHER)
    assert lives.complete
    assert judged(lives) == []
    sent(lives, 3, room=OTHER)
    lives.arrive("s", "p", 3)
    assert judged(lives) == [UNWANTED]


def test_the_death_of_a_hub_excuses_the_round_in_which_it_died() -> None:
    lives = make()
    sent(lives, 0)
    lives.die("hub")
    lives.announce("s", None)
    assert judged(lives) == []
    sent(lives, 1)
    assert judged(lives) == [NOWHERE]
