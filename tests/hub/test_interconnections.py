"""Interconnections in memory: which one dials, which is covered, and what GET /interconnect says."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from ces.hub.hub import Hub
from ces.hub.interconnect import (
    ADDRESS,
    COVERED,
    CUT,
    NODE,
    Ambiguous,
    Interconnections,
    IsItself,
    TooMany,
    Unreachable,
    hub_address,
)
from ces.hub.settings import HubSettings
from ces.link.link import Link, Refused
from ces.link.serving import ServingFactory
from ces.model.address import Address, AddressError
from ces.model.routing import HUB
from ces.model.wire import CES2
from ces.session.life import GOING_AWAY, REPLACED
from ces.uplink.dialler import DIALLING, STOPPED, UP, WAITING
from tests.support.hubs import Floor
from tests.support.links import run
from tests.support.network import Meeting, Network

STATES = {UP, DIALLING, WAITING, STOPPED, COVERED, CUT, "itself"}


class Mesh:
    """The hub "mm" on a network, with its interconnections, and another hub that may be dialled and may dial.

    :param other: the node of the other hub.
    """

    def __init__(self, other: str = "other") -> None:
        self.network = Network()
        self.floor = Floor(self.network, silence_timeout=1e6, dial_silence_timeout=1e6)
        self.hub = self.floor.hub
        self.here = Interconnections(self.hub, self.network)
        settings = HubSettings(silence_timeout=1e6, dial_silence_timeout=1e6)
        self.other = Hub(other, settings, self.network)
        self.there = Interconnections(self.other, self.network)

    def answer(self) -> Meeting:
        """The hub that was dialled answers the one dial that waits: the other one, or this one."""
        dial = self.network.dial
        hub = self.hub if dial.name == "mm" else self.other
        return dial.meet(ServingFactory(hub, hub.side, HUB, self.network))

    def dials(self) -> list[str]:
        """Which hubs are being dialled."""
        return [dial.name for dial in self.network.dials]

    def state(self, side: Interconnections | None = None) -> str:
        """The state of the one interconnection that was made from here (or from `side`)."""
        (state,) = [one["state"] for one in (side or self.here).status() if one["direction"] == "out"]
        return str(state)

    def watch(self, meeting: Meeting, until: int = 100) -> set[str]:
        """Move the bytes of a connection one step at a time; the states that were shown."""
        seen = set()
        for _ in range(until):
            seen |= {self.state(), self.check()}
            self.network.advance(0)
            if meeting not in self.network.meetings or not meeting.move():
                break
        return seen

    def check(self) -> str:
        """What is shown is true: nothing is up without a connection."""
        for hub, side in ((self.hub, self.here), (self.other, self.there)):
            links = hub.routes.links(HUB)
            for one in side.status():
                assert one["state"] in STATES
                if one["state"] in (UP, COVERED):
                    assert [link for link in links if link.connected and link.node == one["node"]], one
                if one["state"] == CUT:
                    assert [link for link in links if not link.connected and link.node == one["node"]], one
        return self.state()


def address(name: str = "other") -> Address:
    return hub_address(name)


def result(deferred: Deferred[Any]) -> list[Any]:
    """A list that holds what a Deferred fires with, once it has."""
    found: list[Any] = []
    deferred.addBoth(found.append)
    return found


def connect(mesh: Mesh, name: str = "other") -> list[Any]:
    return result(Deferred.fromCoroutine(mesh.here.connect(address(name))))


def test_an_interconnection_that_is_asked_for_is_there_when_it_is_up() -> None:
    mesh = Mesh()
    found = connect(mesh)
    assert (found, mesh.state()) == ([], DIALLING)
    mesh.answer()
    assert (found, mesh.state()) == ([None], UP)
    assert [link.node for link in mesh.hub.routes.links(HUB)] == ["other"]
    assert connect(mesh) == [None], "it is up already"


def test_a_dial_that_fails_is_said_and_nothing_is_kept() -> None:
    mesh = Mesh()
    found = connect(mesh)
    mesh.network.dial.refuse()
    mesh.network.pass_time(1)
    assert [type(failure.value) for failure in found] == [Unreachable]
    assert mesh.here.status() == []
    mesh.network.pass_time(60)
    assert mesh.dials() == []


def test_one_that_is_to_be_kept_is_dialled_again_and_again() -> None:
    mesh = Mesh()
    mesh.here.keep(address())
    for _ in range(3):
        mesh.network.redial().refuse()
        mesh.network.pass_time(0.5)
        assert mesh.check() in (WAITING, DIALLING)
    mesh.network.redial()
    mesh.answer()
    assert mesh.check() == UP


def test_this_hub_itself_is_not_dialled_again() -> None:
    mesh = Mesh()
    found = connect(mesh, "mm")
    mesh.answer()
    assert [type(failure.value) for failure in found] == [IsItself]
    assert mesh.here.status() == mesh.hub.routes.links(HUB) == []
    mesh.here.keep(address("mm"))
    mesh.answer()
    assert mesh.state() == "itself"
    mesh.network.pass_time(60)
    assert mesh.dials() == []


def test_it_is_covered_when_the_other_hub_has_dialled_and_answers_those_who_wait() -> None:
    mesh = Mesh("aa")
    mesh.there.keep(address("mm"))
    mesh.answer()
    found = connect(mesh)
    mesh.answer()
    assert (found, mesh.check()) == ([None], COVERED)
    mesh.network.pass_time(60)
    assert mesh.dials() == []
    assert len(mesh.hub.routes.links(HUB)) == len(mesh.other.routes.links(HUB)) == 1


@pytest.mark.parametrize("ends", ["cut", "closed", "ended for good"])
def test_a_covered_interconnection_dials_as_soon_as_the_covering_connection_is_gone(ends: str) -> None:
    mesh = Mesh("aa")
    covering = mesh.floor.link("hub", dialect=CES2, node="aa")
    mesh.here.keep(address())
    mesh.answer()
    assert (mesh.state(), mesh.dials()) == (COVERED, [])
    if ends == "cut":
        mesh.floor.cut(covering)
    elif ends == "closed":
        mesh.floor.close(covering, GOING_AWAY)
    else:
        mesh.floor.close(covering)
    assert mesh.dials() == ["other"]
    mesh.answer()
    assert (mesh.check(), len(mesh.hub.routes.links(HUB))) == (UP, 1)


def test_it_is_covered_when_its_connection_is_replaced_and_takes_over_when_that_one_is_gone() -> None:
    mesh = Mesh("aa")
    mesh.here.keep(address())
    mine = mesh.answer()
    (link,) = mesh.hub.routes.links(HUB)
    mesh.there.keep(address("mm"))
    covering = mesh.answer()
    assert mine.dialled.code == REPLACED
    assert (mesh.check(), mesh.state(mesh.there), mesh.dials()) == (COVERED, UP, [])
    covering.cut()
    assert "other" in mesh.dials()
    assert mesh.state() == DIALLING
    dial = next(dial for dial in mesh.network.dials if dial.name == "other")
    dial.meet(ServingFactory(mesh.other, mesh.other.side, HUB, mesh.network))
    assert mesh.check() == UP
    assert mesh.hub.routes.links(HUB) == [link]


def replacing(mesh: Mesh) -> Meeting:
    """The other hub is dialled under three names, of which the last is about to take over the link."""
    for name in ("other", "other.b"):
        mesh.here.keep(address(name))
        mesh.answer()
    (link,) = mesh.hub.routes.links(HUB)
    mesh.here.keep(address("other.c"))
    meeting = mesh.network.dial.meet(
        ServingFactory(mesh.other, mesh.other.side, HUB, mesh.network), settle=False
    )
    while link.connected:
        assert meeting.move()
        mesh.network.advance(0)
    return meeting


def test_while_a_connection_takes_the_place_of_another_one_none_else_dials() -> None:
    mesh = Mesh()
    meeting = replacing(mesh)
    assert mesh.dials() == []
    mesh.network.settle()
    assert (meeting.link.connected, meeting.link.connection) == (True, meeting.dialled)
    assert [one["state"] for one in mesh.here.status()] == [COVERED, COVERED, UP]
    mesh.network.pass_time(60)
    assert mesh.dials() == []


def test_when_a_replacing_connection_ends_too_early_a_covered_one_dials_at_once() -> None:
    mesh = Mesh()
    meeting = replacing(mesh)
    mesh.network.advance(0)
    meeting.lose()
    assert mesh.dials() == ["other"]
    mesh.answer()
    (link,) = mesh.hub.routes.links(HUB)
    assert link.connected
    mesh.network.pass_time(60)
    assert mesh.dials() == []


def test_while_a_connection_is_replaced_no_other_hub_with_that_node_gets_the_link() -> None:
    mesh = Mesh()
    meeting = replacing(mesh)
    (link,) = mesh.hub.routes.links(HUB)
    while link.connection is not None:
        for other in mesh.network.meetings[:]:
            if other is not meeting:
                other.move()
        mesh.network.advance(0)
    with pytest.raises(Refused):
        mesh.hub.admit(HUB, "other", "another", serving=True)
    mesh.network.settle()
    assert mesh.hub.routes.links(HUB) == [link]
    assert link.connected


def at_once(mesh: Mesh) -> tuple[Meeting, Meeting]:
    """The other hub is being dialled under two names; both connections wait for the answer to their hello."""
    factory = ServingFactory(mesh.other, mesh.other.side, HUB, mesh.network)
    found = []
    for name in ("other", "other.b"):
        mesh.here.keep(address(name))
    for dial in mesh.network.dials[:]:
        meeting = dial.meet(factory, settle=False)
        for served in (True, False):  # handshake, answer
            meeting.deliver(served)
        found.append(meeting)
    return found[0], found[1]


def send(mesh: Mesh) -> None:
    """The other hub sends an event to this one."""
    (link,) = mesh.other.routes.links(HUB)
    link.put(run("A", "1"))
    mesh.other.side.turn.add(link)
    mesh.network.advance(0)


@pytest.mark.parametrize("late", [False, True])
def test_of_two_sessions_that_begin_at_once_the_one_that_was_disowned_is_not_begun(late: bool) -> None:
    mesh = Mesh()
    first, second = at_once(mesh)
    first.deliver(served=True)
    send(mesh)  # on the first connection, on which the answer is still under way
    for served in (True, False, True):  # hello, offer, hello without the session
        second.deliver(served)
    if late:
        second.deliver(served=False)
    first.deliver(served=False)
    mesh.network.pass_time(5)
    assert (mesh.hub.received_records[HUB], len(mesh.hub.routes.links(HUB))) == (1, 1)
    assert mesh.other.routes.links(HUB)[0].queue.unacknowledged == 0
    assert mesh.dials() == ([] if late else ["other"])
    if not late:
        mesh.answer()
    assert sorted(one["state"] for one in mesh.here.status()) == [COVERED, UP]
    assert mesh.hub.received_records[HUB] == 1


def test_a_session_that_began_while_another_one_was_offered_is_offered_too() -> None:
    mesh = Mesh()
    mesh.here.keep(address("old"))
    old = mesh.answer()
    assert old.dialled.link is not None
    old.dialled.link.break_session()
    old.lose()
    first, second = at_once(mesh)
    for served in (True, False):  # hello, offer of the session that only the other hub remembers
        first.deliver(served), second.deliver(served)
    first.deliver(served=True)
    send(mesh)
    second.deliver(served=True)
    mesh.network.pass_time(5)
    assert mesh.hub.received_records[HUB] == 1
    assert mesh.other.routes.links(HUB)[0].queue.unacknowledged == 0


def test_an_interconnection_that_is_ended_dials_no_more_though_the_covering_connection_goes() -> None:
    mesh = Mesh("aa")
    covering = mesh.floor.link("hub", dialect=CES2, node="aa")
    mesh.here.keep(address())
    mesh.answer()
    assert end(mesh, "other") == [[{"address": "ws://other:7100", "direction": "out", "node": "aa"}]]
    assert covering.connected, "it belongs to the other hub"
    mesh.floor.cut(covering)
    mesh.network.pass_time(60)
    assert mesh.dials() == []


def end(mesh: Mesh, name: str, kind: str = "") -> list[Any]:
    ended = result(Deferred.fromCoroutine(mesh.here.end(name, kind)))
    mesh.network.settle()
    return ended


def both(mesh: Mesh, node: str) -> tuple[Link, dict[str, str], dict[str, str]]:
    """Dial "other", which is not there, and be dialled by `node`: the link, and how both are shown."""
    mesh.here.keep(address())
    link = mesh.floor.link("hub", dialect=CES2, node=node)
    dialled = {"address": "ws://other:7100", "direction": "out", "node": ""}
    return link, dialled, {"address": link.peer, "direction": "in", "node": node}


@pytest.mark.parametrize("kind", ["", ADDRESS])
def test_an_address_ends_the_link_that_was_dialled_there(kind: str) -> None:
    mesh = Mesh()
    link, dialled, _ = both(mesh, "another")
    assert end(mesh, "ws://other:7100/connect/hub", kind) == [[dialled]]
    assert [one["direction"] for one in mesh.here.status()] == ["in"]
    assert link.connected


@pytest.mark.parametrize("kind", ["", ADDRESS])
def test_an_address_that_a_hub_dialled_from_ends_its_link(kind: str) -> None:
    mesh = Mesh()
    link, _, served = both(mesh, "another")
    assert end(mesh, link.peer, kind) == [[served]]
    assert [one["direction"] for one in mesh.here.status()] == ["out"]


@pytest.mark.parametrize("kind", ["", NODE])
def test_a_node_ends_every_link_to_that_hub_whoever_dialled(kind: str) -> None:
    mesh = Mesh("aa")
    covering = mesh.floor.link("hub", dialect=CES2, node="aa")
    mesh.here.keep(address())
    mesh.answer()
    assert mesh.state() == COVERED
    (ended,) = end(mesh, "aa", kind)
    assert [(one["direction"], one["node"]) for one in ended] == [("out", "aa"), ("in", "aa")]
    assert not covering.connected
    assert mesh.here.status() == []
    mesh.network.pass_time(60)
    assert mesh.dials() == []


def test_a_name_that_is_the_address_of_one_hub_and_the_node_of_another_ends_neither() -> None:
    mesh = Mesh()
    link, dialled, served = both(mesh, "other")
    (failure,) = end(mesh, "other")
    assert failure.check(Ambiguous)
    assert link.connected and len(mesh.here.status()) == 2
    assert end(mesh, "other", ADDRESS) == [[dialled]]
    assert link.connected
    assert end(mesh, "other", NODE) == [[served]]
    assert mesh.here.status() == []


def test_a_name_that_is_address_and_node_of_one_link_ends_it() -> None:
    mesh = Mesh()
    mesh.here.keep(address())
    mesh.answer()
    assert end(mesh, "other") == [[{"address": "ws://other:7100", "direction": "out", "node": "other"}]]


@pytest.mark.parametrize(
    ("name", "kind"), [("nobody", ""), ("another", ADDRESS), ("other", NODE), ("::", NODE)]
)
def test_what_is_not_there_is_not_ended(name: str, kind: str) -> None:
    mesh = Mesh()
    link, _, _ = both(mesh, "another")
    assert end(mesh, name, kind) == [[]]
    assert link.connected and len(mesh.here.status()) == 2


@pytest.mark.parametrize("kind", ["", ADDRESS])
def test_what_is_no_address_is_no_address(kind: str) -> None:
    (failure,) = end(Mesh(), "ftp://x", kind)
    assert failure.check(AddressError)


def test_a_node_that_is_no_address_ends_its_link_all_the_same() -> None:
    mesh = Mesh()
    _, _, served = both(mesh, "room hub 1")
    assert end(mesh, "room hub 1") == [[served]]


@pytest.mark.parametrize("code", [1000, 4001, 4400, 4408, 4409, None])
@pytest.mark.parametrize("serving", [True, False])
def test_none_is_up_without_a_connection_whatever_ends_it(code: int | None, serving: bool) -> None:
    mesh = Mesh()
    mesh.here.keep(address())
    meeting = mesh.answer()
    assert mesh.check() == UP
    end = meeting.served if serving else meeting.dialled
    if code is None:
        meeting.pump.clientIO.disconnecting = meeting.pump.serverIO.disconnecting = True
    else:
        end.end(code, "test")
        assert UP not in mesh.watch(meeting) or serving
    mesh.network.settle()
    assert mesh.check() in (WAITING, DIALLING)
    mesh.network.redial()
    assert mesh.check() == DIALLING
    mesh.answer()
    assert mesh.check() == UP


@pytest.mark.parametrize("other", ["aa", "zz"])
@pytest.mark.parametrize("steps", range(12))
def test_none_is_up_without_a_connection_while_both_dial_at_once(other: str, steps: int) -> None:
    mesh = Mesh(other)
    mesh.here.keep(address())
    mesh.there.keep(address("mm"))
    mine, yours = sorted(mesh.network.dials, key=lambda dial: dial.name != "other")
    one, two = (
        Meeting(dial, ServingFactory(hub, hub.side, HUB, mesh.network), settle=False)
        for dial, hub in ((mine, mesh.other), (yours, mesh.hub))
    )
    for number in range(60):
        mesh.check()
        meeting = one if number < steps or number % 3 == 0 else two
        if meeting in mesh.network.meetings:
            meeting.move()
        mesh.network.advance(0)
    mesh.network.settle()
    mesh.check()
    mesh.network.pass_time(30)
    assert {mesh.state(), mesh.state(mesh.there)} == {UP, COVERED}
    assert (mesh.state() == UP) == (other == "zz"), "the connection that the smaller node dialled stays"
    assert len(mesh.hub.routes.links(HUB)) == len(mesh.other.routes.links(HUB)) == 1
    assert mesh.dials() == []


def test_so_many_are_kept_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ces.hub.interconnect.INTERCONNECTIONS", 2)
    mesh = Mesh()
    for name in ("one", "two", "two"):
        mesh.here.keep(address(name))
    with pytest.raises(TooMany):
        mesh.here.keep(address("three"))
    assert mesh.hub.side.refused["interconnections"] == 1


def test_when_the_hub_stops_all_are_ended() -> None:
    mesh = Mesh()
    mesh.here.keep(address())
    mesh.here.keep(address("nobody"))
    next(dial for dial in mesh.network.dials if dial.name == "other").meet(
        ServingFactory(mesh.other, mesh.other.side, HUB, mesh.network)
    )
    stopped = result(mesh.here.stop())
    mesh.network.settle()
    assert (len(stopped), mesh.dials(), mesh.hub.routes.links(HUB)) == (1, [], [])
    mesh.network.pass_time(60)
    assert mesh.dials() == []
