"""Members of the Go fleet, played to the letter by a client that is not ours, against a real hub."""

from __future__ import annotations

import json
import signal
import threading
import time

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import serve

from tests.support.fleet import PATIENCE, Peer, Role, event, free_port, until

ROOM = "ITB-1108"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A hub that pings each 200 ms, takes 600 ms of silence for death and holds nothing for repeaters."""
    folder = tmp_path_factory.mktemp("hub")
    times = ("--ping-interval", "200ms", "--silence-timeout", "600ms", "--hold-time", "0")
    role = Role(folder, "ces-hub", free_port(), *times)
    yield role.start()
    role.stop()
    assert "Traceback" not in role.logged()


@pytest.fixture
def reader(hub):
    peer = Peer(hub.port, "/connect/messenger")
    peer.subscribe(ROOM)
    until(lambda: ROOM in hub.info()["nexus"]["messenger-mapping"], "the subscription has arrived")
    yield peer
    peer.close()
    until(lambda: ROOM not in hub.info()["nexus"]["messenger-mapping"], "the hub has seen it leave")


def strict(number: int = 0) -> tuple[str, bytes]:
    return ROOM, event(number)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"%b\n%b\n" % (ROOM.encode(), event(0)), id="strictly written"),
        pytest.param(b"%b\n\n\n\n%b" % (ROOM.encode(), event(0)), id="line feeds in front, none at the end"),
        pytest.param(b"%b\n \t%b\r\n \n" % (ROOM.encode(), event(0)), id="white space around"),
    ],
)
def test_a_record_is_read_liberally_and_written_strictly(hub, reader, message):
    writer = connect(f"ws://127.0.0.1:{hub.port}/connect/messenger", legacy=True)
    writer.send(message)
    assert next(reader.records(PATIENCE)) == strict()
    writer.close()


def test_indented_json_arrives_on_one_line_and_means_the_same(hub, reader):
    writer = Peer(hub.port, "/connect/messenger")
    writer.socket.send(ROOM.encode() + b"\n" + json.dumps(json.loads(event(7)), indent=2).encode())
    room, found = next(reader.records(PATIENCE))
    assert (room, json.loads(found)) == (ROOM, json.loads(event(7)))
    writer.close()


@pytest.mark.parametrize("kind", ["repeater", "hub"])
def test_text_on_a_repeater_or_hub_link_is_a_record(hub, reader, kind):
    writer = connect(f"ws://127.0.0.1:{hub.port}/connect/{kind}", legacy=True)
    writer.send(f"{ROOM}\n\n{event(3).decode()}")
    assert next(reader.records(PATIENCE)) == strict(3)
    writer.close()


def test_a_double_subscription_delivers_once_and_one_removal_ends_it(hub, reader):
    reader.subscribe(ROOM, ROOM, "*")
    reader.subscribe(ROOM)
    writer = Peer(hub.port, "/connect/messenger")
    until(lambda: "*" in hub.info()["nexus"]["messenger-mapping"], "the subscriptions have arrived")
    writer.send(ROOM, event(1))
    assert reader.numbers(1) == [1]
    reader.subscribe("*", ROOM, create=False)
    until(lambda: "*" not in hub.info()["nexus"]["messenger-mapping"], "the removal has arrived")
    writer.send(ROOM, event(2))
    assert reader.numbers(0) == []
    reader.subscribe(ROOM)
    until(lambda: ROOM in hub.info()["nexus"]["messenger-mapping"], "it may come back")
    writer.close()


def test_a_blank_room_reaches_who_wants_everything(hub, reader):
    everything = Peer(hub.port, "/connect/messenger")
    everything.subscribe("*")
    repeater = Peer(hub.port, "/connect/repeater")
    other_hub = Peer(hub.port, "/connect/hub")
    until(lambda: "*" in hub.info()["nexus"]["messenger-mapping"], "the subscription has arrived")
    writer = Peer(hub.port, "/connect/messenger")
    writer.send("", event(5))
    for peer in (everything, repeater, other_hub):
        assert next(peer.records(PATIENCE)) == ("", event(5))
    assert reader.numbers(0) == []
    for peer in (everything, repeater, other_hub, writer):
        peer.close()


def test_a_member_that_answers_pings_stays_and_a_silent_one_is_dropped(hub):
    alive = Peer(hub.port, "/connect/messenger")
    silent = connect(f"ws://127.0.0.1:{hub.port}/connect/messenger", legacy=True)
    silent.protocol.receive_data = lambda data: None  # it never reads, so it never answers
    until(lambda: len(hub.info()["nexus"]["messengers"]) == 1, "the silent one is gone")
    alive.socket.ping().wait(PATIENCE)
    alive.close()
    silent.socket.close()


def test_hostile_and_broken_members_cost_the_others_nothing(hub, reader):
    url = f"ws://127.0.0.1:{hub.port}/connect/messenger"
    for message in (
        b"no line feed",
        b"{}\n{}",
        b"*\n{}",
        b"R\n[]",
        b"\x00\n{}",
        b"\xff\n{}",
        b"R" * 256 + b"\n{}",
        "{",
    ):
        peer = connect(url, legacy=True)
        peer.send(message)
        peer.send(b"%b\n%b" % (ROOM.encode(), event(9)))
        assert next(reader.records(PATIENCE)) == strict(9), (
            "the link stays open and its good record is routed"
        )
        peer.close()
    garbage = connect(url, legacy=True)
    with pytest.raises(ConnectionClosed) as closed:
        for _ in range(200):
            garbage.send(b"garbage")
        garbage.recv(PATIENCE)
    assert closed.value.rcvd.code == 4400
    large = connect(url, legacy=True, max_size=None)
    with pytest.raises(ConnectionClosed) as closed:
        large.send(b"R\n{" + b" " * 1024 * 1024 + b"}")
        large.recv(PATIENCE)
    assert closed.value.rcvd.code == 1009


class GoHub:
    """A hub of the fleet: a server without identity, which may refuse to hear of a subprotocol."""

    def __init__(self, port: int, refuse: bool) -> None:
        self.heard: list[bytes] = []
        self.links: list = []
        self.handshakes = 0
        self._refuse = refuse
        self.server = serve(self._serve, "127.0.0.1", port, process_request=self._request, ping_interval=None)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _request(self, connection, request):
        self.handshakes += 1
        if self._refuse and "Sec-WebSocket-Protocol" in request.headers:
            return connection.respond(400, "unknown subprotocol\n")
        return None

    def _serve(self, link) -> None:
        self.links.append(link)
        try:
            for message in link:
                self.heard.append(message)
        finally:
            self.links.remove(link)

    def close(self) -> None:
        self.server.shutdown()


@pytest.mark.parametrize("refuse", [False, True])
def test_our_hub_dials_a_hub_of_the_fleet_and_gives_it_everything(hub, reader, refuse):
    port = free_port()
    go = GoHub(port, refuse)
    assert hub.request("POST", f"/interconnect/127.0.0.1:{port}") == (200, "ok")
    assert go.handshakes == (2 if refuse else 1)
    writer = Peer(hub.port, "/connect/messenger", "ces.2")
    writer.send(ROOM, event(1), event(2))
    assert next(reader.records(PATIENCE)) == strict(1)
    until(lambda: len(go.heard) == 2, "the hub of the fleet has heard both")
    assert go.heard == [b"%b\n%b\n" % (ROOM.encode(), event(number)) for number in (1, 2)]
    go.links[0].send(b"%b\n\n%b" % (ROOM.encode(), event(3)))
    assert reader.numbers(2) == [2, 3]
    assert len(go.heard) == 2, "what came from a hub goes to no hub"
    assert hub.request("DELETE", f"/interconnect/127.0.0.1:{port}")[0] == 200
    until(lambda: not go.links, "the link has ended")
    writer.close()
    go.close()


def test_it_serves_all_day(hub, reader):
    """Many pings and some traffic, on one link of each kind, with nothing lost."""
    writers = [Peer(hub.port, f"/connect/{kind}") for kind in ("messenger", "repeater", "hub")]
    end = time.monotonic() + 1.5
    sent = 0
    while time.monotonic() < end:
        for writer in writers:
            writer.send(ROOM, event(sent))
            sent += 1
        until(lambda: hub.get("/health")[0] == 200, "the hub answers")
    assert sorted(reader.numbers(sent)) == list(range(sent))
    for writer in writers:
        writer.close()


def test_a_hangup_drops_no_link(hub, reader):
    hub.process.send_signal(signal.SIGHUP)
    until(lambda: "no access file to read again" in hub.logged(), "the hub has seen the signal")
    writer = Peer(hub.port, "/connect/messenger")
    writer.send(ROOM, event(1))
    assert reader.numbers(1) == [1]
    writer.close()
