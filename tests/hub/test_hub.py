"""The hub over fake links and a clock: who gets what, who stays, what is held, announced and counted."""

from __future__ import annotations

import pytest

from ces.hub.api import counters
from ces.link.shown import registration
from ces.model.control import SubscriptionChange
from ces.model.wire import CES2
from ces.session.held import Held
from tests.support.hubs import FakeLink, Floor
from tests.support.links import run


@pytest.fixture
def floor():
    return Floor()


def texts(link: FakeLink) -> list[str]:
    return [record.split(b'"')[-2].decode() for record in link.sent]


def test_a_run_is_written_at_the_end_of_the_turn_and_not_before(floor):
    reader, writer = floor.link("messenger", "ITB-1"), floor.link("messenger")
    floor.hub.received(writer, [run("ITB-1", "a")])
    floor.hub.received(writer, [run("ITB-1", "b")])
    assert reader.sent == []
    floor.clock.advance(0)
    assert texts(reader) == ["a", "b"]


def test_a_turn_in_which_very_much_arrives_is_flushed_on_the_way(floor):
    reader, writer = floor.link("messenger", "*"), floor.link("messenger")
    for _ in range(20):
        floor.hub.received(writer, [run("ITB-1", "x" * 65_000)])
    assert reader.sent
    floor.clock.advance(0)
    assert len(reader.sent) == 20


def test_what_no_repeater_came_for_in_time_is_dropped_counted_and_said():
    floor = Floor(held=Held(1000, 30.0))
    writer = floor.link("messenger")
    floor.send(writer, "ITB-1", "a")
    floor.clock.advance(29)
    floor.send(writer, "ITB-1", "b")
    floor.clock.advance(1)
    assert floor.hub.held.dropped == 1
    assert any("1 records were dropped: no repeater came within 30 s" in line for line in floor.lines)
    repeater = floor.link("repeater")
    floor.clock.advance(0)
    assert texts(repeater) == ["b"]
    assert not floor.clock.getDelayedCalls()


def test_what_is_held_goes_to_the_first_repeater_that_comes(floor):
    writer = floor.link("messenger")
    floor.send(writer, "ITB-1", "a")
    floor.send(writer, "ITB-2", "b")
    first, second = floor.link("repeater"), floor.link("repeater")
    floor.clock.advance(0)
    assert (texts(first), texts(second)) == (["a", "b"], [])


def test_what_waits_for_a_repeater_that_leaves_goes_to_another(floor):
    stuck, writer = floor.link("repeater"), floor.link("messenger")
    stuck.blocked = True
    floor.send(writer, "ITB-1", "a")
    other = floor.link("repeater")
    floor.hub.left(stuck, "cut")
    floor.clock.advance(0)
    assert texts(other) == ["a"]
    assert floor.hub.side.dropped == 0


def test_what_waits_for_a_messenger_that_leaves_is_counted_and_said(floor):
    stuck, writer = floor.link("messenger", "ITB-1"), floor.link("messenger")
    stuck.blocked = True
    floor.send(writer, "ITB-1", "a", "b")
    floor.hub.left(stuck, "cut")
    assert floor.hub.side.dropped == 2
    assert any("2 records" in line and "it left before they were sent" in line for line in floor.lines)


def test_a_newer_link_from_the_same_side_replaces_the_older_and_takes_what_waits(floor):
    old = floor.link("hub", "ITB-1", dialect=CES2, node="other")
    writer = floor.link("messenger")
    old.blocked = True
    floor.send(writer, "ITB-1", "a")
    new = floor.link("hub", "ITB-1", dialect=CES2, node="other")
    floor.clock.advance(0)
    assert old.closed == 4409
    assert texts(new) == ["a"]
    assert floor.hub.routes.links("hub") == [new]


@pytest.mark.parametrize(
    ("first_serves", "other_node", "second_stays"),
    [(True, "aa", False), (True, "zz", True), (False, "aa", True), (False, "zz", False)],
)
def test_of_two_links_dialled_from_both_ends_the_one_dialled_by_the_smaller_node_stays(
    floor, first_serves, other_node, second_stays
):
    first = floor.link("hub", dialect=CES2, node=other_node, serving=first_serves)
    second = FakeLink(floor.hub, "hub", CES2, other_node, not first_serves)
    refusal = floor.hub.admit(second)
    assert (refusal is None) == second_stays
    if second_stays:
        floor.hub.joined(second)
        assert first.closed == 4409
        assert floor.hub.routes.links("hub") == [second]


def test_a_hub_refuses_itself(floor):
    assert "talk to itself" in (floor.hub.admit(FakeLink(floor.hub, "hub", CES2, "mm")) or "")


def test_two_repeaters_of_one_process_are_both_kept(floor):
    floor.link("repeater", dialect=CES2, node="twin")
    floor.link("repeater", dialect=CES2, node="twin")
    assert len(floor.hub.routes.links("repeater")) == 2


def test_a_hub_that_joins_is_told_what_messengers_want_and_then_what_changes(floor):
    reader = floor.link("messenger", "ITB-1", "ITB-2")
    floor.clock.advance(0)
    other = floor.link("hub", dialect=CES2, node="other")
    assert other.told == [SubscriptionChange(["ITB-1", "ITB-2"], True)]
    another = floor.link("messenger", "ITB-2", "ITB-3")
    floor.hub.subscribed(reader, SubscriptionChange([], False))
    floor.clock.advance(0)
    assert other.told[1:] == [SubscriptionChange(["ITB-3"], True), SubscriptionChange(["ITB-1"], False)]
    floor.hub.left(another, "gone")
    floor.clock.advance(0)
    assert other.told[3:] == [SubscriptionChange(["ITB-2", "ITB-3"], False)]


def test_many_rooms_are_announced_in_several_messages(floor):
    floor.link("messenger", *[f"ITB-{number}" for number in range(2500)])
    other = floor.link("hub", dialect=CES2, node="other")
    assert [len(change.rooms) for change in other.told] == [1000, 1000, 500]


def test_a_hub_in_ces1_is_told_nothing_and_gets_everything(floor):
    other, writer = floor.link("hub"), floor.link("messenger")
    floor.link("messenger", "ITB-1")
    floor.send(writer, "", "blank")
    assert (texts(other), other.told) == (["blank"], [])


def test_a_subscription_from_a_link_that_has_left_changes_nothing(floor):
    gone = floor.link("messenger")
    floor.hub.left(gone, "cut")
    floor.hub.subscribed(gone, SubscriptionChange(["ITB-1"], True))
    assert floor.hub.routes.wanted() == []


def test_events_of_a_link_that_has_been_replaced_are_still_routed(floor):
    reader = floor.link("messenger", "ITB-1")
    old = floor.link("hub", dialect=CES2, node="other")
    floor.link("hub", dialect=CES2, node="other")
    floor.send(old, "ITB-1", "late")
    assert texts(reader) == ["late"]


def test_records_that_nobody_wants_are_counted(floor):
    other_hub = floor.link("hub")
    floor.send(other_hub, "ITB-1", "a", "b")
    assert floor.hub.unrouted == 2
    assert floor.hub.received_records == {"hub": 2, "messenger": 0, "repeater": 0}


def test_the_status_shows_each_link_with_its_buffer(floor):
    floor.link("repeater")
    reader, writer = floor.link("messenger", "ITB-1"), floor.link("messenger")
    reader.blocked = True
    floor.send(writer, "ITB-1", "a")
    nexus = floor.hub.status()
    assert [len(nexus[key]) for key in ("hubs", "messengers", "repeaters")] == [0, 2, 1]
    (shown,) = nexus["messenger-mapping"]["ITB-1"]
    assert shown["id"] == reader.name
    assert (shown["buffer-utilization"], shown["buffer-capacity"]) == (run("ITB-1", "a").weight, 10_000)


def test_a_hub_that_stops_says_what_it_still_held(floor):
    floor.send(floor.link("messenger"), "ITB-1", "a", "b")
    floor.hub.stop()
    assert any("2 records" in line and "the hub stops" in line for line in floor.lines)
    assert not floor.clock.getDelayedCalls()


def test_a_messenger_that_was_cut_gets_what_came_meanwhile_when_it_is_back(floor):
    reader, writer = floor.link("messenger", "ITB-1", dialect=CES2), floor.link("messenger")
    floor.cut(reader)
    floor.send(writer, "ITB-1", "a")
    assert floor.hub.status()["messengers"] == [registration(writer)]
    assert [one["id"] for one in floor.hub.status()["detached"]] == [reader.name]
    back = floor.resume(reader)
    floor.send(writer, "ITB-1", "b")
    assert (reader.sent, texts(back)) == ([], ["a", "b"])


def test_a_messenger_that_is_back_with_a_fresh_session_says_anew_what_it_wants(floor):
    reader, writer = floor.link("messenger", "ITB-1", dialect=CES2), floor.link("messenger")
    floor.cut(reader)
    back = floor.resume(reader, fresh=True)
    floor.send(writer, "ITB-1", "a")
    assert (back.sent, floor.hub.unrouted) == ([], 0)
    assert floor.hub.routes.wanted() == []


def test_a_repeater_that_was_cut_gets_nothing_new_until_it_is_back(floor):
    first, writer = floor.link("repeater", dialect=CES2), floor.link("messenger")
    second = floor.link("repeater", dialect=CES2)
    floor.cut(first)
    floor.send(writer, "ITB-1", "a")
    floor.send(writer, "ITB-1", "b")
    assert texts(second) == ["a", "b"]
    floor.hub.left(second, "gone")
    floor.send(writer, "ITB-1", "c")
    assert floor.hub.held.records == 1
    assert texts(floor.resume(first)) == ["c"]
    assert floor.hub.held.records == 0


def test_what_a_repeater_may_not_have_got_goes_to_another_and_of_a_messenger_is_counted(floor):
    other = floor.link("repeater")
    floor.hub.undelivered(FakeLink(floor.hub, "repeater"), [run("ITB-1", "a")])
    floor.clock.advance(0)
    assert (texts(other), floor.hub.side.dropped) == (["a"], 0)
    floor.hub.undelivered(FakeLink(floor.hub, "messenger"), [run("ITB-1", "b")])
    assert floor.hub.side.dropped == 1


def test_a_hub_that_is_back_is_told_what_is_wanted_no_more_and_what_is(floor):
    reader = floor.link("messenger", "ITB-1", "ITB-2")
    floor.clock.advance(0)
    other = floor.link("hub", dialect=CES2, node="other")
    floor.cut(other)
    floor.hub.subscribed(reader, SubscriptionChange(["ITB-1"], False))
    floor.clock.advance(0)
    back = floor.resume(other)
    assert back.told == [SubscriptionChange(["ITB-1"], False), SubscriptionChange(["ITB-2"], True)]


def test_of_rooms_that_are_wanted_no_more_the_oldest_are_forgotten(floor, monkeypatch):
    monkeypatch.setattr("ces.model.withdrawn.WITHDRAWN_ROOMS", 2)
    other, reader = floor.link("hub", dialect=CES2, node="other"), floor.link("messenger")
    for number in range(4):
        floor.hub.subscribed(reader, SubscriptionChange([f"ITB-{number}"], True))
        floor.clock.advance(0)
        floor.hub.subscribed(reader, SubscriptionChange([f"ITB-{number}"], False))
        floor.clock.advance(0)
    floor.cut(other)
    assert floor.resume(other).told == [SubscriptionChange(["ITB-2", "ITB-3"], False)]


def test_the_metrics_count_links_that_were_cut_apart(floor):
    floor.link("messenger")
    floor.cut(floor.link("messenger", dialect=CES2))
    floor.hub.side.missed += 3
    found = counters(floor.hub)
    assert found["ces_hub_links"][2][("kind", "messenger"),] == 1
    assert found["ces_hub_detached_links"][1:] == ("gauge", 1)
    assert found["ces_hub_missed_records"][1:] == ("counter", 3)
