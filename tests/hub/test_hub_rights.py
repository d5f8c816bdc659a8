"""What a hub lets through for links that may not have every room, and may not send to every room."""

from __future__ import annotations

from ces.link.link import Link
from ces.model.control import Error, SubscriptionChange
from ces.model.wire import CES1, CES2
from tests.support.access import login
from tests.support.hubs import Floor
from tests.support.links import record, run


class Rights(Floor):
    """A hub whose links are of principals."""

    def link_of(
        self,
        kind: str,
        publish: list[str],
        subscribe: list[str],
        *rooms: str,
        dialect: str = CES2,
        node: str = "",
    ) -> Link:
        """A link of a principal with these rooms, which wants `rooms`."""
        self.login = login("p", publish, subscribe)
        link = self.link(kind, dialect=dialect, node=node)
        self.login = None
        if rooms:
            self.hub.told(link, SubscriptionChange(list(rooms), True))
        return link

    def come(self, link: Link, *rooms: str) -> None:
        """One record for each room comes on a link, and the turn ends."""
        link.take(self.plugs[link], [record(room) for room in rooms], 1)
        self.clock.advance(0)

    def rooms_of(self, link: Link) -> list[str]:
        """The rooms of what was written to a link."""
        return [one.split(b"\n")[0].decode() for one in self.sent(link)]

    def errors(self, link: Link) -> list[tuple[int, str]]:
        return [(said.code, said.reason) for said in self.told(link) if isinstance(said, Error)]

    @property
    def denied(self) -> int:
        return self.hub.side.refused["rights"]


def test_a_room_that_may_not_be_had_is_not_subscribed_to_and_the_peer_learns_nothing_of_it() -> None:
    floor = Rights()
    link = floor.link_of("messenger", [], ["ITB-*"], "ITB-1108", "BNSN-1", "BNSN-2")
    writer = floor.link("messenger")
    for room in ("ITB-1108", "BNSN-1", "ITB-1109"):
        floor.send(writer, room, "")
    assert floor.rooms_of(link) == ["ITB-1108"]
    assert floor.errors(link) == [(4403, "2 of the rooms may not be subscribed to")]
    assert floor.denied == 2
    assert "BNSN" not in "".join(floor.lines)


def test_every_room_is_every_room_that_may_be_had() -> None:
    floor = Rights()
    link = floor.link_of("messenger", [], ["ITB-*", "BNSN-1"], "*")
    writer = floor.link("messenger")
    for room in ("ITB-1108", "BNSN-1", "BNSN-2", "", "ITB-"):
        floor.send(writer, room, "")
    assert floor.rooms_of(link) == ["ITB-1108", "BNSN-1", "ITB-"]
    assert (floor.errors(link), floor.denied) == ([], 0)
    floor.hub.told(link, SubscriptionChange(["*"], False))
    floor.send(writer, "ITB-1108", "")
    assert len(floor.sent(link)) == 3


def test_who_may_have_no_room_cannot_have_every_room() -> None:
    floor = Rights()
    link = floor.link_of("messenger", ["*"], [], "*")
    floor.send(floor.link("messenger"), "ITB-1108", "")
    assert floor.sent(link) == []
    assert len(floor.errors(link)) == 1


def test_records_for_other_rooms_go_nowhere_and_are_acknowledged() -> None:
    floor = Rights()
    link = floor.link_of("messenger", ["ITB-*"], [])
    reader = floor.link("messenger", "*")
    floor.come(link, "ITB-1", "BNSN-1", "BNSN-1", "ITB-2")
    assert floor.rooms_of(reader) == ["ITB-1", "ITB-2"]
    assert floor.errors(link) == [(4403, "2 records were for rooms that may not be sent to")]
    assert (floor.denied, link.records_in, link.session.received) == (2, 2, 4)
    assert "BNSN" not in "".join(floor.lines)


def test_a_peer_of_ces1_is_told_nothing() -> None:
    floor = Rights()
    link = floor.link_of("messenger", [], [], "ITB-1", dialect=CES1)
    floor.come(link, "ITB-1")
    assert (floor.told(link), floor.denied) == ([], 2)


def test_another_hub_sends_gets_and_announces_within_its_rights() -> None:
    floor = Rights()
    here, writer = floor.link("messenger", "*"), floor.link("messenger")
    hub = floor.link_of("hub", ["BNSN-*"], ["ITB-*"], "ITB-1", "BNSN-1", node="zz")
    floor.come(hub, "ITB-1", "BNSN-1")
    assert floor.rooms_of(here) == ["BNSN-1"]
    for room in ("ITB-1", "BNSN-1"):
        floor.send(writer, room, "")
    assert floor.rooms_of(hub) == ["ITB-1"]


def test_a_hub_of_the_fleet_which_gets_every_room_gets_those_that_it_may_have() -> None:
    floor = Rights()
    hub = floor.link_of("hub", [], ["ITB-*"], dialect=CES1)
    writer = floor.link("messenger")
    for room in ("ITB-1", "BNSN-1"):
        floor.send(writer, room, "")
    assert floor.rooms_of(hub) == ["ITB-1"]


def test_a_repeater_gets_what_it_may_have_and_the_rest_waits_for_another() -> None:
    floor = Rights()
    writer = floor.link("messenger")
    limited = floor.link_of("repeater", [], ["ITB-*"], node="r1")
    for room in ("ITB-1", "BNSN-1"):
        floor.send(writer, room, "")
    assert floor.rooms_of(limited) == ["ITB-1"]
    expires = floor.hub.held.expires()
    floor.clock.advance(1)
    floor.link_of("repeater", [], ["ITB-*"], node="r2")
    floor.clock.advance(0)
    assert (floor.hub.held.records, floor.hub.held.expires()) == (1, expires)
    floor.login = None
    other = floor.link("repeater", dialect=CES2, node="r3")
    floor.clock.advance(0)
    assert floor.rooms_of(other) == ["BNSN-1"]


def test_what_was_routed_as_one_is_taken_apart_for_a_repeater_that_may_not_have_all_of_it() -> None:
    floor = Rights()
    writer = floor.link("messenger")
    rooms = ["ITB-1", "BNSN-1", "ITB-2", "ITB-2"]

    def send() -> None:
        floor.hub.received(writer, [run(room) for room in rooms])  # all go to the same links
        floor.clock.advance(0)

    send()
    limited = floor.link_of("repeater", [], ["ITB-*"], node="r1")
    floor.clock.advance(0)
    assert floor.rooms_of(limited) == ["ITB-1", "ITB-2", "ITB-2"]
    send()
    assert floor.rooms_of(limited) == ["ITB-1", "ITB-2", "ITB-2"] * 2
    other = floor.link("repeater", dialect=CES2, node="r2")
    floor.clock.advance(0)
    assert floor.rooms_of(other) == ["BNSN-1", "BNSN-1"]


def test_who_may_all_is_asked_nothing() -> None:
    floor = Rights()
    link = floor.link_of("messenger", ["*"], ["*"], "*")
    floor.come(link, "ITB-1", "")
    floor.send(floor.link("messenger"), "ITB-1", "")
    assert (floor.denied, floor.rooms_of(link)) == (0, ["ITB-1"])
    assert floor.hub.routes.limit(link) is None


def test_a_link_that_two_hubs_share_has_the_rights_of_whoever_dialled_last() -> None:
    floor = Rights()
    hub = floor.link("hub", "ITB-1", "BNSN-1", dialect=CES2, node="zz", serving=False)
    writer = floor.link("messenger")
    floor.cut(hub)
    floor.login = login("zz", [], ["ITB-*"])
    floor.resume(hub)
    for room in ("ITB-1", "BNSN-1"):
        floor.hub.received(writer, [run(room)])
    floor.clock.advance(0)
    assert floor.rooms_of(hub) == ["ITB-1"]


def test_rooms_that_were_remembered_for_a_link_are_not_granted_when_it_may_not_have_them_any_more() -> None:
    floor = Rights(subscription_limit=1000)
    link = floor.link_of("messenger", [], ["*"])
    rooms = [f"BNSN-{number}" for number in range(1200)]
    floor.hub.told(link, SubscriptionChange([*rooms, "ITB-1"], True))
    assert floor.hub.subscriptions.waiting
    link.authorize(login("p", [], ["ITB-*"]))
    floor.clock.advance(1)
    assert set(floor.hub.routes.rooms(link)) <= {b"ITB-1"}
    assert floor.hub.subscriptions.waiting <= 1
