"""Dialling and dialling again: when, how often, and what is left when it stops."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionRefusedError, UserError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from ces.link.protocol import Link
from ces.model.address import Address
from ces.model.wire import CES1, CES2
from ces.session.outbox import Outbox
from ces.session.session import Session
from ces.uplink.reconnect import DIALLING, STABLE, STOPPED, UP, WAITING, Dialler, DialService
from tests.support.links import Lines, Recorder, frame, make_side, record, run, upgraded


class Connector:
    """What a reactor gives who dials; it can be told to dial again."""

    def __init__(self, reactor: Network, factory: Dialler) -> None:
        self.reactor = reactor
        self.factory = factory

    def connect(self) -> None:
        self.reactor.dials.append(self.reactor.seconds())
        self.reactor.connector = self
        self.factory.startedConnecting(self)

    def stopConnecting(self) -> None:
        self.reactor.connector = None
        self.factory.clientConnectionFailed(self, Failure(UserError()))


class Network(MemoryReactorClock):
    """A reactor on which the test decides what becomes of each dial.

    dials: when each began.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dials: list[float] = []
        self.to: list[tuple[str, int, float]] = []
        self.connector: Connector | None = None

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> Any:
        self.to.append((host, port, timeout))
        connector = Connector(self, factory)
        connector.connect()
        return connector


class Dialled:
    """A dialler, and the other side played by the test."""

    def __init__(self, **more: Any) -> None:
        self.network = Network()
        self.owner = Recorder()
        self.failures: list[str] = []
        self.ups = 0
        side = make_side(self.owner, self.network, lines=Lines())
        more = {"up": self.up, "failed": self.failures.append} | more
        self.dialler = Dialler(
            side, Address("ws", "hub", 7100), "/connect/messenger", "messenger", self.network, **more
        )
        self.link: Link
        self.transport: StringTransport
        self.connector: Connector

    def up(self) -> None:
        self.ups += 1

    def accept(self) -> bytes:
        """The other side accepts the connection; what the link asks for."""
        assert self.network.connector is not None, "nobody dials"
        self.connector, self.network.connector = self.network.connector, None
        link = self.dialler.buildProtocol(None)
        self.link, self.transport = link, StringTransport()
        link.makeConnection(self.transport)
        return self.transport.value()

    def answer(self, dialect: str = CES1) -> None:
        """The other side accepts and upgrades."""
        request = self.accept()
        self.link.dataReceived(upgraded(request, dialect))
        if dialect == CES2:
            self.link.dataReceived(frame(1, b'{"hello":{"node":"peer"}}', masked=False))
        assert self.dialler.state == UP

    def refuse_upgrade(self) -> bytes:
        """The other side accepts and answers with an error page; what had been asked for."""
        request = self.accept()
        self.link.dataReceived(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        assert self.transport.disconnecting
        self.lose()
        return request

    def refuse(self) -> None:
        """Nobody listens there."""
        assert self.network.connector is not None, "nobody dials"
        connector, self.network.connector = self.network.connector, None
        self.dialler.clientConnectionFailed(connector, Failure(ConnectionRefusedError()))

    def lose(self) -> None:
        """The connection is gone."""
        reason = Failure(ConnectionDone())
        self.link.connectionLost(reason)
        self.dialler.clientConnectionLost(self.connector, reason)

    def wait(self) -> float:
        """Let time pass until the next dial; how long that took."""
        started, count = self.network.seconds(), len(self.network.dials)
        while len(self.network.dials) == count:
            assert self.network.seconds() < started + 100, "it does not dial again"
            self.network.advance(0.01)
        return self.network.seconds() - started

    def nothing_left(self) -> bool:
        return self.network.getDelayedCalls() == []


def dialled(**more: Any) -> Dialled:
    """A dialler that has begun to dial."""
    found = Dialled(**more)
    found.dialler.dial()
    return found


def test_it_dials_at_once_and_is_up_when_the_link_has_joined() -> None:
    hub = dialled()
    assert (hub.network.dials, hub.network.to, hub.dialler.state) == ([0], [("hub", 7100, 10.0)], DIALLING)
    hub.answer(CES2)
    assert (hub.dialler.state, hub.dialler.link, hub.dialler.last, hub.ups) == (UP, hub.link, hub.link, 1)
    hub.lose()
    assert (hub.dialler.state, hub.dialler.link, hub.dialler.last) == (WAITING, None, hub.link)
    assert len(hub.failures) == 1
    assert hub.dialler.reason == hub.failures[0]
    assert hub.dialler.reason.startswith("the connection was cut")
    hub.wait()
    hub.answer(CES2)
    assert (hub.ups, hub.dialler.reason) == (2, "")


def test_to_dial_while_dialling_or_up_is_to_dial_once() -> None:
    hub = dialled()
    hub.dialler.dial()
    hub.answer()
    hub.dialler.dial()
    assert len(hub.network.dials) == 1


def test_to_dial_while_waiting_dials_now_and_once() -> None:
    hub = dialled()
    hub.refuse()
    hub.dialler.dial()
    assert (len(hub.network.dials), hub.nothing_left()) == (2, True)


def test_the_delay_grows_up_to_its_bound_and_is_spread_out() -> None:
    waits: list[list[float]] = []
    for _ in range(30):
        hub = dialled()
        waits.append([])
        for _ in range(12):
            hub.refuse()
            waits[-1].append(hub.wait())
    for number in range(12):
        delay = min(1.5**number, 30)
        column = [row[number] for row in waits]
        assert min(column) >= 0.5 * delay
        assert max(column) <= 1.5 * delay + 0.02
        assert max(column) - min(column) > 0.2 * delay


def test_who_was_away_for_less_than_four_seconds_has_its_clients_back_within_about_five() -> None:
    for _ in range(200):
        hub = dialled()
        while hub.network.seconds() < 4.0:
            hub.refuse()
            hub.wait()
        assert hub.network.seconds() <= 4.0 + 5.1


def grown(hub: Dialled) -> Dialled:
    """After nine failures: the next delay would be 30 s."""
    for _ in range(9):
        hub.refuse()
        hub.wait()
    assert hub.dialler.delay == 30
    return hub


def test_a_link_that_has_been_up_for_long_enough_forgets_the_delay() -> None:
    hub = grown(dialled())
    hub.answer()
    hub.network.advance(STABLE - 0.1)
    assert hub.dialler.delay == 30
    hub.network.advance(0.11)
    assert hub.dialler.delay == 1


def test_the_first_record_forgets_the_delay() -> None:
    hub = grown(dialled())
    hub.answer()
    hub.link.dataReceived(frame(2, b"no\n", masked=False))
    assert hub.dialler.delay == 30
    hub.link.dataReceived(frame(2, record("A"), masked=False))
    assert hub.dialler.delay == 1
    hub.lose()
    assert hub.wait() <= 1.6


@pytest.mark.parametrize("dialect", [CES1, CES2])
def test_a_server_that_accepts_and_then_closes_is_not_hammered(dialect: str) -> None:
    hub = dialled()
    for _ in range(9):
        hub.answer(dialect)
        hub.link.dataReceived(frame(8, b"\x0f\xa1", masked=False))
        hub.lose()
        hub.wait()
    assert hub.dialler.delay == 30
    assert hub.failures == ["closed by the other side with 4001"] * 9


def test_a_server_that_accepts_and_never_answers_is_given_up_and_dialled_again() -> None:
    hub = dialled()
    hub.accept()
    hub.network.pump([1] * 9)
    assert not hub.transport.disconnecting
    hub.network.advance(1)
    assert hub.transport.disconnecting
    hub.lose()
    assert hub.failures == ["no answer to the handshake within 10 s"]
    hub.wait()
    hub.answer()


def test_a_server_that_refuses_the_subprotocol_is_dialled_once_more_without_it() -> None:
    hub = dialled()
    assert b"Sec-WebSocket-Protocol: ces.2" in hub.refuse_upgrade()
    assert (hub.network.dials, hub.failures, hub.dialler.state) == ([0, 0], [], DIALLING)
    request = hub.accept()
    assert b"Sec-WebSocket-Protocol" not in request
    hub.link.dataReceived(upgraded(request, CES1))
    assert (hub.dialler.state, hub.link.dialect) == (UP, CES1)
    hub.lose()
    hub.wait()
    assert b"Sec-WebSocket-Protocol: ces.2" in hub.accept()


def test_a_server_that_refuses_both_is_a_failure_with_its_reason() -> None:
    hub = dialled()
    hub.refuse_upgrade()
    hub.refuse_upgrade()
    assert len(hub.failures) == 1
    assert "400" in hub.failures[0]
    hub.wait()
    assert b"Sec-WebSocket-Protocol: ces.2" in hub.accept()


def test_a_connection_that_cannot_be_made_is_a_failure_with_its_reason() -> None:
    hub = dialled()
    hub.refuse()
    assert hub.failures == ["Connection was refused by other side"]
    assert (hub.dialler.state, hub.dialler.last) == (WAITING, None)


def test_the_owner_may_forbid_to_dial_again_and_dial_when_the_time_has_come() -> None:
    hub = dialled(may_redial=lambda: False)
    hub.refuse()
    assert (hub.dialler.state, hub.nothing_left(), len(hub.failures)) == (WAITING, True, 1)
    hub.dialler.dial()
    hub.answer()


def test_one_outbox_outlives_its_links() -> None:
    outbox = Outbox(1000)
    hub = dialled(session=Session(outbox))
    outbox.pending.append(run("A", "1"))
    hub.answer()
    hub.transport.clear()
    hub.network.advance(0)
    assert not outbox
    hub.link.pauseProducing()
    hub.link.put(run("A", "2"))
    hub.lose()
    assert outbox.records == 1
    hub.wait()
    hub.answer()
    hub.network.advance(0)
    assert (hub.link.outbox, outbox.taken, bool(outbox)) == (outbox, 2, False)


# -- stopping, in every state --------------------------------------------------------------------------------


def stopped(hub: Dialled) -> list[None]:
    """Stop; the list fills when it has."""
    fired: list[None] = []
    hub.dialler.stop().addCallback(fired.append)
    return fired


def test_stop_before_it_was_ever_dialled() -> None:
    assert stopped(Dialled()) == [None]


def test_stop_while_connecting() -> None:
    hub = dialled()
    assert stopped(hub) == [None]
    assert (hub.dialler.state, hub.nothing_left(), hub.failures) == (STOPPED, True, [])


@pytest.mark.parametrize("progress", ["accepted", "open", "up", "closing"])
def test_stop_with_a_connection(progress: str) -> None:
    hub = dialled()
    request = hub.accept()
    if progress == "open":
        hub.link.dataReceived(upgraded(request, CES2))
    elif progress != "accepted":
        hub.link.dataReceived(upgraded(request, CES1))
        assert hub.dialler.state == UP
    if progress == "closing":
        hub.link.dataReceived(frame(8, b"\x03\xe8", masked=False))
    fired = stopped(hub)
    assert fired == []
    hub.lose()
    assert (fired, hub.dialler.state, hub.nothing_left(), hub.failures) == ([None], STOPPED, True, [])


def test_stop_while_waiting() -> None:
    hub = dialled()
    hub.refuse()
    assert stopped(hub) == [None]
    assert (hub.dialler.state, hub.nothing_left()) == (STOPPED, True)


def test_stop_after_a_refused_upgrade_does_not_dial_once_more() -> None:
    hub = dialled()
    hub.accept()
    hub.link.dataReceived(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    fired = stopped(hub)
    hub.lose()
    assert (fired, hub.nothing_left(), len(hub.network.dials)) == ([None], True, 1)


def test_stop_closes_a_link_with_1000_after_what_waits() -> None:
    hub = dialled()
    hub.answer()
    stopped(hub)
    assert (hub.link.close_code, hub.owner.reasons) == (1000, ["closed with 1000: closing"])


def test_to_stop_twice_fires_twice() -> None:
    hub = dialled()
    hub.answer()
    first, second = stopped(hub), stopped(hub)
    hub.lose()
    assert first == second == [None]


def test_what_was_stopped_can_be_dialled_again_even_before_it_is_gone() -> None:
    hub = dialled()
    hub.answer()
    fired = stopped(hub)
    hub.dialler.dial()
    assert len(hub.network.dials) == 1
    hub.lose()
    assert (fired, len(hub.network.dials)) == ([None], 2)
    hub.answer()
    stopped(hub)
    hub.lose()
    hub.dialler.dial()
    hub.answer()
    assert hub.ups == 3


@pytest.mark.parametrize("when", ["up", "failed", "may_redial"])
def test_stop_from_within_a_callback(when: str) -> None:
    found: list[Dialled] = []

    def stop(*reason: str) -> bool:
        found[0].dialler.stop()
        return False

    hub = Dialled(**{when: stop})
    found.append(hub)
    hub.dialler.dial()
    if when == "up":
        hub.accept()
        hub.link.dataReceived(upgraded(hub.transport.value(), CES1))
        hub.lose()
        assert hub.owner.calls == []
    else:
        hub.refuse()
    assert (hub.dialler.state, hub.nothing_left()) == (STOPPED, True)


def test_as_a_service_it_dials_when_started_and_has_closed_when_stopped() -> None:
    hub = Dialled()
    service = DialService(hub.dialler)
    service.startService()
    hub.answer()
    fired: list[None] = []
    stopping: Deferred[None] = service.stopService()
    stopping.addCallback(fired.append)
    assert fired == []
    hub.lose()
    assert (fired, hub.nothing_left()) == ([None], True)
