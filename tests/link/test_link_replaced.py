"""A connection for a link whose connection still lives: the old one is closed with 4409, and what it carried
arrives once and in order, whatever becomes of it (docs/protocol.md section 5, "Replacement").
"""

from __future__ import annotations

import json

import pytest
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import ensureDeferred

from ces.link.link import Link
from ces.link.serving import ServingFactory
from ces.session.life import State
from ces.uplink.uplink import Uplink
from tests.support.links import Recorder, make_side, make_uplink, run
from tests.support.network import Meeting, Network
from tests.support.tcp import Tcp


class Twice:
    """Two processes that are linked, and in which a second uplink dials for the same link.

    near, far: the link at the dialling and at the serving end.
    old, new: the connections of the first and the second uplink.
    """

    def __init__(self) -> None:
        self.network = Network()
        self.dialled = Recorder("dialled", instance="one")
        self.served = Recorder("served", instance="other")
        self._side = make_side(self.network)
        self.factory = ServingFactory(self.served, make_side(self.network), "hub", self.network)
        self._sent: dict[Link, list[str]] = {}
        self.uplinks: list[Uplink] = []
        self.old = self.dial()
        self.near, self.far = self.old.link, self.old.peer
        self.dialled.places["served"], self.served.places["dialled"] = self.near, self.far

    def dial(self, settle: bool = True) -> Meeting:
        """Dial once more."""
        uplink = make_uplink(
            self.dialled, self._side, self.network, "hub", window=120, may_dial=lambda: not uplink.covered
        )
        self.uplinks.append(uplink)
        uplink.dial()
        self.network.advance(0)
        meeting = self.network.dial.meet(self.factory, settle)
        if not settle:
            for served in (True, False, True, False, True):  # handshake, answer, hello, offer, hello
                meeting.deliver(served)
        return meeting

    def put(self, link: Link, count: int = 1) -> None:
        """Queue the next records, and let the turn end."""
        sent = self._sent.setdefault(link, [])
        texts = [str(number) for number in range(len(sent), len(sent) + count)]
        sent += texts
        link.put(run("A", *texts))
        link.side.turn.add(link)
        self.network.advance(0)

    def arrived(self) -> tuple[list[str], list[str]]:
        """The texts that came at the serving end, and at the dialling end."""
        return texts(self.served), texts(self.dialled)

    def sent(self) -> tuple[list[str], list[str]]:
        """What was put into the link at the dialling end, and at the serving end."""
        return self._sent.get(self.near, []), self._sent.get(self.far, [])

    def acknowledged(self) -> tuple[int, int]:
        """How many of them the other end has acknowledged."""
        near, far = (
            len(sent) - link.queue.unacknowledged - link.queue.records
            for sent, link in zip(self.sent(), (self.near, self.far), strict=True)
        )
        return near, far

    def settle(self) -> None:
        """Move all that is under way, and wait until it is acknowledged."""
        self.network.settle()
        self.network.pass_time(0.2, 0.1)

    def end(self) -> None:
        """End everything."""
        for uplink in self.uplinks:
            ensureDeferred(uplink.stop())
            self.network.settle()


def texts(owner: Recorder) -> list[str]:
    """The texts of the records that came."""
    return [json.loads(one.split(b"\n")[1])["key"] for one in owner.records]


def test_both_ends_close_the_old_connection_and_go_on_with_the_new_one() -> None:
    twice = Twice()
    new = twice.dial()
    assert (twice.near.connection, twice.far.connection) == (new.dialled, new.served)
    assert (twice.old.dialled.code, twice.old.served.code) == (4409, 4409)
    assert twice.old not in twice.network.meetings
    assert (twice.dialled.fresh, twice.served.fresh) == ([False], [False])
    assert (twice.dialled.links, twice.served.links) == ([twice.near], [twice.far])
    twice.put(twice.near)
    twice.put(twice.far)
    twice.settle()
    assert twice.arrived() == (["0"], ["0"])


def test_what_was_under_way_on_the_old_connection_when_it_was_replaced_arrives_once() -> None:
    twice = Twice()
    twice.put(twice.near, 3)
    twice.put(twice.far, 3)
    new = twice.dial(settle=False)  # the serving end is deaf on the old one from now on
    twice.put(twice.near)
    twice.put(twice.far)
    new.deliver(served=False)
    twice.put(twice.near)
    twice.settle()
    assert twice.arrived() == twice.sent()
    assert twice.near.queue.unacknowledged == twice.far.queue.unacknowledged == 0


def test_an_old_connection_that_does_not_answer_the_close_holds_nothing_up() -> None:
    twice = Twice()
    twice.put(twice.near, 3)
    twice.put(twice.far, 3)
    twice.old.silence()
    twice.dial()
    twice.put(twice.near)
    twice.put(twice.far)
    twice.settle()
    assert twice.arrived() == twice.sent()
    assert twice.old.dialled.state != 0
    twice.network.pass_time(12)
    assert twice.near.connected and twice.far.connected


def test_a_session_that_only_the_serving_side_remembers_is_offered_in_vain_and_a_new_one_begins() -> None:
    twice = Twice()
    twice.put(twice.far)
    twice.settle()
    twice.dialled.places.clear()
    new = twice.dial()
    assert new.dialled.session.id == new.served.session.id != ""
    assert twice.served.fresh == [True]
    assert new.dialled.link is not twice.near


@pytest.mark.parametrize("far", [False, True], ids=["dialling", "serving"])
def test_a_new_connection_that_is_cut_while_the_old_one_closes_takes_nothing_with_it(far: bool) -> None:
    """What the old one carried is not counted in the session of the new one."""
    twice = Twice()
    twice.put(twice.far if far else twice.near, 3)
    twice.settle()
    new = twice.dial(settle=False)
    new.deliver(served=False)
    twice.put(twice.far if far else twice.near)
    twice.network.meetings.remove(twice.old)  # it stands still for a while
    new.lose()
    assert (twice.near.detached, twice.far.detached) == (True, True)
    twice.network.meetings.append(twice.old)
    twice.network.settle()
    twice.network.redial()
    twice.network.dials[0].meet(twice.factory)
    twice.settle()
    assert twice.arrived() == twice.sent()
    assert twice.dialled.fresh == twice.served.fresh == [False, False]


@pytest.mark.parametrize("far", [False, True], ids=["dialling", "serving"])
def test_a_connection_that_closes_takes_nothing_more_once_its_session_goes_on_elsewhere(far: bool) -> None:
    """Behind its close with 4001 a side takes what was under way, but not after it has said what it has."""
    twice = Twice()
    twice.put(twice.near if far else twice.far)
    twice.network.meetings.remove(twice.old)  # it stands still for a while
    (twice.old.served if far else twice.old.dialled).end(4001, "going away")
    (twice.old.dialled if far else twice.old.served).end(4001, "going away")
    twice.dial()
    twice.network.meetings.append(twice.old)
    twice.settle()
    assert twice.arrived() == twice.sent()


def test_a_connection_that_another_one_overtakes_as_it_opens_is_given_up_and_its_uplink_says_so() -> None:
    twice = Twice()
    late = twice.dial(settle=False)
    twice.network.meetings.remove(late)  # the answer to its hello is late
    third = twice.dial()
    twice.put(twice.far)
    twice.settle()
    twice.network.meetings.append(late)
    twice.settle()
    assert (twice.uplinks[1].overtaken, twice.uplinks[2].overtaken) == (True, False)
    assert (twice.near.connection, twice.far.connection) == (third.dialled, third.served)
    assert twice.arrived() == twice.sent()


STEPS = st.lists(
    st.sampled_from(["put near", "put far", "to old served", "to old dialled", "to new served"])
    | st.sampled_from(["to new dialled", "bit to old served", "bit to old dialled", "turn", "move", "time"]),
    max_size=40,
)


def go(twice: Twice, new: Meeting, steps: list[str]) -> None:
    """Take these steps with the two connections."""
    for step in steps:
        if step.startswith("put"):
            twice.put(twice.near if step == "put near" else twice.far)
        elif " to " in f" {step}":
            meeting = twice.old if " old " in step else new
            meeting.deliver(served=step.endswith("served"), size=9 if step.startswith("bit") else None)
        elif step == "move":
            if twice.old in twice.network.meetings:
                twice.old.move()
        else:
            twice.network.advance(0.1 if step == "time" else 0)


@settings(max_examples=60)
@given(before=STEPS, between=STEPS)
def test_everything_arrives_once_and_in_order_however_the_two_connections_interleave(
    before: list[str], between: list[str]
) -> None:
    twice = Twice()
    go(twice, twice.old, before)
    go(twice, twice.dial(settle=False), between)
    twice.settle()
    assert twice.arrived() == twice.sent()
    assert twice.dialled.calls.count("joined") == twice.served.calls.count("joined") == 1
    assert "left" not in twice.dialled.calls + twice.served.calls
    twice.end()
    assert twice.dialled.calls.count("left") == twice.served.calls.count("left") == 1
    assert twice.network.getDelayedCalls() == []


@settings(max_examples=80)
@given(before=STEPS, between=STEPS, after=STEPS, lost=st.booleans())
def test_everything_arrives_once_and_in_order_when_the_old_connection_is_cut_as_it_closes(
    before: list[str], between: list[str], after: list[str], lost: bool
) -> None:
    twice = Twice()
    go(twice, twice.old, before)
    new = twice.dial(settle=False)
    go(twice, new, between)
    twice.old.break_off(lost)
    go(twice, new, after)
    twice.settle()
    assert twice.arrived() == twice.sent()
    twice.end()


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["put near", "put far", "dial", "lose", "cut", "close", "to served", "to dialled"]
            )
            | st.sampled_from(["bit to served", "bit to dialled", "move", "time", "wait"]),
            st.integers(0, 2),
        ),
        max_size=60,
    )
)
def test_all_arrives_once_and_a_link_joins_and_leaves_once_whatever_becomes_of_its_connections(
    steps: list[tuple[str, int]],
) -> None:
    twice = Twice()
    meetings = [twice.old]
    uplink = make_uplink(
        twice.dialled, twice.near.side, twice.network, "hub", window=120, may_dial=lambda: not uplink.covered
    )
    twice.uplinks.append(uplink)
    uplink.dial()
    twice.network.advance(0)
    for step, which in steps:
        meeting = meetings[-1 - which % len(meetings)]
        if step.startswith("put"):
            twice.put(twice.near if step == "put near" else twice.far)
        elif step == "dial":
            if twice.network.dials:
                meetings.append(twice.network.dials[0].meet(twice.factory, settle=False))
        elif step.endswith(("served", "dialled")):
            meeting.deliver(served=step.endswith("served"), size=9 if step.startswith("bit") else None)
        elif step in ("time", "wait"):
            twice.network.advance(0.1 if step == "time" else 2)
        elif meeting in twice.network.meetings:
            if step == "close":
                meeting.dialled.end(4001, "going away")
            elif step in ("lose", "cut"):
                meeting.break_off(lost=step == "lose")
            meeting.move()
    for _ in range(20):
        twice.settle()
        if twice.network.dials:
            twice.network.dials[0].meet(twice.factory)
        twice.network.pass_time(1)
    assert twice.arrived() == twice.sent()
    assert twice.near.queue.unacknowledged == twice.far.queue.unacknowledged == 0
    for owner in (twice.dialled, twice.served):
        assert (owner.calls.count("joined"), owner.calls.count("left")) == (1, 0)
    twice.end()
    assert twice.dialled.calls.count("left") == twice.served.calls.count("left") == 1
    assert twice.network.getDelayedCalls() == []


@pytest.mark.parametrize("cut", [False, True], ids=["closed", "cut"])
@pytest_twisted.ensureDeferred
async def test_a_flood_both_ways_goes_over_to_the_new_connection_on_real_sockets(cut: bool) -> None:
    tcp = Tcp()
    try:
        await tcp.open()
        (here,), (there,) = tcp.dialled.links, tcp.served.links
        old = tcp.connections()
        number = 0

        def flood() -> None:
            nonlocal number
            for link in (here, there):
                for text in range(number, number + 20):
                    link.put(run("A", f"{text:05}".ljust(5000, "x")))
                link.side.turn.add(link)
            number += 20

        for turn in range(60):
            flood()
            if turn == 20:
                tcp.dial()
            if turn >= 20 and cut and old[0].life is State.CLOSING:
                old[0].abort()
            await tcp.until(lambda: len(tcp.served.records) > number - 200)
        await tcp.until(lambda: not here.unfinished and not there.unfinished)
        assert (here.connection, there.connection) == tcp.connections() != old
        sent = [f"{text:05}" for text in range(number)]
        for owner in (tcp.dialled, tcp.served):
            came = [text[:5] for text in texts(owner)]
            assert came == sent
            assert (owner.calls.count("joined"), owner.calls.count("left")) == (1, 0)
        assert here.dropped == there.dropped == 0
    finally:
        await tcp.close()
