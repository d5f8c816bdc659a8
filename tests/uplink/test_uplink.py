"""An uplink: what becomes of its link when connections come and go, whoever owns it."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from ces.model.wire import CES1, CES2
from ces.uplink.dialler import DIALLING, STOPPED, UP, WAITING
from ces.uplink.uplink import Uplink
from tests.support.links import Recorder, make_side, make_uplink, record, run
from tests.support.network import Network, Wire, linked


def stopped(uplink: Uplink, network: Network) -> bool:
    """Stop, and let what is under way arrive; whether it is done."""
    done = Deferred.fromCoroutine(uplink.stop())
    network.settle()
    return done.called


def send(uplink: Uplink, *texts: str) -> None:
    """Put a run into the link's queue."""
    assert uplink.link is not None
    uplink.link.put(run("A", *texts))
    uplink.flush()


# -- a link that is the uplink's for good --------------------------------------------------------------------


def test_what_is_put_before_the_first_connection_is_sent_on_it() -> None:
    network, hub = Network(), Recorder("hub")
    uplink = make_uplink(Recorder(), make_side(network), network)
    send(uplink, "1")
    assert (uplink.state, uplink.connected, uplink.hub) == (STOPPED, False, ("", ""))
    uplink.dial()
    assert uplink.state == DIALLING
    network.dial.answer("hub", owner=hub)
    assert (uplink.state, uplink.connected, uplink.covered) == (UP, True, False)
    assert uplink.hub == ("hub", CES2)
    assert hub.records == [record("A", "1")]


@pytest.mark.parametrize("dialect", [CES1, CES2])
def test_one_link_and_its_queue_outlive_every_connection(dialect: str) -> None:
    network, hubs = Network(), [Recorder(f"hub-{number}") for number in range(3)]
    owner, side = Recorder(), make_side(network)
    uplink = make_uplink(owner, side, network)
    link = uplink.link
    for number, hub in enumerate(hubs):
        send(uplink, str(number))
        if number == 0:
            uplink.dial()
        meeting = network.redial().answer(hub.node, dialect, owner=hub)
        network.pass_time(1)
        assert (uplink.link, hub.records) == (link, [record("A", str(number))])
        meeting.cut()
        assert (uplink.state, uplink.hub) == (WAITING, ("", ""))
    told = [call for call in owner.calls if call != "admit"]
    assert told == ["joined", "detached", "attached", "detached", "attached", "detached"]
    assert owner.fresh == [True, True]


def test_a_session_goes_on_with_the_same_hub() -> None:
    pair = linked()
    send(pair.uplink, "1")
    pair.settle()
    pair.cut()
    send(pair.uplink, "2")
    pair.redial()
    pair.settle()
    assert pair.served.records == [record("A", "1"), record("A", "2")]
    assert (pair.dialled.fresh, pair.served.fresh) == ([False], [False])


def test_what_another_process_of_the_hub_gets_is_what_the_last_one_did_not_acknowledge() -> None:
    network, first, second = Network(), Recorder("hub-1"), Recorder("hub-2")
    uplink = make_uplink(Recorder(), make_side(network), network)
    uplink.dial()
    meeting = network.dial.answer("hub-1", owner=first)
    send(uplink, "1")
    network.pass_time(1)
    assert uplink.link is not None and uplink.link.queue.unacknowledged == 0
    send(uplink, "2")
    network.advance(0)
    assert uplink.link.queue.unacknowledged == 1
    meeting.pump.clientIO.getOutBuffer()  # lost on its way
    meeting.cut()
    network.redial().answer("hub-2", owner=second)
    network.pass_time(1)
    assert second.records == [record("A", "2")]


def test_a_hub_that_says_it_received_what_was_not_sent_loses_the_session_and_no_record() -> None:
    network = Network()
    uplink = make_uplink(Recorder(), make_side(network), network)
    uplink.dial()
    wire = network.dial.connected()
    greet(wire, received=0, resumed=False)
    send(uplink, "1")
    network.settle()
    wire.cut()
    wire = network.redial().connected()
    ((opcode, payload),) = greet(wire, received=7, resumed=True)
    assert (opcode, int.from_bytes(payload[:2], "big")) == (8, 4400)
    assert not uplink.connected
    wire.cut()
    hub = Recorder("hub")
    network.redial().answer("hub", owner=hub)
    assert hub.records == [record("A", "1")]


def greet(wire: Wire, received: int, resumed: bool) -> list[tuple[int, bytes]]:
    """Answer as a hub that has one session; what the uplink says then."""
    wire.upgrade()
    wire.written.clear()
    wire.say(
        {"hello": {"node": "hub", "session": "s1", "received": received, "resumed": resumed, "window": 120}}
    )
    return wire.written


def test_to_stop_ends_the_link_once_and_leaves_the_queue_to_its_owner() -> None:
    network, owner = Network(), Recorder()
    uplink = make_uplink(owner, make_side(network), network)
    uplink.dial()
    network.dial.answer("hub").cut()
    send(uplink, "1")
    assert stopped(uplink, network)
    assert owner.calls == ["admit", "joined", "detached", "left"]
    assert owner.undelivered == []
    assert uplink.link is not None and uplink.link.over
    assert uplink.link.queue.records == 1


def test_what_was_stopped_and_is_dialled_again_has_a_new_link_with_the_same_queue() -> None:
    network, owner, hub = Network(), Recorder(), Recorder("hub")
    uplink = make_uplink(owner, make_side(network), network)
    uplink.dial()
    network.dial.answer("hub")
    before = uplink.link
    assert stopped(uplink, network)
    assert before is not None
    before.queue.pending.append(run("A", "1"))
    uplink.dial()
    assert uplink.link is not before
    network.dial.answer("hub", owner=hub)
    assert hub.records == [record("A", "1")]
    assert owner.calls == ["admit", "joined", "detached", "left", "admit", "joined"]


def test_what_is_dialled_again_before_it_has_stopped_has_a_link_that_carries() -> None:
    network, owner, hub = Network(), Recorder(), Recorder("hub")
    uplink = make_uplink(owner, make_side(network), network)
    uplink.dial()
    network.dial.answer("hub")
    stopping = Deferred.fromCoroutine(uplink.stop())
    uplink.dial()
    network.settle()
    assert stopping.called
    network.dial.answer("hub", owner=hub)
    assert uplink.connected
    send(uplink, "1")
    network.settle()
    assert hub.records == [record("A", "1")]


# -- a link that belongs to the peer -------------------------------------------------------------------------


def test_a_link_that_does_not_come_back_within_the_window_leaves_with_what_was_not_delivered() -> None:
    pair = linked(window=5)
    before = pair.link
    pair.cut()
    send(pair.uplink, "1")
    pair.network.pass_time(4)
    assert pair.dialled.calls[-1] == "detached"
    pair.network.pass_time(3)
    assert pair.dialled.calls[-1] == "left"
    assert pair.dialled.undelivered == [record("A", "1")]
    assert "it did not come back within 5 s" in pair.dialled.reasons[0]
    pair.redial()
    assert (pair.link is before, pair.dialled.calls[-2:]) == (False, ["admit", "joined"])


def test_a_link_that_was_closed_in_order_leaves_and_the_next_connection_has_another() -> None:
    pair = linked(window=120)
    pair.meeting.end(1000)
    assert pair.dialled.calls[-1] == "left"
    pair.redial()
    assert pair.dialled.calls[-2:] == ["admit", "joined"]
    assert len(pair.dialled.links) == 1


def test_the_owner_may_give_a_connection_the_link_of_the_same_peer() -> None:
    network, owner = Network(), Recorder()
    side = make_side(network)
    first, second = (make_uplink(owner, side, network, window=120) for _ in range(2))
    hub = Recorder("hub")
    first.dial()
    network.dial.answer("hub", owner=hub)
    link = first.link
    assert link is not None
    owner.places["hub"] = link
    second.dial()
    network.dial.answer("hub", owner=hub)
    assert (second.link, owner.links) == (link, [link])
    assert (second.connected, second.covered) == (True, False)
    assert (first.connected, first.covered) == (False, True)
    assert (second.hub, first.hub) == (("hub", CES2), ("hub", CES2))


def test_a_refused_connection_is_closed_with_4409_and_the_uplink_is_covered_by_the_link_that_stays() -> None:
    network, owner = Network(), Recorder()
    side = make_side(network)
    first, second = (make_uplink(owner, side, network, window=120) for _ in range(2))
    first.dial()
    network.dial.answer("hub")
    assert first.link is not None
    owner.places["hub"], owner.refusals["hub"] = first.link, "one is enough"
    second.dial()
    meeting = network.dial.answer("hub")
    assert meeting.served.code == 4409
    assert second.refusal is not None and str(second.refusal) == "one is enough"
    assert (second.link, second.covered, second.connected) == (first.link, True, False)
    owner.refusals.clear()
    owner.places.clear()
    network.redial().answer("another")
    assert second.refusal is None
    assert second.connected and not second.covered


def test_to_stop_one_that_is_covered_leaves_the_link_alone() -> None:
    network, owner = Network(), Recorder()
    side = make_side(network)
    first, second = (make_uplink(owner, side, network, window=120) for _ in range(2))
    first.dial()
    network.dial.answer("hub")
    assert first.link is not None
    owner.places["hub"], owner.refusals["hub"] = first.link, "one is enough"
    second.dial()
    network.dial.answer("hub")
    assert stopped(second, network)
    assert first.connected and "left" not in owner.calls


def test_nothing_is_left_when_all_have_stopped() -> None:
    pair = linked(window=120)
    send(pair.uplink, "1")
    assert stopped(pair.uplink, pair.network)
    pair.network.settle()
    assert pair.served.records == [record("A", "1")]
    assert (pair.dialled.calls[-1], pair.served.calls[-1]) == ("left", "left")
    assert (pair.dialled.undelivered, pair.network.getDelayedCalls()) == ([], [])
