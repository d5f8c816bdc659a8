"""Sessions over links in memory: acknowledged, cut, resumed, taken over, forgotten."""

from __future__ import annotations

import json
from typing import cast

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.testing import MemoryReactorClock
from twisted.test.iosim import FakeTransport, IOPump, connect

from ces.link.owner import LinkLimits
from ces.link.protocol import Link
from ces.link.server import ServingFactory
from ces.model.wire import Run
from tests.support.links import Alone, Lines, Recorder, frame, make_dialler, make_side, record, run, serving


class Keeper(Recorder):
    """An owner that keeps links that were cut, and writes down what becomes of them."""

    def __init__(self, node: str, keeping: bool = True) -> None:
        super().__init__(node)
        self.keeping = keeping
        self.fresh: list[bool] = []
        self.lost: list[int] = []
        self.left_over: list[bytes] = []

    def keeps(self, link: Link) -> bool:
        return self.keeping

    def resumed(self, old: Link, new: Link, fresh: bool) -> None:
        self.links.remove(old)
        self.links.append(new)
        self.fresh.append(fresh)

    def missed(self, link: Link, records: int) -> None:
        self.lost.append(records)

    def left(self, link: Link, reason: str) -> None:
        super().left(link, reason)
        self.left_over += [record for run in link.leftover() for record in run.records]


class Bench:
    """A dialler and a serving factory that are linked, cut and linked again."""

    def __init__(self, keeping: bool = True, limits: LinkLimits | None = None) -> None:
        self.clock, self.lines = MemoryReactorClock(), Lines()
        self.here, self.there = Keeper("here", keeping), Keeper("there")
        self.dialler = make_dialler(make_side(self.here, self.clock, limits, self.lines), self.clock, "hub")
        self.factory = ServingFactory(
            make_side(self.there, self.clock, limits, self.lines), "hub", self.clock
        )
        self.link()

    def link(self, hears: bool | None = None) -> None:
        """Dial. `hears`, if not None: no answer to the hello comes, and whether the hello itself does."""
        a, b = IPv4Address("TCP", "127.0.0.1", 40000), IPv4Address("TCP", "127.0.0.1", 7100)
        self.near, self.far = (
            cast(Link, self.dialler.buildProtocol(b)),
            cast(Link, self.factory.buildProtocol(a)),
        )
        client, server = FakeTransport(self.near, False, a, b), FakeTransport(self.far, True, b, a)
        self.pump: IOPump = connect(
            self.far, server, self.near, client, greet=hears is None, clock=self.clock
        )
        if hears is not None:
            self.pump.pump()  # the request to upgrade
            self.pump.pump()  # its answer
            client.bufferReceived = lambda data: None
            if not hears:
                server.bufferReceived = lambda data: None
        self.pump.flush()

    def put(self, link: Link, *texts: str) -> None:
        link.put(run("A", *texts))
        link.factory.side.turn.add(link)
        self.clock.advance(0)

    def settle(self, seconds: float = 0.0) -> None:
        self.pump.flush()
        self.clock.advance(seconds)
        self.pump.flush()

    def cut(self) -> None:
        """What is under way in either direction is lost."""
        for io in (self.pump.clientIO, self.pump.serverIO):
            io.getOutBuffer()
            io.disconnecting = True
        self.pump.flush()
        self.clock.advance(0)


def texts(owner: Recorder) -> list[str]:
    return [json.loads(one.split(b"\n")[1])["key"] for one in owner.records]


BOTH = pytest.mark.parametrize("far", [False, True], ids=["dialling", "serving"])


def ends(bench: Bench, far: bool) -> tuple[Link, Recorder]:
    """The link that sends, and the owner that receives."""
    return (bench.far, bench.here) if far else (bench.near, bench.there)


@BOTH
def test_what_a_cut_took_arrives_once_and_in_order_when_the_session_is_resumed(far: bool) -> None:
    bench = Bench()
    sender, receiver = ends(bench, far)
    bench.put(sender, "1", "2")
    bench.settle()
    bench.put(sender, "3")
    bench.cut()
    assert (bench.near.detached, bench.far.detached) == (True, True)
    bench.put(sender, "4")
    bench.link()
    sender, _ = ends(bench, far)
    bench.put(sender, "5")
    bench.settle(0.2)
    assert texts(receiver) == ["1", "2", "3", "4", "5"]
    assert (bench.here.fresh, bench.there.fresh) == ([False], [False])
    assert bench.near.session.unacknowledged == bench.far.session.unacknowledged == 0
    assert bench.clock.getDelayedCalls() != [], "the links are watched"


@BOTH
def test_what_arrived_and_was_not_acknowledged_before_the_cut_does_not_arrive_again(far: bool) -> None:
    bench = Bench()
    sender, receiver = ends(bench, far)
    bench.put(sender, "1", "2")
    bench.settle()
    assert sender.session.unacknowledged == 2
    bench.cut()
    bench.link()
    bench.settle(1)
    assert texts(receiver) == ["1", "2"]


@BOTH
def test_a_link_that_goes_on_with_a_session_forgets_the_delay_when_it_has_carried_a_record(far: bool) -> None:
    bench = Bench()
    for _ in range(3):
        bench.dialler.delay = 30
        bench.put(ends(bench, far)[0], "1")
        bench.settle()
        bench.settle(0.2)
        assert bench.dialler.delay == 1
        bench.cut()
        bench.link()


@pytest.mark.parametrize("heard", [False, True], ids=["hello lost", "answer lost"])
def test_a_session_outlives_a_link_on_which_no_answer_to_the_hello_came(heard: bool) -> None:
    bench = Bench()
    bench.put(bench.near, "1")
    bench.put(bench.far, "a")
    bench.settle(0.2)
    bench.put(bench.near, "2")
    bench.put(bench.far, "b")
    bench.cut()
    session = bench.near.session
    bench.link(hears=heard)
    assert bench.near.joined is False
    assert bench.far.joined is heard
    bench.clock.advance(11)
    assert bench.near.ended == "no hello within 10 s"
    bench.pump.flush()
    bench.link()
    bench.settle(0.2)
    assert bench.near.session is session and bench.near.resumed
    assert (texts(bench.there), texts(bench.here)) == (["1", "2"], ["a", "b"])


def test_an_acknowledgement_comes_within_a_tenth_of_a_second_and_at_once_after_256_records() -> None:
    bench = Bench()
    bench.put(bench.near, "1")
    bench.settle()
    assert bench.near.session.acknowledged == 0
    bench.settle(0.1)
    assert bench.near.session.acknowledged == 1
    bench.put(bench.near, *("x" for _ in range(256)))
    bench.settle()
    assert bench.near.session.acknowledged == 257


def test_a_side_that_kept_nothing_begins_a_new_session_and_gets_again_what_was_not_acknowledged() -> None:
    bench = Bench()
    bench.put(bench.near, "1")
    bench.settle()
    bench.cut()
    bench.far.end(4001, "forgotten")
    assert bench.there.left_over == []
    bench.put(bench.near, "2")
    bench.link()
    bench.settle(0.2)
    assert texts(bench.there) == ["1", "1", "2"], "once more: nobody knew whether it had arrived"
    assert bench.here.fresh == [True]
    assert bench.near.resumed is False


def test_a_detached_link_is_kept_for_the_window_and_no_longer() -> None:
    bench = Bench()
    bench.cut()
    bench.put(bench.far, "waits")
    for _ in range(119):
        bench.clock.advance(1)
    assert bench.far.detached
    for _ in range(3):
        bench.clock.advance(1)
    assert not bench.far.detached
    assert bench.there.left_over == [record("A", "waits")]
    assert bench.there.reasons[0].endswith("; it did not come back within 120 s")
    assert bench.factory.side.sessions == bench.factory.side.detached == {}


def test_a_link_closed_with_1000_ends_its_session() -> None:
    bench = Bench()
    bench.near.end(1000, "done")
    bench.settle(1)
    assert bench.factory.side.sessions == {}
    bench.link()
    assert (bench.near.resumed, bench.far.resumed) == (False, False)
    assert bench.there.fresh == []


def test_a_new_link_takes_over_from_one_that_is_not_known_to_be_dead() -> None:
    bench = Bench()
    old = bench.far
    session = bench.near.session
    alone = half_open(bench, json.dumps({"hello": {"node": "here", "session": session.id, "received": 0}}))
    assert json.loads(alone.frames()[0][1])["hello"]["resumed"] is True
    assert bench.there.fresh == [False]
    assert (old.close_code, old.taken_over, bench.far is old) == (4409, True, True)
    bench.settle()
    assert bench.near.close_code == 4409


def test_a_hello_that_was_long_on_its_way_costs_the_session_nothing() -> None:
    """It was said on a connection that was given up long ago, and comes after that of the next one."""
    bench = Bench()
    session = bench.near.session
    late = json.dumps({"hello": {"node": "here", "session": session.id, "received": 0}})
    bench.put(bench.far, "a")
    half_open(bench, late)
    bench.put(bench.near, "1")
    bench.put(bench.far, "b")
    bench.settle(1)
    assert (bench.near.close_code, bench.near.detached) == (4409, True)
    bench.link()
    bench.put(bench.near, "2")
    bench.settle(1)
    assert bench.near.session is session and bench.near.resumed
    assert (texts(bench.there), texts(bench.here)) == (["1", "2"], ["a", "b"])
    stale = half_open(bench, late)
    code, reason = stale.closed_with()
    assert (code, reason[:31]) == (4400, "the session goes on without it:")
    bench.put(bench.far, "c")
    bench.settle(1)
    assert (bench.far.joined, texts(bench.here)) == (True, ["a", "b", "c"])


def half_open(bench: Bench, hello: str) -> Alone:
    """Another connection to the same server, on which the test speaks."""
    alone = serving("hub", hello="")
    alone.link.factory = bench.factory
    alone.receive(frame(1, hello.encode()))
    return alone


@pytest.mark.parametrize("node", ["mallory", "here"])
def test_a_session_belongs_to_the_node_that_made_it(node: str) -> None:
    bench = Bench()
    bench.put(bench.far, "secret")
    bench.cut()
    hello = {"node": node, "session": bench.near.session.id, "received": 0}
    alone = half_open(bench, json.dumps({"hello": hello}))
    assert json.loads(alone.frames()[0][1])["hello"]["resumed"] is (node == "here")


@pytest.mark.parametrize("received", [3, 10**15])
def test_who_claims_to_have_received_what_was_not_sent_is_closed_and_the_session_is_gone(
    received: int,
) -> None:
    bench = Bench()
    bench.put(bench.far, "1", "2")
    bench.settle()
    bench.cut()
    hello = {"node": "here", "session": bench.near.session.id, "received": received}
    alone = half_open(bench, json.dumps({"hello": hello}))
    code, reason = alone.closed_with()
    assert (code, reason[:20]) == (4400, "the session is gone:")
    assert bench.factory.side.sessions == {}


def test_an_answer_that_claims_too_much_ends_the_session_on_the_dialling_side() -> None:
    bench = Bench()
    bench.put(bench.near, "1")
    bench.settle()
    bench.cut()
    bench.far.session.received = 7
    bench.link()
    assert bench.near.close_code == 4400
    bench.far.session.received = 0
    bench.settle(1)
    bench.link()
    bench.settle(1)
    assert texts(bench.there) == ["1", "1"]


def test_a_link_that_takes_nothing_for_thirty_seconds_is_closed_with_4408() -> None:
    alone = serving()
    alone.link.pauseProducing()
    alone.link.put(Run(b"A", [b"A\n{}\n"]))
    alone.flush()
    for _ in range(29):
        alone.clock.advance(1)
        alone.send(10, b"")
    assert alone.link.joined
    alone.clock.advance(2)
    assert alone.closed_with() == (4408, "it has taken nothing for 30 s")


def test_so_much_and_no_more_is_sent_without_an_acknowledgement() -> None:
    alone = serving(limits=LinkLimits(outbox=10_000))
    for number in range(9):
        alone.link.put(Run(b"A", [b'A\n{"key":"%04d%b"}\n' % (number, b"x" * 984)]))
        alone.flush()
    assert len(alone.frames()) == 5
    assert (alone.link.session.shut, alone.link.backlogged, alone.link.session.size) == (True, True, 9009)
    alone.send_text({"ack": 2})
    assert len(alone.frames()) == 2
