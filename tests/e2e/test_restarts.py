"""Killing and restarting every member in turn: nothing needs a restart, and no log holds a traceback.

A hub, a repeater and a messenger of ours run as processes of their own; a device and an HTTP target are
servers that are not ours. After each restart an event that the messenger sends reaches both targets, and one
that the device sends, and one that an outside service sends, reach the messenger.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

from tests.support.fleet import PATIENCE, Role, event, free_port, until

ROOM = "ITB-1108"

MESSENGER = """
import sys
from twisted.internet import reactor, stdio
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.protocols.basic import LineOnlyReceiver
from ces.messenger import Messenger

globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
messenger = Messenger(sys.argv[1], rooms=[sys.argv[2]], reactor=reactor)

class Lines(LineOnlyReceiver):
    "Sends each line that comes, and writes down each event that comes."
    delimiter = b"\\n"
    def lineReceived(self, line):
        messenger.send(line)

lines = Lines()
messenger.on_record(lambda event, room: lines.sendLine(event))
stdio.StandardIO(lines)
messenger.connect()
reactor.run()
"""


class Process:
    """A messenger of ours: an event per line in, an event per line out."""

    def __init__(self, folder: Path, port: int) -> None:
        self.log = folder / "messenger.log"
        self._port = port
        self.numbers: set[int] = set()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", MESSENGER, f"localhost:{self._port}", ROOM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,))
        self._reader.start()

    def _read(self, lines) -> None:
        for line in lines:
            self.numbers.add(number_of(line))

    def send(self, number: int) -> None:
        self._process.stdin.write(event(number, ROOM) + b"\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        self._process.stdin.close()
        self._process.stdout.close()


class Device:
    """A service in a room: the repeater dials it, and it sends on the link that it was dialled on."""

    def __init__(self) -> None:
        self.port = free_port()
        self.numbers: set[int] = set()
        self._links: list[ServerConnection] = []
        self._server: Server | None = None

    def start(self) -> None:
        self._server = serve(self._serve, "127.0.0.1", self.port, compression=None, ping_interval=None)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def _serve(self, link: ServerConnection) -> None:
        self._links.append(link)
        try:
            for message in link:
                self.numbers.add(number_of(message.split(b"\n")[1]))
        except ConnectionClosed:
            pass
        self._links.remove(link)

    def send(self, number: int) -> None:
        for link in list(self._links):
            link.send(b"%b\n\n%b" % (ROOM.encode(), event(number, ROOM)))

    def kill(self) -> None:
        """As when its process is killed: its links are cut and nobody listens."""
        for link in list(self._links):
            link.close_socket()
        self._server.shutdown()
        self._thread.join(PATIENCE)


class Target:
    """An HTTP target."""

    def __init__(self) -> None:
        self.port = free_port()
        self.numbers: set[int] = set()

    def start(self) -> None:
        numbers = self.numbers

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                numbers.add(number_of(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def kill(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE)


def number_of(text: bytes) -> int:
    return int(json.loads(text)["value"])


class System:
    """All of them, running."""

    def __init__(self, folder: Path) -> None:
        self.device, self.target = Device(), Target()
        routes = folder / "routes.toml"
        targets = [f"ws://127.0.0.1:{self.device.port}", f"http://127.0.0.1:{self.target.port}/event"]
        routes.write_text(f"[routes]\n{ROOM} = {json.dumps(targets)}\n")
        self.hub = Role(folder, "ces-hub", free_port())
        to_hub = ("--hub", f"localhost:{self.hub.port}")
        # Links to the device stay, so that it always has one to send on.
        self.repeater = Role(
            folder, "ces-repeater", free_port(), *to_hub, "--routes", str(routes), "--idle-ttl", "1h"
        )
        self.messenger = Process(folder, self.hub.port)
        self.number = 0
        for member in (self.device, self.target, self.hub, self.repeater, self.messenger):
            member.start()

    def restart(self, name: str) -> None:
        member = getattr(self, name)
        if isinstance(member, Role):
            member.stop(signal.SIGKILL)
        else:
            member.kill()
        member.start()

    def works(self) -> None:
        """Events pass both ways, end to end; what was under way when a member died may be lost."""
        until(lambda: self._passes(self.messenger.send, self.target), "messenger to HTTP target")
        until(lambda: self._passes(self.messenger.send, self.device), "messenger to device")
        until(lambda: self._passes(self.device.send, self.messenger), "device to messenger")
        until(lambda: self._passes(self._post, self.messenger), "outside to messenger")

    def _passes(self, send, receiver: Process | Device | Target) -> bool:
        """Whether an event that is sent now arrives soon."""
        self.number += 1
        number = self.number
        send(number)
        try:
            return until(lambda: number in receiver.numbers, "it arrives", 0.5)
        except AssertionError:
            return False

    def _post(self, number: int) -> None:
        assert self.repeater.request("POST", "/send", event(number, ROOM)) == (200, "ok")

    def end(self) -> None:
        self.messenger.kill()
        self.repeater.stop()
        self.hub.stop()
        self.device.kill()
        self.target.kill()
        logs = self.hub.logged() + self.repeater.logged() + self.messenger.log.read_text()
        assert "Traceback" not in logs, logs
        assert "Unhandled" not in logs, logs


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    running = System(tmp_path)
    yield running
    running.end()


def test_whoever_is_killed_and_restarted_all_others_go_on(system: System) -> None:
    system.works()
    for name in ("hub", "repeater", "device", "target", "messenger"):
        system.restart(name)
        system.works()
