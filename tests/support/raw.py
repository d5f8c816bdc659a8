"""A ces.2 link on a bare socket: the test alone decides what is read, and when a close frame is sent.

A WebSocket library answers a close frame by itself, and reads when it likes. `RawLink` does neither. It
counts numbered events (`tests.support.fleet.event`) and says how the connection ended: with a FIN or with a
reset.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Self

from tests.support.fleet import PATIENCE, event

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
BATCH = 64
FIN, RESET = "FIN", "reset"


def message(first: int, count: int, room: str) -> bytes:
    """Records with the numbers from `first` on, back to back."""
    return b"".join(b"%b\n%b\n" % (room.encode(), event(n, room)) for n in range(first, first + count))


def tcp(port: int, receive_buffer: int | None = None, source: str = "") -> socket.socket:
    """A TCP connection to a port of this host.

    :param receive_buffer: bytes that the kernel takes for us (SO_RCVBUF).
    :param source: the address that we come from.
    """
    sock = socket.socket()
    try:
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            sock.bind((source, 0))
        sock.settimeout(PATIENCE)
        sock.connect(("127.0.0.1", port))
    except OSError:
        sock.close()
        raise
    return sock


class RawLink:
    """One connection.

    numbers: those of the events that have been read, in the order in which they came.
    received, sent: how many records have been read and sent.
    acknowledged: how many of `sent` the other side has acknowledged.
    lost: how many records the other side has announced as lost (``gap``).
    close_code: of the close frame that has been read; None when there was none.
    end: `FIN` or `RESET`, once it has ended.
    """

    def __init__(self, sock: socket.socket, masked: bool) -> None:
        self.socket = sock
        self.numbers: list[int] = []
        self.received = self.sent = self.acknowledged = self.lost = 0
        self.close_code: int | None = None
        self.end: str | None = None
        self.hello: dict[str, object] = {}
        self._masked = masked
        self._data = bytearray()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @classmethod
    def dial(
        cls,
        port: int,
        path: str,
        node: str,
        receive_buffer: int | None = None,
        source: str = "",
        session: dict[str, object] | None = None,
    ) -> Self:
        """Connect and say hello.

        :param receive_buffer: bytes that the kernel takes for us (SO_RCVBUF).
        :param source: the address that we come from.
        :param session: what the hello says of a session; a new one without it.
        """
        link = cls(tcp(port, receive_buffer, source), masked=True)
        key = base64.b64encode(os.urandom(16)).decode()
        link._say(
            f"GET {path} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Protocol: ces.2",
        )
        answer = link._head()
        assert answer.startswith(b"HTTP/1.1 101"), answer
        link.tell({"hello": {"node": node, **(session or {"session": None, "received": 0})}})
        link.read(lambda: link.hello)
        return link

    @classmethod
    def accept(cls, listening: socket.socket) -> RawLink:
        """Serve the next connection and answer its hello with a new session.

        :param listening: the socket; what it accepts inherits its SO_RCVBUF.
        """
        sock, _ = listening.accept()
        sock.settimeout(PATIENCE)
        link = cls(sock, masked=False)
        head = link._head()
        lines = [line.partition(b":") for line in head.split(b"\r\n")]
        (key,) = (value.strip() for name, _, value in lines if name.lower() == b"sec-websocket-key")
        link._say(
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()}",
            "Sec-WebSocket-Protocol: ces.2",
        )
        link.read(lambda: link.hello)
        session = {"session": os.urandom(6).hex(), "received": 0, "resumed": False, "window": 120}
        link.tell({"hello": {"node": "raw-hub", **session}})
        return link

    # -- out -------------------------------------------------------------------------------------------------

    def tell(self, control: dict[str, object]) -> None:
        """Send a control message."""
        self.say(TEXT, json.dumps(control).encode())

    def send(self, first: int, count: int, room: str) -> None:
        """Send events with the numbers from `first` on."""
        for start in range(first, first + count, BATCH):
            self.say(BINARY, message(start, min(BATCH, first + count - start), room))
        self.sent += count

    def send_close(self, code: int) -> None:
        """Send a close frame, and go on as before."""
        self.say(CLOSE, struct.pack(">H", code))

    def close(self) -> None:
        """Close the socket. What has not been read makes a reset of it (RFC 2525 section 2.17)."""
        self.socket.close()

    def acknowledge(self) -> None:
        """Acknowledge all that has been read."""
        self.tell({"ack": self.received})

    # -- in --------------------------------------------------------------------------------------------------

    def read(self, enough: Callable[[], object], patience: float = PATIENCE) -> None:
        """Read until it is enough or the connection has ended. Nothing is answered.

        :raises AssertionError: when it is not enough within `patience` seconds.
        """
        deadline = time.monotonic() + patience
        self._take(b"")  # what came behind the handshake
        while not enough() and self.end is None:
            left = deadline - time.monotonic()
            assert left > 0, f"not enough within {patience:g} s: {len(self.numbers)} events, {self.end}"
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                self.end = RESET
            except TimeoutError:
                continue
            else:
                self._take(data)
                if not data:
                    self.end = FIN

    def read_to_the_end(self, patience: float = PATIENCE) -> None:
        """Read until the other side has ended the connection, and close ours."""
        self.read(lambda: False, patience)
        self.socket.close()

    def read_until_quiet(self, quiet: float = 0.5, count: float = float("inf")) -> None:
        """Read and acknowledge events until none has come for `quiet` seconds, or until there are `count`."""
        before = -1
        while before < self.received and len(self.numbers) < count and self.end is None:
            before = self.received
            with contextlib.suppress(AssertionError):
                self.read(lambda: self.received > before, quiet)  # noqa: B023 (asked at once)
            if self.received > before and self.close_code is None:
                self.acknowledge()

    def settle(self) -> None:
        """Read until all that was sent has been acknowledged."""
        self.read(lambda: self.acknowledged == self.sent)
        assert self.acknowledged == self.sent, f"the link has ended with {self.end}"

    def end_in_good_order(self) -> None:
        """Close with 1000, wait for the answer, and close the socket."""
        self.send_close(1000)
        self.read(lambda: self.close_code)
        self.socket.close()

    # -- frames ----------------------------------------------------------------------------------------------

    def say(self, opcode: int, payload: bytes) -> None:
        """Send one frame."""
        size = len(payload)
        mask = 0x80 if self._masked else 0
        if size < 126:
            head = struct.pack(">BB", 0x80 | opcode, mask | size)
        elif size < 65536:
            head = struct.pack(">BBH", 0x80 | opcode, mask | 126, size)
        else:
            head = struct.pack(">BBQ", 0x80 | opcode, mask | 127, size)
        key = b"\0\0\0\0" if self._masked else b""  # masked with zeros: as it is
        self.socket.settimeout(PATIENCE)
        self.socket.sendall(head + key + payload)

    def _take(self, data: bytes) -> None:
        self._data += data
        for opcode, payload in self._frames():
            if opcode == BINARY:
                self.hear(payload)
            elif opcode == TEXT:
                control = json.loads(payload)
                self.hello = control.get("hello", self.hello)
                self.acknowledged = control.get("ack", self.acknowledged)
                self.lost += control.get("gap", {}).get("lost", 0)
            elif opcode == CLOSE:
                (self.close_code,) = struct.unpack(">H", payload[:2])

    def hear(self, payload: bytes) -> None:
        """A message with records has come."""
        records = payload.split(b"\n")[1::2]
        self.received += len(records)
        self.numbers += [int(json.loads(record)["value"]) for record in records]

    def _frames(self) -> Iterator[tuple[int, bytes]]:
        data, at = self._data, 0
        while len(data) >= at + 2:
            size, start = data[at + 1] & 0x7F, at + 2
            wide = {126: 2, 127: 8}.get(size, 0)
            if wide:
                size, start = int.from_bytes(data[start : start + wide], "big"), start + wide
            key = b""
            if data[at + 1] & 0x80:
                key, start = bytes(data[start : start + 4]), start + 4
            if len(data) < max(start + size, at + 2 + wide):
                break
            payload = bytes(data[start : start + size])
            if key.strip(b"\0"):
                mask = int.from_bytes((key * (size // 4 + 1))[:size], "big")
                payload = (int.from_bytes(payload, "big") ^ mask).to_bytes(size, "big")
            yield data[at] & 0x0F, payload
            at = start + size
        del data[:at]

    def _say(self, *lines: str) -> None:
        self.socket.sendall("".join(f"{line}\r\n" for line in (*lines, "")).encode())

    def _head(self) -> bytes:
        """An HTTP head; what comes behind it is kept."""
        while b"\r\n\r\n" not in self._data:
            more = self.socket.recv(65536)
            assert more, bytes(self._data)
            self._data += more
        head, _, rest = bytes(self._data).partition(b"\r\n\r\n")
        self._data = bytearray(rest)
        return head
