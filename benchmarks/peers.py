"""The measured servers: each is a child process on its own core, on free loopback ports.

Owns processes, ports, configuration, and the CPU and memory figures of the kernel. Does not know what is
sent.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.wire import Ces1, Ces2, Mqtt, Nats, NatsWebSocket, Raw, Speech

HERE = Path(__file__).parent
CONFIG = "server.conf"
TIMEOUT = 20.0
"""Timeout for the start and the end of a server, in seconds."""
BEFORE = "CES_BENCH_BEFORE"
"""The environment variable with the path of the checkout in ``--before``."""
LISTENING = "0A"  # in /proc/net/tcp
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")

SERVER_CORE, LOAD_CORE, SECOND_CORE = 0, 1, 2
"""The core of each process. With only two cores the second hub shares the load's."""


class Missing(Exception):
    """The server is not installed."""


def free_port() -> int:
    """A port that is currently unused."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def core(wanted: int) -> int:
    """The core for a process, among those that this process may use. The load's core if there are too few."""
    usable = sorted(USABLE)
    return usable[wanted] if wanted < len(usable) else usable[min(LOAD_CORE, len(usable) - 1)]


USABLE = os.sched_getaffinity(0)


class Server:
    """One running server process, pinned to one core.

    :param command: its command line. It runs in a folder of its own.
    :param port: the port that it listens on; 0 for none.
    :param on: its core.
    :param config: the content of the file `CONFIG` in the folder.
    :param source: the checkout whose `ces` it runs.
    :raises RuntimeError: when it does not listen within 20 s; the text ends with its output.
    """

    def __init__(
        self,
        command: list[str],
        port: int,
        on: int = SERVER_CORE,
        config: str = "",
        source: Path = HERE.parent,
    ) -> None:
        self.address = ("127.0.0.1", port)
        self._command = command
        self.folder = Path(tempfile.mkdtemp(prefix="ces-bench-"))
        (self.folder / CONFIG).write_text(config)
        self._log = self.folder / "output"
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("CES_", "ROOM_", "SYSTEM_"))}
        environment["PYTHONPATH"] = os.pathsep.join([str(source), os.environ.get("PYTHONPATH", "")])
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                ["taskset", "-c", str(core(on)), *command],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        if port:
            self._wait()

    def _wait(self) -> None:
        end = time.monotonic() + TIMEOUT
        while time.monotonic() < end and self.process.poll() is None:
            # Not by connecting: the relay would take the first connection for its publisher.
            with Path("/proc/net/tcp").open() as table:
                sockets = [line.split() for line in table]
            if any(s[1].endswith(f":{self.address[1]:04X}") and s[3] == LISTENING for s in sockets):
                return
            time.sleep(0.02)
        said = self.said
        self.stop()
        raise RuntimeError(f"{' '.join(self._command)} does not listen: {said}")

    def wait(self) -> str:
        """Wait until the process has ended by itself. Returns the end of its output."""
        self.process.wait(TIMEOUT)
        return self.said

    @property
    def said(self) -> str:
        """The end of its output."""
        return self._log.read_bytes()[-2000:].decode("utf-8", "replace") if self._log.exists() else ""

    def cpu(self) -> float:
        """CPU seconds used so far, including the kernel's for this process."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def memory(self) -> int:
        """Resident memory, in bytes."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE

    def stop(self) -> None:
        """Send SIGTERM, and SIGKILL after a grace period of 5 s."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def found(name: str) -> str:
    """The path of an installed program.

    :raises Missing: when it is not installed.
    """
    path = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/bin"]))
    if path is None:
        raise Missing(f"{name} is not installed: its columns stay empty (Debian: apt-get install {name})")
    return path


def twistd(role: str, *options: str) -> list[str]:
    """The command line of one of our roles, as in production."""
    script = Path(sys.executable).with_name("twistd")
    return [str(script), "-n", "--pidfile=", role, *options]


def hub(*options: str, on: int = SERVER_CORE, endpoint: str = "tcp:{}:interface=127.0.0.1") -> Server:
    """Start our hub."""
    port = free_port()
    return Server(twistd("ces-hub", "--listen", endpoint.format(port), *options), port, on)


def hub_before() -> Server:
    """Start the hub of the checkout in `BEFORE`."""
    port = free_port()
    command = twistd("ces-hub", "--listen", f"tcp:{port}:interface=127.0.0.1")
    return Server(command, port, source=Path(os.environ[BEFORE]))


def plain_hub(*peer: int, on: int = SERVER_CORE) -> Server:
    """Start the hub on plain Autobahn.

    :param peer: the port of another such hub to link to.
    """
    port = free_port()
    return Server([sys.executable, str(HERE / "plain_hub.py"), str(port), *map(str, peer)], port, on)


def relay() -> Server:
    """Start the relay, which shows what the kernel can move."""
    port = free_port()
    return Server([sys.executable, str(HERE / "relay.py"), str(port)], port)


def nats(websocket: bool = False) -> Server:
    """Start nats-server. Its address is that of the WebSocket port or of the TCP port."""
    program, port, web_port = found("nats-server"), free_port(), free_port()
    config = (
        f'listen: "127.0.0.1:{port}"\nmax_pending: 256MB\nwrite_deadline: "30s"\nlogfile: "/dev/null"\n'
        f'websocket {{ listen: "127.0.0.1:{web_port}", no_tls: true, compression: false }}\n'
    )
    return Server([program, "-c", CONFIG], web_port if websocket else port, config=config)


def mosquitto() -> Server:
    """Start mosquitto, without the limits that would make it drop messages."""
    program, port = found("mosquitto"), free_port()
    config = (
        f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence false\nlog_dest none\n"
        "set_tcp_nodelay true\nmax_queued_messages 0\nmax_queued_bytes 0\n"
        "max_inflight_messages 0\nmax_inflight_bytes 0\n"
    )
    return Server([program, "-c", CONFIG], port, config=config)


@dataclass(frozen=True)
class Peer:
    """A column of the table: a server and its protocol."""

    name: str
    title: str
    speech: Speech

    def start(self) -> Server:
        """Start the server.

        :raises Missing: when it is not installed.
        """
        return STARTS[self.name]()


STARTS: dict[str, Callable[[], Server]] = {
    "ces.2": hub,
    "ces.1": hub,
    "plain": plain_hub,
    "nats": nats,
    "nats-ws": lambda: nats(websocket=True),
    "mosquitto": mosquitto,
    "relay": relay,
    "ces.2-before": hub_before,
}

PEERS = {
    peer.name: peer
    for peer in (
        Peer("ces.2", "our hub, ces.2", Ces2()),
        Peer("ces.1", "our hub, ces.1", Ces1()),
        Peer("plain", "plain Autobahn hub", Ces1()),
        Peer("nats", "nats-server, TCP", Nats()),
        Peer("nats-ws", "nats-server, WebSocket", NatsWebSocket()),
        Peer("mosquitto", "mosquitto, TCP", Mqtt()),
        Peer("ces.2-before", "the hub before, ces.2", Ces2()),
        Peer("relay", "kernel (raw relay)", Raw()),
    )
}
