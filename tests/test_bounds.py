"""What grows with what comes in, each at its bound (docs/reliability.md lists them all)."""

from __future__ import annotations

from typing import Any

import pytest

from ces.hub.interconnect import Interconnections, TooMany, hub_address
from ces.hub.settings import HubSettings
from ces.model.control import SubscriptionChange
from ces.model.wire import CES2
from tests.links import ANSWER, frame, upgraded
from tests.messengers import Network, make_messenger
from tests.test_hub import Floor

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
    monkeypatch.setattr("ces.messenger.messenger.WITHDRAWN_ROOMS", 2)
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
