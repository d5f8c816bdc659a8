"""What grows with what comes in, each at its bound (docs/reliability.md lists them all)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ces.hub.interconnect import Interconnections, TooMany, hub_address
from ces.hub.settings import HubSettings
from ces.link.owner import LinkLimits
from ces.link.protocol import PIECES, _gather
from ces.model.control import Error, SubscriptionChange
from ces.model.wire import CES2
from tests.hub.test_hub import Floor
from tests.support.links import ANSWER, frame, record, run, serving, upgraded
from tests.support.messengers import Network, make_messenger

# -- addresses of other hubs ---------------------------------------------------------------------------------


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Interconnections of a hub that may have two, and the network on which they dial."""
    monkeypatch.setattr("ces.hub.interconnect.INTERCONNECTIONS", 2)
    network = Network()
    yield Interconnections(Floor(clock=network).hub, network), network
    assert not [call for call in network.getDelayedCalls() if call.active()]


def test_no_more_hubs_are_linked_to_than_may_be_and_one_that_ends_makes_room(dialled: Any) -> None:
    links, network = dialled
    for name in ("a", "b"):
        links.keep(hub_address(name))
    links.keep(hub_address("a"))
    with pytest.raises(TooMany, match="There are 2 interconnections"):
        links.keep(hub_address("c"))
    assert len(network.dials) == len(links.status()) == 2
    assert links._hub.side.refused["interconnections"] == 1
    links._by_address.pop(hub_address("a")).stop()
    links.keep(hub_address("c"))
    assert [one["address"] for one in links.status()] == ["ws://b:7100", "ws://c:7100"]
    links.stop()


def test_to_ask_again_for_a_link_that_is_being_made_leaves_nothing_behind(dialled: Any) -> None:
    links, network = dialled
    for _ in range(10):
        links.keep(hub_address("a"))
    (interconnection,) = links._by_address.values()
    assert (interconnection._waiting, len(network.dials)) == ([], 1)
    links.stop()


def test_a_configuration_with_too_many_hubs_is_refused() -> None:
    names = tuple(f"hub-{number}" for number in range(1001))
    assert HubSettings(interconnect=names[:1000]).conflict() is None
    assert HubSettings(interconnect=names).conflict() == (
        "interconnect names 1001 hubs; at most 1000 can be linked to"
    )


# -- what is told to those who do not read ------------------------------------------------------------------


def test_control_messages_count_among_what_waits_for_all_links_and_cost_who_does_not_read_them() -> None:
    alone = serving(limits=LinkLimits(total=1000, outbox=10_000))
    side = alone.link.factory.side
    alone.link.pauseProducing()
    told = Error(code=4400, reason="x" * 200)
    alone.link.tell(told)
    waiting = side.tally.bytes
    assert 200 < waiting < 300
    alone.link.resumeProducing()
    assert side.tally.bytes == 0
    alone.link.pauseProducing()
    for _ in range(1000 // waiting):
        alone.link.tell(told)
    assert alone.link.joined
    alone.link.tell(told)
    assert not alone.link.joined
    assert alone.link.ended == "it reads too slowly: its control messages fill its buffer"
    alone.lose()
    assert side.tally.bytes == 0


def test_what_can_be_dropped_makes_room_for_control_messages() -> None:
    alone = serving(limits=LinkLimits(total=1000, outbox=10_000))
    alone.link.pauseProducing()
    for _ in range(50):
        alone.link.put(run("A", "x" * 10))
    alone.flush()
    assert alone.link.factory.side.tally.bytes <= 1000
    alone.link.tell(Error(code=4400, reason="x" * 200))
    assert alone.link.joined
    assert alone.link.factory.side.tally.bytes <= 1000
    assert alone.link.dropped > 0


# -- a message in pieces -------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 3])
def test_a_message_that_comes_byte_by_byte_is_kept_in_few_pieces(frames: int) -> None:
    alone = serving(limits=LinkLimits(message=100_000))
    sent = record("A", "x" * 50_000)
    third = len(sent) // frames + 1
    parts = [sent[start : start + third] for start in range(0, len(sent), third)]
    wire = b"".join(
        frame(2 if not number else 0, part, fin=number == frames - 1) for number, part in enumerate(parts)
    )
    for at in range(0, len(wire)):
        alone.link.dataReceived(wire[at : at + 1])
        kept = [alone.link._parts, alone.link.frame_data or [], alone.link.message_data or []]
        assert sum(map(len, kept)) <= PIECES + len(sent) // PIECES + frames
    assert alone.owner.records == [sent]


@given(st.lists(st.integers(1, 3000), max_size=60), st.integers(2, 5))
def test_pieces_are_joined_once_and_in_order(sizes: list[int], bound: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ces.link.protocol.PIECES", bound)
        pieces: list[bytes] = []
        for number, size in enumerate(sizes):
            pieces.append(b"%d" % (number % 10) * size)
            _gather(pieces)
            assert len(pieces) <= bound + sum(sizes) // bound
    assert b"".join(pieces) == b"".join(b"%d" % (number % 10) * size for number, size in enumerate(sizes))


# -- rooms that come and go ----------------------------------------------------------------------------------


def test_changes_of_rooms_that_other_hubs_are_still_to_be_told_are_bounded_and_none_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ces.hub.hub.ANNOUNCED_PER_TURN", 10)
    monkeypatch.setattr("ces.hub.hub.CHANGED_ROOMS", 30)
    floor = Floor()
    other, reader = floor.link("hub", dialect=CES2, node="other"), floor.link("messenger")
    for start in range(0, 1000, 20):
        floor.hub.subscribed(
            reader, SubscriptionChange([f"ITB-{number}" for number in range(start, start + 20)], True)
        )
        assert len(floor.hub._changed) <= 30
    for _ in range(3):
        floor.clock.advance(0)
    assert [room for change in other.told for room in change.rooms] == [f"ITB-{n}" for n in range(1000)]


def test_of_rooms_that_a_messenger_wants_no_more_the_oldest_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ces.model.withdrawn.WITHDRAWN_ROOMS", 2)
    network = Network()
    messenger = make_messenger(network)
    messenger.connect()
    wire = network.dial.connected()
    wire.link.dataReceived(upgraded(wire.request, CES2) + frame(1, ANSWER % b"hub", masked=False))
    for number in range(4):
        messenger.subscribe(f"ITB-{number}")
        messenger.unsubscribe(f"ITB-{number}")
    assert list(messenger._unwanted) == ["ITB-2", "ITB-3"]
    messenger.close()
    network.turn()
