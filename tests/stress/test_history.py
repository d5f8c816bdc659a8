"""The history checker: a legal history gives no finding, and each kind of corruption of one is found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.support.history import (
    FALSE_ALARM,
    LOST,
    NONE,
    NOT_DROPPED,
    NOT_TOLD,
    NOWHERE,
    OUT_OF_ORDER,
    ROOM,
    TOO_MANY,
    TWICE,
    UNANSWERED,
    UNKNOWN,
    UNWANTED,
    History,
)

Fact = tuple[Any, ...]
"""A method of `History` and its arguments but the time, which is the place in the list."""

WEIGHT = 100
LIMIT = 300
"""A queue holds so many bytes: three events."""

NEAR, FAR, SINK = "near", "far", "sink"
"""Receivers: at the hub of the publishers, at another hub, and behind a repeater."""


def judged(facts: list[Fact]) -> list[str]:
    """The kinds of what is found in a history of these facts."""
    history = History(slack=0)
    history.limit("hub", NEAR, LIMIT)
    history.limit("p", "hub", LIMIT)
    for sender in ("p", "q"):
        history.route(sender, NEAR, "hub")
        history.route(sender, FAR, "hub", "other", order=ROOM)
        history.route(sender, SINK, "hub", ("r1", "r2"), order=NONE)
    for time, (method, *arguments) in enumerate(facts):
        weight = (WEIGHT,) if method == "send" else ()
        getattr(history, method)(*arguments, time, *weight)
    return [finding.what for finding in history.findings()]


BEGIN: list[Fact] = [
    ("client", NEAR, "hub"),
    ("client", FAR, "other"),
    ("want", NEAR, "A"),
    ("want", NEAR, "B"),
    ("want", FAR, "*"),
    ("want", SINK, "*"),
    ("quiet",),
]


@st.composite
def epochs(draw: st.DrawFn) -> list[Fact]:
    """A legal history of one to three epochs, with the kinds of trouble that are allowed."""
    facts = list(BEGIN)
    number = 0
    for _ in range(draw(st.integers(1, 3))):
        trouble = draw(st.sampled_from(["none", "evicted", "died", "counted", "away", "sender"]))
        events = []
        for _ in range(draw(st.integers(2, 8))):
            events.append((draw(st.sampled_from("pq")), number, draw(st.sampled_from("ABC"))))
            number += 1
        facts += [("send", *event) for event in events]
        wanted = [event for event in events if event[2] in "AB"]
        lost = 0
        if trouble == "evicted" and len(events) * WEIGHT > LIMIT:
            lost = draw(st.integers(0, len(wanted)))
            if lost:
                facts.append(("announce", NEAR, lost))
        elif trouble == "died":
            facts += [("die", "hub"), ("announce", NEAR, None)]
            lost = draw(st.integers(0, len(wanted)))
        elif trouble == "away":
            facts += [("part", NEAR, "hub"), ("announce", NEAR, None)]
            lost = draw(st.integers(0, len(wanted)))
        dropped = set()
        if trouble == "sender" and sum(event[0] == "p" for event in events) * WEIGHT > LIMIT:
            dropped = {event for event in events[:2] if event[0] == "p"}
            facts += [("drop", sender, n) for sender, n, _ in dropped]
        arrive = [event for event in wanted[lost:] if event not in dropped]
        facts += [("arrive", NEAR, sender, n) for sender, n, _ in arrive]
        if trouble == "died" and draw(st.booleans()):
            facts += [("arrive", NEAR, sender, n) for sender, n, _ in arrive]  # sent again
        answered = [event for event in events if event not in dropped]
        facts += [("acknowledge", sender, n) for sender, n, _ in answered]
        missed = draw(st.integers(0, 1)) if trouble == "counted" else 0
        if missed:
            facts += [("count", "hub", "other", missed), ("count", "r1", SINK, missed)]
        facts += [("arrive", FAR, sender, n) for sender, n, _ in answered[missed:]]
        facts += [("arrive", SINK, sender, n) for sender, n, _ in reversed(answered[missed:])]
        facts.append(("quiet",))
    return facts


def calm(events: int) -> list[Fact]:
    """A history in which so many events of one sender arrive everywhere, and nothing else happens."""
    sent = [("send", "p", n, "A") for n in range(events)]
    arrived = [("arrive", who, "p", n) for who in (NEAR, FAR, SINK) for n in range(events)]
    return [*BEGIN, *sent, *arrived, *[("acknowledge", "p", n) for n in range(events)], ("quiet",)]


@given(epochs())
def test_a_legal_history_gives_no_finding(facts: list[Fact]) -> None:
    assert judged(facts) == []


@given(epochs(), st.data())
def test_an_event_that_does_not_arrive_is_nowhere(facts: list[Fact], data: st.DataObject) -> None:
    faulty = {n for n, fact in enumerate(facts) if fact[0] in ("die", "part", "announce", "count", "drop")}
    assume(not faulty)
    arrivals = [place for place, fact in enumerate(facts) if fact[0] == "arrive"]
    assume(arrivals)
    del facts[data.draw(st.sampled_from(arrivals))]
    assert judged(facts) == [NOWHERE]


@given(epochs(), st.data())
def test_one_loss_more_than_was_announced_is_nowhere(facts: list[Fact], data: st.DataObject) -> None:
    told = [place for place, fact in enumerate(facts) if fact[0] == "announce" and fact[2]]
    assume(told)
    place = data.draw(st.sampled_from(told))
    facts[place] = (*facts[place][:2], facts[place][2] - 1)
    assert judged(facts) == [NOWHERE]


@given(epochs(), st.data())
def test_an_event_that_arrives_again_is_found(facts: list[Fact], data: st.DataObject) -> None:
    assume(not any(fact[0] in ("die", "part") for fact in facts))
    arrivals = [fact for fact in facts if fact[0] == "arrive"]
    assume(arrivals)
    facts.insert(-1, data.draw(st.sampled_from(arrivals)))
    assert judged(facts) == [TWICE]


@given(st.integers(2, 6), st.sampled_from((NEAR, FAR)), st.data())
def test_events_that_change_places_are_out_of_order(events: int, who: str, data: st.DataObject) -> None:
    facts = calm(events)
    number = data.draw(st.integers(0, events - 2))
    one, other = (facts.index(("arrive", who, "p", n)) for n in (number, number + 1))
    facts[one], facts[other] = facts[other], facts[one]
    assert judged(facts) == [OUT_OF_ORDER]


def test_two_hubs_keep_the_order_of_each_room_only() -> None:
    sent: list[Fact] = [("send", "p", 0, "A"), ("send", "p", 1, "B")]
    done: list[Fact] = [("acknowledge", "p", 0), ("acknowledge", "p", 1), ("quiet",)]

    def history(*order: int) -> list[Fact]:
        both = [("arrive", who, "p", n) for who in (NEAR, SINK) for n in (0, 1)]
        return [*BEGIN, *sent, *both, *[("arrive", FAR, "p", n) for n in order], *done]

    assert judged(history(1, 0)) == []
    assert judged([*BEGIN, *sent, *[("arrive", NEAR, "p", n) for n in (1, 0)], *done[:2]]) == [OUT_OF_ORDER]


def test_what_is_sent_again_may_come_late_where_it_was_not_wanted_before() -> None:
    """Room C is subscribed to after its event has come to the hub, which then dies."""
    sent: list[Fact] = [("send", "p", 0, "C"), ("send", "p", 1, "A"), ("arrive", NEAR, "p", 1)]
    wants: Fact = ("want", NEAR, "C")
    died: list[Fact] = [("die", "hub"), ("announce", NEAR, None)]
    done: list[Fact] = [
        *[("arrive", NEAR, "p", n) for n in (0, 1)],
        *[("acknowledge", "p", n) for n in (0, 1)],
        *[("arrive", who, "p", n) for who in (FAR, SINK) for n in (0, 1)],
        ("quiet",),
    ]
    assert judged([*BEGIN, *sent, *died, wants, *done]) == []
    assert judged([*BEGIN, wants, ("quiet",), *sent, *died, *done]) == [OUT_OF_ORDER]
    assert judged([*BEGIN, *sent, wants, *done]) == [TWICE, OUT_OF_ORDER]
    answered = [("acknowledge", "p", 0), *died, wants, *without("acknowledge", "p", 0)(done)]
    assert judged([*BEGIN, *sent, *answered]) == [OUT_OF_ORDER]


def without(*fact: object) -> Callable[[list[Fact]], list[Fact]]:
    """Leave out a fact."""
    return lambda facts: [known for known in facts if known != fact]


def plus(*fact: object, last: bool = True) -> Callable[[list[Fact]], list[Fact]]:
    """Add a fact at the end, or at the beginning, of the last epoch."""

    def add(facts: list[Fact]) -> list[Fact]:
        place = len(facts) - 1 if last else facts.index(("quiet",)) + 1
        return [*facts[:place], fact, *facts[place:]]

    return add


@pytest.mark.parametrize(
    ("found", "change"),
    [
        (UNANSWERED, without("acknowledge", "p", 1)),
        (TOO_MANY, plus("announce", NEAR, 1)),
        (FALSE_ALARM, plus("announce", NEAR, None)),
        (NOT_TOLD, plus("die", "hub")),
        (NOT_DROPPED, plus("drop", "p", 1)),
        (UNKNOWN, plus("arrive", NEAR, "p", 99)),
        (UNKNOWN, plus("arrive", NEAR, "p", 2, last=False)),
        (UNWANTED, plus("arrive", "stranger", "p", 1)),
        (LOST, plus("count", "hub", NEAR, 1)),
        (LOST, plus("drop", "p", 0)),
    ],
)
def test_what_should_not_be_is_found(found: str, change: Callable[[list[Fact]], list[Fact]]) -> None:
    assert found in judged(change(calm(3)))
    assert judged(calm(3)) == []


def test_an_event_for_a_room_that_was_left_long_ago_is_unwanted() -> None:
    late: list[Fact] = [("leave", NEAR, "A"), ("quiet",), ("send", "p", 9, "A"), ("acknowledge", "p", 9)]
    others: list[Fact] = [("arrive", FAR, "p", 9), ("arrive", SINK, "p", 9)]
    assert judged([*calm(1), *late, *others, ("quiet",)]) == []
    assert judged([*calm(1), *late, *others, ("arrive", NEAR, "p", 9), ("quiet",)]) == [UNWANTED]


def test_a_loss_within_the_limits_is_found_though_it_was_announced() -> None:
    facts = without("arrive", NEAR, "p", 1)(plus("announce", NEAR, 1)(calm(3)))
    assert judged(facts) == [LOST]
    assert judged(without("arrive", NEAR, "p", 1)(plus("announce", NEAR, 1)(calm(4)))) == []


def test_a_subscription_counts_from_the_next_quiet_on() -> None:
    facts = [fact for fact in calm(3) if fact != ("want", NEAR, "A")]
    lost = [fact for fact in facts if fact[:2] != ("arrive", NEAR)]
    assert judged(plus("want", NEAR, "A", last=False)(lost)) == []
    assert judged(plus("want", NEAR, "A", last=False)(facts)) == []


def test_the_death_of_a_hub_excuses_the_events_of_its_epoch_only() -> None:
    died: list[Fact] = [("die", "hub"), ("announce", NEAR, None), ("quiet",)]
    later: list[Fact] = [("send", "p", 9, "A"), ("acknowledge", "p", 9), ("quiet",)]
    elsewhere: list[Fact] = [("arrive", FAR, "p", 9), ("arrive", SINK, "p", 9), ("quiet",)]
    lost = without("arrive", NEAR, "p", 1)(calm(3)[:-1])
    assert judged([*lost, *died]) == []
    assert judged([*lost, *died, *later[:2], *elsewhere]) == [NOWHERE]


def test_what_is_published_after_a_client_is_back_must_arrive() -> None:
    facts: list[Fact] = [*BEGIN, ("die", "hub"), ("announce", NEAR, None), ("send", "p", 0, "A")]
    others: list[Fact] = [
        ("acknowledge", "p", 0),
        ("arrive", FAR, "p", 0),
        ("arrive", SINK, "p", 0),
        ("quiet",),
    ]
    assert judged([*facts, *others]) == [NOWHERE]
    assert judged([*facts, ("arrive", NEAR, "p", 0), *others]) == []


def test_an_event_that_was_acknowledged_before_its_hub_died_is_not_sent_again() -> None:
    facts = [*calm(2)[:-1], ("die", "hub"), ("announce", NEAR, None), ("arrive", NEAR, "p", 1), ("quiet",)]
    assert judged(facts) == [TWICE]
    assert judged([fact for fact in facts if fact != ("acknowledge", "p", 1)][:-1]) == []


def test_what_a_dead_sender_had_not_been_acknowledged_may_be_lost_and_nothing_else() -> None:
    facts = without("acknowledge", "p", 1)(without("arrive", NEAR, "p", 1)(calm(2)))
    assert judged(plus("die", "p")(facts)) == []
    facts = without("arrive", NEAR, "p", 1)(calm(2))
    assert judged(plus("die", "p")(facts)) == [NOWHERE]


def test_of_an_event_that_is_sent_again_one_copy_may_be_announced_as_lost() -> None:
    facts = [fact for fact in calm(4)[:-1] if fact[0] != "acknowledge"]
    again: list[Fact] = [("announce", NEAR, 2), ("die", "hub"), ("announce", NEAR, None)]
    answers: list[Fact] = [("acknowledge", "p", n) for n in range(4)]
    assert judged([*facts, *again, *answers, ("quiet",)]) == []
    assert judged([*facts, *answers, *again, ("quiet",)]) == [TOO_MANY]
