"""Measures the messenger and the repeater against a hub that only counts.

The hub is one raw socket of the load. It sends hello, and then streams prepared batches (to a receiving
messenger) or counts what arrives, so the measured role is the bottleneck. `member.py` is the messenger's
process.
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import statistics
import subprocess
import sys
import time
from contextlib import suppress

from benchmarks.load import TIMEOUT, Connection, Gone, Poll, Run, Stream, drive
from benchmarks.peers import HERE, SERVER_CORE, Server, core, free_port, twistd
from benchmarks.throughput import EVENT, Numbers, Pace, chunks
from benchmarks.wire import Ces2, Session, event, events, frame, record

ROOM = "ITB-1000"
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
WINDOW, BATCH = 4096, 64
RECEIPT = 1024
"""Number of received events after which a receiving messenger sends one event back."""
SPEECH = Ces2()


class Sink(Connection):
    """A hub's end of one link. It accepts the link, sends hello, and then only counts.

    :param size: bytes of one record.
    :param worth: number of events that one record stands for.
    """

    def __init__(self, listening: socket.socket, size: int, worth: int = 1) -> None:
        self.speech, self.counter = SPEECH, Session(size)
        self.serving = self.counter.keeps = True
        self.received, self.unsent, self.seen, self.stream = 0, b"", None, None
        self.worth = worth
        listening.settimeout(20)
        self.socket, _ = listening.accept()
        self.socket.settimeout(20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._accept()

    def _accept(self) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            more = self.socket.recv(4096)
            if not more:
                raise Gone(f"no request for a link: {request[:200]!r}")
            request += more
        head, _, rest = request.partition(b"\r\n\r\n")
        (key,) = (
            line.split(b":")[1].strip()
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"sec-websocket-key")
        )
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Accept: {accept}", "Sec-WebSocket-Protocol: ces.2", "", ""]
        self.socket.sendall("\r\n".join(lines).encode())
        self._took(memoryview(rest))
        while not self.counter.texts:
            self._took(memoryview(self.socket.recv(65536)))
        hello = b'{"hello":{"node":"counting-hub","session":"s1","received":0,"resumed":false,"window":120}}'
        self.socket.sendall(frame(hello, 1))


def listening() -> socket.socket:
    """The listening socket of the counting hub."""
    return socket.create_server(("127.0.0.1", 0))


def repeater(pace: Pace) -> Numbers:
    """Records per second inserted at ``/connect/{room}/{id}`` and passed on to the hub."""
    with listening() as door:
        port = free_port()
        command = twistd("ces-repeater", "--listen", f"tcp:{port}:interface=127.0.0.1")
        server = Server([*command, "--hub", f"ws://127.0.0.1:{door.getsockname()[1]}"], port)
        try:
            told = event(EVENT, ROOM)
            sink = Sink(door, len(record(ROOM, told)))
            service = Connection(
                SPEECH, server.address, SPEECH.counter(ROOM, told), path=f"/connect/{ROOM}/load"
            )
            service.ask()
            service.settle()
            stream = Stream(service, chunks(SPEECH, ROOM, BATCH), BATCH, WINDOW, [sink])
            run = drive([stream], server.cpu, pace.seconds, pace.warm_up)
            service.close()
            sink.close()
            return run.numbers()
        finally:
            server.stop()


def messenger_sends(pace: Pace) -> Numbers:
    """Typed events per second from an application's ``messenger.send(event)`` to the hub."""
    with listening() as door:
        lasts = str(pace.warm_up + pace.seconds + 0.5)
        member = Server(_member("send", door, lasts), 0)
        try:
            sink = Sink(door, len(record(ROOM, event(EVENT, ROOM))))
            poll = Poll([sink])
            _count_until(poll, time.monotonic() + pace.warm_up)
            began, cpu, before = time.monotonic(), member.cpu(), sink.received
            busy = _count_until(poll, began + pace.seconds)
            lasted, used = time.monotonic() - began, member.cpu() - cpu
            deliveries = sink.received - before
            _count_until(poll, time.monotonic() + TIMEOUT)
            sink.close()
            return Run(lasted, deliveries, used, busy, int(member.wait()), sink.received).numbers()
        finally:
            member.stop()


def messenger_receives(pace: Pace) -> Numbers:
    """Typed events per second that reach an application's callback.

    The messenger reports them: it sends one event back for every `RECEIPT` events that it has received.
    """
    with listening() as door:
        member = Server(_member("receive", door, str(RECEIPT)), 0)
        try:
            told = event(EVENT, ROOM)
            sink = Sink(door, len(record(ROOM, told)), RECEIPT)
            records = [record(ROOM, one) for one in events(EVENT, ROOM, RECEIPT)]
            batches = [b"".join(records[start : start + BATCH]) for start in range(0, RECEIPT, BATCH)]
            stream = Stream(sink, [b"".join([frame(batch) for batch in batches])], RECEIPT, WINDOW, [sink])
            run = drive([stream], member.cpu, pace.seconds, pace.warm_up)
            sink.close()
            return run.numbers()
        finally:
            member.stop()


def messenger_imports(pace: Pace) -> Numbers:
    """Seconds that ``import ces.messenger`` takes in a new process."""
    code = "import time; t = time.perf_counter(); import ces.messenger; print(time.perf_counter() - t)"
    pinned = ["taskset", "-c", str(core(SERVER_CORE)), sys.executable, "-c", code]
    home = os.environ | {"PYTHONPATH": str(HERE.parent)}
    took = [float(subprocess.run(pinned, env=home, check=True, capture_output=True).stdout) for _ in range(5)]
    return {"seconds": statistics.median(took)}


def _member(what: str, door: socket.socket, how: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "benchmarks.member",
        what,
        str(door.getsockname()[1]),
        str(EVENT),
        ROOM,
        how,
    ]


def _count_until(poll: Poll, end: float) -> float:
    """Read until the time `end` or until the other side closes. Returns the seconds in which data arrived."""
    idle, began = 0.0, time.monotonic()
    now = began
    with suppress(Gone):
        while now < end:
            happened = poll.once(0)
            before, now = now, time.monotonic()
            if not happened:
                idle += now - before
    return now - began - idle
