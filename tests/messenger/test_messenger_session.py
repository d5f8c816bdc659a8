"""A messenger and the serving side of a hub: acknowledgements, resumed sessions, and gaps."""

from __future__ import annotations

import pytest

from ces.config.link import LinkSettings
from ces.link.serving import ServingFactory
from ces.messenger import Messenger, State
from ces.model.control import Gap
from ces.session.life import GOING_AWAY, NORMAL
from tests.support.links import Recorder, make_side, run
from tests.support.messengers import Told, connected, event, make_messenger, record
from tests.support.network import Meeting, Network

WINDOW = 120


class Joined:
    """A messenger with a link to a `Recorder`, which stands for the hub.

    gaps: what its `on_gap` callback was told. keys: of the events that it has received.
    """

    def __init__(self, *rooms: str) -> None:
        self.network = Network()
        self.hub = Recorder("the-hub")
        settings = LinkSettings(session_window=WINDOW)
        self.factory = ServingFactory(self.hub, make_side(self.network, settings), "messenger", self.network)
        self.messenger: Messenger = make_messenger(self.network, rooms)
        self.gaps: list[int | None] = []
        self.keys: list[str] = []
        self.messenger.on_gap(self.gaps.append)
        self.messenger.on_event(lambda event, room: self.keys.append(event.key))
        self.messenger.connect()
        self.meeting: Meeting = self.network.dial.meet(self.factory)

    def send(self, *keys: str) -> list[Told]:
        """Send an event for each key."""
        return [Told(self.messenger.send(event(key))) for key in keys]

    def route(self, *keys: str) -> None:
        """The hub has an event for each key, for this messenger."""
        (link,) = self.hub.links
        for key in keys:
            link.put(run("A", key))
        link.side.turn.add(link)
        self.network.settle()

    def redial(self) -> None:
        """Let time pass until the messenger dials, and let the hub answer."""
        self.network.redial()
        self.meeting = self.network.dial.meet(self.factory)

    def forget(self) -> None:
        """Let so much time pass that the hub has forgotten the session."""
        self.network.pass_time(WINDOW + 1)
        assert not self.hub.links

    def close(self) -> Told:
        """Close the messenger."""
        closed = Told(self.messenger.close())
        self.network.settle()
        return closed


def wanted(hub: Recorder) -> list[tuple[list[str], bool]]:
    """The changes of subscriptions that the hub was told since this was last asked."""
    changes = [(list(change.rooms or ()), bool(change.create)) for change in hub.changes]
    hub.changes.clear()
    return changes


def test_a_send_fires_when_the_hub_has_acknowledged_the_event() -> None:
    joined = Joined()
    seen: list[bool] = []
    (sent,) = joined.send("one")
    joined.hub.on_received = lambda link, runs: seen.append(sent.fired)
    joined.network.settle()
    assert joined.hub.records == [record("one")]
    assert seen == [False], "not before the hub has it"
    assert sent.fired and sent.error is None
    joined.close()


@pytest.mark.parametrize("arrives", [False, True])
def test_what_was_not_acknowledged_before_a_cut_reaches_the_hub_once(arrives: bool) -> None:
    joined = Joined("A")
    sent = joined.send("one")
    joined.network.settle()
    sent += joined.send("two")
    joined.network.advance(0)
    if arrives:
        joined.meeting.deliver(served=True)
    joined.meeting.lose()
    assert joined.hub.records == [record("one"), record("two")][: 1 + arrives]
    assert not sent[1].fired, "the acknowledgement is lost"
    sent += joined.send("three")
    assert joined.messenger.state is State.WAITING
    joined.redial()
    assert joined.hub.records == [record("one"), record("two"), record("three")]
    assert all(told.fired and told.error is None for told in sent)
    assert joined.gaps == []
    assert wanted(joined.hub) == [(["A"], True)]
    joined.close()


def test_what_the_hub_sent_in_vain_arrives_when_the_session_goes_on() -> None:
    joined = Joined("A")
    joined.route("one")
    (link,) = joined.hub.links
    link.put(run("A", "two"))
    link.side.turn.add(link)
    joined.network.advance(0)  # written, and lost
    joined.meeting.lose()
    assert joined.keys == ["one"]
    joined.route("three")
    joined.redial()
    assert joined.keys == ["one", "two", "three"]
    assert (joined.gaps, joined.messenger.counters["reconnects"]) == ([], 1)
    joined.close()


def test_rooms_unsubscribed_while_the_connection_is_away_are_told_to_a_session_that_goes_on() -> None:
    joined = Joined("A", "B")
    joined.meeting.cut()
    joined.messenger.unsubscribe("A")
    joined.messenger.subscribe("C")
    wanted(joined.hub)
    joined.redial()
    assert wanted(joined.hub) == [(["A"], False), (["C"], True)]
    joined.close()


def test_a_new_session_is_told_as_a_gap_and_gets_the_rooms_and_what_waits() -> None:
    joined = Joined("A", "B")
    joined.meeting.cut()
    joined.messenger.unsubscribe("A")
    (sent,) = joined.send("one")
    joined.forget()
    wanted(joined.hub)
    joined.redial()
    assert wanted(joined.hub) == [(["B"], True)]
    assert joined.hub.records == [record("one")]
    assert sent.fired and sent.error is None
    assert joined.gaps == [None]
    joined.close()


def test_what_the_hub_dropped_is_told_with_its_number() -> None:
    joined = Joined("A")
    joined.meeting.peer.tell(Gap(7))
    joined.network.settle()
    assert joined.gaps == [7]
    assert [joined.messenger.counters[name] for name in ("missed", "gaps")] == [7, 1]
    joined.close()


def test_each_reconnect_to_a_ces_1_hub_is_told_as_a_gap() -> None:
    messenger, wire, network = connected()
    gaps: list[int | None] = []
    messenger.on_gap(gaps.append)
    wire.cut()
    network.redial()
    network.dial.accept()
    assert gaps == [None]
    Told(messenger.close())


@pytest.mark.parametrize("code", [GOING_AWAY, NORMAL])
def test_a_hub_that_closes_takes_what_was_on_its_way(code: int) -> None:
    joined = Joined()
    sent = joined.send("one")
    joined.network.advance(0)  # the hub has not read it yet
    assert joined.hub.records == []
    joined.meeting.end(code)
    assert joined.hub.records == [record("one")]
    joined.redial()
    assert sent[0].fired and sent[0].error is None
    assert joined.hub.records == [record("one")], "it is not sent again"
    joined.close()


def test_a_closed_messenger_leaves_the_hub_at_once() -> None:
    joined = Joined("A")
    (sent,) = joined.send("last")
    closed = joined.close()
    assert closed.fired and sent.fired and sent.error is None
    assert joined.hub.links == []
    assert joined.hub.records == [record("last")]
    assert joined.network.getDelayedCalls() == []
