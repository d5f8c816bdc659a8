"""The short form of ``make cuts``: under several faults at a time, every event arrives once and in order, or
its loss is announced."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_twisted

from tests.stress.cuts import KINDS, WRONG, Publisher, Subscriber, cuts
from tests.support.trouble import NETWORK


@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.ensureDeferred
async def test_every_event_arrives_once_and_in_order_or_its_loss_is_told(kind: str, tmp_path: Path) -> None:
    from twisted.internet import reactor

    # As many faults as there are kinds: each comes once.
    seen = await cuts(kind, 16, 5, reactor, tmp_path, width=3)
    assert {what: seen[what] for what in WRONG} == dict.fromkeys(WRONG, 0), seen
    assert sum(seen["cuts"].values()) >= 16 and seen["cuts"].keys() >= {*NETWORK, "clock", "sleep"}
    assert seen["events"] > 0
    if kind == "consumer":
        assert seen["announced as lost"] > 0
    else:
        assert seen["deliveries"] >= seen["events"]


class Silent:
    """A messenger whose events and gaps the test produces."""

    def on_gap(self, told) -> None:
        self.tell_gap = told

    def on_event(self, hear) -> None:
        self.hear = hear


def test_the_count_finds_what_is_lost_twice_out_of_order_and_told() -> None:
    from ces.model.event import Event

    messenger = Silent()
    subscriber = Subscriber(messenger)  # type: ignore[arg-type]
    publisher = Publisher("p", lambda room, event: None, 1)
    publisher.said["A"] = 6
    for number in (0, 2, 1, 1, 5):
        messenger.hear(Event(key="p", value=str(number)), "A")
    messenger.tell_gap(None)
    assert subscriber.faults([publisher]) == {"lost": 2, "twice": 1, "out of order": 1, "gaps told": 1}
