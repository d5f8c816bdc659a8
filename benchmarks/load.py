"""The load generator: raw non-blocking sockets and epoll, on its own core.

Owns the connections, the closed loop and the clock of a run. Does not know the scenario or the server. A
publisher writes prepared bytes while at most `window` records are between what it has sent and what the
slowest of its subscribers has received. No server must therefore buffer without limit. After the run, every
sent record that does not arrive counts as lost.
"""

from __future__ import annotations

import base64
import gc
import os
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import cycle

from benchmarks.wire import ACK_SECONDS, Counter, Session, Speech, frame, masked

TIMEOUT = 5.0
"""Seconds without any delivery after which the missing records count as lost."""

BLOCK = 1024 * 1024
"""Size limit of one read, in bytes."""


class Gone(ConnectionError):
    """The server ended a connection or reported an error."""


class Connection:
    """One client: its socket, the count of received events, and the unsent bytes.

    worth: number of events that one delivery stands for.

    :param address: (host, port) of the server.
    :param source: the local address to connect from.
    :raises OSError, Gone: when the server refuses the connection or breaks the protocol.
    """

    worth = 1
    serving = False

    def __init__(
        self,
        speech: Speech,
        address: tuple[str, int],
        counter: Counter,
        path: str = "",
        source: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.speech, self.counter = speech, counter
        self.received = 0
        self._asked = speech.greeted
        self.unsent = b""
        self.seen: Callable[[bytes], None] | None = None
        """Called with the received bytes, to measure latency."""
        self.stream: Stream | None = None
        """The stream that this connection belongs to."""
        self.socket: socket.socket = socket.socket()
        if source:
            self.socket.setsockopt(
                socket.IPPROTO_IP, 24, 1
            )  # IP_BIND_ADDRESS_NO_PORT: a port per destination
            self.socket.bind((source, 0))
        self.socket.settimeout(TIMEOUT * 4)
        self.socket.connect(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket)
        if path or speech.path:
            self._upgrade(path or speech.path)
        self.socket.sendall(speech.opening(self.socket.fileno()))

    def _upgrade(self, path: str) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        wanted = self.speech.subprotocol
        lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"]
        lines += [f"Sec-WebSocket-Protocol: {wanted}"] if wanted else []
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            more = self.socket.recv(4096)
            if not more:
                raise Gone(f"no upgrade: {answer[:200]!r}")
            answer += more
        head, _, rest = answer.partition(b"\r\n\r\n")
        if b" 101 " not in head.split(b"\r\n")[0] or (wanted and wanted.encode() not in head):
            raise Gone(f"no upgrade: {head[:200]!r}")
        self._took(memoryview(rest))

    def subscribe(self, rooms: list[str]) -> None:
        """Subscribe, without waiting for the confirmation."""
        self.socket.sendall(self.speech.subscribe(rooms))
        self._asked += self.speech.confirmed

    def ask(self) -> None:
        """Ask the server to answer once it has handled everything before. `settle` waits for the answer."""
        self.socket.sendall(self.speech.sync())
        self._asked += self.speech.answered

    def settle(self) -> None:
        """Wait for all outstanding answers."""
        while self.counter.synced < self._asked:
            data = self.socket.recv(65536)
            if not data:
                raise Gone("the server closed a connection")
            self._took(memoryview(data))

    def start(self) -> None:
        """Make the socket non-blocking."""
        self.socket.setblocking(False)

    def read(self, block: memoryview) -> bool:
        """Read once. Returns whether there was data."""
        try:
            size = self.socket.recv_into(block)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        if not size:
            raise Gone(f"the server closed a {self.speech.name} connection")
        self._took(block[:size])
        return True

    def _took(self, data: memoryview) -> None:
        if self.seen is not None:
            self.seen(bytes(data))
        self.received += self.counter.feed(data) * self.worth
        if isinstance(self.counter, Session) and self.counter.due:
            self.acknowledge()
        if self.counter.answers:
            answers, self.counter.answers = self.counter.answers, b""
            self.write(answers)
        if self.counter.farewell:
            raise Gone(f"{self.speech.name}: {self.counter.farewell}")

    @property
    def owes(self) -> bool:
        """Whether received records have not been acknowledged."""
        return isinstance(self.counter, Session) and self.counter.owes

    def acknowledge(self) -> None:
        """Acknowledge the received records, if any are unacknowledged."""
        if isinstance(self.counter, Session) and self.counter.owes:
            said = self.counter.acknowledgement()
            self.write(frame(said, 1) if self.serving else masked(said, 1))

    def write(self, data: bytes) -> bool:
        """Write, after the bytes that still wait. Returns whether nothing waits now."""
        data = self.unsent + data if self.unsent else data
        try:
            sent = self.socket.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError):
            sent = 0
        self.unsent = data[sent:] if sent < len(data) else b""
        return not self.unsent

    def close(self) -> None:
        """Reset the connection, so that nothing of it stays in the kernel."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.socket.close()


@dataclass(eq=False)
class Stream:
    """A publisher and its subscribers.

    chunks: prepared writes, used in turn.
    batch: number of records in each chunk.
    window: limit of records that are sent and not yet received.
    """

    connection: Connection
    chunks: Sequence[bytes]
    batch: int
    window: int
    subscribers: list[Connection]
    sent: int = 0

    def __post_init__(self) -> None:
        self._next = cycle(self.chunks)

    def push(self) -> None:
        """Publish as much as the window and the socket allow."""
        if self.connection.unsent and not self.connection.write(b""):
            return
        allowed = self.window - self.batch + min([s.received for s in self.subscribers])
        while self.sent <= allowed:
            self.sent += self.batch
            if not self.connection.write(next(self._next)):
                return


@dataclass
class Run:
    """The result of one run.

    seconds, deliveries, cpu, busy: of the measured time; `cpu` is the server's and `busy` the load's, in
    seconds. expected, received: deliveries of the whole run, including warm-up and drain.
    """

    seconds: float
    deliveries: int
    cpu: float
    busy: float
    expected: int
    received: int
    extra: dict[str, float] = field(default_factory=dict)

    def numbers(self) -> dict[str, float]:
        """The numbers for the report."""
        return {
            "deliveries": self.deliveries,
            "seconds": self.seconds,
            "rate": self.deliveries / self.seconds,
            "per_cpu": self.deliveries / max(self.cpu, 0.01),
            "server_cpu": self.cpu / self.seconds,
            "load_busy": self.busy / self.seconds,
            "expected": self.expected,
            "received": self.received,
            "lost": self.expected - self.received,
            **self.extra,
        }


class Poll:
    """Waits for sockets, and calls `read` or `write` of their connections."""

    def __init__(self, connections: Iterable[Connection]) -> None:
        self._epoll = select.epoll()
        self._owners: dict[int, Connection] = {}
        self._full: set[int] = set()
        self._owing: dict[Connection, None] = {}
        self._sweep = 0.0
        self._block = memoryview(bytearray(BLOCK))
        for connection in connections:
            self.add(connection)

    def add(self, connection: Connection) -> None:
        """Start watching a connection."""
        connection.start()
        self._owners[connection.socket.fileno()] = connection
        self._epoll.register(connection.socket.fileno(), select.EPOLLIN)

    def remove(self, connection: Connection) -> None:
        """Stop watching a connection."""
        self._full.discard(connection.socket.fileno())
        self._owing.pop(connection, None)
        del self._owners[connection.socket.fileno()]
        self._epoll.unregister(connection.socket.fileno())

    def once(self, timeout: float) -> list[Connection]:
        """Read and write what the sockets allow. Returns the connections with activity."""
        happened = []
        for number, events in self._epoll.poll(timeout):
            connection = self._owners[number]
            happened.append(connection)
            if events & ~select.EPOLLOUT:
                connection.read(self._block)
                if connection.owes:
                    self._owing[connection] = None
            elif connection.write(b""):
                self._full.discard(number)
                self._epoll.modify(number, select.EPOLLIN)
        if self._owing and time.monotonic() >= self._sweep:
            self._sweep = time.monotonic() + ACK_SECONDS
            owing, self._owing = self._owing, {}
            for connection in owing:
                connection.acknowledge()
        return happened

    def watch_full(self, connections: Iterable[Connection]) -> None:
        """Watch the connections with unsent bytes until their sockets are writable."""
        for connection in connections:
            number = connection.socket.fileno()
            if connection.unsent and number not in self._full:
                self._full.add(number)
                self._epoll.modify(number, select.EPOLLIN | select.EPOLLOUT)


def drive(
    streams: list[Stream],
    cpu: Callable[[], float],
    seconds: float,
    warm_up: float,
    others: Iterable[Connection] = (),
) -> Run:
    """Publish for `warm_up` plus `seconds`, then wait for the remaining deliveries.

    :param cpu: returns the CPU seconds that the server has used.
    :param others: connections that only stay open.
    """
    subscribers = [s for stream in streams for s in stream.subscribers]
    for stream in streams:
        stream.connection.stream = stream
        for subscriber in stream.subscribers:
            subscriber.stream = stream
    poll = Poll({*(stream.connection for stream in streams), *subscribers, *others})
    gc.collect()
    gc.disable()
    try:
        _publish(streams, poll, time.monotonic() + warm_up)
        before = sum(s.received for s in subscribers)
        began, cpu_began = time.monotonic(), cpu()
        busy = _publish(streams, poll, began + seconds)
        lasted, used = time.monotonic() - began, cpu() - cpu_began
        deliveries = sum(s.received for s in subscribers) - before
        received = _drain(streams, subscribers, poll)
    finally:
        gc.enable()
    expected = sum(stream.sent * len(stream.subscribers) for stream in streams)
    return Run(lasted, deliveries, used, busy, expected, received)


def _publish(streams: list[Stream], poll: Poll, until: float) -> float:
    """Publish until the time `until`. Returns the seconds in which there was something to do.

    Polls without sleeping. To wake a sleeping process on another core would cost the server time, especially
    on virtual machines, and would distort its numbers.
    """
    touched: Iterable[Stream] = streams
    idle, began = 0.0, time.monotonic()
    now = began
    while now < until:
        for stream in touched:
            stream.push()
        poll.watch_full([stream.connection for stream in touched])
        happened = poll.once(0)
        touched = {c.stream: None for c in happened if c.stream is not None}
        before, now = now, time.monotonic()
        if not happened:
            idle += now - before
    return now - began - idle


def _drain(streams: list[Stream], subscribers: list[Connection], poll: Poll) -> int:
    expected = sum(stream.sent * len(stream.subscribers) for stream in streams)
    received = sum(s.received for s in subscribers)
    deadline = time.monotonic() + TIMEOUT
    while received < expected and time.monotonic() < deadline:
        poll.watch_full([stream.connection for stream in streams])
        poll.once(0.1)
        now = sum(s.received for s in subscribers)
        if now > received:
            received, deadline = now, time.monotonic() + TIMEOUT
    return received


def settle(connections: Iterable[Connection]) -> None:
    """Wait until the server has handled everything that these connections have sent."""
    everyone = list(connections)
    for connection in everyone:
        connection.ask()
    for connection in everyone:
        connection.settle()
