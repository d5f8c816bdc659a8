"""The repeater on real sockets, between a real hub and services not ours; nothing needs a restart."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import gethostname
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

from tests.support.fleet import PATIENCE, Peer, Role, event, free_port, until

ROOM = "ITB-1108"


class Device:
    """A service in a room that the repeater dials: the ``websockets`` package's server, on its own port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.paths: list[str] = []
        self.records: list[bytes] = []
        self.codes: list[int | None] = []
        self.connections: list[ServerConnection] = []
        self._server: Server | None = None

    def start(self) -> Device:
        self._server = serve(self._serve, "127.0.0.1", self.port, compression=None, ping_interval=None)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def _serve(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.paths.append(connection.request.path)
        self.connections.append(connection)
        try:
            for message in connection:
                assert isinstance(message, bytes)
                self.records.append(message)
        except ConnectionClosed:
            pass
        self.codes.append(connection.close_code)
        self.connections.remove(connection)

    def numbers(self) -> list[int]:
        return [int(json.loads(one.split(b"\n")[1])["value"]) for one in self.records]

    def kill(self) -> None:
        """End it without a closing handshake."""
        if self._server is None:
            return
        for connection in list(self.connections):
            connection.close_socket()
        self._server.shutdown()
        self._thread.join(PATIENCE)
        self._server = None


class Collector:
    """An HTTP target. `behave` says what it does with each request: a status to answer, or None to hang."""

    def __init__(self) -> None:
        self.behave: Callable[[], int | None] = lambda: 200
        self.taken: list[int] = []
        self.tries = 0
        self.types: set[str | None] = set()
        self.release = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.types.add(self.headers["Content-Type"])
                collector.tries += 1
                code = collector.behave()
                if code is None:
                    collector.release.wait(PATIENCE)
                    self.close_connection = True
                    return
                if code == 200:
                    collector.taken.append(int(json.loads(body)["value"]))
                self.send_response(code)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/event"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self.release.set()
        self.server.shutdown()
        self.server.server_close()
        self._thread.join(PATIENCE)


class Site:
    """A hub, a repeater, a messenger of the room, and what the repeater sends to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.routes = folder / "routes.toml"
        self.device, self.collector = Device().start(), Collector()
        self.hub = Role(folder, "ces-hub", free_port()).start()
        self.repeater: Role | None = None
        self.peers: list[Peer] = []

    def begin(self, routes: str, *options: str) -> Role:
        """Start the repeater with these routes (DEVICE and COLLECTOR stand for the addresses)."""
        self.write(routes)
        hub = f"localhost:{self.hub.port}"
        options = ("--hub", hub, "--id", "rep-1", "--routes", str(self.routes), *options)
        self.repeater = Role(self.folder, "ces-repeater", free_port(), *options).start()
        self.linked()
        return self.repeater

    def write(self, routes: str) -> None:
        routes = routes.replace("DEVICE", f"127.0.0.1:{self.device.port}").replace(
            "COLLECTOR", self.collector.url
        )
        self.routes.write_text(f"[routes]\n{routes}\n")

    def linked(self) -> None:
        until(lambda: self.state()["hub"]["state"] == "up", "the repeater has its hub")

    def state(self) -> dict[str, Any]:
        assert self.repeater is not None
        return self.repeater.info()["repeater"]

    def target(self) -> dict[str, Any]:
        (target,) = self.state()["targets"]
        return target

    def messenger(self, dialect: str = "ces.1") -> Peer:
        peer = Peer(self.hub.port, "/connect/messenger", dialect)
        peer.subscribe(ROOM)
        self.peers.append(peer)
        until(lambda: ROOM in self.hub.info()["nexus"]["messenger-mapping"], "the subscription arrives")
        return peer

    def outside(self, dialect: str = "ces.1", room: str = ROOM) -> Peer:
        assert self.repeater is not None
        peer = Peer(self.repeater.port, f"/connect/{room}/outside", dialect)
        self.peers.append(peer)
        return peer

    def end(self) -> None:
        for peer in self.peers:
            peer.close()
        roles = [role for role in (self.repeater, self.hub) if role is not None]
        for role in roles:
            role.stop()
        self.device.kill()
        self.collector.close()
        for role in roles:
            assert "Traceback" not in role.logged(), role.logged()
            assert "Starting factory" not in role.logged(), "Twisted's word for each connection to a target"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.end()


@pytest.mark.parametrize("dialect", ["ces.1", "ces.2"])
def test_what_an_outside_service_sends_reaches_messengers_and_an_idle_link_is_closed(
    site: Site, dialect: str
) -> None:
    repeater = site.begin("", "--idle-ttl", "0.5s")
    reader = site.messenger(dialect)
    outside = site.outside(dialect)
    outside.send(ROOM, event(1), event(2))
    outside.socket.send(event(3))
    assert reader.numbers(3) == [1, 2, 3]
    assert repeater.request("POST", "/send", b"[" + event(4) + b"," + event(5) + b"]") == (200, "ok")
    assert reader.numbers(2) == [4, 5]
    assert list(outside.records(PATIENCE)) == []
    assert outside.socket.close_code == 1000


def test_events_reach_a_device_and_what_it_says_comes_back(site: Site) -> None:
    site.begin('"ITB-*" = ["DEVICE"]', "--idle-ttl", "1s")
    writer = site.messenger()
    writer.send(ROOM, *[event(number) for number in range(20)])
    until(lambda: len(site.device.records) == 20, "the device has all events")
    assert site.device.numbers() == list(range(20))
    assert site.device.paths == [f"/connect/{ROOM}/rep-1"]
    site.device.connections[0].send(b"%b\n\n%b" % (ROOM.encode(), event(99)))
    assert writer.numbers(1) == [99]
    until(lambda: site.device.codes == [1000], "the unused link is closed with 1000")
    writer.send(ROOM, event(20))
    until(lambda: site.device.numbers()[-1] == 20, "the next event dials anew")
    assert site.target()["failures"] == 0


def test_a_device_that_is_killed_and_comes_back_gets_what_waited(site: Site) -> None:
    site.begin('"*" = ["DEVICE"]', "--idle-ttl", "30s")
    writer = site.messenger()
    writer.send(ROOM, event(0))
    until(lambda: site.device.numbers() == [0], "the device has the first event")
    site.device.kill()
    until(lambda: site.target()["state"] == "idle", "the repeater has seen it")
    writer.send(ROOM, *[event(number) for number in range(1, 6)])
    until(lambda: site.target()["state"] == "waiting", "the dial is refused")
    site.device.start()
    until(lambda: len(site.device.records) == 6, "what waited arrives")
    assert site.device.numbers() == list(range(6))


def test_a_hub_that_is_killed_and_comes_back_gets_what_was_spooled(site: Site) -> None:
    site.begin("", "--idle-ttl", "60s")
    outside = site.outside()
    site.hub.stop(signal.SIGKILL)
    until(lambda: site.state()["hub"]["state"] == "waiting", "the repeater has seen it")
    outside.send(ROOM, *[event(number) for number in range(5)])
    until(lambda: site.state()["hub"]["buffer-utilization"] > 0, "the spool holds them")
    site.hub.start()
    reader = site.messenger()
    site.linked()
    outside.send(ROOM, event(5))
    found = reader.numbers(1)
    assert found[-1] == 5
    assert found == list(range(6 - len(found), 6)), (
        "in order; what came before the subscription is not asked for"
    )
    assert site.state()["hub"]["sent"] == 6


def test_a_repeater_that_is_killed_and_comes_back_serves_again(site: Site) -> None:
    repeater = site.begin('"*" = ["DEVICE"]')
    writer = site.messenger()
    repeater.stop(signal.SIGKILL)
    until(lambda: site.hub.info()["nexus"]["repeaters"] == [], "the hub has seen it")
    writer.send(ROOM, event(1))
    repeater.start()
    until(lambda: site.device.numbers() == [1], "what the hub held arrives")


def test_an_http_target_that_fails_and_hangs_gets_each_event_when_it_is_back(site: Site) -> None:
    site.begin('"*" = ["COLLECTOR"]', "--http-timeout", "0.5s", "--http-parallel", "2")
    collector = site.collector
    writer = site.messenger()
    writer.send(ROOM, *[event(number) for number in range(10)])
    until(lambda: sorted(collector.taken) == list(range(10)), "each event is posted")
    assert collector.types == {"application/json"}
    for trouble in (500, None):
        collector.taken.clear()
        tries = collector.tries
        collector.behave = lambda trouble=trouble: trouble
        writer.send(ROOM, *[event(number) for number in range(10)])
        until(lambda tries=tries: collector.tries >= tries + 2, "it is tried again")
        assert site.target()["failures"] > 0
        assert site.target()["buffer-utilization"] > 0
        collector.behave = lambda: 200
        until(lambda: sorted(collector.taken) == list(range(10)), "each event arrives")
    assert site.target()["dropped"] == 0
    assert site.target()["sent"] == 30


def test_an_event_that_an_http_target_refuses_is_counted_and_not_sent_again(site: Site) -> None:
    site.begin('"*" = ["COLLECTOR"]')
    site.collector.behave = lambda: 400
    site.messenger().send(ROOM, event(1))
    until(lambda: site.target()["dropped"] == 1, "it is counted")
    assert site.collector.tries == 1
    assert site.repeater is not None
    assert "it answered 400, which is final" in site.repeater.logged()


def test_a_repeater_without_an_id_is_named_after_its_host(site: Site) -> None:
    hub = f"localhost:{site.hub.port}"
    site.repeater = Role(site.folder, "ces-repeater", free_port(), "--hub", hub).start()
    assert site.state()["id"] == gethostname()


def test_what_an_http_target_did_not_get_is_read_and_sent_again_when_it_is_back(site: Site) -> None:
    repeater = site.begin('"*" = ["COLLECTOR"]', "--target-patience", "0.5s")
    site.collector.behave = lambda: 503
    site.messenger().send(ROOM, *[event(number) for number in range(5)])
    until(lambda: site.state()["undelivered"]["records"] == 5, "all have waited too long", 30)
    listed = json.loads(repeater.get("/undelivered")[1])
    assert listed["targets"] == {site.collector.url: 5}
    assert {int(one["event"]["value"]) for one in listed["newest"]} == set(range(5))
    assert {(one["room"], one["why"]) for one in listed["newest"]} == {
        (ROOM, "the target was away for too long: it answered 503")
    }
    site.collector.behave = lambda: 200
    assert json.loads(repeater.request("POST", "/undelivered/retry")[1]) == {"retried": 5, "undelivered": 0}
    until(lambda: sorted(site.collector.taken) == list(range(5)), "each event arrives", 30)
    assert site.state()["undelivered"] | {"buffer-capacity": 0} == {
        "records": 0,
        "buffer-utilization": 0,
        "buffer-capacity": 0,
        "retried": 5,
        "removed": 0,
        "lost": 0,
    }


def test_what_is_undelivered_when_the_repeater_stops_is_told(site: Site) -> None:
    repeater = site.begin('"*" = ["COLLECTOR"]')
    site.collector.behave = lambda: 400
    site.messenger().send(ROOM, event(1))
    until(lambda: site.state()["undelivered"]["records"] == 1, "it is refused")
    repeater.stop()
    assert "1 undelivered records are lost: the repeater stops" in repeater.logged()


def test_sighup_reads_the_routes_again_without_dropping_a_link(site: Site) -> None:
    repeater = site.begin('"*" = ["DEVICE"]', "--idle-ttl", "60s")
    assert repeater.process is not None
    writer = site.messenger()
    writer.send(ROOM, event(0))
    until(lambda: site.device.numbers() == [0], "the device has the first event")
    site.write('"*" = ["DEVICE", "COLLECTOR"]')
    repeater.process.send_signal(signal.SIGHUP)
    until(lambda: len(site.state()["targets"]) == 2, "the new routes are in use")
    writer.send(ROOM, event(1))
    until(
        lambda: site.device.numbers() == [0, 1] and site.collector.taken == [1], "both have the second event"
    )
    site.write('"*" = ["DEVICE"\n')
    repeater.process.send_signal(signal.SIGHUP)
    until(lambda: "the routes stay as they were" in repeater.logged(), "the log says so")
    assert f"{site.routes}, line 3: " in repeater.logged()
    assert len(site.state()["targets"]) == 2
    assert len(site.device.paths) == 1
