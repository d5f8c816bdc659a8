"""Sessions over connections in memory: acknowledged, cut, resumed, taken over, forgotten
(docs/protocol.md section 5).
"""

from __future__ import annotations

import json
import re
from typing import Any, cast

import pytest
from twisted.internet.defer import ensureDeferred
from twisted.internet.testing import MemoryReactorClock

from ces.config.link import LinkSettings
from ces.link.connection import Connection
from ces.link.link import Link
from ces.link.serving import ServingFactory
from ces.link.side import SPARE
from tests.support.links import UPGRADE, Alone, Lines, Recorder, frame, record, run, serving
from tests.support.network import Linked, linked


def put(link: Link, *texts: str) -> None:
    """Queue records, and let the turn end: they are written."""
    link.put(run("A", *texts))
    link.side.turn.add(link)
    cast(MemoryReactorClock, link.side.clock).advance(0)


def texts(owner: Recorder) -> list[str]:
    """The texts of the records that came."""
    return [json.loads(one.split(b"\n")[1])["key"] for one in owner.records]


def ends(pair: Linked, far: bool) -> tuple[Link, Recorder]:
    """The link that sends, and the owner that receives."""
    return (pair.peer, pair.dialled) if far else (pair.link, pair.served)


def accept_on(factory: ServingFactory, hello: object) -> Alone:
    """Another connection to the same server, on which the test says this hello."""
    clock = cast(MemoryReactorClock, factory.side.clock)
    owner = cast(Recorder, factory.owner)
    alone = Alone(owner, clock, cast(Connection, factory.buildProtocol(None)), Lines())
    alone.receive(UPGRADE % b"Sec-WebSocket-Protocol: ces.2\r\n")
    alone.written()
    alone.receive(frame(1, json.dumps({"hello": hello}).encode()))
    return alone


def hello_of(pair: Linked, received: int = 0, node: str = "dialled") -> dict[str, Any]:
    """The hello with which the session of a pair is resumed."""
    return {"node": node, "session": pair.link.session.id, "received": received}


BOTH = pytest.mark.parametrize("far", [False, True], ids=["dialling", "serving"])


@BOTH
def test_what_a_cut_took_arrives_once_and_in_order_when_the_session_is_resumed(far: bool) -> None:
    pair = linked("hub")
    sender, receiver = ends(pair, far)
    put(sender, "1", "2")
    pair.settle()
    put(sender, "3")
    pair.meeting.lose()
    assert (pair.link.detached, pair.peer.detached) == (True, True)
    put(sender, "4")
    pair.redial()
    put(sender, "5")
    pair.network.pass_time(0.2, 0.1)
    assert texts(receiver) == ["1", "2", "3", "4", "5"]
    assert (pair.dialled.fresh, pair.served.fresh) == ([False], [False])
    assert pair.link.queue.unacknowledged == pair.peer.queue.unacknowledged == 0


@BOTH
def test_what_arrived_and_was_not_acknowledged_before_the_cut_does_not_arrive_again(far: bool) -> None:
    pair = linked("hub")
    sender, receiver = ends(pair, far)
    put(sender, "1", "2")
    pair.meeting.deliver(served=not far)
    assert (texts(receiver), sender.queue.unacknowledged) == (["1", "2"], 2)
    pair.meeting.lose()
    pair.redial()
    pair.network.pass_time(1)
    assert (texts(receiver), sender.queue.unacknowledged) == (["1", "2"], 0)


@pytest.mark.parametrize("window", [None, 120])
def test_a_dialling_side_that_drains_resumes_its_session_after_a_cut(window: int | None) -> None:
    pair = linked("hub", window=window)
    put(pair.link, "1", "2")
    pair.meeting.deliver(served=True)
    drained = ensureDeferred(pair.uplink.side.drain(lambda: bool(pair.link.queue.size)))
    pair.meeting.lose()
    pair.redial()
    pair.network.pass_time(1, 0.1)
    assert (texts(pair.served), pair.served.fresh, drained.called) == (["1", "2"], [False], True)


def test_a_serving_side_that_drains_keeps_no_session() -> None:
    pair = linked("hub")
    put(pair.peer, "1")
    pair.meeting.deliver(served=False)
    ensureDeferred(pair.factory.side.drain())
    pair.meeting.lose()
    assert (pair.served.undelivered, pair.served.links) == ([record("A", "1")], [])


@BOTH
def test_the_delay_before_a_dial_is_forgotten_when_a_resumed_session_has_carried_a_record(far: bool) -> None:
    pair = linked("hub")
    for _ in range(3):
        pair.uplink.factory.delay = 30
        put(ends(pair, far)[0], "1")
        pair.network.pass_time(0.2, 0.1)
        assert pair.uplink.factory.delay == 1
        pair.meeting.lose()
        pair.redial()


@pytest.mark.parametrize("heard", [False, True], ids=["hello lost", "answer lost"])
def test_a_session_outlives_a_connection_on_which_no_answer_to_the_hello_came(heard: bool) -> None:
    pair = linked("hub")
    put(pair.link, "1")
    put(pair.peer, "a")
    pair.network.pass_time(0.2, 0.1)
    put(pair.link, "2")
    put(pair.peer, "b")
    pair.meeting.lose()
    session = pair.link.session
    wire = pair.network.redial().connected()
    wire.upgrade()
    hello = json.loads(wire.written[-1][1])["hello"]
    if heard:
        accept_on(pair.factory, hello)
    assert (pair.link.connected, pair.peer.connected) == (False, heard)
    pair.network.advance(11)
    assert wire.connection.ended == "no hello within 10 s"
    pair.redial()
    pair.network.pass_time(0.2, 0.1)
    assert (pair.link.session, pair.dialled.fresh) == (session, [False])
    assert (texts(pair.served), texts(pair.dialled)) == (["1", "2"], ["a", "b"])


def test_a_side_that_kept_nothing_begins_a_new_session_and_gets_again_what_was_not_acknowledged() -> None:
    pair = linked("hub")
    put(pair.link, "1")
    pair.meeting.deliver(served=True)
    pair.meeting.lose()
    pair.peer.end(4001, "forgotten")
    assert pair.served.undelivered == []
    put(pair.link, "2")
    pair.redial()
    pair.network.pass_time(0.2, 0.1)
    assert texts(pair.served) == ["1", "1", "2"], "once more: nobody knew whether it had arrived"
    assert pair.dialled.fresh == [True]
    assert pair.served.calls.count("joined") == 2


def test_a_detached_link_is_kept_for_the_window_and_no_longer() -> None:
    pair = linked("hub")
    side, peer = pair.factory.side, pair.peer
    pair.cut()
    put(peer, "waits")
    for _ in range(119):
        pair.network.advance(1)
    assert (peer.detached, list(side.detached)) == (True, [peer])
    for _ in range(3):
        pair.network.advance(1)
    assert (peer.detached, peer.over) == (False, True)
    assert pair.served.undelivered == [record("A", "waits")]
    assert pair.served.reasons[0].endswith("; it did not come back within 120 s")
    assert side.sessions == side.detached == {}


def test_a_close_with_1000_ends_the_session() -> None:
    pair = linked("hub")
    pair.link.end(1000, "done")
    pair.settle()
    assert pair.factory.side.sessions == {}
    assert pair.link.session.id == ""
    pair.redial()
    assert pair.served.calls == ["admit", "joined", "detached", "left", "admit", "joined"]
    assert pair.dialled.fresh == [True]


def test_a_new_connection_takes_over_from_one_that_is_not_known_to_be_dead() -> None:
    pair = linked("hub")
    link = pair.peer
    alone = accept_on(pair.factory, hello_of(pair))
    assert json.loads(alone.frames()[0][1])["hello"]["resumed"] is True
    assert (pair.served.fresh, pair.served.links) == ([False], [link])
    assert link.connection is alone.connection
    assert pair.meeting.served.code == 4409
    pair.settle()
    assert (pair.meeting.dialled.code, pair.link.detached) == (4409, True)


def test_a_hello_that_was_long_on_its_way_costs_the_session_nothing() -> None:
    """It was said on a connection that was given up long ago, and comes after that of the next one."""
    pair = linked("hub")
    late, session = hello_of(pair), pair.link.session
    put(pair.peer, "a")
    accept_on(pair.factory, late)
    put(pair.link, "1")
    put(pair.peer, "b")
    pair.settle()
    assert (pair.link.close_code, pair.link.detached) == (4409, True)
    pair.redial()
    put(pair.link, "2")
    pair.network.pass_time(1)
    assert (pair.link.session, pair.dialled.fresh) == (session, [False])
    assert (texts(pair.served), texts(pair.dialled)) == (["1", "2"], ["a", "b"])
    stale = accept_on(pair.factory, late)
    code, reason = stale.closed_with()
    assert (code, reason[:31]) == (4400, "the session goes on without it:")
    put(pair.peer, "c")
    pair.settle()
    assert (pair.peer.connected, texts(pair.dialled)) == (True, ["a", "b", "c"])


@pytest.mark.parametrize("node", ["mallory", "dialled"])
def test_a_session_belongs_to_the_node_that_made_it(node: str) -> None:
    pair = linked("hub")
    put(pair.peer, "secret")
    pair.meeting.lose()
    alone = accept_on(pair.factory, hello_of(pair, node=node))
    assert json.loads(alone.frames()[0][1])["hello"]["resumed"] is (node == "dialled")


@pytest.mark.parametrize("received", [3, 10**15])
def test_who_claims_to_have_received_what_was_not_sent_is_closed_and_the_session_is_gone(
    received: int,
) -> None:
    pair = linked("hub")
    put(pair.peer, "1", "2")
    pair.settle()
    pair.cut()
    alone = accept_on(pair.factory, hello_of(pair, received))
    code, reason = alone.closed_with()
    assert (code, reason[:20]) == (4400, "the session is gone:")
    assert pair.factory.side.sessions == {}
    assert pair.served.calls.count("left") == 1


def test_an_answer_that_claims_too_much_ends_the_session_on_the_dialling_side() -> None:
    pair = linked("hub")
    put(pair.link, "1")
    pair.meeting.deliver(served=True)
    session = pair.link.session.id
    pair.meeting.lose()
    wire = pair.network.redial().connected()
    wire.upgrade()
    wire.say({"hello": {"node": "served", "session": session, "received": 7, "resumed": True, "window": 120}})
    assert wire.connection.code == 4400
    pair.network.settle()
    pair.redial()
    pair.network.pass_time(1)
    assert texts(pair.served) == ["1", "1"]
    assert pair.dialled.fresh == [True]


def test_a_link_that_takes_nothing_for_thirty_seconds_is_closed_with_4408() -> None:
    alone = serving()
    alone.connection.pauseProducing()
    alone.link.put(run("A"))
    alone.flush()
    for _ in range(29):
        alone.clock.advance(1)
        alone.send(10, b"")
    assert alone.link.connected
    alone.clock.advance(2)
    assert alone.closed_with() == (4408, "it has taken nothing for 30 s")


def test_so_much_and_no_more_is_sent_without_an_acknowledgement() -> None:
    alone = serving(settings=LinkSettings(link_buffer=10_000))
    for number in range(9):
        alone.link.put(run("A", f"{number:04}".ljust(988, "x")))
        alone.flush()
    assert len(alone.frames()) == 5
    queue = alone.link.queue
    assert (queue.shut, alone.link.backlogged, queue.size) == (True, True, 9009)
    alone.send_text({"ack": 2})
    assert len(alone.frames()) == 2


def order(owner: Recorder) -> str:
    """What an owner was told of its link, but for records and rooms."""
    return " ".join(call for call in owner.calls if call in ("joined", "detached", "attached", "left"))


def test_a_link_joins_once_and_leaves_once_across_cuts_resumes_takeovers_and_closes() -> None:
    pair = linked("hub", window=120)
    near, far = pair.link, pair.peer
    for end in (
        pair.cut,
        lambda: pair.meeting.lose(),
        lambda: pair.meeting.end(4001),
        lambda: pair.meeting.dialled.end(4001, "going away"),
        lambda: accept_on(pair.factory, hello_of(pair, pair.link.session.received)),
    ):
        put(pair.link, "up")
        put(pair.peer, "down")
        end()
        pair.settle()
        pair.redial()
        pair.network.pass_time(0.2, 0.1)
    assert (pair.link, pair.peer) == (near, far)
    assert pair.dialled.fresh == [False] * 5
    assert pair.served.fresh == [False] * 6
    assert (texts(pair.served), texts(pair.dialled)) == (["up"] * 5, ["down"] * 5)
    ensureDeferred(pair.uplink.stop())
    pair.settle()
    for owner in (pair.dialled, pair.served):
        assert re.fullmatch(r"joined( (detached )?attached)*( detached)? left", order(owner))
        assert (owner.calls.count("joined"), owner.calls.count("left")) == (1, 1)
        assert owner.undelivered == []


def test_a_link_that_begins_anew_after_the_other_side_forgot_it_has_joined_once() -> None:
    pair = linked("hub", window=120)
    for _ in range(3):
        pair.cut()
        pair.peer.end(4001, "forgotten")
        pair.redial()
    assert pair.dialled.fresh == [True] * 3
    assert pair.dialled.calls.count("joined") == 1
    assert (pair.served.calls.count("joined"), pair.served.calls.count("left")) == (4, 3)
    ensureDeferred(pair.uplink.stop())
    pair.settle()
    assert pair.dialled.calls.count("left") == 1
    assert pair.served.calls.count("left") == 4
    assert pair.network.getDelayedCalls() == []


# -- a server that is full -----------------------------------------------------------------------------------


def factory_of(alone: Alone) -> ServingFactory:
    return cast(ServingFactory, alone.connection.opener)


def hello(session: str | None = None, received: int = 0, node: str = "peer") -> dict[str, Any]:
    return {"node": node, "session": session, "received": received}


def test_a_link_that_was_cut_keeps_its_place_and_comes_back_to_a_server_that_is_full() -> None:
    old = serving(settings=LinkSettings(link_limit=1))
    session, side = old.link.session.id, old.side
    old.lose()
    newcomer = accept_on(factory_of(old), hello(node="new"))
    assert newcomer.closed_with() == (4429, "There are 1 links already, the limit of this server.")
    assert side.refused["links"] == 1
    back = accept_on(factory_of(old), hello(session))
    assert back.link is old.link and back.link.connected
    assert side.no_room("") is not None
    back.lose()
    side.clock.advance(200)  # type: ignore[attr-defined]
    assert old.link.over
    assert side.no_room("") is None


def test_a_link_whose_connection_is_taken_for_alive_comes_back_to_a_server_that_is_full() -> None:
    old = serving(settings=LinkSettings(link_limit=1))
    back = accept_on(factory_of(old), hello(old.link.session.id))
    assert back.link is old.link
    assert old.closed_with()[0] == 4409


def test_connections_that_are_replaced_without_end_are_cut_and_not_closed() -> None:
    first = serving(settings=LinkSettings(link_limit=1))
    link = first.link
    ones = [first]
    for _ in range(SPARE + 5):
        ones.append(accept_on(factory_of(first), hello(link.session.id)))
    assert ones[-1].link is link and link.connected
    assert not ones[1].transport.disconnected
    assert [one.transport.disconnected for one in ones].count(True) == 5


def test_a_link_that_this_side_has_dialled_takes_no_place_cut_or_not() -> None:
    pair = linked(settings=LinkSettings(link_limit=1), window=100.0)
    for _ in range(2):
        assert pair.link.side.no_room("") is None
        assert pair.peer.side.no_room("") is not None
        pair.cut()
        pair.settle()
    assert pair.link.detached and pair.peer.detached
