"""Very many rooms, and rooms that come and go: hubs stay linked, and events flow on.

What a hub is told of rooms must never cost its link, however many they are and however slowly it reads.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet import PATIENCE, Peer, Role, event, free_port, until
from tests.support.flow import Flow, running
from tests.support.process import unexpected
from tests.support.raw import RawLink

SMALL = ("--message-limit", "64KiB", "--link-buffer", "256KiB")
"""Limits far below what the many rooms of a test take."""

ROOM_BYTES = 250
MESSENGER = """
import sys
from twisted.internet import reactor
from ces.config.link import LinkSettings
from ces.messenger import Messenger

rooms = [f"{number:05}" + "x" * 245 for number in range(int(sys.argv[2]))]
settings = LinkSettings(message_limit=65536, link_buffer=262144)
messenger = Messenger(sys.argv[1], rooms=rooms, reactor=reactor, settings=settings)
messenger.on_record(lambda event, room: print(room.decode()[:5], flush=True))
messenger.connect()
reactor.run()
"""


def rooms(count: int) -> list[str]:
    return [f"{number:05}" + "x" * (ROOM_BYTES - 5) for number in range(count)]


def subscribe(peer: Peer, names: list[str], create: bool = True) -> None:
    for start in range(0, len(names), 200):
        peer.subscribe(*names[start : start + 200], create=create)


@pytest.fixture
def hubs(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Role, Role]]:
    """Hub A, and hub B, which has not dialled yet; with `SMALL` limits, or others that the test names."""
    limits = getattr(request, "param", SMALL)
    roles = [Role(tmp_path, "ces-hub", free_port(), *limits, "--hold-time=0", name=name) for name in "ab"]
    with running(roles[0]), running(roles[1]):
        yield roles[0], roles[1]
    assert not unexpected(roles[0].logged() + roles[1].logged())


def test_hubs_with_very_many_long_rooms_are_linked_and_stay_so(hubs: tuple[Role, Role]) -> None:
    a, b = hubs
    names = rooms(10_000)
    reader = Peer(a.port, "/connect/messenger", "ces.2")
    subscribe(reader, names)
    reader.send("done", event(0))
    list(reader.records(0.5))
    assert b.request("POST", f"/interconnect/127.0.0.1:{a.port}") == (200, "ok")
    writer = Peer(b.port, "/connect/messenger", "ces.2")

    def arrives() -> bool:
        writer.send(names[-1], event(1))
        return any(room == names[-1] for room, _ in reader.records(0.1))

    until(arrives, "an event for the last room arrives")
    (link,) = json.loads(b.get("/interconnect")[1])
    assert link["state"] == "up"
    assert "has no connection" not in a.logged() + b.logged()
    for peer in (reader, writer):
        peer.close()


def test_a_messenger_with_very_many_long_rooms_is_connected_and_stays_so(hubs: tuple[Role, Role]) -> None:
    hub, _ = hubs
    count = 5_000
    messenger = subprocess.Popen(
        [sys.executable, "-c", MESSENGER, f"localhost:{hub.port}", str(count)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: hub.info()["nexus"]["messengers"], "the messenger is there")
        last = rooms(count)[-1]
        until(lambda: hub.rooms(prefix=last), "all rooms are subscribed")
        writer = Peer(hub.port, "/connect/messenger", "ces.2")
        writer.send(last, event(1))
        assert messenger.stdout is not None
        assert messenger.stdout.readline().strip() == last[:5]
        assert "has no connection" not in hub.logged()
        writer.close()
    finally:
        messenger.kill()
        messenger.communicate(timeout=PATIENCE)


# What flows meanwhile must fit into the queues while a hub is busy with the rooms: 15 MB of names.
@pytest.mark.parametrize("hubs", [()], indirect=True, ids=["default limits"])
def test_rooms_that_come_and_go_while_another_hub_reads_nothing_cost_no_link_and_no_event(
    hubs: tuple[Role, Role],
) -> None:
    a, b = hubs
    assert b.request("POST", f"/interconnect/127.0.0.1:{a.port}") == (200, "ok")
    flow = Flow(b, a, "ITB-1108").start()
    flow.goes_on()
    silent = RawLink.dial(a.port, "/connect/hub", "silent", receive_buffer=4096)
    flapping = Peer(a.port, "/connect/messenger", "ces.2")
    names = rooms(3_000)
    for _ in range(10):
        subscribe(flapping, names)
        subscribe(flapping, names, create=False)
    flow.goes_on(2000)
    # What messengers want from now on reaches the other hub, whatever has become of the silent one.
    later = Flow(b, a, "ITB-1109").start()
    later.goes_on()
    for each in (flow, later):
        each.stop()
        assert each.faults() == {}
    # The silent hub reads again: it is linked still, and knows exactly what is wanted.
    known: set[str] = set()
    silent.socket.settimeout(2)
    tell_rooms(silent, known)
    assert silent.close_code is None
    assert not known & set(names)
    silent.close()
    flapping.close()


def tell_rooms(link: RawLink, known: set[str]) -> None:
    """Read subscription changes until none has come for a second."""
    texts: list[bytes] = []
    frames = link._frames

    def noted() -> Iterator[tuple[int, bytes]]:
        for opcode, payload in frames():
            if opcode == 1:
                texts.append(payload)
            yield opcode, payload

    link._frames = noted  # type: ignore[method-assign]
    before = -1
    while before != len(texts):
        before = len(texts)
        try:
            link.read(lambda: len(texts) > before, 1.0)  # noqa: B023 (asked at once)
        except AssertionError:
            break
    for text in texts:
        change = json.loads(text)
        if "rooms" in change:
            named = set(change["rooms"])
            if change.get("create"):
                known |= named
            else:
                known -= named or set(known)
