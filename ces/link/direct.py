"""Read sockets and write to them without Twisted's detours. Owns one epoll for the sockets of a side's links.

**In.** For each socket that something came on, Twisted's loop makes a context for the log, asks whether the
descriptor is still there, and calls through five functions: 2.5 us, as much as an acknowledgement takes from
there on. Here all sockets stand in one epoll of their own, which the reactor knows as a single reader.

**Out.** ``transport.write`` keeps the bytes, asks epoll to say when the socket has room, sends them then and
asks epoll to be quiet again: two more system calls and a turn of the reactor, for sockets that nearly always
have room. Here the socket is tried first, as asyncio's transports do, with buffers that the kernel gathers;
only what it does not take goes to the transport.

This relies on what Twisted's plain TCP transports are made of (`twisted.internet.abstract.FileDescriptor`),
and nothing of the kind is done for any other transport, TLS among them, or where there is no epoll.
"""

from __future__ import annotations

import os
import select
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

READ_BYTES = 256 * 1024
"""What one read takes at most, four times Twisted's: the more comes in one, the less each record costs."""

SHORT_BYTES = 4096
"""What one read takes at most after one that brought less: most reads are short, and to get the memory for a
large one, and give it back, costs as much as to handle them."""

UNSENT_BYTES = 256 * 1024
"""More than this, given to a transport and not taken by the kernel, blocks its link; four times Twisted's."""

IOV_MAX = os.sysconf("SC_IOV_MAX")
"""So many buffers the kernel gathers in one call."""


def is_plain(transport: Any) -> bool:
    """Whether this is a transport that the functions of this module know how to go around."""
    return isinstance(transport, Connection) and not transport.TLS


class _Socket:
    """A socket in `Sockets`. size: what the next read takes at most."""

    __slots__ = ("receive", "size", "take", "transport")

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.receive = transport.socket.recv
        self.take = transport.protocol.dataReceived
        self.size = SHORT_BYTES


@implementer(IReadDescriptor)
class Sockets:
    """The sockets of connected transports, all read here.

    To those transports it is the reactor: what is about reading it does itself, so that they can be paused
    and closed as ever, and all else is the reactor's.
    """

    def __init__(self, log: Logger) -> None:
        self._log = log
        self._reactor: Any = None
        self._epoll: Any = None
        self._reading: dict[int, _Socket] = {}

    def adopt(self, transport: Any) -> None:
        """From now on, read `transport` here, if it can be, and give its protocol what comes."""
        if not is_plain(transport) or not hasattr(select, "epoll"):
            return
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

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    # -- what the reactor asks of a reader -------------------------------------------------------------------

    def fileno(self) -> int:
        return int(self._epoll.fileno()) if self._epoll is not None else -1

    def logPrefix(self) -> str:
        return "links"

    def doRead(self) -> None:
        """Read once from each socket that something came on."""
        reading = self._reading
        for fd, _ in self._epoll.poll(0, len(reading)):
            socket = reading.get(fd)
            if socket is None:  # paused or closed for what came on another
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
        """End a connection once the reactor has dealt with all that it has found.

        It may have found that the same socket can be written to, or is broken. Were it closed before, a
        connection that is accepted meanwhile could get its number, and be ended in its place.
        """
        transport.stopReading()
        self._reactor.callLater(0, transport.connectionLost, reason)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has stopped."""
        for socket in list(self._reading.values()):
            socket.transport.connectionLost(reason)


def unsent(transport: Any) -> int:
    """How many bytes wait in a plain TCP transport for the kernel; 0 where that cannot be known."""
    if not is_plain(transport):
        return 0
    return int(len(transport.dataBuffer) - transport.offset + transport._tempDataLen)


class Output:
    """Where a link writes to, whatever its transport is made of."""

    __slots__ = ("_transport",)

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def write(self, buffers: list[bytes], size: int) -> None:
        """Write these buffers, which are so many bytes in all, behind what was written before."""
        self._transport.writeSequence(buffers)


class SocketOutput(Output):
    """The same for a plain transport, on which nobody else writes from now on."""

    __slots__ = ("_behind", "_send")

    def __init__(self, transport: Any) -> None:
        super().__init__(transport)
        transport.bufferSize = UNSENT_BYTES
        self._send = transport.socket.sendmsg
        self._behind = True
        """Something may wait in the transport."""

    def write(self, buffers: list[bytes], size: int) -> None:
        if self._behind:
            transport = self._transport
            if transport.dataBuffer or transport._tempDataBuffer:
                transport.writeSequence(buffers)
                return
            self._behind = False
        try:
            sent = self._send(buffers if len(buffers) <= IOV_MAX else buffers[:IOV_MAX])
        except OSError:
            sent = 0  # an error that stays is left for the reactor to find: it ends the link
        if sent < size:
            self._behind = True
            self._transport.write(b"".join(buffers)[sent:])


def output(transport: Any) -> Output:
    """How a link writes on a connected `transport`."""
    return SocketOutput(transport) if is_plain(transport) else Output(transport)
