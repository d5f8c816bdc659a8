"""The hub without sockets: who gets what, who stays, what is held, announced and counted."""

from __future__ import annotations

import gc

import pytest
from twisted.internet.defer import Deferred

from ces.hub.api import counters
from ces.hub.hub import MeetsItself
from ces.hub.shown import status
from ces.link.link import Link, Refused
from ces.link.shown import registration
from ces.model.control import Gap, Hello, SubscriptionChange
from ces.model.wire import CES1, CES2, Run
from ces.session.life import GOING_AWAY, PROTOCOL_ERROR, REPLACED
from tests.support.hubs import Floor
from tests.support.links import run
from tests.support.turns import TurnClock
from tests.support.views import built


@pytest.fixture
def floor():
    return Floor()


def texts(floor: Floor, link: Link) -> list[str]:
    """What was written to the present connection of a link, or its last one."""
    return [record.split(b'"')[-2].decode() for record in floor.sent(link)]


def changes(floor: Floor, link: Link) -> list[SubscriptionChange]:
    """The subscription changes that a hub was told on its present connection, but for the first,
    which ends what an earlier process had.
    """
    told = [message for message in floor.told(link) if isinstance(message, SubscriptionChange)]
    return told[told[:1] == [SubscriptionChange([], False)] :]


def block(floor: Floor, link: Link) -> None:
    """The connection takes nothing more for now."""
    floor.plugs[link].blocked = True
    link.blocked(floor.plugs[link])


def test_a_run_is_written_at_the_end_of_the_turn_and_not_before(floor):
    reader, writer = floor.link("messenger", "ITB-1"), floor.link("messenger")
    floor.hub.received(writer, [run("ITB-1", "a")])
    floor.hub.received(writer, [run("ITB-1", "b")])
    assert texts(floor, reader) == []
    floor.clock.advance(0)
    assert texts(floor, reader) == ["a", "b"]


def test_a_turn_in_which_very_much_arrives_is_flushed_on_the_way(floor):
    reader, writer = floor.link("messenger", "*"), floor.link("messenger")
    for _ in range(20):
        floor.hub.received(writer, [run("ITB-1", "x" * 65_000)])
    assert texts(floor, reader)
    floor.clock.advance(0)
    assert len(texts(floor, reader)) == 20


def test_what_no_repeater_came_for_in_time_is_dropped_counted_and_said():
    floor = Floor(hold_bytes=1000)
    writer = floor.link("messenger")
    floor.send(writer, "ITB-1", "a")
    floor.clock.advance(29)
    floor.send(writer, "ITB-1", "b")
    floor.clock.advance(1)
    assert floor.hub.held.dropped == 1
    assert any("1 records were dropped: no repeater came within 30 s" in line for line in floor.lines)
    repeater = floor.link("repeater")
    floor.clock.advance(0)
    assert texts(floor, repeater) == ["b"]
    assert not floor.clock.getDelayedCalls()


def test_what_is_held_goes_to_the_first_repeater_that_comes(floor):
    writer = floor.link("messenger")
    floor.send(writer, "ITB-1", "a")
    floor.send(writer, "ITB-2", "b")
    first, second = floor.link("repeater"), floor.link("repeater")
    floor.clock.advance(0)
    assert (texts(floor, first), texts(floor, second)) == (["a", "b"], [])


def test_what_waits_for_a_repeater_that_leaves_goes_to_another(floor):
    stuck, writer = floor.link("repeater"), floor.link("messenger")
    block(floor, stuck)
    floor.send(writer, "ITB-1", "a")
    other = floor.link("repeater")
    floor.cut(stuck)
    floor.clock.advance(0)
    assert texts(floor, other) == ["a"]
    assert floor.hub.side.dropped == 0


def test_what_waits_for_a_messenger_that_leaves_is_counted_and_said(floor):
    stuck, writer = floor.link("messenger", "ITB-1"), floor.link("messenger")
    block(floor, stuck)
    floor.send(writer, "ITB-1", "a", "b")
    floor.cut(stuck)
    assert floor.hub.side.dropped == 2
    assert any("2 records" in line and "it left before they were delivered" in line for line in floor.lines)


def test_a_newer_connection_of_a_hub_carries_the_same_link_and_takes_what_waits(floor):
    link = floor.link("hub", "ITB-1", dialect=CES2, node="other")
    older, writer = floor.plugs[link], floor.link("messenger")
    block(floor, link)
    floor.send(writer, "ITB-1", "a")
    assert floor.link("hub", dialect=CES2, node="other") is link
    floor.clock.advance(0)
    assert (older.closed, older.records()) == (REPLACED, [])
    assert texts(floor, link) == ["a"]
    assert floor.hub.routes.links("hub") == [link]


def test_a_hub_whose_connection_is_replaced_keeps_its_rooms(floor):
    link, writer = floor.link("hub", "ITB-1", dialect=CES2, node="other"), floor.link("messenger")
    for number, serving in enumerate([True, True, False, False]):
        floor.link("hub", dialect=CES2, node="other", serving=serving)
        floor.send(writer, "ITB-1", f"a{number}")
        floor.send(writer, "ITB-2", f"b{number}")
        assert texts(floor, link) == [f"a{number}"]
        assert floor.hub.routes.rooms(link) == {b"ITB-1"}
        link.acknowledged(floor.plugs[link], link.queue.sent)


def test_what_a_replaced_connection_did_not_acknowledge_goes_on_the_new_one(floor):
    link, writer = floor.link("hub", "ITB-1", dialect=CES2, node="other"), floor.link("messenger")
    for text in ("a", "b"):
        floor.send(writer, "ITB-1", text)
    link.acknowledged(floor.plugs[link], 1)
    floor.link("hub", dialect=CES2, node="other")
    floor.clock.advance(0)
    assert texts(floor, link) == ["b"]


def test_a_hub_whose_connection_is_replaced_is_told_all_that_is_wanted_and_what_is_no_more(floor):
    floor.link("messenger", "ITB-1")
    reader = floor.link("messenger", "ITB-2")
    link = floor.link("hub", dialect=CES2, node="other")
    floor.cut(reader)
    floor.clock.advance(0)
    floor.link("hub", dialect=CES2, node="other")
    assert changes(floor, link) == [SubscriptionChange(["ITB-1"], True), SubscriptionChange(["ITB-2"], False)]


def test_a_hub_that_was_cut_and_comes_with_a_new_session_has_its_link_again(floor):
    link, writer = floor.link("hub", "ITB-1", dialect=CES2, node="other"), floor.link("messenger")
    floor.cut(link)
    floor.send(writer, "ITB-1", "a")
    assert floor.link("hub", dialect=CES2, node="other") is link
    floor.clock.advance(0)
    assert texts(floor, link) == ["a"]


@pytest.mark.parametrize(
    ("first_serves", "other_node", "second_stays"),
    [(True, "aa", False), (True, "zz", True), (False, "aa", True), (False, "zz", False)],
)
def test_of_two_connections_dialled_from_both_ends_the_one_dialled_by_the_smaller_node_stays(
    floor, first_serves, other_node, second_stays
):
    link = floor.link("hub", dialect=CES2, node=other_node, serving=first_serves)
    first = floor.plugs[link]
    if second_stays:
        assert floor.link("hub", dialect=CES2, node=other_node, serving=not first_serves) is link
        assert (first.closed, link.serving) == (REPLACED, not first_serves)
    else:
        with pytest.raises(Refused) as refused:
            floor.link("hub", dialect=CES2, node=other_node, serving=not first_serves)
        assert refused.value.link is link
        assert (first.closed, link.serving) == (None, first_serves)
    assert floor.hub.routes.links("hub") == [link]


@pytest.mark.parametrize("other_node", ["aa", "zz"])
def test_a_link_without_a_connection_takes_one_from_either_side(floor, other_node):
    link = floor.link("hub", dialect=CES2, node=other_node)
    for serving in (False, True):
        floor.cut(link)
        assert floor.link("hub", dialect=CES2, node=other_node, serving=serving) is link


def test_a_hub_refuses_itself(floor):
    with pytest.raises(MeetsItself, match="talk to itself"):
        floor.link("hub", dialect=CES2, node="mm")


def test_another_process_with_the_same_node_does_not_get_the_link_while_its_connection_closes(floor):
    link = floor.link("hub", dialect=CES2, node="other")
    link.instance = "one"
    plug = floor.plugs[link]
    for closing in (False, True):
        if closing:
            link.closing(plug, REPLACED, "a newer connection takes its place")
        with pytest.raises(Refused, match="another hub has the node id other already"):
            floor.hub.admit("hub", "other", "two", serving=True)
        assert floor.hub.admit("hub", "other", "one", serving=True) is link
    assert plug.probed
    link.lost(plug, None, False)
    assert floor.hub.admit("hub", "other", "two", serving=True) is link
    assert floor.hub.side.refused["node"] == 2


def test_two_repeaters_of_one_process_are_both_kept(floor):
    floor.link("repeater", dialect=CES2, node="twin")
    floor.link("repeater", dialect=CES2, node="twin")
    assert len(floor.hub.routes.links("repeater")) == 2


def test_a_hub_that_joins_is_told_what_messengers_want_and_then_what_changes(floor):
    reader = floor.link("messenger", "ITB-1", "ITB-2")
    floor.clock.advance(0)
    other = floor.link("hub", dialect=CES2, node="other")
    assert floor.told(other) == [
        SubscriptionChange([], False),
        SubscriptionChange(["ITB-1", "ITB-2"], True),
    ]
    another = floor.link("messenger", "ITB-2", "ITB-3")
    floor.hub.told(reader, SubscriptionChange([], False))
    floor.clock.advance(0)
    assert changes(floor, other)[1:] == [
        SubscriptionChange(["ITB-3"], True),
        SubscriptionChange(["ITB-1"], False),
    ]
    floor.close(another)
    floor.clock.advance(0)
    assert changes(floor, other)[3:] == [SubscriptionChange(["ITB-2", "ITB-3"], False)]


def test_many_rooms_are_announced_in_several_messages(floor):
    floor.link("messenger", *[f"ITB-{number}" for number in range(2500)])
    other = floor.link("hub", dialect=CES2, node="other")
    assert [len(change.rooms) for change in changes(floor, other)] == [1000, 1000, 500]


def test_a_hub_in_ces1_is_told_nothing_and_gets_everything(floor):
    other, writer = floor.link("hub"), floor.link("messenger")
    floor.link("messenger", "ITB-1")
    floor.send(writer, "", "blank")
    assert (texts(floor, other), floor.told(other)) == (["blank"], [])


def test_a_subscription_from_a_link_that_has_left_changes_nothing(floor):
    gone = floor.link("messenger")
    floor.close(gone)
    floor.hub.told(gone, SubscriptionChange(["ITB-1"], True))
    assert floor.hub.routes.wanted() == []


def test_records_that_nobody_wants_are_counted(floor):
    other_hub = floor.link("hub")
    floor.send(other_hub, "ITB-1", "a", "b")
    assert floor.hub.unrouted == 2
    assert floor.hub.received_records == {"hub": 2, "messenger": 0, "repeater": 0}


def test_the_status_shows_each_link_with_its_buffer(floor):
    floor.link("repeater")
    reader, writer = floor.link("messenger", "ITB-1"), floor.link("messenger")
    block(floor, reader)
    floor.send(writer, "ITB-1", "a")
    nexus = built(status(floor.hub))
    assert [len(nexus[key]) for key in ("hubs", "messengers", "repeaters")] == [0, 2, 1]
    (shown,) = nexus["messenger-mapping"]["ITB-1"]
    assert shown["id"] == reader.name
    assert shown["buffer-utilization"] == run("ITB-1", "a").weight
    assert shown["buffer-capacity"] == reader.queue.limit


def test_a_hub_that_stops_says_what_it_still_held(floor):
    floor.send(floor.link("messenger"), "ITB-1", "a", "b")
    floor.hub.stop()
    assert any("2 records" in line and "the hub stops" in line for line in floor.lines)
    assert not floor.clock.getDelayedCalls()


def test_a_messenger_that_was_cut_gets_what_came_meanwhile_when_it_is_back(floor):
    reader, writer = floor.link("messenger", "ITB-1", dialect=CES2), floor.link("messenger")
    floor.cut(reader)
    floor.send(writer, "ITB-1", "a")
    assert built(status(floor.hub))["messengers"] == [registration(writer)]
    assert [one["id"] for one in built(status(floor.hub))["detached"]] == [reader.name]
    assert texts(floor, reader) == []
    floor.resume(reader)
    floor.send(writer, "ITB-1", "b")
    assert texts(floor, reader) == ["a", "b"]
    assert built(status(floor.hub))["detached"] == []


@pytest.mark.parametrize("ends", ["the window passes", "it is closed", "it never had a session"])
def test_what_a_messenger_wanted_is_forgotten_when_its_link_is_over(floor, ends):
    dialect = CES1 if ends == "it never had a session" else CES2
    reader, writer = floor.link("messenger", "ITB-1", dialect=dialect), floor.link("messenger")
    if ends == "it is closed":
        floor.close(reader)
    else:
        floor.cut(reader)
    if ends == "the window passes":
        floor.send(writer, "ITB-1", "a")
        assert floor.hub.unrouted == 0
        floor.clock.advance(floor.hub.settings.session_window + 1)
        assert floor.hub.side.dropped == 1
    floor.send(floor.link("hub", dialect=CES2, node="other"), "ITB-1", "b")
    assert (floor.hub.unrouted, floor.hub.routes.wanted()) == (1, [])
    assert reader not in floor.hub.routes


@pytest.mark.parametrize("code", [GOING_AWAY, PROTOCOL_ERROR])
def test_a_messenger_that_goes_away_is_waited_for_and_one_that_breaks_the_protocol_is_not(floor, code):
    reader = floor.link("messenger", "ITB-1", dialect=CES2)
    floor.close(reader, code)
    assert reader.detached == (code == GOING_AWAY)
    assert (reader in floor.hub.routes) == (code == GOING_AWAY)


def test_a_repeater_that_was_cut_gets_nothing_new_until_it_is_back(floor):
    first, writer = floor.link("repeater", dialect=CES2), floor.link("messenger")
    second = floor.link("repeater", dialect=CES2)
    floor.cut(first)
    floor.send(writer, "ITB-1", "a")
    floor.send(writer, "ITB-1", "b")
    assert texts(floor, second) == ["a", "b"]
    floor.close(second)
    floor.send(writer, "ITB-1", "c")
    assert floor.hub.held.records == 1
    floor.resume(first)
    assert texts(floor, first) == ["c"]
    assert floor.hub.held.records == 0


def test_what_a_repeater_may_not_have_got_waits_for_it_and_then_goes_to_another(floor):
    first, writer = floor.link("repeater", dialect=CES2), floor.link("messenger")
    floor.send(writer, "ITB-1", "a")
    assert texts(floor, first) == ["a"]
    floor.cut(first)
    other = floor.link("repeater")
    floor.clock.advance(1)
    assert texts(floor, other) == []
    floor.clock.advance(floor.hub.settings.session_window)
    assert (texts(floor, other), floor.hub.side.dropped) == (["a"], 0)
    assert floor.hub.sent == 2


def test_what_a_messenger_may_not_have_got_is_counted_when_it_stays_away(floor):
    reader, writer = floor.link("messenger", "ITB-1", dialect=CES2), floor.link("messenger")
    floor.send(writer, "ITB-1", "a")
    floor.cut(reader)
    floor.clock.advance(floor.hub.settings.session_window + 1)
    assert floor.hub.side.dropped == 1


def test_what_was_sent_before_a_clean_close_counts_as_delivered(floor):
    reader, repeater = floor.link("messenger", "ITB-1", dialect=CES2), floor.link("repeater", dialect=CES2)
    floor.send(floor.link("messenger"), "ITB-1", "a")
    floor.close(reader)
    floor.close(repeater)
    assert (floor.hub.side.dropped, floor.hub.held.records) == (0, 0)


def test_a_hub_that_is_back_is_told_what_is_wanted_no_more_and_what_is(floor):
    reader = floor.link("messenger", "ITB-1", "ITB-2")
    floor.clock.advance(0)
    other = floor.link("hub", dialect=CES2, node="other")
    floor.cut(other)
    floor.hub.told(reader, SubscriptionChange(["ITB-1"], False))
    floor.clock.advance(0)
    floor.resume(other)
    assert changes(floor, other) == [SubscriptionChange(["ITB-1"], False)]


@pytest.mark.parametrize("ends", ["the window has passed", "it is aborted", "it is closed"])
@pytest.mark.parametrize("room", ["ITB-1", "ITB-9"])
def test_a_hub_whose_link_ends_when_it_is_told_something_does_not_keep_others_from_hearing_it(
    floor, ends, room
):
    # A hub that reads too slowly is dropped when it is told one thing more.
    bad = floor.link("hub", dialect=CES2, node="a-bad-one")
    good = floor.link("hub", dialect=CES2, node="good")
    reader = floor.link("messenger", "ITB-1")
    floor.clock.advance(0)
    before = changes(floor, good)
    taken = floor.plugs[bad].told[:]

    def end(message: object) -> None:
        if ends == "it is closed":
            floor.close(bad, PROTOCOL_ERROR)
        else:
            floor.plugs[bad].abort()
        if ends == "the window has passed":
            bad.end(GOING_AWAY, "it is over")

    floor.plugs[bad].tell = end
    floor.hub.told(reader, SubscriptionChange([room], room != "ITB-1"))
    floor.clock.advance(0)
    assert changes(floor, good)[len(before) :] == [SubscriptionChange([room], room != "ITB-1")]
    floor.hub.told(reader, SubscriptionChange(["ITB-5"], True))
    floor.clock.advance(0)
    assert changes(floor, good)[-1] == SubscriptionChange(["ITB-5"], True)
    if ends == "it is aborted":
        assert bad.detached
        floor.resume(bad, changes=len(taken))
        rooms = set()
        for change in [*taken, *changes(floor, bad)]:
            rooms = rooms | set(change.rooms) if change.create else rooms - set(change.rooms)
        assert rooms == ({"ITB-5"} if room == "ITB-1" else {"ITB-5", "ITB-1", room})


def links_alive() -> int:
    gc.collect()
    return sum(isinstance(each, Link) for each in gc.get_objects())


def test_a_link_that_has_left_is_kept_nowhere(floor):
    before = links_alive()
    bad = floor.link("hub", dialect=CES2, node="other")
    reader = floor.link("messenger", "ITB-1")
    floor.plugs[bad].tell = lambda message, bad=bad: floor.close(bad, PROTOCOL_ERROR)
    floor.clock.advance(0)
    floor.close(reader)
    floor.clock.advance(0)
    floor.plugs.clear()
    del bad, reader
    assert links_alive() == before


def test_a_messenger_whose_link_ends_when_it_is_told_of_a_limit_subscribes_to_nothing():
    floor = Floor(room_limit=1)
    reader = floor.link("messenger", dialect=CES2)
    floor.plugs[reader].tell = lambda message: floor.close(reader, PROTOCOL_ERROR)
    floor.hub.told(reader, SubscriptionChange(["ITB-1", "ITB-2"], True))
    assert floor.hub.routes.wanted() == []


def test_a_gap_changes_nothing_in_what_a_link_wants(floor):
    reader = floor.link("messenger", "ITB-1", dialect=CES2)
    floor.hub.told(reader, Gap(3))
    assert floor.hub.routes.rooms(reader) == {b"ITB-1"}


def test_what_is_announced_is_state_and_not_every_change(floor):
    # Another hub takes nothing for a while. Rooms come and go meanwhile.
    other, reader = floor.link("hub", dialect=CES2, node="other"), floor.link("messenger", "ITB-1")
    floor.clock.advance(0)
    before = len(changes(floor, other))
    floor.plugs[other].blocked = True
    for number in range(1000):
        floor.hub.told(reader, SubscriptionChange([f"ITB-{number}", "ITB-X"], True))
        floor.clock.advance(0)
        floor.hub.told(reader, SubscriptionChange([f"ITB-{number}", "ITB-X"], False))
        floor.clock.advance(0)
    floor.plugs[other].blocked = False
    other.writable(floor.plugs[other])
    assert changes(floor, other)[before:] == [SubscriptionChange(["ITB-1"], False)]


def test_very_many_rooms_go_in_pieces_as_the_other_hub_takes_them(floor):
    floor.link("messenger", *[f"{number:05}" + "x" * 245 for number in range(10_000)])
    other = floor.link("hub", dialect=CES2, node="other")
    told, taken = set(), 0
    for _ in range(1000):
        new = changes(floor, other)[taken:]
        assert len(new) <= 8
        if not new:
            break
        taken += len(new)
        told.update(room for change in new for room in change.rooms)
        other.acknowledged_changes(floor.plugs[other], taken + 1)
    assert len(told) == 10_000


def test_changes_that_were_in_flight_at_a_cut_are_announced_again_and_no_others(floor):
    reader = floor.link("messenger", "ITB-1", "ITB-2")
    other = floor.link("hub", dialect=CES2, node="other")
    floor.hub.told(reader, SubscriptionChange(["ITB-3"], True))
    floor.clock.advance(0)
    floor.hub.told(reader, SubscriptionChange(["ITB-1"], False))
    floor.clock.advance(0)
    floor.cut(other)
    floor.resume(other, changes=2)
    assert changes(floor, other) == [
        SubscriptionChange(["ITB-3"], True),
        SubscriptionChange(["ITB-1"], False),
    ]


def test_a_hub_that_does_not_acknowledge_changes_is_told_everything_again_when_it_resumes(floor):
    reader = floor.link("messenger", "ITB-1", "ITB-2")
    other = floor.link("hub", dialect=CES2, node="other")
    floor.hub.told(reader, SubscriptionChange(["ITB-1"], False))
    floor.clock.advance(0)
    floor.cut(other)
    other.prepare(Hello("other", other.session.id, 0))
    plug = floor._plug(other, CES2, True)
    plug.changes = None
    plug.session = other.session
    other.attach(plug, "other", other.session, resumed=True)
    assert SubscriptionChange(["ITB-2"], True) in changes(floor, other)
    assert SubscriptionChange(["ITB-1"], False) in changes(floor, other)


def test_the_metrics_count_links_that_were_cut_apart(floor):
    floor.link("messenger")
    floor.cut(floor.link("messenger", dialect=CES2))
    floor.hub.side.missed += 3
    found = counters(floor.hub)
    assert found["ces_hub_links"][2][("kind", "messenger"),] == 1
    assert found["ces_hub_detached_links"][1:] == ("gauge", 1)
    assert found["ces_hub_missed_records"][1:] == ("counter", 3)


@pytest.fixture
def by_turns():
    return Floor(TurnClock())


TINY = [f"R{number % 2}" for number in range(30_000)]
"""Rooms in turn."""


def tiny() -> list[Run]:
    """Far more runs than a slice, numbered."""
    return [run(room, str(number)) for number, room in enumerate(TINY)]


def test_very_many_runs_are_routed_in_slices_in_order_while_others_are_served(by_turns):
    readers = [by_turns.link("messenger", "*", dialect=CES2) for _ in range(20)]
    one = by_turns.link("messenger", "R1", dialect=CES2)
    attacker, other = by_turns.link("messenger"), by_turns.link("messenger")
    by_turns.hub.received(attacker, tiny())
    assert by_turns.plugs[attacker].paused
    turns = []
    for turn in range(200):
        if not by_turns.plugs[attacker].paused:
            break
        by_turns.hub.received(other, [run("R1", f"other {turn}")])
        by_turns.clock.turn()
        new = texts(by_turns, readers[0])
        assert f"other {turn}" in new, "who sends little is served in the same turn"
        turns.append(len(new))
        for link in (*readers, one):
            by_turns.plugs[link].written = b""
            link.acknowledged(by_turns.plugs[link], link.queue.sent)
    assert 10 < len(turns) < 100
    assert max(turns) < 3000
    assert by_turns.hub.side.tally.bytes == 0


def test_what_is_routed_in_slices_arrives_in_order(by_turns):
    all_of_it, some = by_turns.link("messenger", "*"), by_turns.link("messenger", "R1")
    attacker = by_turns.link("messenger")
    by_turns.hub.received(attacker, tiny())
    by_turns.hub.received(attacker, [run("R1", "last")])
    while by_turns.plugs[attacker].paused:
        by_turns.clock.turn()
    by_turns.clock.turn()
    assert texts(by_turns, all_of_it) == [*map(str, range(len(TINY))), "last"]
    assert texts(by_turns, some) == [*map(str, range(1, len(TINY), 2)), "last"]
    assert by_turns.hub.received_records["messenger"] == len(TINY) + 1


def test_what_a_link_has_sent_is_routed_though_it_leaves(by_turns):
    reader, attacker = by_turns.link("messenger", "*"), by_turns.link("messenger")
    by_turns.hub.received(attacker, tiny())
    by_turns.close(attacker)
    for _ in range(100):
        by_turns.clock.turn()
    assert len(texts(by_turns, reader)) == len(TINY)
    assert by_turns.hub.side.tally.bytes == 0


def test_a_link_that_comes_back_is_not_read_while_it_is_behind(by_turns):
    attacker = by_turns.link("messenger", dialect=CES2)
    by_turns.hub.received(attacker, tiny())
    by_turns.cut(attacker)
    by_turns.resume(attacker)
    assert by_turns.plugs[attacker].paused
    while by_turns.plugs[attacker].paused:
        by_turns.clock.turn()
    assert by_turns.hub.unrouted == 0
    assert by_turns.hub.held.records + by_turns.hub.held.dropped == len(TINY)


def test_an_error_while_it_is_behind_costs_the_link_and_is_counted(by_turns, logged_failures):
    attacker = by_turns.link("messenger")
    by_turns.hub.received(attacker, tiny())
    routed = by_turns.hub.received_records["messenger"]
    by_turns.hub.routes.destinations = None
    by_turns.clock.turn()
    assert attacker not in by_turns.hub.routes
    assert logged_failures.flush(TypeError)
    assert by_turns.hub.side.dropped == len(TINY) - routed
    assert by_turns.hub.side.tally.bytes == 0


def test_a_hub_that_stops_routes_what_it_has_taken(by_turns):
    reader, attacker = by_turns.link("messenger", "*"), by_turns.link("messenger")
    by_turns.hub.received(attacker, tiny())
    draining = Deferred.fromCoroutine(by_turns.hub.drain())
    while not draining.called:
        by_turns.clock.turn()
        by_turns.clock.advance(0.05)
    assert len(texts(by_turns, reader)) == len(TINY)


def test_what_a_hub_that_stops_has_taken_and_cannot_route_is_counted(by_turns):
    attacker = by_turns.link("messenger")
    by_turns.hub.received(attacker, tiny())
    routed = by_turns.hub.received_records["messenger"]
    by_turns.hub.stop()
    assert by_turns.hub.side.dropped == len(TINY) - routed
    assert by_turns.hub.side.tally.bytes == 0
    by_turns.clock.turn()
    assert by_turns.hub.received_records["messenger"] == routed


def test_no_more_is_taken_by_http_while_too_much_of_it_waits(by_turns, monkeypatch):
    monkeypatch.setattr("ces.hub.hub.POSTED", 100_000)
    reader = by_turns.link("messenger", "*")
    assert by_turns.hub.posted(tiny())
    assert not by_turns.hub.posted([run("R1", "too early")])
    for _ in range(100):
        by_turns.clock.turn()
    assert by_turns.hub.posted([run("R1", "last")])
    by_turns.clock.turn()
    assert texts(by_turns, reader)[-1] == "last"


def test_neighbours_that_go_to_the_same_links_are_counted_by_room_when_they_are_evicted(floor):
    reader, writer = floor.link("messenger", "*"), floor.link("messenger")
    block(floor, reader)
    reader.queue.limit = 100_000
    floor.hub.received(writer, [run(f"R{number % 3}", "x" * 300) for number in range(900)])
    floor.clock.advance(0)
    rooms = reader.queue.dropped_rooms
    assert reader.dropped > 300
    assert sum(rooms.values()) == reader.dropped
    assert max(rooms.values()) - min(rooms.values()) <= 1


def test_a_link_with_very_many_rooms_leaves_in_slices_and_gets_nothing_more(by_turns):
    other, leaving = by_turns.link("hub", dialect=CES2, node="z"), by_turns.link("messenger", dialect=CES2)
    writer = by_turns.link("messenger")
    rooms = [f"R{number}" for number in range(10_500)]
    by_turns.hub.told(leaving, SubscriptionChange(rooms, True))
    by_turns.close(leaving)
    assert leaving not in by_turns.hub.routes
    turns = 0
    while by_turns.hub.routes.wants:
        by_turns.hub.received(writer, [run("R10499", str(turns))])
        by_turns.clock.turn()
        turns += 1
    assert turns == 10
    assert leaving.queue.size == 0
    assert by_turns.hub.side.tally.bytes == 0
    assert by_turns.hub.subscriptions.short == 0
    for _ in range(20):
        by_turns.clock.turn()
    assert not other.interest.due
