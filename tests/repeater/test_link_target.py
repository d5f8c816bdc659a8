"""Where the records for a link target are, whatever happens to its connections."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ces.config.link import LinkSettings
from ces.link.serving import ServingFactory
from ces.model.wire import Run
from tests.support.links import Recorder, make_side, record, run
from tests.support.network import Meeting, Network
from tests.support.repeaters import Bench

pytestmark = pytest.mark.usefixtures("bare_records")

CP1 = "ws://cp1:7101"
SIZE = len(record("A", "000"))


class Site:
    """A repeater and one target, which remembers its sessions from one connection to the next.

    put: how many records the repeater has been given for the target, numbered from 0.
    """

    def __init__(self, **settings: Any) -> None:
        self.bench = Bench({"A": (CP1,)}, **settings)
        self.bench.hub_up()
        self.network: Network = self.bench.network
        self.owner = Recorder("target")
        side = make_side(self.network, LinkSettings(dial_silence_timeout=1e9, silence_timeout=1e9))
        self._factory = ServingFactory(self.owner, side, "outside", self.network)
        self.put = 0

    def send(self, count: int = 1) -> None:
        """Give the repeater a run of so many records."""
        numbers = [f"{number:03}" for number in range(self.put, self.put + count)]
        self.put += count
        self.bench.repeater.received(self.bench.hub.link, [run("A", *numbers)])

    def answer(self) -> Meeting | None:
        """The target answers, if it is dialled."""
        return self.network.dial.meet(self._factory) if self.network.dials else None

    def connect(self) -> Meeting:
        """Wait until the target is dialled, and answer."""
        self.network.redial()
        meeting = self.answer()
        assert meeting is not None
        return meeting

    @property
    def meeting(self) -> Meeting | None:
        """The connection to the target that is up."""
        return next((one for one in self.network.meetings if one is not self.bench.hub), None)

    @property
    def arrived(self) -> list[int]:
        """The numbers of the records that the target has taken, in that order."""
        return numbers(self.owner.runs)

    @property
    def undelivered(self) -> list[int]:
        """The numbers of the dead letters."""
        kept = [entry.run for entry, _ in self.bench.undelivered.newest()]
        return numbers(list({id(one): one for one in kept}.values()))

    def end(self) -> None:
        """End the repeater and the target's sessions."""
        self.bench.stop()
        for link in list(self.owner.links):
            link.end(1000, "the test is over")
        assert self.network.getDelayedCalls() == []


def numbers(runs: list[Run]) -> list[int]:
    return [int(one.split(b'"')[3]) for each in runs for one in each.records]


@pytest.fixture
def make() -> Iterator[Any]:
    """Makes a site; all of them are ended, and leave nothing behind."""
    sites: list[Site] = []

    def site(**settings: Any) -> Site:
        sites.append(Site(**settings))
        return sites[-1]

    yield site
    for made in sites:
        made.end()


def test_a_target_that_is_cut_often_gets_each_record_once_and_in_order(make: Any) -> None:
    site = make()
    for cuts in range(20):
        site.send(3)
        meeting = site.connect()
        site.send(2)
        for _ in range(cuts % 5):
            meeting.move()
        site.send(1)
        meeting.pump.clientIO.disconnecting = meeting.pump.serverIO.disconnecting = True
        site.network.settle()
    site.send(1)
    site.connect()
    assert site.arrived == list(range(site.put))
    assert site.bench.target(CP1)["sent"] == site.put
    site.network.pass_time(1)
    assert site.bench.target(CP1)["buffer-utilization"] == 0


def test_a_target_that_goes_away_and_comes_back_gets_each_record_once(make: Any) -> None:
    site = make()
    site.send()
    meeting = site.connect()
    site.network.settle()
    site.network.pass_time(2)
    # The target closes with 4001. It takes what was under way, and does not acknowledge it any more.
    site.send(2)
    site.network.advance(0)
    (link,) = site.owner.links
    link.end(4001, "going away")
    site.network.settle()
    assert meeting not in site.network.meetings
    site.send()
    site.connect()
    site.network.settle()
    assert site.arrived == [0, 1, 2, 3]


def test_a_record_that_comes_while_an_unused_connection_closes_is_not_taken_for_delivered_by_it(
    make: Any,
) -> None:
    site = make()
    site.send()
    unused = site.connect()
    unused.move = lambda: False  # what is sent on it is on its way for long
    site.network.advance(5)
    site.network.advance(1)
    site.send()
    meeting = site.connect()
    assert site.arrived == [0, 1]
    meeting.move = lambda: False
    site.send()
    site.network.settle()
    del unused.move
    site.network.settle()
    assert site.owner.calls.count("left") == 1, "the unused connection has closed"
    del meeting.move
    meeting.cut()
    site.connect()
    assert site.arrived == [0, 1, 2]


def test_what_waits_for_a_target_that_was_cut_and_what_is_held_have_one_bound(make: Any) -> None:
    site = make(target_buffer=10 * SIZE, target_patience=600)
    site.send()
    meeting = site.connect()
    meeting.dialled.pauseProducing()
    for _ in range(8):
        site.send()
    site.network.settle()
    meeting.cut()
    for _ in range(8):
        site.send()
        site.network.settle()
        target = site.bench.target(CP1)
        assert target["buffer-utilization"] <= target["buffer-capacity"]
    dead = site.undelivered
    assert sorted(dead) == list(range(1, 1 + target["dropped"]))
    site.connect()
    assert site.arrived + sorted(dead) == [0, *range(1 + len(dead), site.put), *sorted(dead)]


@pytest.mark.parametrize("settings", [{}, {"keep_tags": ("alarm",)}])
def test_each_record_that_does_not_fit_becomes_a_dead_letter(make: Any, settings: dict[str, Any]) -> None:
    site = make(target_buffer=4 * SIZE, **settings)
    site.send()
    meeting = site.connect()
    meeting.dialled.pauseProducing()
    alarm = Run(b"A", [record("A", "001"), b'A\n{"key":"002","event-tags":["alarm"]}\n'])
    site.bench.repeater.received(site.bench.hub.link, [alarm])
    site.put += 2
    for _ in range(8):
        site.send()
        site.network.settle()
    assert len(site.undelivered) == site.bench.target(CP1)["dropped"] > 2
    assert {1, 2} <= set(site.undelivered)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 3)),
        st.tuples(st.just("send"), st.integers(1, 3)),
        st.tuples(st.just("answer"), st.just(0)),
        st.tuples(st.just("answer"), st.just(0)),
        st.tuples(st.just("refuse"), st.just(0)),
        st.tuples(st.just("cut"), st.integers(0, 4)),
        st.tuples(st.just("stall"), st.just(0)),
        st.tuples(st.just("pass"), st.integers(1, 60)),
        st.tuples(st.just("settle"), st.just(0)),
        st.tuples(st.just("step"), st.integers(1, 3)),
    ),
    max_size=40,
)


@given(steps)
def test_a_record_is_taken_or_waits_or_is_a_dead_letter_and_none_is_taken_twice(
    steps: list[tuple[str, int]],
) -> None:
    site = Site(target_buffer=8 * SIZE, target_patience=3.0, idle_ttl=2.0)
    for what, size in steps:
        meeting = site.meeting
        if what == "send":
            site.send(size)
        elif what == "answer":
            site.answer()
        elif what == "refuse" and site.network.dials:
            site.network.dial.refuse()
        elif what == "cut" and meeting is not None:
            for _ in range(size):
                meeting.move()
            meeting.cut()
        elif what == "stall" and meeting is not None:
            meeting.dialled.pauseProducing()
        elif what == "pass":
            site.network.pass_time(size / 10, 0.1)
        elif what == "settle":
            site.network.settle()
        elif what == "step" and meeting is not None:
            site.network.advance(0)
            for _ in range(size):
                meeting.move()
        accounted(site)
    for meeting in [one for one in site.network.meetings if one is not site.bench.hub]:
        meeting.cut()
    site.send()
    for _ in range(40):
        site.answer()
        site.network.pass_time(0.5)
    accounted(site)
    assert site.bench.repeater.pool.waiting == 0
    assert site.arrived[-1] == site.put - 1, "it is served again, whatever there was before"
    site.end()


def accounted(site: Site) -> None:
    """Fail when a record is nowhere, was taken twice or out of order, or too much waits."""
    target = site.bench.target(CP1)
    arrived, dead = site.arrived, site.undelivered
    assert arrived == sorted(set(arrived))
    assert target["dropped"] == len(dead) == len(set(dead))
    assert target["buffer-utilization"] <= target["buffer-capacity"] + 3 * SIZE, "one turn's more"
    missing = set(range(site.put)) - set(arrived) - set(dead)
    assert len(missing) * SIZE <= target["buffer-utilization"], missing
