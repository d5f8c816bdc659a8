"""A world in memory: processes, a network between them, and one clock that jumps from event to event.

Everything that happens is in one heap, ordered by time. So a minute costs what happens in it, and the same
seed gives the same run. A `Process` is a reactor of its own, as far as the roles need one: a clock, delayed
calls, and endpoints. It may sleep, while its sockets stay open and its timers wait, and it may die.

A `Cable` is one TCP connection: two `Pipe`s, one for each direction, between two `End`s. A pipe holds what
the kernels and the network hold. It takes a bounded number of bytes, delivers them in order after a delay,
may stall for a time, and may lose them when the connection is cut. An end is the transport of its protocol,
with Twisted's rules: a producer that is paused when too much waits, half-closed streams, aborted connections.

`world()` replaces what would make two runs differ, for the time of one run: random delays, session ids, names
resolved by DNS, and the order of sets.
"""

from __future__ import annotations

import random
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from heapq import heappop, heappush
from typing import Any
from unittest import mock

import autobahn.twisted.websocket
import autobahn.websocket.protocol
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import (
    AlreadyCalled,
    AlreadyCancelled,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
)
from twisted.internet.error import TimeoutError as DialTimeout
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

import ces.hub.hub
import ces.link.connection
import ces.link.pressure
import ces.link.serving
import ces.link.turn
import ces.uplink.dialler

LATENCY = (0.0005, 0.02)
"""Seconds from one process to another."""

KERNEL = 64 * 1024
"""Bytes that the kernels at both ends of a connection hold for one direction."""

BUFFER = 16 * 1024
"""Bytes in a transport above which its producer is paused."""

CALLS = 100_000
"""A run in which more happens than this does not end by itself."""


class Endless(AssertionError):
    """Too much happens: something calls itself again and again."""


class Call:
    """A delayed call (`twisted.internet.interfaces.IDelayedCall`)."""

    __slots__ = ("args", "counted", "function", "process", "ran", "time")

    def __init__(
        self, time: float, process: Process | None, function: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        self.time = time
        self.process = process
        self.function: Callable[..., object] | None = function
        self.args = args
        self.ran = False
        self.counted = False

    def active(self) -> bool:
        return self.function is not None

    def getTime(self) -> float:
        return self.time

    def reset(self, seconds: float) -> None:
        assert self.process is not None
        world = self.process.world
        self.time = world.now + seconds
        world.push(self)

    def cancel(self) -> None:
        if self.function is None:
            raise AlreadyCalled() if self.ran else AlreadyCancelled()
        self.function = None
        if self.counted and self.process is not None:
            self.process.calls -= 1


class World:
    """The clock, and what happens next.

    seed: what every random choice of the network derives from.
    now: seconds since the beginning.
    current: the process that is running.
    failures: tracebacks of exceptions that nobody caught, or that were logged as unexpected.
    cables: the latest connection from each process to each address.
    window: seconds for which a session is kept. parted: called with two processes that have not heard of each
        other for that long, and do again.
    """

    def __init__(self, seed: object) -> None:
        self.seed = seed
        self.now = 0.0
        self.current: Process | None = None
        self.failures: list[str] = []
        self.cables: dict[tuple[str, str], Cable] = {}
        self.dialled: dict[tuple[str, str], int] = {}
        self.servers: dict[str, Server] = {}
        self.open: dict[Cable, None] = {}
        self.window = 120.0
        self.parted: Callable[[str, str], None] = lambda one, other: None
        self.ids = 0
        self.happened = 0
        self._contacts: dict[frozenset[str], Contact] = {}
        self._heap: list[tuple[float, int, Call]] = []
        self._order = 0

    def at(
        self, time: float, process: Process | None, function: Callable[..., object], *args: object
    ) -> Call:
        """Call `function` at a time, as this process unless it is None."""
        call = Call(time, process, function, args)
        self.push(call)
        return call

    def push(self, call: Call) -> None:
        """It is to happen at its time."""
        self._order += 1
        heappush(self._heap, (call.time, self._order, call))

    def run(self, until: float) -> None:
        """Let everything happen until then.

        :raises Endless: when that is too much.
        """
        heap = self._heap
        while heap and heap[0][0] <= until:
            time, _, call = heappop(heap)
            function = call.function
            if function is None or call.time != time:
                continue
            if time > self.now:
                self.now = time
            process = call.process
            if process is not None:
                if process.dead:
                    continue
                if process.asleep:
                    process.missed.append(call)
                    continue
                if call.counted:
                    process.calls -= 1
            call.function, call.ran = None, True
            self.happened += 1
            if self.happened > CALLS:
                raise Endless(f"{self.happened} calls, the last of them to {function}")
            self.current = process
            try:
                function(*call.args)
            except Exception:
                self.failures.append(traceback.format_exc())
        self.now = until
        self.current = None

    def calls(self, process: Process) -> list[Call]:
        """The delayed calls of a process, in the order of their times."""
        calls = [
            call for time, _, call in sorted(self._heap, key=lambda entry: entry[:2]) if time == call.time
        ]
        return [
            call
            for call in calls + process.missed
            if call.process is process and call.counted and call.active()
        ]

    def wake(self, process: Process) -> None:
        """What a process has missed happens now."""
        missed, process.missed = process.missed, []
        for call in missed:
            if call.function is not None:
                call.time = self.now
                self.push(call)

    def contact(self, one: str, other: str) -> Contact:
        """What two processes know of each other."""
        pair = frozenset((one, other))
        if pair not in self._contacts:
            self._contacts[pair] = Contact(one, other, self)
        return self._contacts[pair]

    def next_id(self) -> str:
        """A name that no other has."""
        self.ids += 1
        return f"id-{self.ids:021}"


class Log:
    """Takes log calls, and keeps those that say that something failed unexpectedly."""

    def __init__(self, world: World) -> None:
        self._world = world

    def emit(self, *args: object, **fields: object) -> None:
        pass

    debug = info = warn = error = emit

    def failure(self, format: str, failure: Failure | None = None, **fields: object) -> None:
        text = (failure or Failure()).getTraceback()
        self._world.failures.append(f"{format.format_map(fields)}\n{text}")


class Process:
    """One process, which is the reactor of what runs in it.

    :param name: who it is; its successor has the same name.

    calls: how many delayed calls wait. wall: by how many seconds the clock on the wall was set, in all.
    """

    def __init__(self, world: World, name: str, number: int) -> None:
        self.world = world
        self.name = name
        self.log = Log(world)
        self.random = random.Random(f"{world.seed}/{name}/{number}")
        self.dead = False
        self.asleep = False
        self.calls = 0
        self.wall = 0.0
        self.missed: list[Call] = []
        self.ends: dict[End, None] = {}

    def seconds(self) -> float:
        return self.world.now

    def callLater(self, delay: float, function: Callable[..., object], *args: object) -> Call:
        assert delay >= 0
        call = self.world.at(self.world.now + delay, self, function, *args)
        call.counted = True
        self.calls += 1
        return call

    def set_clock(self, seconds: float) -> None:
        """The clock on the wall is set forward, or back. Timers do not depend on it."""
        self.wall += seconds

    def sleep(self, seconds: float) -> None:
        """Do nothing for a time; the sockets stay open."""
        if not self.asleep:
            self.asleep = True
            self.world.at(self.world.now + seconds, None, self.wake)

    def wake(self) -> None:
        if self.asleep:
            self.asleep = False
            self.world.wake(self)

    def die(self, reset: bool) -> None:
        """End at once. The kernel closes the sockets.

        :param reset: and resets the connections.
        """
        self.dead = True
        self.missed.clear()
        for end in list(self.ends):
            end.abandon(reset)


class Server:
    """What listens at an address: builds the protocol for a path, or answers in its stead.

    :param build: the protocol that serves a path.

    answers: until then, `answer` is called instead of `build`, with the name of the process that dials.
    """

    def __init__(self, process: Process, build: Callable[[str], Any]) -> None:
        self.process = process
        self.build = build


class Endpoint:
    """Stands for `HostnameEndpoint`: dials a server of the world.

    refusals: a name of `World.servers` that is not there refuses.
    """

    def __init__(self, reactor: Process, host: str, port: int, seconds: float) -> None:
        self._process, self._host, self._seconds = reactor, host, seconds

    def connect(self, factory: Any) -> Deferred[Any]:
        process, world, host = self._process, self._process.world, self._host
        calls: list[Call] = []

        def cancel(dial: Deferred[Any]) -> None:
            for call in calls:
                if call.active():
                    call.cancel()
            dial.errback(ConnectionAborted())

        dial: Deferred[Any] = Deferred(cancel)
        key = process.name, host
        number = world.dialled[key] = world.dialled.get(key, 0) + 1
        chance = random.Random(f"{world.seed}/{process.name}/{host}/{number}")
        latency = chance.uniform(*LATENCY)
        calls.append(process.callLater(2 * latency, self._reached, factory, dial, chance, latency, calls))
        return dial

    def _reached(
        self, factory: Any, dial: Deferred[Any], chance: random.Random, latency: float, calls: list[Call]
    ) -> None:
        process, world = self._process, self._process.world
        server = world.servers.get(self._host)
        if server is None or server.process.dead:
            dial.errback(ConnectionRefusedError())
            return
        path = str(factory.resource)
        served = server.build(path, process) if isinstance(server, Gate) else server.build(path)
        if served is None:
            calls.append(process.callLater(self._seconds, dial.errback, DialTimeout()))
            return
        cable = Cable(world, process, server.process, chance, latency)
        world.cables[process.name, self._host] = cable
        cable.answered = isinstance(server, Gate)
        if not cable.answered:
            cable.up.contact = world.contact(process.name, server.process.name)
        protocol = factory.buildProtocol(cable.dialling.getPeer())
        server.process.callLater(0, cable.serving.begin, served)
        cable.dialling.begin(protocol)
        dial.callback(protocol)


class Gate(Server):
    """A server that answers in another's stead: a proxy whose upstream is away.

    :param process: the proxy's own, which goes on when what is behind it sleeps, stops or dies.
    :param answer: the protocol that answers a process that dials; None leaves the dial without an answer.
    """

    def __init__(self, process: Process, answer: Callable[[str, Process], Any]) -> None:
        super().__init__(process, lambda path: None)
        self.build = answer  # type: ignore[assignment]


class Contact:
    """When two processes last heard of each other over a link.

    parted: called when they did not for longer than `window`, and do again.
    """

    def __init__(self, one: str, other: str, world: World) -> None:
        self._names = one, other
        self._world = world
        self._heard = world.now

    def hear(self, now: float) -> None:
        """The serving side has heard of the dialling side."""
        if now - self._heard >= self._world.window:
            self._world.parted(*self._names)
        self._heard = now


class Pipe:
    """One direction of a connection.

    delay: seconds until bytes arrive. stalled: until this time, nothing arrives.
    silent: nothing that is written from now on arrives, ever, and nobody is told.
    """

    __slots__ = (
        "_arrived",
        "_call",
        "chunks",
        "contact",
        "delay",
        "ending",
        "latency",
        "receiver",
        "sender",
        "silent",
        "size",
        "stalled",
        "world",
    )

    def __init__(self, world: World, latency: float) -> None:
        self.world = world
        self.latency = latency
        self.delay = latency
        self.stalled = 0.0
        self.silent = False
        self.chunks: deque[tuple[float, bytes]] = deque()
        self.size = 0
        self.ending: tuple[float, Exception] | None = None
        self.contact: Contact | None = None
        self.sender: End
        self.receiver: End
        self._arrived = 0.0
        self._call: Call | None = None

    def push(self, data: bytes) -> None:
        """The sender's kernel has taken these bytes."""
        if self.ending is not None:
            return
        self.size += len(data)
        if self.silent:
            self.chunks.append((float("inf"), data))
            return
        now = self.world.now
        when = self._arrived = max(self._arrived, now + self.delay, self.stalled)
        self.chunks.append((when, data))
        self.read_at(when)

    def finish(self, error: Exception, delay: float = 0.0) -> None:
        """What is under way arrives; then the stream ends."""
        if self.ending is None and not self.silent:
            when = self._arrived = max(self._arrived, self.world.now + self.delay + delay, self.stalled)
            self.ending = when, error
            self.read_at(when)

    def lose(self, kept: float) -> None:
        """What is under way is lost, but for its first part.

        :param kept: how much of it arrives, from 0 to 1.
        """
        chunks = [data for _, data in self.chunks]
        whole = b"".join(chunks)
        left = whole[: int(kept * len(whole))]
        arrival = self.chunks[0][0] if self.chunks else 0.0
        self.chunks.clear()
        self.size = 0
        if left:
            self.size = len(left)
            self.chunks.append((arrival, left))

    def stall(self, seconds: float) -> None:
        """Nothing arrives for a time."""
        self.stalled = max(self.stalled, self.world.now + seconds)

    def read_at(self, when: float) -> None:
        """The receiver reads at this time, if it does not before."""
        call = self._call
        if call is not None and call.active():
            if call.time <= when:
                return
            call.cancel()
        self._call = self.world.at(max(when, self.world.now), self.receiver.process, self._read)

    def _read(self) -> None:
        self._call = None
        receiver, now = self.receiver, self.world.now
        if receiver.gone:
            self.chunks.clear()
            self.size = 0
            return
        if receiver.paused:
            return
        if now < self.stalled:
            self.read_at(self.stalled)
            return
        chunks = self.chunks
        parts = []
        while chunks and chunks[0][0] <= now:
            parts.append(chunks.popleft()[1])
        if parts:
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            self.size -= len(data)
            if self.sender.unsent or self.sender.blocked:
                self.world.at(now + self.latency, self.sender.process, self.sender.refill)
            receiver.take(data)
            if self.contact is not None and getattr(receiver.protocol, "link", None) is not None:
                self.contact.hear(now)
            if receiver.gone or receiver.paused:
                return
        if chunks:
            if chunks[0][0] != float("inf"):
                self.read_at(chunks[0][0])
        elif self.ending is not None:
            when, error = self.ending
            if when <= now:
                receiver.lost(error)
            else:
                self.read_at(when)


class End:
    """One end of a connection: the transport of its protocol.

    gone: the connection is over here. paused: nothing is read. unsent: bytes that the kernel has not taken.
    """

    def __init__(self, cable: Cable, process: Process, out: Pipe, into: Pipe, port: int) -> None:
        self.cable = cable
        self.process = process
        self.out, self.into = out, into
        out.sender, into.receiver = self, self
        self._port = port
        self.gone = False
        self.paused = False
        self.disconnecting = False
        self.connected = False
        self.unsent = 0
        self._waiting: deque[bytes] = deque()
        self._then: Callable[[], None] | None = None
        self._ended = False
        self._producer: Any = None
        self._producer_paused = False
        self.protocol: Any = None
        process.ends[self] = None

    def begin(self, protocol: Any) -> None:
        """The connection is made."""
        if self.gone:
            return
        self.protocol = protocol
        self.connected = True
        protocol.makeConnection(self)
        self.into.read_at(self.process.world.now)

    # -- what a protocol asks of its transport ---------------------------------------------------------------

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "10.0.0.1", self._port)

    getHost = getPeer

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None

    def write(self, data: bytes) -> None:
        if self.gone or self._ended or not data:
            return
        if not self._waiting and self.out.size + len(data) <= self.cable.kernel:
            self.out.push(data)
            return
        self._waiting.append(data)
        self.unsent += len(data)
        self._fill()
        if self.unsent > self.cable.buffer and self._producer is not None and not self._producer_paused:
            self._producer_paused = True
            self._producer.pauseProducing()

    def writeSequence(self, buffers: Iterable[bytes]) -> None:
        self.write(b"".join(buffers))

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        if self.paused and not self.gone:
            self.paused = False
            self.into.read_at(self.process.world.now)

    stopProducing = pauseProducing

    def loseConnection(self) -> None:
        """Close when everything is written."""
        if not self.gone and not self.disconnecting:
            self.disconnecting = True
            self.paused = True
            self._when_written(lambda: self._soon(self._close))

    def loseWriteConnection(self) -> None:
        """End this half of the stream when everything is written, and go on reading."""
        if not self.gone and not self.disconnecting:
            self.disconnecting = True
            self._when_written(self._end)

    def abortConnection(self) -> None:
        """Reset the connection."""
        if not self.gone:
            self.disconnecting = True
            self._waiting.clear()
            self.unsent = 0
            self.paused = True
            self._reset()
            self._soon(self.lost, ConnectionAborted())

    # --------------------------------------------------------------------------------------------------------

    def take(self, data: bytes) -> None:
        """Bytes have arrived."""
        cut = self.cable.pieces
        if cut is None or len(data) < 2:
            self.protocol.dataReceived(data)
            return
        at = cut.randrange(1, len(data))
        for part in (data[:at], data[at:]):
            if not self.gone:
                self.protocol.dataReceived(part)

    def refill(self) -> None:
        """The kernel may have room again."""
        if self.gone:
            return
        self._fill()
        if self._waiting:
            return
        if self._producer_paused and self._producer is not None:
            self._producer_paused = False
            self._producer.resumeProducing()
        if not self._waiting and self._then is not None and not self.gone:
            then, self._then = self._then, None
            then()

    @property
    def blocked(self) -> bool:
        """Whether somebody waits until the kernel has room."""
        return self._producer_paused or self._then is not None

    def _fill(self) -> None:
        waiting, out = self._waiting, self.out
        while waiting and (room := self.cable.kernel - out.size) > 0:
            data = waiting.popleft()
            if len(data) > room:
                waiting.appendleft(data[room:])
                data = data[:room]
            self.unsent -= len(data)
            out.push(data)

    def _when_written(self, then: Callable[[], None]) -> None:
        if self._waiting:
            self._then = then
        else:
            then()

    def _end(self) -> None:
        self._ended = True
        self.out.finish(ConnectionDone())

    def _close(self) -> None:
        self.lost(ConnectionDone())

    def _soon(self, do: Callable[..., None], *args: object) -> None:
        world = self.process.world
        world.at(world.now, self.process, do, *args)

    def _reset(self) -> None:
        """Reset the connection: of what is under way, the first part may still arrive."""
        self._ended = True
        self.out.lose(self.cable.chance.choice((0.0, 0.5, 1.0)))
        self.out.finish(ConnectionLost())

    def lost(self, error: Exception) -> None:
        """The connection is over at this end."""
        if self.gone:
            return
        if not self._ended:
            if self.into.chunks and isinstance(error, ConnectionDone):
                self._reset()  # a kernel resets what is closed before all of it is read
            else:
                self._end()
        self._over()
        if self.protocol is not None:
            self.protocol.connectionLost(Failure(error))

    def abandon(self, reset: bool) -> None:
        """The process has died."""
        if not self.gone:
            if not self._ended:
                if reset:
                    self._reset()
                else:
                    self._end()
            self._over()

    def _over(self) -> None:
        self.gone = True
        self.connected = False
        self.process.ends.pop(self, None)
        self._waiting.clear()
        self.unsent = 0
        self._then = None
        if self.cable.other(self).gone:
            self.cable.world.open.pop(self.cable, None)


class Cable:
    """One connection between two processes.

    chance: its own source of random choices. kernel, buffer: bytes that its pipes and its transports hold.
    pieces: cuts what arrives in two; None for a connection that does not.
    answered: a proxy answers, and no server.
    """

    answered = False

    def __init__(
        self, world: World, client: Process, server: Process, chance: random.Random, latency: float
    ) -> None:
        self.world = world
        self.chance = chance
        self.kernel, self.buffer = KERNEL, BUFFER
        self.pieces = chance if chance.random() < 0.1 else None
        if chance.random() < 0.2:
            self.kernel, self.buffer = 4096, 1024
        up, down = Pipe(world, latency), Pipe(world, latency)
        port = 10_000 + len(world.dialled)
        self.dialling = End(self, client, up, down, port)
        self.serving = End(self, server, down, up, port)
        self.up, self.down = up, down
        world.open[self] = None

    def other(self, end: End) -> End:
        return self.serving if end is self.dialling else self.dialling

    @property
    def works(self) -> bool:
        """Whether bytes arrive in both directions."""
        return not (self.dialling.gone or self.serving.gone or self.up.silent or self.down.silent) and (
            self.up.ending is None and self.down.ending is None
        )

    @property
    def empty(self) -> bool:
        """Whether nothing is on its way."""
        return not (self.up.size or self.down.size or self.dialling.unsent or self.serving.unsent)

    def cut(self, kept: tuple[float, float], delays: tuple[float, float], error: type[Exception]) -> None:
        """Both ends are told that the connection is over.

        :param kept: how much of what is under way arrives, up and down.
        :param delays: seconds until the serving and the dialling end are told.
        """
        for pipe, part, delay in zip((self.up, self.down), kept, delays, strict=True):
            pipe.lose(part)
            pipe.finish(error(), delay)
            pipe.silent = True

    def silence(self, up: bool, down: bool) -> None:
        """Nothing that is written arrives any more, and nobody is told."""
        for pipe, lost in ((self.up, up), (self.down, down)):
            if lost and pipe.ending is None:
                pipe.silent = True
                pipe.lose(0.0)


class Answer(Protocol):
    """Answers an opening handshake with a status, or closes; what a proxy does whose upstream is away.

    :param status: of the answer; 0 closes without one.
    """

    def __init__(self, status: int) -> None:
        self._status = status
        self._data = b""

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        if b"\r\n\r\n" in self._data:
            transport: Any = self.transport
            if self._status:
                transport.write(b"HTTP/1.1 %d Away\r\nContent-Length: 4\r\n\r\naway" % self._status)
            transport.loseConnection()


class _Ordered(dict[Any, None]):
    """A set in the order of its additions: the order of a set of objects depends on their addresses."""

    def __init__(self, items: Iterable[Any] = ()) -> None:
        super().__init__(dict.fromkeys(items))

    def add(self, item: object) -> None:
        self[item] = None

    def update(self, items: Iterable[Any]) -> None:  # type: ignore[override]
        super().update(dict.fromkeys(items))

    def difference_update(self, items: Iterable[Any]) -> None:
        for item in items:
            self.pop(item, None)

    def __sub__(self, other: Iterable[Any]) -> _Ordered:
        return _Ordered(item for item in self if item not in other)


class _Chance:
    """Stands for the module `random` in the dialler: each process has its own."""

    def __init__(self, world: World) -> None:
        self._world = world

    def uniform(self, a: float, b: float) -> float:
        assert self._world.current is not None
        return self._world.current.random.uniform(a, b)


class _Secrets:
    """Stands for the module `secrets` where session ids are made."""

    def __init__(self, world: World) -> None:
        self._world = world

    def token_hex(self, size: int) -> str:
        return self._world.next_id()


def _nothing(*args: object, **more: object) -> str:
    return ""


@contextmanager
def world(seed: object) -> Iterator[World]:
    """A world; what runs in it is the same each time."""
    made = World(seed)
    with ExitStack() as stack:

        def patch(module: Any, name: str, value: object) -> None:
            stack.enter_context(mock.patch.object(module, name, value, create=True))

        patch(ces.uplink.dialler, "HostnameEndpoint", Endpoint)
        patch(ces.uplink.dialler, "random", _Chance(made))
        patch(ces.link.serving, "secrets", _Secrets(made))
        patch(ces.hub.hub, "secrets", _Secrets(made))
        patch(ces.link.connection, "end_stream", End.loseWriteConnection)
        patch(ces.link.connection, "unsent", lambda end: end.unsent)
        for module in (autobahn.websocket.protocol, autobahn.twisted.websocket):
            # It words log lines that nobody sees, which takes longer than all else that a connection does.
            for name in ("pformat", "hltype", "hlval"):
                patch(module, name, _nothing)
        patch(ces.link.turn, "set", _Ordered)
        patch(ces.link.pressure, "set", _Ordered)
        patch(ces.link.pressure, "frozenset", _Ordered)
        yield made
