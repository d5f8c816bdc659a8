"""Dialling and dialling again: when, where to, how often, and what is left when it stops."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from autobahn.twisted.websocket import connectWS
from twisted.internet import reactor as the_reactor

from ces.config.link import LinkSettings
from ces.model.wire import CES1, CES2
from ces.ops.descriptors import WHAT_TO_DO
from ces.session.life import GOING_AWAY
from ces.uplink.dialler import BACK_AFTER, DIALLING, STABLE, STOPPED, UP, WAITING, Dialler
from tests.support.descriptors import few_descriptors
from tests.support.links import Lines, Recorder, frame, make_side, make_uplink, record, run
from tests.support.network import ATTEMPT, Network, Wire
from tests.support.sites import Served, until

REFUSED = "HTTP/1.1 400 Bad Request"


class Dialled:
    """An uplink, and the other side played by the test.

    states: the dialler's, in order. failures: the reasons that were told.
    """

    def __init__(self, **more: Any) -> None:
        self.network = Network()
        self.owner = Recorder()
        self.lines = Lines()
        self.failures: list[str] = []
        self.states: list[str] = []
        self.ups = 0
        side = make_side(self.network, lines=self.lines)
        more = {"up": self.up, "failed": self.failures.append, "changed": self.states.append} | more
        self.uplink = make_uplink(self.owner, side, self.network, **more)
        self.wire: Wire

    @property
    def dialler(self) -> Dialler:
        return self.uplink.factory

    def up(self) -> None:
        self.ups += 1

    def accept(self) -> bytes:
        """The other side accepts the connection; what it is asked for."""
        self.wire = self.network.dial.connected()
        return self.wire.request

    def answer(self, dialect: str = CES1) -> None:
        """The other side accepts and upgrades."""
        self.accept()
        self.wire.answer(dialect)
        assert self.uplink.state == UP

    def refuse_upgrade(self, status: str = REFUSED) -> bytes:
        """The other side accepts and answers with an error page; what it was asked for."""
        request = self.accept()
        self.wire.connection.dataReceived(status.encode() + b"\r\n\r\n")
        self.network.advance(0)
        assert not self.wire.alive
        return request

    def refuse(self) -> None:
        """Nobody listens there."""
        self.network.dial.refuse()
        if self.uplink.state == DIALLING:
            self.network.advance(ATTEMPT)

    def wait(self) -> float:
        """Let time pass until the next dial; how long that took."""
        started = self.network.seconds()
        while not self.network.dials:
            assert self.network.seconds() < started + 100, "it does not dial again"
            self.network.advance(0.01)
        return self.network.seconds() - started

    def nothing_left(self) -> bool:
        return not self.network.dials and self.network.getDelayedCalls() == []


def dialled(**more: Any) -> Dialled:
    """An uplink that has begun to dial."""
    found = Dialled(**more)
    found.uplink.dial()
    return found


# -- when ----------------------------------------------------------------------------------------------------


def test_it_dials_at_once_and_is_up_when_the_connection_has_its_link() -> None:
    hub = dialled()
    assert (hub.network.dial.name, hub.network.dial.port, hub.network.dial.path) == (
        "hub",
        7100,
        "/connect/messenger",
    )
    hub.answer(CES2)
    assert (hub.states, hub.dialler.last, hub.ups) == ([DIALLING, UP], hub.wire.connection, 1)
    hub.wire.cut()
    assert (hub.uplink.state, hub.dialler.last) == (WAITING, hub.wire.connection)
    assert hub.failures == [hub.uplink.reason]
    assert hub.uplink.reason.startswith("the connection was cut")
    hub.wait()
    hub.answer(CES2)
    assert (hub.ups, hub.uplink.reason) == (2, "")
    assert hub.states == [DIALLING, UP, WAITING, DIALLING, UP]


def test_to_dial_while_dialling_or_up_is_to_dial_once() -> None:
    hub = dialled()
    hub.uplink.dial()
    hub.answer()
    hub.uplink.dial()
    assert hub.network.dials == []


def test_to_dial_while_waiting_dials_now_and_once() -> None:
    hub = dialled()
    hub.refuse()
    assert hub.uplink.state == WAITING
    hub.uplink.dial()
    hub.answer()
    hub.network.pass_time(30, 1)
    assert (hub.network.dials, hub.ups) == ([], 1)


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
        assert hub.network.seconds() <= 4.0 + 5.1 + ATTEMPT


def test_clients_of_a_hub_that_goes_away_come_back_spread_out() -> None:
    waits = []
    for _ in range(100):
        hub = dialled()
        hub.answer(CES2)
        hub.wire.close(GOING_AWAY.to_bytes(2, "big"))
        waits.append(hub.wait())
    least, most = BACK_AFTER
    assert least <= min(waits) < max(waits) <= most + 0.02
    assert max(waits) - min(waits) > 0.7 * (most - least)


def grown(hub: Dialled) -> Dialled:
    """After nine failures: the next delay would be 30 s."""
    for _ in range(9):
        hub.refuse()
        hub.wait()
    assert hub.dialler.delay == 30
    return hub


def test_a_connection_that_has_lasted_forgets_the_delay() -> None:
    hub = grown(dialled())
    hub.answer()
    hub.network.advance(STABLE - 0.1)
    assert hub.dialler.delay == 30
    hub.network.advance(0.11)
    assert hub.dialler.delay == 1


def test_the_first_record_forgets_the_delay() -> None:
    hub = grown(dialled())
    hub.answer()
    hub.wire.send(b"no\n")
    assert hub.dialler.delay == 30
    hub.wire.send(record("A"))
    assert hub.dialler.delay == 1
    hub.wire.cut()
    assert hub.wait() <= 1.6


@pytest.mark.parametrize("dialect", [CES1, CES2])
def test_a_server_that_accepts_and_then_closes_is_not_hammered(dialect: str) -> None:
    hub = dialled()
    for _ in range(9):
        hub.answer(dialect)
        hub.wire.close(b"\x0f\xa1")
        hub.wait()
    assert hub.dialler.delay == 30
    assert hub.failures == ["closed by the other side with 4001"] * 9


def test_a_server_that_accepts_and_never_answers_is_given_up_and_dialled_again() -> None:
    hub = dialled()
    hub.accept()
    hub.network.pump([1] * 9)
    assert hub.wire.alive
    hub.network.advance(1)
    assert not hub.wire.alive
    assert hub.failures == ["no answer to the handshake within 10 s"]
    hub.wait()
    hub.answer()


def test_a_connection_that_cannot_be_made_is_a_failure_with_its_reason() -> None:
    hub = dialled()
    hub.refuse()
    assert hub.failures == ["Connection was refused by other side: Connection refused"]
    assert (hub.uplink.state, hub.dialler.last) == (WAITING, None)


def test_an_address_that_does_not_answer_is_given_up_after_the_timeout() -> None:
    network = Network()
    uplink = make_uplink(Recorder(), make_side(network, LinkSettings(handshake_timeout=3)), network)
    uplink.dial()
    assert network.dial.timeout == 3


def test_the_owner_may_forbid_to_dial_again_and_dial_when_the_time_has_come() -> None:
    hub = dialled(may_dial=lambda: False)
    hub.refuse()
    assert (hub.uplink.state, hub.nothing_left(), len(hub.failures)) == (WAITING, True, 1)
    hub.uplink.dial()
    hub.answer()


def test_what_was_allowed_may_be_forbidden_until_the_delay_has_passed() -> None:
    allowed = True
    hub = dialled(may_dial=lambda: allowed)
    hub.refuse()
    allowed = False
    hub.network.pass_time(5)
    assert (hub.uplink.state, hub.nothing_left()) == (WAITING, True)


# -- where to ------------------------------------------------------------------------------------------------


def hosts(hub: Dialled) -> list[str]:
    """The addresses that are dialled now."""
    return [dial.host for dial in hub.network.dials]


def test_a_name_that_has_an_ipv6_address_alone_is_dialled_there() -> None:
    hub = Dialled()
    hub.network.names["hub"] = ["2001:db8::7"]
    hub.uplink.dial()
    assert hosts(hub) == ["2001:db8::7"]
    hub.answer()


def test_every_address_of_a_name_is_tried_until_one_answers() -> None:
    hub = Dialled()
    hub.network.names["hub"] = ["2001:db8::7", "10.0.0.7", "10.0.0.8"]
    hub.uplink.dial()
    tried = []
    for _ in range(2):
        tried += hosts(hub)
        hub.network.dial.refuse()
        hub.network.advance(ATTEMPT)
        assert (hub.uplink.state, hub.failures) == (DIALLING, [])
    tried += hosts(hub)
    assert tried == ["2001:db8::7", "10.0.0.7", "10.0.0.8"]
    hub.answer()
    assert hub.dialler.delay == hub.dialler.initialDelay
    hub.wire.cut()
    hub.wait()
    assert hosts(hub) == ["2001:db8::7"], "it begins with the first one again"


def test_an_address_that_is_slow_to_answer_holds_up_the_next_one_for_a_moment_only() -> None:
    hub = Dialled()
    hub.network.names["hub"] = ["2001:db8::7", "10.0.0.7"]
    hub.uplink.dial()
    hub.network.advance(ATTEMPT)
    assert hosts(hub) == ["2001:db8::7", "10.0.0.7"]
    hub.wire = hub.network.dials[1].connected()
    assert hosts(hub) == [], "the first one is given up"
    hub.wire.answer(CES2)
    assert (hub.uplink.state, hub.failures) == (UP, [])


def test_when_no_address_answers_that_is_one_failure() -> None:
    hub = Dialled()
    hub.network.names["hub"] = ["2001:db8::7", "10.0.0.7"]
    hub.uplink.dial()
    for _ in range(2):
        hub.network.dial.refuse()
        hub.network.advance(ATTEMPT)
    assert (len(hub.failures), hub.states) == (1, [DIALLING, WAITING])


def test_a_name_that_has_no_address_is_a_failure_with_its_reason() -> None:
    hub = Dialled()
    hub.network.names["hub"] = []
    hub.uplink.dial()
    assert (hub.uplink.state, hub.failures) == (
        WAITING,
        ["DNS lookup failed: no results for hostname lookup: hub"],
    )
    hub.network.names["hub"] = ["10.0.0.7"]
    hub.wait()
    hub.answer()


def test_a_lookup_that_is_never_answered_is_a_failure_after_a_while() -> None:
    hub = Dialled()
    hub.network.resolveHostName = lambda *asked, **more: None  # type: ignore[method-assign]
    hub.uplink.dial()
    hub.network.advance(19.9)
    assert hub.uplink.state == DIALLING
    hub.network.advance(0.2)
    assert hub.failures == ["DNS lookup failed: Couldn't find the hostname 'hub'"]
    del hub.network.resolveHostName
    hub.wait()
    hub.answer()


def test_a_dial_without_a_descriptor_says_so_in_one_sentence_and_is_made_again() -> None:
    hub = Dialled()
    with few_descriptors(3):
        hub.uplink.dial()
    assert hub.uplink.state == WAITING
    assert hub.failures == [f"no descriptor is left, the process may have 3. {WHAT_TO_DO}"]
    hub.wait()
    hub.answer()


def test_addresses_are_looked_up_anew_for_each_dial() -> None:
    hub = Dialled()
    hub.network.names["hub"] = ["10.0.0.7"]
    hub.uplink.dial()
    hub.refuse()
    hub.network.names["hub"] = ["10.0.0.8"]
    hub.wait()
    assert hosts(hub) == ["10.0.0.8"]


# -- servers that do not know the subprotocol ----------------------------------------------------------------


def test_a_server_that_refuses_the_subprotocol_is_dialled_once_more_without_it() -> None:
    hub = dialled()
    assert b"Sec-WebSocket-Protocol: ces.2" in hub.refuse_upgrade()
    assert (hub.failures, hub.states) == ([], [DIALLING])
    hub.network.advance(0)
    request = hub.accept()
    assert b"Sec-WebSocket-Protocol" not in request
    hub.wire.answer(CES1)
    assert (hub.uplink.state, hub.wire.connection.dialect) == (UP, CES1)
    hub.wire.cut()
    hub.wait()
    assert b"Sec-WebSocket-Protocol: ces.2" in hub.accept()


def test_a_server_that_refuses_both_is_a_failure_with_its_reason() -> None:
    hub = dialled()
    hub.refuse_upgrade()
    hub.network.advance(0)
    hub.refuse_upgrade()
    assert len(hub.failures) == 1
    assert "400" in hub.failures[0]
    hub.wait()
    assert b"Sec-WebSocket-Protocol: ces.2" in hub.accept()


@pytest.mark.parametrize(
    "status", ["401 Unauthorized", "403 Forbidden", "429 Too Many Requests", "503 Service Unavailable"]
)
def test_an_answer_that_is_not_about_the_subprotocol_is_a_failure(status: str) -> None:
    hub = dialled()
    hub.refuse_upgrade(f"HTTP/1.1 {status}")
    assert (hub.uplink.state, len(hub.failures)) == (WAITING, 1)
    assert hub.wait() >= 0.5
    assert b"Sec-WebSocket-Protocol: ces.2" in hub.accept()


def test_a_server_that_has_spoken_ces_2_is_not_dialled_without_it() -> None:
    hub = dialled()
    hub.answer(CES2)
    hub.wire.cut()
    hub.wait()
    hub.refuse_upgrade()
    assert (hub.uplink.state, len(hub.failures)) == (WAITING, 2)
    hub.wait()
    assert b"Sec-WebSocket-Protocol: ces.2" in hub.accept()


@pytest.mark.parametrize("refuses", [True, False])
def test_a_server_has_spoken_ces_2_though_its_connection_got_no_link(refuses: bool) -> None:
    hub = dialled()
    if refuses:
        hub.owner.refusals["the-hub"] = "another link to it stays"
        hub.accept()
        hub.wire.answer(CES2)
    else:
        hub.accept()
        hub.wire.upgrade(CES2)
        hub.wire.cut()
    assert (hub.uplink.state, hub.ups) == (WAITING, 0)
    hub.wait()
    hub.refuse_upgrade()
    assert hub.uplink.state == WAITING
    hub.wait()
    assert b"Sec-WebSocket-Protocol: ces.2" in hub.accept()


# -- stopping, in every state --------------------------------------------------------------------------------


def stopped(hub: Dialled) -> list[None]:
    """Stop; the list fills when it has."""
    fired: list[None] = []
    hub.dialler.stop().addCallback(fired.append)
    return fired


def test_stop_before_it_was_ever_dialled() -> None:
    assert stopped(Dialled()) == [None]


@pytest.mark.parametrize("addresses", [["10.0.0.7"], ["2001:db8::7", "10.0.0.7"]])
def test_stop_while_connecting(addresses: list[str]) -> None:
    hub = Dialled()
    hub.network.names["hub"] = addresses
    hub.uplink.dial()
    hub.network.advance(ATTEMPT)
    assert stopped(hub) == [None]
    assert (hub.uplink.state, hub.nothing_left(), hub.failures) == (STOPPED, True, [])


@pytest.mark.parametrize("progress", ["accepted", "open", "up", "closing"])
def test_stop_with_a_connection(progress: str) -> None:
    hub = dialled()
    hub.accept()
    if progress == "open":
        hub.wire.upgrade()
    elif progress != "accepted":
        hub.wire.answer(CES1)
        assert hub.uplink.state == UP
    if progress == "closing":
        hub.wire.connection.dataReceived(frame(8, b"\x03\xe8", masked=False))
    hub.wire.closes = False
    fired = stopped(hub)
    if progress == "accepted":
        assert fired == [None], "there is nothing to close"
    else:
        assert fired == []
        hub.wire.cut()
    hub.network.advance(0)
    assert (fired, hub.uplink.state, hub.nothing_left(), hub.failures) == ([None], STOPPED, True, [])


def test_stop_while_waiting() -> None:
    hub = dialled()
    hub.refuse()
    assert stopped(hub) == [None]
    assert (hub.uplink.state, hub.nothing_left()) == (STOPPED, True)


def test_stop_after_a_refused_upgrade_does_not_dial_once_more() -> None:
    hub = dialled()
    hub.refuse_upgrade()
    fired = stopped(hub)
    assert (fired, hub.uplink.state, hub.nothing_left()) == ([None], STOPPED, True)
    hub.uplink.dial()
    assert b"Sec-WebSocket-Protocol: ces.2" in hub.accept(), "nothing of it is remembered"


def test_stop_closes_a_link_with_1000_after_what_waits() -> None:
    hub = dialled()
    hub.answer()
    assert hub.uplink.link is not None
    hub.uplink.link.put(one := run("A", "last"))
    hub.wire.written.clear()
    stopped(hub)
    assert hub.wire.written == [(2, one.records[0]), (8, b"\x03\xe8closing")]
    assert hub.uplink.link.ended == "closed with 1000: closing"


def test_to_stop_twice_fires_twice() -> None:
    hub = dialled()
    hub.answer()
    first, second = stopped(hub), stopped(hub)
    hub.network.advance(0)
    assert first == second == [None]


def test_what_was_stopped_can_be_dialled_again_even_before_it_is_gone() -> None:
    hub = dialled()
    hub.answer()
    fired = stopped(hub)
    hub.uplink.dial()
    assert (hub.network.dials, hub.uplink.state) == ([], UP)
    hub.network.advance(0)
    assert (fired, hub.uplink.state) == ([None], DIALLING)
    hub.answer()
    stopped(hub)
    hub.network.advance(0)
    hub.uplink.dial()
    hub.answer()
    assert hub.ups == 3


@pytest.mark.parametrize("when", ["up", "failed", "may_dial", DIALLING, UP, WAITING])
def test_stop_from_within_a_callback(when: str) -> None:
    found: list[Dialled] = []

    def stop(*reason: str) -> bool:
        found[0].dialler.stop()
        return True

    def changed(state: str) -> None:
        if state == when:
            stop()

    hub = Dialled(**({when: stop} if when in ("up", "failed", "may_dial") else {"changed": changed}))
    found.append(hub)
    hub.uplink.dial()
    if when in ("up", UP):
        hub.accept()
        hub.wire.answer(CES1)
        assert hub.ups == 0
    elif when != DIALLING:
        hub.refuse()
    assert (hub.uplink.state, hub.nothing_left()) == (STOPPED, True)


# -- in a Twisted application that dials by itself -----------------------------------------------------------


def handed(how: str, hub: Dialled) -> None:
    """Hand the factory to what applications dial with."""
    if how == "connectWS":
        connectWS(hub.uplink.factory)
    else:
        hub.network.connectTCP("hub", 7100, hub.uplink.factory)


in_applications = pytest.mark.parametrize("how", ["connectWS", "connectTCP"])


@in_applications
def test_a_factory_that_was_handed_to_a_reactor_connects_and_reconnects(how: str) -> None:
    hub = Dialled()
    handed(how, hub)
    connector = hub.network.dial
    hub.answer(CES2)
    hub.wire.cut()
    assert (hub.uplink.state, len(hub.failures)) == (WAITING, 1)
    hub.wait()
    hub.refuse()
    assert (hub.uplink.state, len(hub.failures)) == (WAITING, 2)
    hub.wait()
    assert (hub.network.dial, connector.count) == (connector, 3)
    hub.answer(CES2)
    assert (hub.ups, hub.states) == (2, [DIALLING, UP, WAITING, DIALLING, WAITING, DIALLING, UP])


@in_applications
def test_it_is_dialled_once_more_without_the_subprotocol(how: str) -> None:
    hub = Dialled()
    handed(how, hub)
    hub.refuse_upgrade()
    hub.network.settle()
    assert b"Sec-WebSocket-Protocol" not in hub.accept()
    hub.wire.answer(CES1)
    assert (hub.uplink.state, hub.failures) == (UP, [])


@in_applications
@pytest.mark.parametrize("progress", ["connecting", "accepted", "up", "waiting", "once more"])
def test_it_is_stopped_and_nothing_is_left(how: str, progress: str) -> None:
    hub = Dialled()
    handed(how, hub)
    if progress == "accepted":
        hub.accept()
    elif progress == "up":
        hub.answer(CES2)
    elif progress == "waiting":
        hub.refuse()
    elif progress == "once more":
        hub.refuse_upgrade()
    fired = stopped(hub)
    hub.network.settle()
    assert (fired, hub.uplink.state, hub.nothing_left()) == ([None], STOPPED, True)


@in_applications
def test_what_was_stopped_is_dialled_again_when_it_is_gone(how: str) -> None:
    hub = Dialled()
    handed(how, hub)
    hub.answer(CES2)
    fired = stopped(hub)
    hub.uplink.dial()
    hub.network.settle()
    assert (fired, hub.uplink.state) == ([None], DIALLING)
    hub.answer(CES2)
    assert hub.ups == 2


@in_applications
def test_whoever_is_told_of_the_end_may_dial_at_once(how: str) -> None:
    hub = Dialled(failed=lambda reason: hub.uplink.dial())
    handed(how, hub)
    hub.answer(CES2)
    hub.wire.cut()
    hub.network.advance(0)
    hub.answer(CES2)
    assert hub.ups == 2


# -- what Twisted says of its reconnecting factories ---------------------------------------------------------


@pytest.mark.parametrize("how", ["dial", "connectWS", "connectTCP"])
@pytest.mark.parametrize("progress", ["connecting", "up", "waiting", "once more"])
def test_stop_trying_puts_a_stop_to_reconnecting_and_leaves_a_connection_alone(
    how: str, progress: str
) -> None:
    hub = dialled() if how == "dial" else Dialled()
    if how != "dial":
        handed(how, hub)
    if progress == "up":
        hub.answer(CES2)
    elif progress == "waiting":
        hub.refuse()
    elif progress == "once more":
        hub.refuse_upgrade()
    failures = len(hub.failures)
    hub.dialler.stopTrying()
    hub.dialler.resetDelay()
    if progress == "up":
        hub.network.pass_time(30, 1)
        assert hub.uplink.connected
        hub.wire.cut()
    hub.network.pass_time(60, 1)
    assert (hub.uplink.state, hub.nothing_left(), len(hub.failures)) == (STOPPED, True, failures)
    hub.uplink.dial()
    hub.network.settle()
    hub.answer(CES2)
    assert hub.uplink.connected


def test_to_ask_a_connector_once_more_after_stop_trying_is_to_dial_once() -> None:
    hub = Dialled()
    handed("connectTCP", hub)
    connector = hub.network.dial
    hub.answer(CES2)
    hub.dialler.stopTrying()
    hub.wire.cut()
    connector.connect()
    hub.refuse()
    hub.network.pass_time(60, 1)
    assert (hub.uplink.state, hub.nothing_left()) == (STOPPED, True)


def test_reset_delay_forgets_the_delay_and_dials_nothing() -> None:
    hub = grown(dialled())
    hub.answer()
    hub.dialler.resetDelay()
    assert (hub.dialler.delay, hub.dialler.retries) == (hub.dialler.initialDelay, 0)
    hub.network.advance(STABLE)
    hub.wire.cut()
    assert hub.wait() <= 1.6
    idle = Dialled()
    idle.dialler.resetDelay()
    assert (idle.uplink.state, idle.nothing_left()) == (STOPPED, True)


@in_applications
@pytest_twisted.ensureDeferred
async def test_on_a_real_reactor_it_connects_reconnects_and_stops(how: str) -> None:
    reactor: Any = the_reactor
    served = Served(reactor)
    uplink = served.uplink()
    uplink.factory.initialDelay = uplink.factory.delay = 0.01
    if how == "connectWS":
        connectWS(uplink.factory)
    else:
        reactor.connectTCP("127.0.0.1", served.number, uplink.factory)
    for attached in range(3):
        await until(lambda: uplink.connected)
        assert uplink.link is not None and uplink.link.connection is not None
        assert served.caller.fresh == [False] * attached, "the session goes on"
        uplink.link.put(run("A", str(attached)))
        uplink.flush()
        await until(lambda attached=attached: len(served.owner.records) == attached + 1)
        uplink.link.connection.abort()
        await until(lambda: not uplink.connected)
    await until(lambda: uplink.connected)
    stopping = uplink.factory.stop()
    uplink.dial()
    await stopping
    await until(lambda: uplink.connected)
    assert served.owner.records == [record("A", str(number)) for number in range(3)]
    await served.close()
