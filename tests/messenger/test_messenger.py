"""The messenger's link: addresses, states, rooms, keepalive, the end of it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from autobahn.twisted.websocket import connectWS
from twisted.application.service import IService, MultiService
from twisted.internet.protocol import ReconnectingClientFactory

from ces.messenger import Closed, Dropped, MessengerService, State, TooManyWaiting
from ces.model.address import AddressError
from ces.model.wire import CES1, CES2
from tests.support.links import Lines
from tests.support.messengers import Told, connected, event, make_messenger, record
from tests.support.network import ATTEMPT, PONG, TEXT, Network

DAY = 24 * 3600

TLS_HANDSHAKE = b"\x16\x03"
"""What a TLS connection begins with (RFC 8446 section 5.1)."""


@pytest.mark.parametrize(
    ("address", "host", "port", "secure", "path"),
    [
        ("ws://event-hub", "event-hub", 7100, False, "/connect/messenger"),
        ("event-hub", "event-hub", 7100, False, "/connect/messenger"),
        ("localhost:7200", "localhost", 7200, False, "/connect/messenger"),
        ("wss://event-hub:443", "event-hub", 443, True, "/connect/messenger"),
        ("ws://proxy:80/ces", "proxy", 80, False, "/ces/connect/messenger"),
        ("ws://event-hub:7100/connect/messenger", "event-hub", 7100, False, "/connect/messenger"),
    ],
)
def test_every_form_of_address_is_dialled(
    address: str, host: str, port: int, secure: bool, path: str
) -> None:
    network = Network()
    messenger = make_messenger(network, address=address)
    messenger.connect()
    dial = network.dial
    assert (dial.name, dial.port, dial.path) == (host, port, path)
    first = TLS_HANDSHAKE if secure else f"GET {path} HTTP/1.1\r\n".encode()
    assert dial.connected().request.startswith(first)
    Told(messenger.close())


def test_an_address_that_is_none_is_refused_in_one_sentence() -> None:
    with pytest.raises(AddressError, match="has the scheme 'http'; expected ws or wss"):
        make_messenger(Network(), address="http://event-hub")


def test_the_state_says_what_becomes_of_the_link_and_why() -> None:
    network = Network()
    messenger = make_messenger(network)
    told: list[tuple[State, str]] = []
    messenger.on_state(lambda state: told.append((state, messenger.reason)))
    assert messenger.state is State.CLOSED
    messenger.connect()
    network.dial.refuse()
    network.advance(ATTEMPT)
    network.redial()
    wire = network.dial.accept()
    assert messenger.connected
    wire.cut()
    network.redial()
    Told(messenger.close())
    assert [state for state, _ in told] == [
        State.CONNECTING,
        State.WAITING,
        State.CONNECTING,
        State.CONNECTED,
        State.WAITING,
        State.CONNECTING,
        State.CLOSED,
    ]
    assert "refused" in told[1][1]
    assert "was cut" in told[4][1]
    assert messenger.state is State.CLOSED


def test_a_callback_of_on_state_that_raises_costs_nothing_else() -> None:
    network = Network()
    lines = Lines()
    messenger = make_messenger(network, lines=lines)
    told: list[State] = []

    @messenger.on_state
    def broken(state: State) -> None:
        raise ZeroDivisionError

    messenger.on_state(told.append)
    messenger.connect()
    network.dial.accept()
    assert told == [State.CONNECTING, State.CONNECTED]
    assert messenger.counters["failures"] == 2
    assert "broken raised (1 so far)" in lines[0] and "ZeroDivisionError" in lines[0]
    messenger.forget(broken)
    Told(messenger.close())
    network.settle()
    assert messenger.counters["failures"] == 2


def test_it_dials_again_sooner_or_later_but_within_bounds() -> None:
    network = Network()
    messenger = make_messenger(network)
    messenger.connect()
    waits = []
    for _ in range(12):
        network.dial.refuse()
        network.advance(ATTEMPT)
        before = network.seconds()
        network.redial()
        waits.append(network.seconds() - before)
    assert 0.5 <= waits[0] <= 1.6
    assert all(15 <= wait <= 45.1 for wait in waits[9:])
    Told(messenger.close())


def test_when_connected_fires_with_the_link_and_at_once_when_there_is_one() -> None:
    network = Network()
    messenger = make_messenger(network)
    before = Told(messenger.when_connected())
    messenger.connect()
    assert not before.fired
    network.dial.accept()
    assert before.fired and before.error is None
    assert Told(messenger.when_connected()).fired
    Told(messenger.close())


def test_when_connected_fails_when_the_messenger_is_closed_and_from_then_on() -> None:
    network = Network()
    messenger = make_messenger(network)
    messenger.connect()
    before = Told(messenger.when_connected())
    Told(messenger.close())
    assert isinstance(before.error, Closed)
    assert isinstance(Told(messenger.when_connected()).error, Closed)


def test_no_more_wait_for_the_link_than_were_allowed() -> None:
    messenger = make_messenger(Network(), waits=1)
    waiting = messenger.when_connected()
    with pytest.raises(TooManyWaiting):
        messenger.when_connected()
    cancelled = Told(waiting)
    waiting.cancel()
    assert cancelled.error is not None
    assert not Told(messenger.when_connected()).fired, "the place of the cancelled one is free"
    Told(messenger.close())


# -- rooms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", [CES1, CES2])
def test_rooms_are_subscribed_to_when_the_link_is_there(dialect: str) -> None:
    messenger, wire, _ = connected(["ITB-1108", "*"], dialect)
    assert wire.texts() == [{"rooms": ["ITB-1108", "*"], "create": True}]
    messenger.subscribe("BNSN-W002", "ITB-1108", "BNSN-W002")
    messenger.unsubscribe("*", "never-subscribed")
    assert wire.texts()[1:] == [
        {"rooms": ["BNSN-W002"], "create": True},
        {"rooms": ["*"], "create": False},
    ]
    assert messenger.rooms == {"ITB-1108", "BNSN-W002"}
    Told(messenger.close())


def test_rooms_changed_while_there_is_no_link_are_those_of_the_next() -> None:
    messenger, wire, network = connected(["A", "B"])
    wire.cut()
    messenger.unsubscribe("A")
    messenger.subscribe("C")
    network.redial()
    assert network.dial.accept().texts() == [{"rooms": ["B", "C"], "create": True}]
    Told(messenger.close())


def test_to_unsubscribe_from_nothing_is_to_unsubscribe_from_all() -> None:
    messenger, wire, _ = connected(["A", "B"])
    messenger.unsubscribe()
    assert wire.texts()[-1] == {"rooms": ["A", "B"], "create": False}
    assert not messenger.rooms
    messenger.unsubscribe()
    assert len(wire.texts()) == 2, "there is nothing left to say"
    Told(messenger.close())


def test_one_that_only_sends_subscribes_to_nothing() -> None:
    messenger, wire, _ = connected()
    assert wire.written == []
    Told(messenger.close())


def test_very_many_rooms_go_in_several_messages() -> None:
    rooms = [f"R-{number}" for number in range(2500)]
    messenger, wire, _ = connected(rooms)
    assert [len(text["rooms"]) for text in wire.texts()] == [1000, 1000, 500]
    assert [room for text in wire.texts() for room in text["rooms"]] == rooms
    Told(messenger.close())


@pytest.mark.parametrize("room", ["{", "a\nb", "x" * 256, "\ud800"])
def test_a_room_that_breaks_the_rules_is_refused_and_changes_nothing(room: str) -> None:
    messenger, wire, _ = connected(["A"])
    with pytest.raises(ValueError, match="cannot subscribe to"):
        messenger.subscribe("B", room)
    assert messenger.rooms == {"A"}
    assert len(wire.texts()) == 1
    Told(messenger.close())


@pytest.mark.parametrize("room", [["A"], ("A",), {"A"}, {"A": 1}, frozenset(), None, b"A", 7])
def test_a_room_that_is_no_text_is_refused_in_one_sentence_and_changes_nothing(room: Any) -> None:
    messenger, wire, _ = connected(["A"])
    for method in (messenger.subscribe, messenger.unsubscribe):
        with pytest.raises(TypeError) as caught:
            method("B", room)
        assert str(caught.value) == (
            f"a room is a str, not {type(room).__name__}: "
            f'call {method.__name__}("A", "B"), or {method.__name__}(*rooms)'
        )
    assert messenger.rooms == {"A"}
    assert len(wire.texts()) == 1
    with pytest.raises(TypeError, match=rf"^a room is a str, not {type(room).__name__}$"):
        make_messenger(Network(), ["A", room])
    Told(messenger.close())


@pytest.mark.parametrize("rooms", ["ITB-1108", b"ITB-1108", None, 7])
def test_what_is_no_list_of_rooms_is_refused(rooms: Any) -> None:
    with pytest.raises(TypeError, match=r'^rooms is a list such as \["ITB-1108"\], not '):
        make_messenger(Network(), rooms)


def test_a_callback_of_on_state_cannot_be_a_coroutine() -> None:
    messenger = make_messenger(Network())

    async def told(state: State) -> None:
        """Never runs."""

    with pytest.raises(TypeError, match="is async"):
        messenger.on_state(told)


# -- the life of a link --------------------------------------------------------------------------------------


def test_a_day_of_pings_from_a_go_hub_keeps_the_link() -> None:
    messenger, wire, network = connected(["*"])
    for _ in range(DAY // 30):
        network.advance(30)
        wire.ping()
    assert wire.alive and messenger.connected
    assert sum(opcode == PONG for opcode, _ in wire.written) == DAY // 30
    assert messenger.counters["reconnects"] == 0
    Told(messenger.close())


def test_a_hub_that_is_silent_for_90_seconds_is_dialled_again() -> None:
    messenger, wire, network = connected()
    network.advance(89)
    assert wire.alive
    network.advance(2)
    assert not wire.alive
    assert messenger.reason == "nothing heard for 90 s"
    network.redial()
    network.dial.accept()
    assert messenger.connected
    assert messenger.counters["reconnects"] == 1
    Told(messenger.close())


@pytest.mark.parametrize(
    ("payload", "reason"), [(b"\x0f\xa1draining", "4001: draining"), (b"\x03\xe8", "1000"), (b"", "no code")]
)
def test_a_hub_that_closes_the_link_is_dialled_again(payload: bytes, reason: str) -> None:
    messenger, wire, network = connected()
    wire.close(payload)
    network.settle()
    assert messenger.state is State.WAITING
    assert messenger.reason == f"closed by the other side with {reason}"
    network.redial()
    network.dial.accept()
    assert messenger.connected
    Told(messenger.close())


def test_a_server_that_does_not_know_the_subprotocol_is_dialled_again_without_it() -> None:
    network = Network()
    messenger = make_messenger(network)
    states: list[State] = []
    messenger.on_state(states.append)
    messenger.connect()
    wire = network.dial.connected()
    assert b"Sec-WebSocket-Protocol: ces.2" in wire.request
    wire.connection.dataReceived(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    network.settle()
    wire = network.dial.connected()
    assert b"ces.2" not in wire.request
    wire.answer(CES1)
    assert states == [State.CONNECTING, State.CONNECTED], "it is not a failure"
    Told(messenger.close())


def test_close_after_a_refused_subprotocol_does_not_dial_again() -> None:
    network = Network()
    messenger = make_messenger(network)
    messenger.connect()
    network.dial.connected().connection.dataReceived(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    closed = Told(messenger.close())
    network.settle()
    assert closed.fired and messenger.state is State.CLOSED
    assert network.dials == []
    assert network.getDelayedCalls() == []


@pytest.mark.parametrize("failed", [False, True])
def test_stop_trying_while_a_dial_is_due_leaves_it_closed_until_it_is_connected_again(failed: bool) -> None:
    network = Network()
    messenger = make_messenger(network)
    messenger.connect()
    if failed:
        network.dial.refuse()
        network.advance(ATTEMPT)
    else:
        network.dial.connected().connection.dataReceived(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    messenger.factory.stopTrying()
    network.advance(60)
    assert (messenger.state, network.dials) == (State.CLOSED, [])
    messenger.connect()
    network.dial.accept()
    assert messenger.connected
    Told(messenger.close())


# -- the end of it -------------------------------------------------------------------------------------------


def test_close_sends_what_waits_then_says_goodbye_and_leaves_no_timer() -> None:
    messenger, wire, network = connected()
    messenger.send(event("last"))
    closed = Told(messenger.close())
    network.settle()
    assert closed.fired and closed.error is None
    assert wire.messages() == [record("last")]
    assert wire.written[-1][1][:2] == (1000).to_bytes(2, "big")
    assert messenger.state is State.CLOSED
    assert network.getDelayedCalls() == []


def test_close_cuts_the_link_when_the_hub_does_not_answer() -> None:
    messenger, wire, network = connected()
    wire.closes = False
    closed = Told(messenger.close(timeout=3))
    network.advance(2.9)
    assert not closed.fired
    network.advance(0.2)
    network.settle()
    assert closed.fired and not wire.alive
    assert network.getDelayedCalls() == []


def test_close_waits_no_longer_than_its_timeout_for_a_hub_that_does_not_read() -> None:
    messenger, wire, network = connected()
    wire.producer.pauseProducing()
    waiting = Told(messenger.send(event("stuck")))
    closed = Told(messenger.close(timeout=3))
    network.advance(3.1)
    network.settle()
    assert closed.fired
    assert isinstance(waiting.error, Dropped)
    assert messenger.counters["dropped"] == 1
    assert network.getDelayedCalls() == []


def test_close_while_waiting_to_dial_drops_what_waits_and_says_so() -> None:
    lines = Lines()
    network = Network()
    messenger = make_messenger(network, lines=lines)
    messenger.connect()
    network.dial.refuse()
    network.advance(ATTEMPT)
    waiting = Told(messenger.send(event("power")))
    closed = Told(messenger.close())
    network.settle()
    assert closed.fired
    assert isinstance(waiting.error, Dropped)
    assert "events for ws://hub:7100 dropped unsent: 1 (1 so far)" in lines
    assert network.getDelayedCalls() == []


@pytest.mark.parametrize("answered", [False, True])
def test_close_while_dialling_ends_the_dial(answered: bool) -> None:
    network = Network()
    messenger = make_messenger(network)
    messenger.connect()
    wire = network.dial.connected() if answered else None
    closed = Told(messenger.close())
    network.settle()
    assert closed.fired
    assert wire is None or not wire.alive
    assert network.getDelayedCalls() == []


def test_close_before_connect_and_close_twice_are_harmless() -> None:
    network = Network()
    messenger = make_messenger(network)
    assert Told(messenger.close()).fired
    assert Told(messenger.close()).fired
    assert network.getDelayedCalls() == []


def test_a_closed_messenger_can_be_connected_again() -> None:
    messenger, _, network = connected(["A"])
    Told(messenger.close())
    network.settle()
    messenger.connect()
    wire = network.dial.accept()
    assert wire.texts() == [{"rooms": ["A"], "create": True}]
    messenger.send(event("again"))
    network.settle()
    assert wire.messages() == [record("again")]
    Told(messenger.close())


# -- in applications -----------------------------------------------------------------------------------------


def test_its_factory_is_one_for_connect_tcp() -> None:
    network = Network()
    messenger = make_messenger(network, ["A"])
    assert isinstance(messenger.factory, ReconnectingClientFactory)
    network.connectTCP("another-name", 7111, messenger.factory)
    wire = network.dial.accept()
    assert wire.texts() == [{"rooms": ["A"], "create": True}]
    wire.cut()
    network.redial()
    assert (network.dial.name, network.dial.count) == ("another-name", 2)
    closed = Told(messenger.close())
    assert closed.fired


def test_its_factory_is_one_for_connect_ws() -> None:
    network = Network()
    messenger = make_messenger(network, address="ws://hub:7111")
    connectWS(messenger.factory)
    assert (network.dial.name, network.dial.port) == ("hub", 7111)
    network.dial.accept()
    assert messenger.connected
    Told(messenger.close())


def test_as_a_service_it_connects_and_closes_with_its_parent() -> None:
    network = Network()
    messenger = make_messenger(network)
    service = MessengerService(messenger)
    assert IService.providedBy(service)
    parent = MultiService()
    service.setServiceParent(parent)
    parent.startService()
    wire = network.dial.accept()
    messenger.send(event("last"))
    stopped = Told(parent.stopService())
    network.settle()
    assert stopped.fired
    assert wire.messages() == [record("last")]
    assert network.getDelayedCalls() == []


def test_the_status_shows_link_rooms_buffers_and_counts() -> None:
    messenger, wire, network = connected(["B", "A"], CES2)
    wire.send(record("one"), record("two") + record("three"), b"no record")
    messenger.send(event("out"))
    network.settle()
    size = len(record("one") + record("two") + record("three"))
    assert messenger.status() == {
        "address": "ws://hub:7100",
        "state": "up",
        "reason": "",
        "dialect": "ces.2",
        "hub": "the-hub",
        "rooms": ["A", "B"],
        "spool-utilization": 0,
        "spool-disk": None,
        "spool-capacity": 8 * 1024 * 1024,
        "inbox-utilization": size,
        "inbox-capacity": 8 * 1024 * 1024,
        "sent": 1,
        "dropped": 0,
        "received": 3,
        "missed": 0,
        "gaps": 0,
        "unread": 0,
        "malformed": 1,
        "failures": 0,
        "reconnects": 0,
    }
    wire.cut()
    assert messenger.status()["dialect"] == ""
    assert messenger.status()["state"] == "waiting"
    Told(messenger.close())


def test_it_says_who_it_is_in_ces_2() -> None:
    messenger, wire, _ = connected([], CES2)
    opcode, payload = wire.written[0]
    assert (opcode, payload) == (
        TEXT,
        b'{"hello":{"node":"me","session":null,"received":0,"changes":0,"gaps":0}}',
    )
    Told(messenger.close())


def test_importing_it_loads_no_reactor_and_nothing_of_hub_and_repeater() -> None:
    script = (
        "import sys, ces.messenger\n"
        "unwanted = ['klein', 'treq', 'prometheus_client', 'websockets.client', 'twisted.internet.reactor']\n"
        "print([name for name in unwanted if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
