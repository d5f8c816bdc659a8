"""Both sides of a link close it at the same moment: no event is lost in silence.

A slow reader has megabytes on their way to it when the two close frames cross. The side that gets the other's
close frame must not abort the connection: what the kernel still holds would be gone, and nobody would know.
It ends with a FIN, and counts as delivered only what was.

Each test counts both ends: what was sent must be what was received, what another one got, and what is counted
as dropped. What is in none of these is *nowhere*.
"""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from tests.support.fleet import PATIENCE, Role, event, free_port, until
from tests.support.raw import FIN, RawLink

ROOM = "ITB-1108"
EVENTS = 16_000
RECEIVE_BUFFER = 64 * 1024
"""The kernel of a slow reader takes so little, so that megabytes wait in that of the sender."""

TOO_SLOW, NORMAL, GOING_AWAY = 4408, 1000, 4001

SLOW_HUB = (
    "--slow-timeout=500ms",
    "--session-window=1s",
    "--hold-bytes=32MiB",
    "--hold-time=60s",
    "--drain-timeout=0",
)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Role]:
    """A hub that soon closes who takes nothing, and holds everything while there is no repeater."""
    role = Role(tmp_path, "ces-hub", free_port(), *SLOW_HUB).start()
    yield role
    role.stop()


def publish(hub: Role, count: int = EVENTS) -> None:
    """Send so many numbered events to a hub; return when it has acknowledged them all."""
    publisher = RawLink.dial(hub.port, "/connect/messenger", "publisher")
    publisher.send(0, count, ROOM)
    publisher.settle()
    publisher.end_in_good_order()


def links(hub: Role, kind: str) -> list[dict]:
    """The live links of a kind, as the status says."""
    return hub.info()["nexus"][f"{kind}s"]


def dropped(hub: Role) -> int:
    """How many records for links a hub counts as dropped."""
    return hub.info()["nexus"]["dropped"]


def unheld(hub: Role) -> int:
    """How many records a hub counts as dropped because no repeater came."""
    lines = hub.get("/metrics")[1].splitlines()
    return round(
        float(next(x for x in lines if x.startswith("ces_hub_held_dropped_records_total")).split()[1])
    )


def closed_slow_reader(hub: Role, kind: str) -> RawLink:
    """A link of a kind for which `EVENTS` events wait, of which it has read none, and which the hub has
    closed with 4408. The close frame stands behind what has not been read.
    """
    reader = RawLink.dial(hub.port, f"/connect/{kind}", "reader", RECEIVE_BUFFER)
    if kind == "messenger":
        reader.tell({"rooms": [ROOM], "create": True})
        until(lambda: ROOM in hub.info()["nexus"]["messenger-mapping"], "the subscription has arrived")
    else:
        until(lambda: links(hub, kind), "the repeater has joined")
    publish(hub)
    until(lambda: not links(hub, kind), "the hub has closed the slow reader")
    return reader


def rest(hub: Role) -> list[int]:
    """The numbers of the events that the hub gives to the next repeater."""
    until(lambda: not links(hub, "repeater"), "the hub has seen the first repeater leave")
    heir = RawLink.dial(hub.port, "/connect/repeater", "heir")
    heir.read_until_quiet()
    heir.end_in_good_order()
    return heir.numbers


def test_a_repeater_that_closes_as_it_is_closed_reads_all_that_was_written(hub: Role) -> None:
    reader = closed_slow_reader(hub, "repeater")
    reader.send_close(NORMAL)
    reader.read_to_the_end()
    others = rest(hub)
    missing = set(range(EVENTS)) - set(reader.numbers) - set(others)
    nowhere = len(missing) - dropped(hub) - unheld(hub)
    assert nowhere == 0, f"{reader.end} after {len(reader.numbers)}, {len(others)} to the next"
    assert (reader.end, reader.close_code) == (FIN, TOO_SLOW)
    assert reader.numbers == list(range(len(reader.numbers)))
    assert set(reader.numbers).isdisjoint(others), "an event goes to exactly one repeater"


def test_a_messenger_that_closes_as_it_is_closed_reads_all_that_was_written(hub: Role) -> None:
    reader = closed_slow_reader(hub, "messenger")
    reader.send_close(NORMAL)
    reader.read_to_the_end()
    assert reader.numbers == list(range(len(reader.numbers)))
    until(lambda: not hub.info()["nexus"]["detached"], "its session is over")
    # It has acknowledged nothing, and did not resume: all of it may be lost, and counts as such.
    assert dropped(hub) == EVENTS, f"{reader.end} after {len(reader.numbers)}"
    assert (reader.end, reader.close_code) == (FIN, TOO_SLOW)


def test_a_repeater_that_closes_as_it_is_closed_and_reads_nothing_has_got_nothing(hub: Role) -> None:
    reader = closed_slow_reader(hub, "repeater")
    reader.send_close(NORMAL)
    reader.close()
    others = rest(hub)
    nowhere = EVENTS - len(set(others)) - dropped(hub) - unheld(hub)
    assert nowhere == 0, f"{len(others)} to the next"
    assert len(others) == len(set(others))


def test_a_messenger_that_closes_as_its_hub_goes_away_reads_all_that_was_written(hub: Role) -> None:
    reader = RawLink.dial(hub.port, "/connect/messenger", "reader", RECEIVE_BUFFER)
    reader.tell({"rooms": [ROOM], "create": True})
    until(lambda: ROOM in hub.info()["nexus"]["messenger-mapping"], "the subscription has arrived")
    publish(hub, EVENTS // 2)
    hub.process.send_signal(signal.SIGTERM)
    until(lambda: not listens(hub.port), "the hub is going away")
    reader.send_close(NORMAL)
    reader.read_to_the_end()
    assert reader.numbers == list(range(len(reader.numbers)))
    assert (reader.end, reader.close_code) == (FIN, GOING_AWAY), f"after {len(reader.numbers)} events"


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


class Target:
    """A service that a repeater dials: the ``websockets`` package's server, which counts."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self._server = serve(self._serve, "127.0.0.1", 0, compression=None, ping_interval=None)
        self.port: int = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def _serve(self, connection: ServerConnection) -> None:
        try:
            for message in connection:
                self.numbers.append(int(json.loads(message.split(b"\n")[1])["value"]))
        except ConnectionClosed:
            pass

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join(PATIENCE)


def test_a_stopped_repeater_that_is_ended_as_it_is_closed_loses_nothing(hub: Role, tmp_path: Path) -> None:
    target = Target()
    routes = tmp_path / "routes.toml"
    routes.write_text(f'[routes]\n{ROOM} = ["ws://127.0.0.1:{target.port}"]\n')
    options = ("--hub", f"127.0.0.1:{hub.port}", "--routes", str(routes), "--target-buffer=32MiB")
    repeater = Role(tmp_path, "ces-repeater", free_port(), *options, "--drain-timeout=10s").start()
    try:
        until(lambda: links(hub, "repeater"), "the repeater has joined")
        repeater.process.send_signal(signal.SIGSTOP)
        publish(hub)
        until(lambda: not links(hub, "repeater"), "the hub has closed the stopped repeater")
        repeater.process.send_signal(signal.SIGTERM)
        repeater.process.send_signal(signal.SIGCONT)
        repeater.stop()
        others = rest(hub)
    finally:
        repeater.stop(signal.SIGKILL)
        target.stop()
    missing = set(range(EVENTS)) - set(target.numbers) - set(others)
    nowhere = len(missing) - dropped(hub) - unheld(hub)
    assert nowhere == 0, f"{len(target.numbers)} at the target, {len(others)} to the next repeater"


def test_a_repeater_that_ends_as_its_hub_closes_unread_keeps_all_on_disk(tmp_path: Path) -> None:
    count = 10_000
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        door.settimeout(PATIENCE)
        options = ("--hub", f"127.0.0.1:{door.getsockname()[1]}", "--spool", str(tmp_path / "spool"))
        options += ("--spool-bytes=32MiB", "--drain-timeout=0")
        repeater = Role(tmp_path, "ces-repeater", free_port(), *options).start()
        try:
            first = RawLink.accept(door)
            events = b"[%b]" % b",".join(event(number, ROOM) for number in range(count))
            assert repeater.request("POST", "/send", events)[0] == 200
            repeater.process.send_signal(signal.SIGTERM)
            until(lambda: not listens(repeater.port), "the repeater is going away")
            first.send_close(GOING_AWAY)
            first.close()
            repeater.stop()
            repeater.start()
            second = RawLink.accept(door)
            second.read_until_quiet()
            second.end_in_good_order()
        finally:
            repeater.stop()
    nowhere = count - len(set(second.numbers))
    assert nowhere == 0
    assert second.numbers == list(range(count))
