"""The load: raw non-blocking sockets and epoll, on a core of its own.

Owns connections, the closed loop and the clock of a run; does not know what a scenario means or which server
it talks to. A publisher writes ready-made bytes as long as no more than `window` records are between what it
has sent and what the slowest of its subscribers has received. So no server is asked to buffer without end,
and what a server loses shows: after the run everything that was sent must arrive, or it counts as lost.
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

PATIENCE = 5.0
"""Seconds without a single delivery after which what has not come counts as lost."""

BLOCK = 1024 * 1024
"""So much is read at a time, at most."""


class Gone(ConnectionError):
    """The server ended a connection, or said that something was wrong."""


class Connection:
    """One client: its socket, what it has received, and what must still be written.

    worth: how many events one delivery stands for.

    :param address: (host, port) of the server. :param source: the address to come from.
    :raises OSError, Gone: when the server does not speak as it should.
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
        """Gets what is received, too (latency)."""
        self.stream: Stream | None = None
        """The publisher that waits for this subscriber."""
        self.socket: socket.socket = socket.socket()
        if source:
            self.socket.setsockopt(
                socket.IPPROTO_IP, 24, 1
            )  # IP_BIND_ADDRESS_NO_PORT: a port per destination
            self.socket.bind((source, 0))
        self.socket.settimeout(PATIENCE * 4)
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
        """Subscribe, without waiting for it."""
        self.socket.sendall(self.speech.subscribe(rooms))
        self._asked += self.speech.confirmed

    def ask(self) -> None:
        """Ask whether the server has dealt with what was said."""
        self.socket.sendall(self.speech.sync())
        self._asked += self.speech.answered

    def settle(self) -> None:
        """Wait until everything that was asked has been answered."""
        while self.counter.synced < self._asked:
            data = self.socket.recv(65536)
            if not data:
                raise Gone("the server closed a connection")
            self._took(memoryview(data))

    def start(self) -> None:
        """From now on, nothing waits for this connection."""
        self.socket.setblocking(False)

    def read(self, block: memoryview) -> bool:
        """Read once; whether anything came."""
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
        """Whether anything that came is to be acknowledged."""
        return isinstance(self.counter, Session) and self.counter.owes

    def acknowledge(self) -> None:
        """Acknowledge what has come, if that is still to be done."""
        if isinstance(self.counter, Session) and self.counter.owes:
            said = self.counter.acknowledgement()
            self.write(frame(said, 1) if self.serving else masked(said, 1))

    def write(self, data: bytes) -> bool:
        """Write behind what still waits; whether everything is written now."""
        data = self.unsent + data if self.unsent else data
        try:
            sent = self.socket.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError):
            sent = 0
        self.unsent = data[sent:] if sent < len(data) else b""
        return not self.unsent

    def close(self) -> None:
        """End the connection at once: nothing of it stays in the kernel."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.socket.close()


@dataclass(eq=False)
class Stream:
    """A publisher and its subscribers.

    chunks: what it writes in one go, in turn. batch: how many records each of them is. window: how many
        records may be on their way.
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
        """Publish as far as window and socket allow."""
        if self.connection.unsent and not self.connection.write(b""):
            return
        allowed = self.window - self.batch + min([s.received for s in self.subscribers])
        while self.sent <= allowed:
            self.sent += self.batch
            if not self.connection.write(next(self._next)):
                return


@dataclass
class Run:
    """What came of one run.

    seconds, deliveries, cpu (of the server) and busy (the load's seconds) are of the measured time; expected
    and received are of the whole run, with what came before and after.
    """

    seconds: float
    deliveries: int
    cpu: float
    busy: float
    expected: int
    received: int
    extra: dict[str, float] = field(default_factory=dict)

    def numbers(self) -> dict[str, float]:
        """What is kept of it."""
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
    """Waits for sockets and lets whoever they belong to read and write."""

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
        """Watch a connection, too."""
        connection.start()
        self._owners[connection.socket.fileno()] = connection
        self._epoll.register(connection.socket.fileno(), select.EPOLLIN)

    def remove(self, connection: Connection) -> None:
        """Watch it no more."""
        self._full.discard(connection.socket.fileno())
        self._owing.pop(connection, None)
        del self._owners[connection.socket.fileno()]
        self._epoll.unregister(connection.socket.fileno())

    def once(self, timeout: float) -> list[Connection]:
        """Read what can be read, write what can be written; the connections that something happened on."""
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
        """Be told when there is room again on those that could not write everything."""
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
    """Publish for `warm_up` and `seconds`, then wait for what is still on its way.

    :param cpu: seconds of CPU that the server has used. :param others: connections that are only kept alive.
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
    """Publish until then; the seconds in which there was something to do.

    It spins rather than sleeps: waking a sleeping process on another core costs the one that wakes it, and is
    slow on virtual machines. That is nobody's merit or fault, so it is in nobody's numbers.
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
    patience = time.monotonic() + PATIENCE
    while received < expected and time.monotonic() < patience:
        poll.watch_full([stream.connection for stream in streams])
        poll.once(0.1)
        now = sum(s.received for s in subscribers)
        if now > received:
            received, patience = now, time.monotonic() + PATIENCE
    return received


def settle(connections: Iterable[Connection]) -> None:
    """Wait until the server has dealt with everything that these have said."""
    everyone = list(connections)
    for connection in everyone:
        connection.ask()
    for connection in everyone:
        connection.settle()
