"""Slow subscribers of a hub: who is paused for them and how long, what they lose, what is evicted last."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import Logger

from ces.hub.hub import Hub
from ces.hub.settings import HubSettings
from ces.hub.shown import status
from ces.link.connection import Connection
from ces.link.link import Link
from ces.link.pressure import Pressure
from ces.link.serving import ServingFactory
from ces.link.turn import Memo
from ces.model.wire import CES2, Run
from ces.session.priority import priority_tags
from ces.session.queue import SendQueue, Tally
from tests.support.hubs import Floor as Plain
from tests.support.links import UPGRADE, Lines, frame, read_frames
from tests.support.views import built

pytestmark = pytest.mark.usefixtures("bare_records")

LIMIT = 64 * 1024


class Member:
    """A ces.1 messenger of the hub, played on a transport whose buffer the test fills and empties."""

    def __init__(self, hub: Hub, factory: ServingFactory, *rooms: str) -> None:
        self.clock = hub.side.clock
        self.connection = cast(Connection, factory.buildProtocol(None))
        peer = IPv4Address("TCP", "127.0.0.1", 40000)
        self.transport = StringTransport(peer, peer)
        self.connection.makeConnection(self.transport)
        self.connection.dataReceived(UPGRADE % b"")
        self.transport.clear()
        if rooms:
            self.connection.dataReceived(frame(1, json.dumps({"rooms": rooms, "create": True}).encode()))

    @property
    def link(self) -> Link:
        assert self.connection.link is not None
        return self.connection.link

    @property
    def is_read(self) -> bool:
        return self.transport.producerState == "producing"

    def send(self, room: str, count: int, first: int = 0, size: int = 1000) -> None:
        for number in range(first, first + count):
            event = b'{"key":"%06d%b"}' % (number, b"x" * size)
            self.connection.dataReceived(frame(2, b"%b\n%b\n" % (room.encode(), event)))
        self.clock.advance(0)

    def fill(self, room: str, count: int = 20) -> None:
        """As much as makes a congested link, and then more than its share: only who goes on is paused."""
        self.send(room, count - 3)
        self.send(room, 3, first=count - 3)

    def numbers(self) -> list[int]:
        data = self.transport.value()
        self.transport.clear()
        return [int(payload.split(b'"')[3][:6]) for opcode, payload in read_frames(data) if opcode == 2]


class Floor:
    """A hub with settings of its own, and a clock."""

    def __init__(self, **settings: Any) -> None:
        self.clock, self.lines = MemoryReactorClock(), Lines()
        log = Logger(namespace="ces.test", observer=self.lines)
        self.hub = Hub("h", HubSettings(link_buffer=LIMIT, **settings), self.clock, log)
        self.factory = ServingFactory(self.hub, self.hub.side, "messenger", self.clock)

    def member(self, *rooms: str) -> Member:
        return Member(self.hub, self.factory, *rooms)

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.05)):
            self.clock.advance(0.05)


@pytest.fixture
def floor() -> Floor:
    return Floor()


def test_who_feeds_a_congested_link_is_paused_until_it_has_drained(floor: Floor) -> None:
    slow, writer, other = floor.member("A"), floor.member(), floor.member()
    slow.connection.pauseProducing()
    writer.fill("A")
    assert not writer.is_read
    other.fill("B")
    assert other.is_read, "it feeds nobody who is congested"
    assert built(status(floor.hub))["held"] == [writer.link.name]
    slow.connection.resumeProducing()
    floor.pass_time(0.05)
    assert writer.is_read
    assert slow.numbers() == list(range(20))
    assert slow.link.dropped == 0


def test_a_stalled_link_pauses_nobody_for_long_and_nobody_twice(floor: Floor) -> None:
    dead, writer = floor.member("A"), floor.member()
    dead.connection.pauseProducing()
    writer.fill("A")
    floor.pass_time(0.4)
    assert not writer.is_read
    floor.pass_time(0.2)
    assert writer.is_read
    writer.send("A", 80)
    assert writer.is_read
    assert dead.link.dropped > 0
    dead.connection.resumeProducing()
    floor.pass_time(0.1)
    assert dead.numbers()[-1] == 79
    dead.connection.pauseProducing()
    writer.fill("A")
    assert writer.is_read, "it has drained, but not behaved yet"
    dead.connection.resumeProducing()
    floor.pass_time(2.1)
    dead.connection.pauseProducing()
    writer.fill("A")
    assert not writer.is_read, "it is waited for again"
    dead.connection.resumeProducing()
    floor.pass_time(0.1)


def test_who_is_slow_again_and_again_is_waited_for_ever_less(floor: Floor) -> None:
    dead, writer = floor.member("A"), floor.member()
    held = 0.0
    for _ in range(600):
        if dead.connection.blocked:
            dead.connection.resumeProducing()
            dead.numbers()
        floor.pass_time(0.05)
        dead.connection.pauseProducing()
        writer.fill("A")
        for _ in range(19):
            held += 0 if writer.is_read else 0.05
            floor.pass_time(0.05)
    assert 1 < held < 0.02 * 600, "ten minutes"


def test_who_sends_little_is_not_paused_for_a_link_that_others_fill(floor: Floor) -> None:
    slow, flood, little = floor.member("A"), floor.member(), floor.member()
    slow.connection.pauseProducing()
    flood.fill("A")
    little.send("A", 1)
    assert (flood.is_read, little.is_read) == (False, True)
    little.send("A", 2)
    assert not little.is_read, "a sixteenth of half the limit"


def test_a_burst_of_very_many_who_send_little_pauses_them(floor: Floor) -> None:
    slow = floor.member("A")
    writers = [floor.member() for _ in range(100)]
    slow.connection.pauseProducing()
    for writer in writers:
        writer.send("A", 1, size=300)
    for writer in writers:
        writer.send("A", 1, size=300)
    assert len(floor.hub.side.pressure.paused) > 50
    assert slow.link.dropped == 0


class Slow:
    """A link whose queue the test fills and drains (`ces.link.pressure.Congestible`)."""

    def __init__(self) -> None:
        self.queue = SendQueue(LIMIT)
        self.pauses = 0
        self.moves = 0

    def hold(self, size: int) -> None:
        """So much waits."""
        self.queue.settled_bytes = size
        self.moves += 1

    def progress(self) -> tuple[int, ...]:
        return (self.moves,)

    def pause(self) -> None:
        self.pauses += 1

    def resume(self) -> None:
        self.pauses -= 1


class Minutes:
    """Links under pressure, for a long time."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.pressure: Pressure[Slow] = Pressure(self.clock, Logger(observer=Lines()), 5.0)

    def burst(self, link: Slow, source: Slow, seconds: float) -> float:
        """The source fills the link, which drains evenly and fast. For how long was the source paused?"""
        link.hold(LIMIT // 4)
        self.pressure.grown(link, self.clock.seconds())
        if link in self.pressure.congested:
            self.pressure.fed(source, [link], LIMIT // 4)
        held = 0.0
        for step in range(round(seconds / 0.05)):
            held += 0.05 if source.pauses else 0.0
            self.clock.advance(0.05)
            link.hold(max(0, LIMIT // 4 - LIMIT // 4 * (step + 2) * 0.05 / seconds))
        self.clock.advance(0.05)
        return held


def test_publishers_wait_45_seconds_of_a_minute_for_one_link_at_most() -> None:
    floor, link = Minutes(), Slow()
    held = [floor.burst(link, Slow(), 2.0) for _ in range(60)]
    assert sum(held[:10]) > 15, "a burst of 20 s is waited for"
    assert sum(held) <= 95, "in two minutes"


def test_a_publisher_waits_45_seconds_of_a_minute_at_most_for_all_links() -> None:
    floor, source = Minutes(), Slow()
    held = [floor.burst(Slow(), source, 2.0) for _ in range(60)]
    assert sum(held[:10]) > 15
    assert sum(held) <= 95


def test_what_is_remembered_of_links_is_forgotten() -> None:
    floor = Minutes()
    for _ in range(5):
        floor.burst(Slow(), Slow(), 1.0)
    for _ in range(20):
        floor.clock.advance(60)
    assert not floor.clock.getDelayedCalls()


def test_a_link_that_stalled_before_it_was_congested_pauses_others_the_shorter(floor: Floor) -> None:
    dead, writer = floor.member("A"), floor.member()
    dead.connection.pauseProducing()
    writer.send("A", 1)
    floor.pass_time(0.2)
    writer.fill("A")
    assert not writer.is_read
    floor.pass_time(0.2)
    assert not writer.is_read
    floor.pass_time(0.2)
    assert writer.is_read, "it has taken nothing for half a second"


def trickle(slow: Member) -> None:
    """The subscriber takes a little, and is congested again at once."""
    slow.connection.write = lambda buffers, size: slow.connection.pauseProducing()
    slow.connection.resumeProducing()
    slow.link.put(Run(b"A", [b"A\n{%b}\n" % (b"x" * 20_000)]))
    slow.link.put(Run(b"A", [b"A\n{%b}\n" % (b"x" * 20_000)]))
    slow.link.flush(Memo())


def test_a_link_that_drains_too_slowly_is_not_waited_for(floor: Floor) -> None:
    slow, writer = floor.member("A"), floor.member()
    slow.connection.pauseProducing()
    writer.fill("A", 40)
    for _ in range(2):
        trickle(slow)
        floor.pass_time(0.2)
        assert not writer.is_read
    trickle(slow)
    floor.pass_time(0.2)
    assert writer.is_read, "as it goes, it would take far more than five seconds"


def test_a_link_that_is_congested_itself_is_never_paused(floor: Floor) -> None:
    both = floor.member("A", "B")
    other = floor.member("A", "B")
    both.connection.pauseProducing()
    other.connection.pauseProducing()
    both.fill("A")
    other.fill("B")
    assert both.is_read and other.is_read


def test_backpressure_can_be_switched_off() -> None:
    floor = Floor(backpressure_time=0)
    slow, writer = floor.member("A"), floor.member()
    slow.connection.pauseProducing()
    writer.fill("A")
    assert writer.is_read


def test_a_paused_link_that_ends_is_forgotten(floor: Floor) -> None:
    slow, writer = floor.member("A"), floor.member()
    slow.connection.pauseProducing()
    writer.fill("A")
    assert not writer.is_read
    writer.connection.connectionLost()
    assert floor.hub.side.pressure.paused == frozenset()
    slow.connection.connectionLost()
    assert floor.hub.side.pressure.congested == {}
    assert floor.hub.side.slow == {}


def test_too_much_for_all_links_together_costs_the_fullest() -> None:
    floor = Floor(buffer_limit=50_000, backpressure_time=0)
    large, small, writer = floor.member("A"), floor.member("B"), floor.member()
    large.connection.pauseProducing()
    small.connection.pauseProducing()
    writer.send("A", 45)
    writer.send("B", 20)
    assert floor.hub.side.tally.bytes <= 50_000
    assert (large.link.dropped > 10, small.link.dropped) == (True, 0)
    assert "too much waits for all links together" in floor.lines[-1]
    (first, _) = built(status(floor.hub))["slow"]
    assert first["dropped-rooms"] == {"A": large.link.dropped}


class Looked(dict[Any, None]):
    """Counts how often all that is in it is looked at."""

    looks = 0

    def __iter__(self) -> Iterator[Any]:
        self.looks += 1
        return super().__iter__()


def test_what_makes_room_for_all_links_is_looked_for_once_for_all_that_are_flushed_together() -> None:
    """With 2,000 links that were cut, a look for each of them held up the hub for 0.4 s a turn."""
    floor = Plain(buffer_limit=2**17, message_limit=2**15)
    links = [floor.link("messenger", "*", dialect=CES2, node=f"{number}") for number in range(50)]
    writer = floor.link("messenger")
    for link in links:
        floor.cut(link)
    looked = floor.hub.side.slow = Looked()
    for turn in range(1, 4):
        floor.send(writer, "A", "x" * 4000)
        assert looked.looks <= turn
    assert floor.hub.side.tally.bytes <= 2**17
    assert floor.hub.side.dropped > 0


def test_the_tally_is_what_waits_and_what_is_in_flight() -> None:
    tally = Tally()
    queues = [SendQueue(1000, None, tally) for _ in range(3)]
    for queue in queues:
        queue.restart(numbered=True)
        queue.pending.append(Run(b"A", [b"x" * 50]))
        queue.take(1000)
        queue.pending.append(Run(b"A", [b"x" * 100]))
        queue.settle()
    assert tally.bytes == 450
    queues[0].acknowledge(1)
    queues[1].evict(1)
    queues[2].take_all()
    assert tally.bytes == 150


tags = st.lists(st.sampled_from(["alert", "heartbeat", 'quo"te', "user-generated", "ärger"]), max_size=4)


@given(st.lists(tags, min_size=1, max_size=6))
def test_records_that_bear_a_tag_have_priority(events: list[list[str]]) -> None:
    named = ["alert", 'quo"te', "ärger"]
    priority = priority_tags(named)
    assert priority is not None
    records = [
        b"R\n%b\n" % json.dumps({"key": str(n), "event-tags": one}, ensure_ascii=False).encode()
        for n, one in enumerate(events)
    ]
    kept = priority(Run(b"R", records))
    wanted = [r for r, one in zip(records, events, strict=True) if set(one) & set(named)]
    assert ([] if kept is None else kept.records) == wanted
    assert priority_tags([]) is None


def test_alerts_outlive_heartbeats_and_keep_their_order() -> None:
    queue = SendQueue(400, priority_tags(["alert"]))
    for number in range(20):
        tag = "alert" if number % 5 == 0 else "heartbeat"
        queue.pending.append(Run(b"R", [b'R\n{"n":%02d,"event-tags":["%b"]}\n' % (number, tag.encode())]))
    assert queue.settle() == 10
    gap, runs = queue.take(10**6)
    numbers = [int(run.parts[0][7:9]) for run in runs]
    assert {0, 5, 10, 15} <= set(numbers) and numbers == sorted(numbers)
    assert gap == 10
