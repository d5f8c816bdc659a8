"""The routing table of docs/protocol.md section 6 on real sockets: every source to every destination."""

from __future__ import annotations

import itertools
import time

import pytest

from tests.support.fleet import Peer, Role, event, free_port, until

ROOM = "ITB-1108"
N = 40

DIALECTS = {
    "ces.1": itertools.repeat("ces.1"),
    "ces.2": itertools.repeat("ces.2"),
    "mixed": itertools.cycle(["ces.1", "ces.2"]),
}


@pytest.fixture(scope="module")
def hubs(tmp_path_factory):
    """Two interconnected hubs."""
    folder = tmp_path_factory.mktemp("hubs")
    a, b = free_port(), free_port()
    roles = [
        Role(folder, "ces-hub", a, "--node-id", "node-a"),
        Role(folder, "ces-hub", b, "--node-id", "node-b", "--interconnect", f"127.0.0.1:{a}"),
    ]
    for role in roles:
        role.start()
    until(lambda: all(role.info()["nexus"]["hubs"] for role in roles), "the hubs are interconnected")
    yield roles
    for role in roles:
        assert role.stop() == -15
        assert "Traceback" not in role.logged()


class Floor:
    """Everybody who can send or receive, on two hubs, three repeaters among them."""

    def __init__(self, hubs: list[Role], dialects) -> None:
        a, b = hubs[0].port, hubs[1].port
        self.hubs = hubs
        self.peers: dict[str, Peer] = {}
        for name, port, kind in (
            ("mA", a, "messenger"),
            ("mA*", a, "messenger"),
            ("mA-other", a, "messenger"),
            ("writer-A", a, "messenger"),
            ("rA1", a, "repeater"),
            ("rA2", a, "repeater"),
            ("hA", a, "hub"),
            ("mB", b, "messenger"),
            ("writer-B", b, "messenger"),
            ("rB", b, "repeater"),
        ):
            self.peers[name] = Peer(port, f"/connect/{kind}", next(dialects), node=f"zz-{name}")
        for name, rooms in (
            ("mA", [ROOM]),
            ("mA*", ["*", ROOM]),
            ("mA-other", ["HBLL-1"]),
            ("mB", [ROOM, ROOM]),
        ):
            self.peers[name].subscribe(*rooms)
        if self.peers["hA"].dialect == "ces.2":
            self.peers["hA"].subscribe(ROOM)
        until(self._settled, "subscriptions have reached both hubs")

    def _settled(self) -> bool:
        a, b = (hub.info()["nexus"] for hub in self.hubs)
        return (
            len(a["messenger-mapping"].get(ROOM, [])) == 2
            and len(b["messenger-mapping"].get(ROOM, [])) == 1
            and len(a["repeaters"]) == 2
            and len(a["hubs"]) == len(b["hubs"]) + 1 == 2
        )

    def counts(self, expected: dict[str, int]) -> dict[str, list[int]]:
        """What each has received: as many as expected, and whatever else comes in the 0.3 s after."""
        found = {name: peer.numbers(expected.get(name, 0), 0) for name, peer in self.peers.items()}
        time.sleep(0.3)
        return {name: numbers + self.peers[name].numbers(0, 0) for name, numbers in found.items()}

    def close(self) -> None:
        for peer in self.peers.values():
            peer.close()
        until(lambda: not self.hubs[0].info()["nexus"]["repeaters"], "the hub has seen them leave")


@pytest.fixture(params=DIALECTS)
def floor(hubs, request):
    built = Floor(hubs, DIALECTS[request.param])
    yield built
    built.close()


FROM_MESSENGER_A = {"mA": N, "mA*": N, "hA": N, "mB": N}


@pytest.mark.parametrize(
    ("source", "expected", "repeaters"),
    [
        ("writer-A", FROM_MESSENGER_A, ("rA1", "rA2")),
        ("mA*", {**FROM_MESSENGER_A, "mA*": 0}, ("rA1", "rA2")),
        ("writer-B", {"mA": N, "mA*": N, "mB": N}, ("rB",)),
        ("rA1", {"mA": N, "mA*": N, "hA": N, "mB": N}, ()),
        ("hA", {"mA": N, "mA*": N}, ()),
    ],
)
def test_each_source_reaches_exactly_its_destinations(floor, source, expected, repeaters):
    floor.peers[source].send(ROOM, *[event(number) for number in range(N)])
    found = floor.counts(expected)
    by_repeater = [found.pop(name) for name in ("rA1", "rA2", "rB") if name in repeaters]
    assert {name: len(numbers) for name, numbers in found.items()} == {
        name: expected.get(name, 0) for name in floor.peers if name not in repeaters
    }
    for name, numbers in found.items():
        assert numbers == list(range(N)) or not numbers, f"{name} got them in another order"
    if repeaters:
        assert sorted(itertools.chain(*by_repeater)) == list(range(N)), "each event to exactly one repeater"


def test_a_posted_event_counts_as_from_a_messenger(floor):
    for number in range(N):
        assert floor.hubs[0].request("POST", "/event", event(number)) == (200, "Processing event")
    found = floor.counts(FROM_MESSENGER_A)
    assert sorted(found.pop("rA1") + found.pop("rA2")) == list(range(N))
    assert {name: len(numbers) for name, numbers in found.items() if numbers} == FROM_MESSENGER_A
