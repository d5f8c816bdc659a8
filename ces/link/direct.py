"""Hand bytes to the kernel at once, and take many from it at a time.

``transport.write`` keeps the bytes, asks epoll to say when the socket has room, sends them then and asks
epoll to be quiet again: two more system calls and a turn of the reactor, for sockets that nearly always have
room. Here the socket is tried first, as asyncio's transports do, with buffers that the kernel gathers; only
what it does not take goes to the transport.

This relies on what Twisted's plain TCP transports are made of (`twisted.internet.abstract.FileDescriptor`),
and nothing of the kind is done for any other transport, TLS among them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.main import CONNECTION_LOST
from twisted.internet.tcp import Connection

READ_BYTES = 256 * 1024
"""What one read takes at most, four times Twisted's: the more comes in one read, the less each record costs.
The transport asks its producer to pause when as much waits to be written."""

IOV_MAX = os.sysconf("SC_IOV_MAX")
"""So many buffers the kernel gathers in one call."""


def direct_write(transport: Any) -> Callable[[list[bytes]], None] | None:
    """How to write on a connected `transport`, which from now on takes `READ_BYTES` at a time; None when it
    is not one that this can be done for.
    """
    if not isinstance(transport, Connection) or transport.TLS:
        return None
    transport.doRead = partial(_read, transport)  # type: ignore[method-assign]
    return partial(_write, transport)


def release(transport: Any) -> None:
    """The connection of a `transport` that was given to `direct_write` is gone: let go of it.

    Until then it refers to itself, and would wait for the collector with all that it refers to.
    """
    vars(transport).pop("doRead", None)


def unsent(transport: Any) -> int:
    """How many bytes wait in a plain TCP transport for the kernel; 0 where that cannot be known."""
    if not isinstance(transport, Connection) or transport.TLS:
        return 0
    return len(transport.dataBuffer) - transport.offset + transport._tempDataLen


_block = memoryview(bytearray(READ_BYTES))
"""What is read into, by one transport at a time: what came is copied out before anything else can run."""


def _read(transport: Any) -> Any:
    """Read once, as the transport itself does, but without asking for a new `READ_BYTES` of memory each time:
    most reads are short.
    """
    try:
        size = transport.socket.recv_into(_block)
    except BlockingIOError:
        return None
    except OSError:
        return CONNECTION_LOST
    return transport._dataReceived(bytes(_block[:size]))


def _write(transport: Any, buffers: list[bytes]) -> None:
    """Write behind whatever waits. An error of the socket is left for the reactor to find: it ends the
    link.
    """
    if transport.dataBuffer or transport._tempDataBuffer:
        transport.writeSequence(buffers)
        return
    try:
        sent = transport.socket.sendmsg(buffers[:IOV_MAX])
    except OSError:
        sent = 0
    if sent < sum(map(len, buffers)):
        transport.write(b"".join(buffers)[sent:])
