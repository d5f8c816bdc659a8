"""Two hubs dial each other, and the one link that they keep is gone: the other one is dialled at once.

An interconnection is *covered* while another link to the same hub lives (docs/protocol.md section 5). It
dials as soon as that link is gone, whether the other hub has crashed or the network has cut the link. It does
not wait for the session of the dead link to end.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from tests.support.faults import Proxy
from tests.support.fleet import Role, free_port, until
from tests.support.flow import Flow, probe, running
from tests.support.raw import RawLink

ROOM = "ITB-1108"
EVENTS = 2_000
SOON = 10.0
"""Within so many seconds there is a link again: the first dials may come before the other hub listens."""

OTHER, NEW = "m", "n"
"""The nodes of the hub that crashes, and of the one that takes its place."""

BOTH = pytest.mark.parametrize("survivor", ["z", "a"], ids=["covered", "not covered"])
"""The node of the hub that survives. If it is the greater one, the link that the other has dialled stays, and
covers its own.
"""


@contextmanager
def two_hubs(folder: Path, survivor: str) -> Iterator[tuple[Role, Role]]:
    """Hub A, the survivor, and hub B."""
    a = Role(folder, "ces-hub", free_port(), "--hold-time=0", "--node-id", survivor, name="a")
    b = Role(folder, "ces-hub", free_port(), "--hold-time=0", "--node-id", OTHER, name="b")
    with running(a), running(b):
        yield a, b
    assert "Traceback" not in a.logged() + b.logged()


def link_from_both_ends(a: Role, b: Role, way_back: int | None = None) -> None:
    """Let each dial the other.

    :param way_back: the port at which B dials A; by default A's own.
    """
    interconnect(b, f"127.0.0.1:{way_back or a.port}")
    interconnect(a, f"127.0.0.1:{b.port}")
    until(lambda: alive(a) and set(alive(a)) == {OTHER} and len(hubs(a)) == 1, "they keep one link")


def interconnect(hub: Role, address: str) -> None:
    assert hub.request("POST", f"/interconnect/{address}") == (200, "ok")


def interconnections(hub: Role) -> list[dict[str, str]]:
    """All links to and from other hubs, as a hub shows them."""
    return json.loads(hub.get("/interconnect")[1])


def alive(hub: Role) -> list[str]:
    """The nodes to which a hub says that there is a link, or one that covers it."""
    return [link["node"] for link in interconnections(hub) if link["state"] in ("up", "covered")]


def hubs(hub: Role) -> list[dict]:
    """The live links to other hubs, as the status says."""
    return hub.info()["nexus"]["hubs"]


def restart_as_another(hub: Role) -> None:
    """Start a hub that was killed, with a new node and nobody to dial."""
    hub.options = ("--hold-time=0", "--node-id", NEW)
    hub.start()


@BOTH
def test_a_dead_link_is_not_shown_as_up(survivor: str, tmp_path: Path) -> None:
    with two_hubs(tmp_path, survivor) as (a, b):
        link_from_both_ends(a, b)
        b.stop(signal.SIGKILL)
        until(lambda: not alive(a), "the survivor shows no link to the dead hub", 3)
        restart_as_another(b)
        until(lambda: alive(a), "there is a link again", SOON)
        assert set(alive(a)) == {NEW}


@BOTH
def test_a_hub_that_crashed_is_dialled_as_soon_as_it_is_back(survivor: str, tmp_path: Path) -> None:
    with two_hubs(tmp_path, survivor) as (a, b):
        link_from_both_ends(a, b)
        b.stop(signal.SIGKILL)
        restart_as_another(b)
        until(lambda: NEW in alive(a) and hubs(b), "the survivor has dialled the new hub", SOON)
        flows = [Flow(a, b, "A-TO-B"), Flow(b, a, "B-TO-A")]
        for flow in flows:
            flow.start()
        for flow in flows:
            flow.goes_on(1000)
        for flow in flows:
            flow.hush()
        for flow in flows:
            flow.stop()
        assert [flow.faults() for flow in flows] == [{}, {}]


class Stream:
    """A messenger at one hub and a subscriber at another, who agree on what was sent."""

    def __init__(self, source: Role, destination: Role, room: str) -> None:
        self.room = room
        self.subscriber = RawLink.dial(destination.port, "/connect/messenger", f"subscriber-{room}")
        self.subscriber.tell({"rooms": [room], "create": True})
        self.publisher = RawLink.dial(source.port, "/connect/messenger", f"publisher-{room}")
        probe(self.publisher, self.subscriber, room)

    def send(self) -> None:
        """Send `EVENTS` events; return when the hub has acknowledged them."""
        self.publisher.send(0, EVENTS, self.room)
        self.publisher.settle()

    def end(self) -> list[int]:
        """The numbers of the events that arrive soon."""
        with suppress(AssertionError):
            self.subscriber.read(lambda: self.subscriber.numbers, SOON)
        self.subscriber.read_until_quiet()
        self.subscriber.end_in_good_order()
        self.publisher.end_in_good_order()
        return self.subscriber.numbers


@pytest_twisted.ensureDeferred
async def test_what_is_sent_when_a_link_is_cut_goes_over_the_one_that_it_covered(tmp_path: Path) -> None:
    from twisted.internet import reactor

    with two_hubs(tmp_path, "z") as (a, b):
        proxy = Proxy(a.port, 1, reactor)
        await deferToThread(link_from_both_ends, a, b, proxy.port)
        streams = [
            await deferToThread(Stream, source, destination, room)
            for source, destination, room in ((a, b, "A-TO-B"), (b, a, "B-TO-A"))
        ]
        settled = lambda: not any(link["unacknowledged"] for hub in (a, b) for link in hubs(hub))  # noqa: E731
        await deferToThread(until, settled, "the hubs have acknowledged everything")
        await proxy.stop()
        for stream in streams:
            await deferToThread(stream.send)
        found = [await deferToThread(stream.end) for stream in streams]
        shown = interconnections(a)
    lost = [EVENTS - len(set(numbers)) for numbers in found]
    assert lost == [0, 0], f"lost; the survivor shows {shown}"
    assert found == [list(range(EVENTS))] * 2
