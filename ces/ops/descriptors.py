"""File descriptors: each connection needs one, and a process may have only so many.

`raise_limit` raises the soft limit of the process as far as it must and may. `Accepting` keeps the last
descriptors from newcomers: they are for dials and files. `for_links` keeps some more from links: so HTTP is
answered while links hold all others.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
from math import inf
from typing import Any, Protocol, cast

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import ILogObserver, LogEvent, Logger
from twisted.python.failure import Failure

RESERVE = 32
"""Descriptors that newcomers do not get; where the limit is low, a quarter of it."""

UNLINKED = 16
"""Descriptors beside those of the reserve that links do not get; where the limit is low, an eighth of it."""

BATCH = 16
"""Connections that a port accepts in one turn, at most."""

PAUSE = 0.5
"""Seconds for which a port accepts nothing when no descriptor is left, and nobody gives way."""

LOOK = 0.02
"""Seconds for which a port accepts nothing when no place is left, and nobody has to give way yet."""

OTHER = 16
"""Descriptors for all that is no connection: ports, logs, the reactor, the spool."""

MARGIN = RESERVE + UNLINKED + OTHER
"""Descriptors that a process needs beside those of its connections."""

WHAT_TO_DO = "Raise this limit (LimitNOFILE= of systemd, ulimit -n), or lower link-limit and http-connections"


def limit() -> int:
    """How many descriptors the process may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def too_low(needed: int) -> str | None:
    """Why the process may run out of descriptors, as a sentence; None when it may not.

    :param needed: how many it needs when all its limits are reached.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed += MARGIN
    if hard == resource.RLIM_INFINITY or hard >= needed:
        return None
    return (
        f"the process may have {hard} descriptors, and all connections together may need {needed}."
        f" {WHAT_TO_DO}"
    )


def raise_limit(needed: int) -> str | None:
    """Raise the soft limit of the process to what is needed, as far as the hard limit allows.

    :param needed: how many descriptors are needed when all limits are reached.
    :return: why that is not enough, as `too_low` says it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = needed + MARGIN
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return too_low(needed)


def has_spare() -> bool:
    """Whether enough are left for a dial: a file that the lookup of a name reads, its socket, and ours."""
    return _lowest(3, inf) == 3


def for_links() -> int | float:
    """How many links there are descriptors for."""
    allowed = limit()
    if allowed == resource.RLIM_INFINITY:
        return inf
    return _for_newcomers(allowed) - min(UNLINKED, allowed // 8) - OTHER


def free(most: int) -> int:
    """How many newcomers there are descriptors for, `most` at most: without those of the reserve."""
    allowed = limit()
    if allowed == resource.RLIM_INFINITY:
        return most
    return _lowest(most, _for_newcomers(allowed))


def _for_newcomers(allowed: int) -> int:
    return allowed - min(RESERVE, allowed // 4)


def _lowest(most: int, end: float) -> int:
    """How many descriptors below `end` are free, `most` at most.

    The kernel gives out the lowest one that is free. So it is asked for some, which are given back.
    """
    taken: list[int] = []
    try:
        taken.append(socket.socket(socket.AF_UNIX).detach())
        while len(taken) < most and taken[-1] < end:
            taken.append(fcntl.fcntl(taken[0], fcntl.F_DUPFD_CLOEXEC, 0))
    except OSError:
        pass  # there is no other one
    finally:
        for number in taken:
            os.close(number)
    return sum(number < end for number in taken)


def why_failed(reason: Failure) -> str:
    """Why a dial failed, for logs; in our words where no descriptor was left, which Twisted calls a bind."""
    fault: Any = reason.value
    number = fault.errno if isinstance(fault, OSError) else getattr(fault, "osError", None)
    if number in (errno.EMFILE, errno.ENFILE):
        return f"no descriptor is left, the process may have {limit()}. {WHAT_TO_DO}"
    return reason.getErrorMessage().rstrip(".")


class Door(Protocol):
    """Who knows the connections of a port that may have to go."""

    def room(self) -> int:
        """How many newcomers there are places for now."""

    def make_room(self) -> bool:
        """There is no descriptor for a newcomer. Returns whether a connection was closed, whose descriptor is
        free in the next turn.
        """


class Accepting:
    """Has a listening port of Twisted accept no more connections than there are places and descriptors for.
    The others wait in the kernel, in the order in which they came.

    Twisted would accept until none is left, also for files and dials. Then it closes whoever comes, with
    three lines in the log for each, or tries again in every turn.

    :param port: listens; any `twisted.internet.tcp.Port`.
    :param clock: the reactor.
    :param door: knows the places.
    """

    def __init__(self, port: Any, clock: IReactorTime, door: Door) -> None:
        self._port = port
        self._clock = clock
        self._door = door
        self._pause: IDelayedCall | None = None
        self._read = port.doRead
        port.doRead = self._accept
        # What it would log is that there was no descriptor after all: for the whole machine there is none.
        observer = cast(ILogObserver, self._failed)
        port._logger = Logger(namespace="ces.ops.descriptors", observer=observer)

    def stop(self) -> None:
        """The port is about to stop listening."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None

    def _accept(self) -> None:
        if self._pause is not None:
            return
        # Twisted begins with one and asks for more while more come: so the look is cheap for a lone newcomer.
        places = min(self._door.room(), self._port.numberAccepts, BATCH)
        if places <= 0:
            self._wait(LOOK)
            return
        room = free(places)
        if room:
            self._port.numberAccepts = room
            self._read()
        else:
            self._make_room()

    def _failed(self, event: LogEvent) -> None:
        self._make_room()

    def _make_room(self) -> None:
        if self._pause is None:
            self._wait(0 if self._door.make_room() else PAUSE)

    def _wait(self, seconds: float) -> None:
        self._port.stopReading()
        self._pause = self._clock.callLater(seconds, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self._port.startReading()
