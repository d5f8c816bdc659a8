"""When the access file changes: who is closed, who loses what waits, and who notices nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import Logger

from ces.access.file import load
from ces.access.table import Shown
from ces.link.link import Link
from ces.link.review import SLICE, Rights
from ces.link.serving import ServingFactory
from ces.link.turn import Memo
from ces.model.control import SubscriptionChange
from ces.ops.gate import Gate
from tests.support.access import AccessFile
from tests.support.hubs import Floor
from tests.support.links import UPGRADE, Alone, Lines, run


class House:
    """A hub with an access file, and connections of its principals."""

    def __init__(self, folder: Path) -> None:
        self.floor = Floor(MemoryReactorClock())
        self.hub = self.floor.hub
        self.file = AccessFile(folder / "access.toml")
        self.lines = Lines()
        self.gate: Gate | None = None

    def open(self) -> None:
        """Read the file, as at start."""
        self.gate = Gate(load(str(self.file.path)), self.hub.side.refuse)
        log = Logger(namespace="ces.test", observer=self.lines)
        self.rights = Rights(str(self.file.path), self.gate, self.hub.side, log)

    def come(self, name: str, *rooms: str, kind: str = "messenger") -> Alone:
        """A connection of a principal, which says hello and wants rooms."""
        assert self.gate is not None
        side: Any = self.hub.side
        connection: Any = ServingFactory(self.hub, side, kind, side.clock).buildProtocol(None)
        connection.login = self.gate.access.login(Shown(self.file.tokens[name]), 0)
        alone = Alone(self.hub, side.clock, connection, Lines())  # type: ignore[arg-type]
        alone.receive(UPGRADE % b"Sec-WebSocket-Protocol: ces.2\r\n")
        alone.written()
        alone.send_text({"hello": {"node": f"n-{name}-{kind}", "session": None, "received": 0}})
        alone.frames()
        if rooms:
            self.hub.told(alone.link, SubscriptionChange(list(rooms), True))
        return alone

    def rewrite(self, **principals: tuple[list[str], list[str], list[str]]) -> None:
        """Another file: kinds, publish, subscribe of each principal, with the token that it had."""
        tokens = self.file.tokens
        self.file.text = ""
        for name, (kinds, publish, subscribe) in principals.items():
            self.file.add(name, kinds, publish, subscribe, token=tokens.get(name))
        self.rights.reload()
        for _ in range(3):
            self.floor.clock.advance(0)

    def send(self, *rooms: str) -> None:
        """A record for each room is routed."""
        writer = self.floor.link("messenger")
        for room in rooms:
            self.floor.send(writer, room, "")


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(tmp_path)
    house.file.add("ann", ["messenger"], ["*"], ["*"]).add("bob", ["messenger", "repeater"], ["*"], ["*"])
    house.open()
    return house


ALL = (["messenger", "repeater"], ["*"], ["*"])


def rooms_of(alone: Alone) -> list[bytes]:
    payloads = [payload for opcode, payload in alone.frames() if opcode == 2]
    return b"".join(payloads).split(b"\n")[:-1:2]


def test_who_is_gone_is_closed_and_gets_nothing_of_what_waits(house: House) -> None:
    ann, bob = house.come("ann", "*"), house.come("bob", "*")
    link = ann.link
    for alone in (ann, bob):
        alone.link.put(run("ITB-1"))  # to be written at the end of a turn that does not end
    house.rewrite(bob=ALL)
    bob.link.flush(Memo())
    frames = ann.frames()
    assert [opcode for opcode, _ in frames] == [8]
    assert int.from_bytes(frames[0][1][:2], "big") == 4401
    assert rooms_of(bob) == [b"ITB-1"]
    assert bob.connection.code is None and bob.link.connected
    assert house.hub.side.refused["login"] == 1
    ann.lose()
    assert link.over and link.session.id not in house.hub.side.sessions
    assert house.hub.side.dropped == 1


def test_a_token_that_was_replaced_is_gone_though_its_principal_stays(house: House) -> None:
    ann = house.come("ann")
    house.file.tokens.pop("ann")
    house.rewrite(ann=ALL, bob=ALL)
    assert ann.closed_with() == (4401, "what it showed is not known any more")


def test_who_may_not_be_what_it_is_is_closed_with_4403(house: House) -> None:
    messenger, repeater = house.come("bob"), house.come("bob", kind="repeater")
    house.rewrite(ann=ALL, bob=(["repeater"], ["*"], ["*"]))
    assert messenger.closed_with() == (4403, "it may not be of kind messenger any more")
    assert repeater.connection.code is None


def test_what_a_repeater_that_is_closed_has_not_got_goes_to_another(house: House) -> None:
    first, second = house.come("bob", kind="repeater"), house.come("ann", kind="repeater")
    for repeater in (first, second):
        repeater.connection.pauseProducing()
    house.send("ITB-1", "ITB-2")
    assert first.link.queue.records == second.link.queue.records == 1
    house.rewrite(ann=ALL)
    first.lose()
    assert second.link.queue.records == 2


def test_a_session_that_is_held_is_dropped_with_its_principal(house: House) -> None:
    """CVE-2018-12546, CVE-2021-34434: replay, and subscriptions of before, do not outlive a right."""
    ann, bob = house.come("ann", "*"), house.come("bob", "*")
    links = ann.link, bob.link
    ann.lose()
    bob.lose()
    house.send("ITB-1")
    house.rewrite(bob=ALL)
    assert [link.over for link in links] == [True, False]
    assert house.hub.side.dropped == 1


def test_who_may_have_fewer_rooms_loses_them_and_what_waits_of_them(house: House) -> None:
    ann = house.come("ann", "ITB-1", "BNSN-1")
    every = house.come("bob", "*")
    for alone in (ann, every):
        alone.connection.pauseProducing()
    house.send("ITB-1", "BNSN-1")
    fewer = (["messenger"], ["ITB-*"], ["ITB-*"])
    house.rewrite(ann=fewer, bob=fewer)
    assert house.hub.side.dropped == 2
    for alone in (ann, every):
        alone.connection.resumeProducing()
        assert rooms_of(alone) == [b"ITB-1"]
        assert alone.connection.code is None
    house.send("BNSN-1", "ITB-1")
    assert rooms_of(ann) == rooms_of(every) == [b"ITB-1"]
    ann.send(2, b"BNSN-1\n{}\n")
    assert house.hub.side.refused["rights"] == 1


def test_what_was_in_flight_is_not_sent_again_to_who_may_not_have_it_any_more(house: House) -> None:
    ann = house.come("ann", "*")
    link = ann.link
    house.send("ITB-1", "BNSN-1")
    assert len(rooms_of(ann)) == 2
    ann.lose()
    house.send("BNSN-2", "ITB-2")
    house.rewrite(ann=(["messenger"], [], ["ITB-*"]), bob=ALL)
    house.floor.login = house.gate.access.login(Shown(house.file.tokens["ann"]), 0)  # type: ignore[union-attr]
    house.floor.resume(link, received=0)
    assert [record.split(b"\n")[0] for record in house.floor.sent(link)] == [b"ITB-1", b"ITB-2"]


def test_who_may_have_more_gets_it_from_then_on(house: House) -> None:
    house.rewrite(ann=(["messenger"], [], ["ITB-*"]), bob=ALL)
    ann = house.come("ann", "*")
    house.send("BNSN-1")
    house.rewrite(ann=ALL, bob=ALL)
    house.send("BNSN-2")
    assert rooms_of(ann) == [b"BNSN-2"]


def test_a_bad_file_changes_nothing_and_the_log_names_the_line(house: House) -> None:
    """CVE-2018-12551: neither does a file that is empty let anybody in, nor does it end the process."""
    ann = house.come("ann", "*")
    for text, said in (("", "nobody could get in"), ("[principals.ann]\nkind = 1", "access.toml, line 2: ")):
        house.file.path.write_text(text)
        house.lines.clear()
        house.rights.reload()
        (line,) = house.lines
        assert line.startswith("the rights stay as they were: ") and said in line
    house.send("ITB-1")
    assert rooms_of(ann) == [b"ITB-1"]


def test_many_are_looked_at_in_slices_and_a_later_file_counts(house: House) -> None:
    many = [house.come("ann") for _ in range(3)]
    links: list[Link] = []
    house.floor.login = many[0].connection.login
    for _ in range(SLICE + 10):
        link = house.floor.link("messenger", dialect="ces.2")
        house.floor.cut(link)
        links.append(link)
    house.rewrite(bob=ALL)
    assert all(link.over for link in links)
    assert [alone.connection.code for alone in many] == [4401] * 3
