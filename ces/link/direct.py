"""A fast path for reading from and writing to sockets. Owns one epoll for the sockets of a side's links.

**Reading.** For each readable socket, Twisted's loop creates a log context, checks the descriptor, and calls
through five functions. That costs 2.5 us, as much as handling an acknowledgement. Here all sockets share one
epoll, which the reactor sees as a single reader.

**Writing.** ``transport.write`` buffers the bytes, asks epoll to report when the socket is writable, sends
the bytes then, and cancels the request. That costs two system calls and a reactor turn, although the socket
is nearly always writable. Here the socket is tried first, as asyncio's transports do, with buffers that the
kernel gathers. Only the rest goes to the transport.

This depends on internals of Twisted's plain TCP transports (`twisted.internet.abstract.FileDescriptor`). Any
other transport, TLS included, and any system without epoll uses Twisted's own path.
"""

from __future__ import annotations

import os
import select
from typing import Any

from twisted.internet.interfaces import IProtocol, IReadDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

READ_BYTES = 256 * 1024
"""Size limit of one read, four times Twisted's. Larger reads make each record cheaper."""

SHORT_BYTES = 4096
"""Size limit of a read after a read below this size. Most reads are short, and allocating a large buffer
costs as much as handling a short read.
"""

UNSENT_BYTES = 256 * 1024
"""Bytes in a transport's buffer above which its link stops writing; four times Twisted's limit."""

IOV_MAX = os.sysconf("SC_IOV_MAX")
"""Largest number of buffers that the kernel gathers in one call."""


def is_plain(transport: Any) -> bool:
    """Whether this module's fast path supports this transport."""
    return isinstance(transport, Connection) and not transport.TLS


class _Socket:
    """A socket in `Sockets`. size: size limit of the next read."""

    __slots__ = ("receive", "size", "take", "transport")

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.receive = transport.socket.recv
        self.take = transport.protocol.dataReceived
        self.size = SHORT_BYTES


@implementer(IReadDescriptor)
class Sockets:
    """Reads the sockets of connected transports.

    Replaces the reactor of those transports. It handles `addReader` and `removeReader` itself, so that the
    transports can pause and close as usual. Everything else is passed to the real reactor.
    """

    def __init__(self, log: Logger, direct: bool = True) -> None:
        self._log = log
        self._direct = direct
        self._reactor: Any = None
        self._epoll: Any = None
        self._reading: dict[int, _Socket] = {}

    def adopt(self, transport: Any, protocol: IProtocol) -> None:
        """Start reading `transport` here and pass the data to `protocol`. Does nothing if not supported."""
        if not self._direct or not is_plain(transport) or not hasattr(select, "epoll"):
            return
        # An endpoint puts a protocol of its own in between, which has nothing to do any more.
        transport.protocol = protocol
        transport.stopReading()
        self._reactor = transport.reactor
        transport.reactor = self
        transport.startReading()

    # -- what a transport asks of its reactor ----------------------------------------------------------------

    def addReader(self, transport: Any) -> None:
        fd = transport.fileno()
        if fd in self._reading:
            return
        if self._epoll is None:
            self._epoll = select.epoll()
            self._reactor.addReader(self)
        self._epoll.register(fd, select.EPOLLIN)
        self._reading[fd] = _Socket(transport)

    def removeReader(self, transport: Any) -> None:
        fd = transport.fileno()
        socket = self._reading.get(fd)
        if socket is None or socket.transport is not transport:
            return
        del self._reading[fd]
        self._epoll.unregister(fd)
        if not self._reading:
            self._reactor.removeReader(self)
            self._epoll.close()
            self._epoll = None

    def output(self, transport: Any) -> Output:
        """How a connection writes on a connected `transport`."""
        return SocketOutput(transport) if self._direct and is_plain(transport) else Output(transport)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    # -- what the reactor asks of a reader -------------------------------------------------------------------

    def fileno(self) -> int:
        return int(self._epoll.fileno()) if self._epoll is not None else -1

    def logPrefix(self) -> str:
        return "links"

    def doRead(self) -> None:
        """Read once from each readable socket."""
        reading = self._reading
        for fd, _ in self._epoll.poll(0, len(reading)):
            socket = reading.get(fd)
            if socket is None:  # paused or closed while the data of another socket was handled
                continue
            try:
                data = socket.receive(socket.size)
            except BlockingIOError:
                continue
            except OSError:
                self._lose(socket.transport, Failure(CONNECTION_LOST))
                continue
            if not data:
                self._lose(socket.transport, Failure(CONNECTION_DONE))
                continue
            socket.size = SHORT_BYTES if len(data) < SHORT_BYTES else READ_BYTES
            try:
                socket.take(data)
            except Exception:
                failure = Failure()
                self._log.failure("unexpected error while reading", failure)
                self._lose(socket.transport, failure)

    def _lose(self, transport: Any, reason: Failure) -> None:
        """End a connection in the reactor's next turn.

        The reactor may hold further events for this descriptor. If the socket were closed now, a connection
        that is accepted meanwhile could get the same descriptor, and be ended instead.
        """
        transport.stopReading()
        self._reactor.callLater(0, transport.connectionLost, reason)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has stopped."""
        for socket in list(self._reading.values()):
            socket.transport.connectionLost(reason)


def unsent(transport: Any) -> int:
    """Bytes that wait in a plain TCP transport's buffer; 0 for other transports, where it is unknown."""
    if not is_plain(transport):
        return 0
    return int(len(transport.dataBuffer) - transport.offset + transport._tempDataLen)


class Output:
    """Writes a link's data to any transport."""

    __slots__ = ("_transport",)

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def write(self, buffers: list[bytes], size: int) -> None:
        """Write buffers in order.

        :param size: their total size in bytes.
        """
        self._transport.writeSequence(buffers)


class SocketOutput(Output):
    """Writes a link's data directly to the socket of a plain transport. No other code may write to it."""

    __slots__ = ("_buffered", "_send")

    def __init__(self, transport: Any) -> None:
        super().__init__(transport)
        transport.bufferSize = UNSENT_BYTES
        self._send = transport.socket.sendmsg
        self._buffered = True
        """Whether data may wait in the transport's buffer."""

    def write(self, buffers: list[bytes], size: int) -> None:
        if self._buffered:
            transport = self._transport
            if transport.dataBuffer or transport._tempDataBuffer:
                transport.writeSequence(buffers)
                return
            self._buffered = False
        try:
            sent = self._send(buffers if len(buffers) <= IOV_MAX else buffers[:IOV_MAX])
        except OSError:
            sent = 0  # the reactor finds a lasting error when it writes, and ends the connection
        if sent < size:
            self._buffered = True
            self._transport.write(b"".join(buffers)[sent:])


def end_stream(transport: Any) -> None:
    """End our half of the stream when everything is written, and continue to read the other half.

    A transport that cannot do that (TLS) is closed instead, after everything is written.
    """
    if is_plain(transport):
        transport.loseWriteConnection()
    else:
        transport.loseConnection()
