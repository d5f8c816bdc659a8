"""What grows with what comes in, each at its bound (docs/reliability.md lists them all)."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from ces.config.link import LinkSettings
from ces.hub.interconnect import Interconnections, TooMany, hub_address
from ces.hub.settings import HubSettings
from ces.link.connection import PIECES
from ces.model.control import Error
from tests.support.hubs import Floor
from tests.support.links import frame, record, run, serving
from tests.support.network import Network

# -- addresses of other hubs ---------------------------------------------------------------------------------


class Dialling:
    """A hub that dials others on a network in memory."""

    def __init__(self) -> None:
        self.network = Network()
        self.hub = Floor(clock=self.network).hub
        self.links = Interconnections(self.hub, self.network)

    def end(self, name: str) -> None:
        """End one."""
        done = Deferred.fromCoroutine(self.links.end(name))
        self.network.settle()
        assert done.called

    def names(self) -> list[str]:
        """The addresses that are linked to."""
        return [one["address"] for one in self.links.status()]


@pytest.fixture
def dialling(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dialling]:
    """A hub that may dial two others; nothing is left of them in the end."""
    monkeypatch.setattr("ces.hub.interconnect.INTERCONNECTIONS", 2)
    hub = Dialling()
    yield hub
    hub.links.stop()
    assert (hub.network.dials, hub.network.getDelayedCalls()) == ([], [])


def test_no_more_hubs_are_linked_to_than_may_be_and_one_that_ends_makes_room(dialling: Dialling) -> None:
    links = dialling.links
    for name in ("a", "b"):
        links.keep(hub_address(name))
    links.keep(hub_address("a"))
    with pytest.raises(TooMany, match="There are 2 interconnections"):
        links.keep(hub_address("c"))
    assert len(dialling.network.dials) == len(dialling.names()) == 2
    assert dialling.hub.side.refused["interconnections"] == 1
    dialling.end("a")
    links.keep(hub_address("c"))
    assert dialling.names() == ["ws://b:7100", "ws://c:7100"]


def test_to_ask_again_for_a_link_that_is_being_made_dials_once(dialling: Dialling) -> None:
    for _ in range(10):
        dialling.links.keep(hub_address("a"))
    assert (len(dialling.network.dials), dialling.names()) == (1, ["ws://a:7100"])


def test_a_configuration_with_too_many_hubs_is_refused() -> None:
    names = tuple(f"hub-{number}" for number in range(1001))
    assert HubSettings(interconnect=names[:1000]).conflict() is None
    assert HubSettings(interconnect=names).conflict() == (
        "interconnect names 1001 hubs; at most 1000 can be linked to"
    )


# -- what is told to those who do not read ------------------------------------------------------------------


def test_control_messages_count_among_what_waits_for_all_links_and_cost_who_does_not_read_them() -> None:
    alone = serving(settings=LinkSettings(buffer_limit=1000, link_buffer=10_000))
    side, connection = alone.side, alone.connection
    connection.pauseProducing()
    told = Error(code=4400, reason="x" * 200)
    alone.link.tell(told)
    waiting = side.tally.bytes
    assert 200 < waiting < 300
    connection.resumeProducing()
    assert side.tally.bytes == 0
    connection.pauseProducing()
    for _ in range(1000 // waiting):
        alone.link.tell(told)
    assert alone.link.connected
    alone.link.tell(told)
    assert not alone.link.connected
    assert alone.link.ended == "it reads too slowly: its control messages fill its buffer"
    alone.lose()
    assert side.tally.bytes == 0


def test_what_can_be_dropped_makes_room_for_control_messages() -> None:
    alone = serving(settings=LinkSettings(buffer_limit=1000, link_buffer=10_000))
    alone.connection.pauseProducing()
    for _ in range(50):
        alone.link.put(run("A", "x" * 10))
    alone.flush()
    assert alone.side.tally.bytes <= 1000
    alone.link.tell(Error(code=4400, reason="x" * 200))
    assert alone.link.connected
    assert alone.side.tally.bytes <= 1000
    assert alone.link.dropped > 0


# -- a message in pieces -------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 3])
def test_a_message_that_comes_byte_by_byte_takes_up_little_more_than_its_bytes(frames: int) -> None:
    """A list of single bytes would take up at least eight times as much."""
    alone = serving(settings=LinkSettings(message_limit=100_000))
    sent = record("A", "x" * 50_000)
    third = len(sent) // frames + 1
    parts = [sent[start : start + third] for start in range(0, len(sent), third)]
    wire = b"".join(
        frame(2 if not number else 0, part, fin=number == frames - 1) for number, part in enumerate(parts)
    )
    tracemalloc.start()
    try:
        for at in range(len(wire)):
            alone.connection.dataReceived(wire[at : at + 1])
            assert tracemalloc.get_traced_memory()[0] < 2 * len(wire) + 50 * PIECES
    finally:
        tracemalloc.stop()
    assert alone.owner.records == [sent]


@given(st.lists(st.integers(1, 3000), max_size=60), st.integers(2, 5))
def test_pieces_are_joined_in_order(sizes: list[int], bound: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ces.link.connection.PIECES", bound)
        alone = serving()
        sent = record("A", "".join(f"{number % 10}" * size for number, size in enumerate(sizes)))
        wire = frame(2, sent)
        for size in sizes:
            alone.connection.dataReceived(wire[:size])
            wire = wire[size:]
        alone.connection.dataReceived(wire)
    assert alone.owner.records == [sent]
