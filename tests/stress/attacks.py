"""Attacks on a live hub and its repeater: ``python -m tests.stress.attacks KIND SEED TARGET``.

Each kind is a class. An attack comes from another address than the bystanders (`SOURCE`), at a low priority
(`NICE`), and is paced: the machine is to be left to the others, so that what they feel is the hub's doing. It
says when it begins, goes on until SIGTERM, and then prints what it did, as JSON. That the other side refuses
or cuts a connection is part of the game and is counted.

An attack stays within the limits of the hub, or asks for what is refused. It never speaks for the rooms of
the bystanders, and never is the repeater of a hub: what it then got, others would rightly miss.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import ClassVar

from tests.support.links import UPGRADE, frame
from tests.support.raw import BINARY, PING, TEXT, RawLink, tcp
from tests.support.wall import Wall

SOURCE = "127.0.0.2"
"""The address that attacks come from."""

NICE = 5
"""A third of the weight of the others. With less, nobody is attacked on a machine that is busy."""

OBSERVED = ("ITB-0", "ITB-1", "ITB-2", "BULK")
"""Rooms of the bystanders."""

MIB = 2**20
LINK = 50_000
"""Bytes of memory that one connection may cost, with its session and its buffers."""

REFUSALS = (OSError, AssertionError)

HANDSHAKE = UPGRADE.replace(b"hub:7100", b"127.0.0.1")
HANDSHAKE %= b"%b" + b"Sec-WebSocket-Protocol: ces.2\r\n"


@dataclass(frozen=True)
class Target:
    """What is attacked.

    hub, repeater: ports. nodes: node ids of bystanders. clock: folder of the hub's system clock.
    """

    hub: int
    repeater: int
    nodes: tuple[str, ...]
    clock: str


class Attack:
    """One kind of attack.

    kind: its name. stated: the memory in bytes that docs/reliability.md lets it cost, beyond `LINK` for each
    of its `links`, and beyond what may wait for all links together (``--buffer-limit``).
    does: number of the things that it did. refused: how often it was refused or cut.
    """

    kind: ClassVar[str]
    stated: ClassVar[int] = 0
    links: ClassVar[int] = 10
    waits: ClassVar[bool] = False
    """Whether what waits for its links is part of what it may cost."""

    def __init__(self, seed: int, target: Target) -> None:
        self.random = random.Random(f"{self.kind} {seed}")
        self.target = target
        self.done = self.refused = 0

    def begin(self) -> None:
        """Make ready."""

    def step(self) -> float:
        """Do one thing. Returns the pause until the next one, in seconds."""
        raise NotImplementedError

    def run(self) -> None:
        """Attack until the process ends."""
        ready = False
        while True:
            try:
                if not ready:
                    self.begin()
                    ready = True
                pause = self.step()
            except REFUSALS:
                self.refused += 1
                pause = 0.05
            time.sleep(pause)

    # -- tools -----------------------------------------------------------------------------------------------

    def node(self) -> str:
        """A node id that nobody else has."""
        return f"evil-{self.random.getrandbits(48):x}"

    def link(self, kind: str = "messenger", node: str = "", **more: object) -> Link:
        """A ces.2 link to the hub."""
        dial: Callable[..., Link] = Link.dial
        return dial(self.target.hub, f"/connect/{kind}", node or self.node(), source=SOURCE, **more)

    def port(self) -> int:
        """The hub's or the repeater's."""
        return self.random.choice((self.target.hub, self.target.repeater))

    def tcp(self, receive_buffer: int | None = None) -> socket.socket:
        """A connection to either."""
        return tcp(self.port(), receive_buffer, SOURCE)

    def post(self, path: str, body: bytes, head: str = "") -> None:
        """One HTTP request to the hub; its answer is read."""
        with tcp(self.target.hub, source=SOURCE) as sock:
            size = f"Content-Length: {len(body)}\r\n" if not head else ""
            sock.sendall(f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{head}{size}\r\n".encode() + body)
            sock.recv(4096)


class Link(RawLink):
    """A link whose events are counted, and not looked at."""

    def hear(self, payload: bytes) -> None:
        self.received += payload.count(b"\n") // 2

    def read(self, enough: Callable[[], object], patience: float = 1.0) -> None:
        super().read(enough, patience)

    def take(self, seconds: float = 0.0) -> None:
        """Read what is there, for at most so long."""
        with contextlib.suppress(AssertionError):
            self.read(lambda: False, max(seconds, 0.001))


def reset(sock: socket.socket) -> None:
    """Close with a reset."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def ended(sock: socket.socket) -> bool:
    """Whether the other side has closed a connection that says nothing."""
    try:
        return sock.recv(65536, socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


# -- subscriptions -------------------------------------------------------------------------------------------


class FlappingRooms(Attack):
    """90,000 rooms that come and go."""

    kind = "flapping rooms"
    stated = 90_000 * 350 + 90_000 * 350  # subscribed, and known to be valid

    def begin(self) -> None:
        self.one = self.link()

    def step(self) -> float:
        first = self.random.randrange(10**6)
        for start in range(first, first + 90_000, 30_000):
            rooms = [f"EVIL-{number}" for number in range(start, start + 30_000)]
            self.one.tell({"rooms": rooms, "create": True})
            self.one.take(0.1)
        self.one.tell({"rooms": [], "create": False})
        self.one.take(0.3)
        self.done += 90_000
        return 0.2


class Hog(Attack):
    """Ten links, each with as many rooms as one may have."""

    kind = "subscription hog"
    stated = 1_000_000 * 350

    def begin(self) -> None:
        self.hogs = [self.link() for _ in range(10)]
        self.left = [(hog, start) for start in range(0, 100_000, 20_000) for hog in self.hogs]

    def step(self) -> float:
        if not self.left:
            return 0.1
        hog, start = self.left.pop(0)
        own = self.hogs.index(hog)
        rooms = [f"HOG-{own}-{number}" for number in range(start, start + 20_000)]
        hog.tell({"rooms": rooms, "create": True})
        hog.take(0.01)
        self.done += len(rooms)
        return 0.05


# -- records -------------------------------------------------------------------------------------------------


class TinyRecords(Attack):
    """Messages of 1 MiB with records of six bytes, for two rooms in turn, and subscribers that take them."""

    kind = "tiny records"
    links = 35
    waits = True
    stated = 64 * MIB  # a message in pieces

    def begin(self) -> None:
        self.readers = [self.link() for _ in range(30)]
        for reader in self.readers:
            reader.tell({"rooms": ["V0", "V1"], "create": True})
        self.one = self.link()
        self.message = b"V0\n{}\nV1\n{}\n" * ((MIB - 100) // 12)

    def step(self) -> float:
        self.one.say(BINARY, self.message)
        self.done += 1
        end = time.monotonic() + 2
        while time.monotonic() < end:
            for reader in self.readers:
                before = reader.received
                reader.take(0.01)
                if reader.received > before:
                    reader.acknowledge()
        return 0.0


class SlowAcknowledger(Attack):
    """Reads at once, and acknowledges one record in 0.2 s."""

    kind = "slow acknowledger"
    waits = True

    def begin(self) -> None:
        self.one = self.link()
        self.one.tell({"rooms": list(OBSERVED), "create": True})

    def step(self) -> float:
        self.one.take(0.2)
        if self.one.end:
            self.begin()
        if self.done < self.one.received:
            self.done += 1
            self.one.tell({"ack": self.done})
        return 0.0


class Stalled(Attack):
    """Consumers that read nothing."""

    kind = "stalled consumers"
    links = 10
    waits = True

    def begin(self) -> None:
        self.all: list[Link] = []

    def step(self) -> float:
        if len(self.all) < 5:
            self.all.append(one := self.link(receive_buffer=4096))
            one.tell({"rooms": list(OBSERVED), "create": True})
            self.done += 1
        return 0.5


class TinyFrames(Attack):
    """Messages of one byte per fragment, and messages of one record."""

    kind = "tiny frames"
    waits = True

    def begin(self) -> None:
        self.one = self.link()

    def step(self) -> float:
        record = b"EVIL\n{}\n"
        if self.random.random() < 0.5:
            whole = record * 110  # no more than 1,000 frames for a message
            frames = [frame(BINARY, whole[:1], fin=False)]
            frames += [frame(0, whole[at : at + 1], fin=False) for at in range(1, len(whole) - 1)]
            data = b"".join([*frames, frame(0, whole[-1:])])
        else:
            data = (frame(BINARY, record) + frame(BINARY, b"EVIM\n{}\n")) * 2000
        self.one.socket.sendall(data)
        self.one.take(0.001)
        self.done += 1
        return 0.01


class Pings(Attack):
    """A flood of pings whose pongs are not read."""

    kind = "ping flood"

    def begin(self) -> None:
        self.one = self.link(receive_buffer=4096)
        self.data = frame(PING, b"x" * 125) * 200

    def step(self) -> float:
        self.one.socket.settimeout(1)
        self.one.socket.sendall(self.data)
        self.done += 200
        return 0.01


# -- connections ---------------------------------------------------------------------------------------------


class Acks(Attack):
    """A flood of acknowledgements of nothing."""

    kind = "acknowledgement flood"

    def begin(self) -> None:
        self.one = self.link()
        self.data = frame(TEXT, b'{"ack":0}') * 2000

    def step(self) -> float:
        self.one.socket.sendall(self.data)
        self.done += 2000
        return 0.02


class Crowd(Attack):
    """Connections that are kept, as many as `SIZE`; what is cut comes back."""

    SIZE: ClassVar[int] = 1000
    links = 1000

    def begin(self) -> None:
        self.crowd: list[socket.socket] = []

    def come(self) -> socket.socket:
        return self.tcp()

    def step(self) -> float:
        for _ in range(25):
            if len(self.crowd) < self.SIZE:
                self.crowd.append(self.come())
                self.done += 1
        there = len(self.crowd)
        look = self.random.sample(self.crowd, min(there, 50))
        for sock in look:
            if ended(sock):
                sock.close()
                self.crowd.remove(sock)
                self.refused += 1
        return 0.02


class Silent(Crowd):
    """Connections that say nothing at all."""

    kind = "silent TCP"


class HalfOpen(Crowd):
    """Handshakes that stop in the middle."""

    kind = "half-open handshakes"

    def come(self) -> socket.socket:
        sock = super().come()
        head = HANDSHAKE % b""
        sock.sendall(head[: self.random.randrange(1, len(head) - 1)])
        return sock


class NoHello(Crowd):
    """WebSockets without a hello."""

    kind = "no hello"

    def come(self) -> socket.socket:
        sock = tcp(self.target.hub, source=SOURCE)
        sock.sendall(HANDSHAKE % b"")
        return sock


class SlowHeads(Crowd):
    """Heads of requests that come one byte at a time."""

    kind = "slow heads"
    SIZE = 300
    links = 300

    def step(self) -> float:
        pause = super().step()
        for sock in self.random.sample(self.crowd, min(len(self.crowd), 100)):
            with contextlib.suppress(OSError):
                sock.send(self.random.choice((b"G", b"X-A: b\r\n", b"x")))
        return pause


class SilentHubs(Attack):
    """Hubs that say hello and nothing more, want every room, and read nothing; and one that is dialled."""

    kind = "silent hubs"
    links = 25
    waits = True

    def begin(self) -> None:
        self.all: list[Link] = []
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=100)
        address = f"ws://127.0.0.1:{self.listening.getsockname()[1]}"
        self.post(f"/interconnect/{address}?retry=true", b"")

    def step(self) -> float:
        if len(self.all) < 20:
            self.all.append(one := self.link("hub", receive_buffer=4096))
            one.tell({"rooms": [], "create": False})
            one.tell({"rooms": ["*"], "create": True})
            self.done += 1
        return 0.1


class WrongNodes(Attack):
    """Peers that give the node ids of others: of the hub, of its clients, and such as are none."""

    kind = "wrong node ids"
    links = 100
    waits = True

    def begin(self) -> None:
        self.nodes = [*self.target.nodes, "x" * 10_000, "\x1b[2J", "ü" * 100]

    def step(self) -> float:
        one = self.link(self.random.choice(("hub", "messenger")), self.random.choice(self.nodes))
        one.take(0.02)
        one.close()
        self.done += 1
        return 0.03


class TakeOvers(Attack):
    """Sessions of others that are guessed, and own ones that are taken over again and again."""

    kind = "session take-over"
    links = 100
    waits = True

    def begin(self) -> None:
        self.node_id = self.node()
        self.one = self.link(node=self.node_id)

    def step(self) -> float:
        if self.random.random() < 0.5:
            session: dict[str, object] = {"session": f"{self.random.getrandbits(96):x}"}
            session["received"] = self.random.choice((0, 1, 10**6, 2**53))
            other = self.link(node=self.random.choice(self.target.nodes), session=session)
            other.close()
        else:
            known = {"session": self.one.hello["session"], "received": 0}  # type: ignore[call-overload,index]
            newer = self.link(node=self.node_id, session=known)
            self.one.close()
            self.one = newer
        self.done += 1
        return 0.02


class Churn(Attack):
    """200 links a second that come and go."""

    kind = "churn"
    links = 2000
    waits = True

    def step(self) -> float:
        began = time.monotonic()
        one = self.link()
        one.tell({"rooms": [self.node()], "create": True})
        if self.random.random() < 0.5:
            reset(one.socket)
        else:
            one.send_close(1000)
            one.close()
        self.done += 1
        return max(0.0, 0.005 - (time.monotonic() - began))


class Offers(Attack):
    """Offers of compression, and frames as if it had been agreed on."""

    kind = "compression offers"
    links = 1000
    OFFERS: ClassVar[tuple[str, ...]] = (
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits=8; server_max_window_bits=8",
        "permessage-deflate; server_no_context_takeover=7, x-webkit-deflate-frame",
        ", ".join(["permessage-deflate; client_max_window_bits"] * 200),
    )

    def step(self) -> float:
        offer = f"Sec-WebSocket-Extensions: {self.random.choice(self.OFFERS)}\r\n".encode()
        with tcp(self.target.hub, source=SOURCE) as sock:
            sock.sendall(HANDSHAKE % offer)
            sock.recv(4096)
            sock.sendall(
                frame(TEXT, b'{"hello":{"node":"%b","session":null,"received":0}}' % self.node().encode())
            )
            sock.sendall(frame(BINARY, os.urandom(1000), rsv=4))
            sock.settimeout(1)
            sock.recv(4096)
        self.done += 1
        return 0.01


# -- HTTP ----------------------------------------------------------------------------------------------------


class UnreadAnswers(Attack):
    """Requests whose answers are not read, and reset."""

    kind = "unread answers"
    links = 100
    stated = 100 * 128 * 1024

    def begin(self) -> None:
        self.all: list[tuple[float, socket.socket]] = []

    def step(self) -> float:
        now = time.monotonic()
        if len(self.all) < 50:
            sock = self.tcp(receive_buffer=4096)
            paths = [self.random.choice(("/status", "/metrics", "/interconnect")) for _ in range(20)]
            sock.sendall(
                "".join(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" for path in paths).encode()
            )
            self.all.append((now + self.random.uniform(0.5, 2), sock))
            self.done += 1
        while self.all and self.all[0][0] < now:
            reset(self.all.pop(0)[1])
        return 0.05


class HostileJson(Attack):
    """Bodies that are hard to parse. Those that are events are small: others share queues with them."""

    kind = "hostile JSON"
    stated = 64 * MIB

    def step(self) -> float:
        bodies = (
            b"[" * 100_000,
            b'{"key":' * 50_000,
            b"[" + b",".join([b"[]"] * 300_000) + b"]",
            b'{"key":"' + b"\\u0000" * 15_000 + b'"}',
            b'{"value":' + b"9" * 100_000 + b"}",
            b'{"key":"\xff\xfe"}',
            b'{"data":' + b'{"a":' * 60 + b"1" + b"}" * 61,
        )
        path = self.random.choice(("/event", "/interconnect/ws%3A%2F%2F%5B", "/log-level/x"))
        self.post(path, self.random.choice(bodies))
        self.done += 1
        return 0.05


class BigBodies(Attack):
    """Bodies of 8 MiB: with 10,000 events, and such as never end."""

    kind = "big bodies"
    stated = 12 * 8 * MIB + 3 * 8 * MIB  # those that are held, and one that is read into events
    waits = True

    def begin(self) -> None:
        self.held: list[socket.socket] = []
        event = b'{"key":"k","value":"%b","affected-room":{"roomID":"EVIL"}}' % (b"x" * 740)
        self.body = b"[" + b",".join([event] * 10_000) + b"]"

    def step(self) -> float:
        if len(self.held) < 10:
            sock = tcp(self.target.hub, source=SOURCE)
            self.held.append(sock)
            size = 8 * MIB
            sock.sendall(f"POST /event HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n\r\n".encode())
            sock.sendall(b"x" * (size - 10))
        else:
            self.post("/event", self.body)
        self.done += 1
        return 0.5


# -- the machine ---------------------------------------------------------------------------------------------


class Clock(Attack):
    """The system clock of the hub and its repeater is set."""

    kind = "clock steps"

    def begin(self) -> None:
        self.wall = Wall(Path(self.target.clock))

    def step(self) -> float:
        self.wall.step(self.random.choice((-86400.0, -3600.0, -1.0, 1.0, 3600.0, 86400.0)))
        self.done += 1
        return 0.3


KINDS: dict[str, type[Attack]] = {
    one.kind: one
    for one in (
        FlappingRooms,
        Hog,
        TinyRecords,
        SlowAcknowledger,
        Stalled,
        TinyFrames,
        Pings,
        Acks,
        Silent,
        HalfOpen,
        NoHello,
        SlowHeads,
        SilentHubs,
        WrongNodes,
        TakeOvers,
        Churn,
        Offers,
        UnreadAnswers,
        HostileJson,
        BigBodies,
        Clock,
    )
}


def command(kind: str, seed: int, target: Target) -> list[str]:
    """What runs an attack in a process of its own."""
    return [sys.executable, "-m", "tests.stress.attacks", kind, str(seed), json.dumps(asdict(target))]


def main(kind: str, seed: str, target: str) -> None:
    """Attack."""

    def stop(number: int, at: FrameType | None) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    os.nice(NICE)
    attack = KINDS[kind](int(seed), Target(**json.loads(target)))
    print("begins", flush=True)
    try:
        attack.run()
    finally:
        print(json.dumps({"done": attack.done, "refused": attack.refused}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
