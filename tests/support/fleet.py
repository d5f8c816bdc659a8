"""Real processes and foreign clients, for the end-to-end tests.

`Role` is a ``twistd`` process. `Peer` is a client of the ``websockets`` package that behaves like a member of
the fleet. In ces.1 it writes exactly as the Go services do (leading line feeds, no final one, one record per
message). In ces.2 it sends hello and batches.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from itertools import chain, cycle
from pathlib import Path

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

PATIENCE = 15.0


PORTS = range(15_000, 32_000)
"""Below those that the kernel gives to outgoing connections (ip_local_port_range): one of thousands of them
could take a role's port before it listens, or while it is started again.
"""

_ports = chain(range(PORTS.start + os.getpid() * 1009 % len(PORTS), PORTS.stop), cycle(PORTS))


def free_port() -> int:
    """A port that is currently unused, and another one each time."""
    for port in _ports:
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise AssertionError("there is always another port")


def until(condition, what: str, patience: float = PATIENCE):
    """Call `condition` until its result is true. Returns the result.

    :param what: describes the condition in the error.
    :param patience: the timeout, in seconds.
    :raises AssertionError: after the timeout.
    """
    end = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {patience:g} s: {what}")
        time.sleep(0.02)


class Role:
    """One ``twistd`` process: ``Role(tmp_path, "ces-hub", port, "--in-room")``."""

    def __init__(self, folder: Path, role: str, port: int, *options: str, name: str = "", env=None) -> None:
        self.folder, self.role, self.port, self.options = folder, role, port, options
        self.name = name or f"{role}-{port}"
        self.log = folder / f"{self.name}.log"
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("CES_", "ROOM_", "SYSTEM_"))} | (
            env or {}
        )
        self.process: subprocess.Popen[bytes] | None = None

    def command(self, *twistd: str) -> list[str]:
        return [
            twistd_script(),
            *twistd,
            self.role,
            "--listen",
            f"tcp:{self.port}:interface=127.0.0.1",
            *self.options,
        ]

    def start(self) -> Role:
        self.process = subprocess.Popen(
            self.command("-n", "--pidfile=", f"--logfile={self.log}"),
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        until(self.healthy, f"{self.name} answers")
        return self

    def run(self, *twistd: str) -> subprocess.CompletedProcess[str]:
        """Run it until it ends by itself."""
        return subprocess.run(
            self.command(*twistd),
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    def fail_as_daemon(self, sentence: str) -> str:
        """Start it as a daemon. The start must fail, log `sentence`, and leave no pid file.

        :return: its standard error.
        """
        pidfile = self.folder / f"{self.name}.pid"
        done = self.run(f"--pidfile={pidfile}", f"--logfile={self.log}")
        assert done.returncode == 1
        # The daemon first reports to its parent, then writes its log, and then ends.
        until(lambda: sentence in self.logged(), "the log says why")
        until(lambda: not pidfile.exists(), "the pid file is removed")
        assert "Traceback" not in done.stdout + done.stderr + self.logged()
        return done.stderr

    def healthy(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            said = self.process.stdout.read().decode() or self.logged()
            raise AssertionError(f"{self.name} ended: {said}")
        try:
            return self.get("/health")[0] == 200
        except OSError:
            return False

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it with a signal. Returns the exit status: twistd ends by the signal that it has received."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        self.process.stdout.close()
        return code

    def logged(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def get(self, path: str) -> tuple[int, str]:
        return self.request("GET", path)

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
        """Make an HTTP request. Returns the status code and the body's text."""
        ask = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=body, method=method)
        try:
            with urllib.request.urlopen(ask, timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def info(self) -> dict:
        return json.loads(self.get("/status")[1])["info"]

    def rooms(self, link: str = "", prefix: str = "") -> set[str]:
        """All rooms that a hub knows to be listened to, or those of the links with this name."""
        found: set[str] = set()
        asked = {"prefix": prefix, "limit": "1000"} | ({"link": link} if link else {})
        while True:
            answer = json.loads(self.get(f"/rooms?{urllib.parse.urlencode(asked)}")[1])
            found.update(one["room"] for one in answer["rooms"])
            if answer["next"] is None:
                return found
            asked["after"] = answer["next"]


def twistd_script() -> str:
    """The path of the ``twistd`` of this interpreter."""
    return str(Path(sys.executable).with_name("twistd"))


def event(number: int, room: str = "ITB-1108") -> bytes:
    """A v2 event with `number` as its value."""
    return json.dumps(
        {
            "generating-system": f"{room}-CP1",
            "timestamp": "2026-11-23T08:00:00.123456789Z",
            "event-tags": ["core-state", "user-generated"],
            "target-device": {"buildingID": "ITB", "roomID": room, "deviceID": f"{room}-D1"},
            "affected-room": {"buildingID": "ITB", "roomID": room},
            "key": "volume",
            "value": str(number),
            "user": "",
            "data": None,
        }
    ).encode()


class Peer:
    """A WebSocket client that behaves like a member of the fleet."""

    def __init__(self, port: int, path: str, dialect: str = "ces.1", node: str = "") -> None:
        self.dialect = dialect
        offered = [dialect] if dialect == "ces.2" else None
        self.socket: ClientConnection = connect(
            f"ws://127.0.0.1:{port}{path}",
            subprotocols=offered,
            compression=None,
            max_size=None,
            max_queue=None,
            ping_interval=None,
            legacy=True,
        )
        self.controls: list[dict] = []
        self.received = 0
        self._waiting: list[tuple[str, bytes]] = []
        if dialect == "ces.2":
            self.socket.send(
                json.dumps({"hello": {"node": node or f"peer-{id(self)}", "session": None, "received": 0}})
            )
            self.hello = json.loads(self.socket.recv(PATIENCE))["hello"]

    def subscribe(self, *rooms: str, create: bool = True) -> None:
        self.socket.send(json.dumps({"rooms": list(rooms), "create": create}))

    def send(self, room: str, *events: bytes) -> None:
        if self.dialect == "ces.2":
            self.socket.send(b"".join(b"%b\n%b\n" % (room.encode(), one) for one in events))
        else:
            for one in events:
                self.socket.send(b"%b\n\n\n%b" % (room.encode(), one))

    def records(self, quiet: float = 0.3) -> Iterator[tuple[str, bytes]]:
        """Yield records as they arrive, until none has arrived for `quiet` seconds."""
        while True:
            if self._waiting:
                yield self._waiting.pop(0)
                continue
            try:
                message = self.socket.recv(quiet)
            except (TimeoutError, ConnectionClosed):
                return
            if isinstance(message, str):
                self.controls.append(json.loads(message))
                continue
            lines = message.split(b"\n")
            assert lines[-1] == b"", "every record ends with a line feed"
            assert self.dialect == "ces.2" or len(lines) == 3, "ces.1 carries one record per message"
            self.received += len(lines) // 2
            if self.dialect == "ces.2":
                with contextlib.suppress(ConnectionClosed):
                    self.socket.send(f'{{"ack":{self.received}}}')
            self._waiting += [(r.decode(), e) for r, e in zip(lines[:-1:2], lines[1::2], strict=True)]

    def numbers(self, count: int, quiet: float = 0.3) -> list[int]:
        """The numbers of at least `count` events, and of all events that follow within `quiet` seconds."""
        found: list[int] = []
        end = time.monotonic() + PATIENCE
        while len(found) < count and time.monotonic() < end:
            found += [int(json.loads(one)["value"]) for _, one in self.records(0.01)]
        return found + [int(json.loads(one)["value"]) for _, one in self.records(quiet)]

    def close(self) -> None:
        self.socket.close()
