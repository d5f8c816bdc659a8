"""Starts and stops one twistd child process.

Owns the process, its log file and its exit status. Does not know what the process serves.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

import ces
from ces.cli.running import Reactor

__all__ = ["Role", "child_environment"]

_GRACE: Final = 10.0  # seconds between SIGTERM and SIGKILL; a hub may drain for 7
_TAIL: Final = 2000  # bytes at the end of the log, searched for the reason of an exit
# Settings of the user, which must not reach the children: the demonstration has its own.
_SETTINGS: Final = ("ROOM_SYSTEM", "SYSTEM_ID", "HUB_ADDRESS", "CENTRAL_REPEATER_ADDRESSES")


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without settings of hubs and repeaters, and with this package on PYTHONPATH."""
    kept = {
        name: value
        for name, value in environ.items()
        if name not in _SETTINGS and not name.startswith(("CES_HUB_", "CES_REPEATER_"))
    }
    home = str(Path(ces.__file__).parent.parent)
    path = [home, *filter(None, [environ.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(path)}


class Role(ProcessProtocol):
    """One role (a hub, a repeater) in its own process.

    :param name: its name in messages. The log and the pidfile are named after it.
    :param arguments: those of twistd, from the role's plugin name on.
    :param folder: its working directory, for the log and the pidfile too.
    :param ended: called when the process has ended without `stop`.
    """

    def __init__(self, name: str, arguments: list[str], folder: Path, ended: Callable[[Role], None]) -> None:
        self.name = name
        self.log = folder / f"{name.replace(' ', '-')}.log"
        pidfile = self.log.with_suffix(".pid")
        self._arguments = ["-n", f"--pidfile={pidfile}", f"--logfile={self.log}", *arguments]
        self._folder = folder
        self._ended = ended
        self._said = b""
        self._gone: list[Deferred[None]] = []
        self._stopping = False
        self.status = ""
        """How the process ended, as a text; empty while it runs."""

    def start(self, reactor: Reactor, environment: Mapping[str, str]) -> None:
        """Start the process."""
        self._reactor = reactor
        command = [sys.executable, "-m", "ces.cli.follower", *self._arguments]
        reactor.spawnProcess(self, sys.executable, command, env=environment, path=str(self._folder))

    def stop(self) -> Deferred[None]:
        """Send SIGTERM, and SIGKILL after a grace period of 10 s. Fires when the process has ended."""
        self._stopping = True
        if self.transport is None or self.status:
            return succeed(None)
        gone: Deferred[None] = Deferred()
        self._gone.append(gone)
        self._signal(signal.SIGTERM)
        force = self._reactor.callLater(_GRACE, self._signal, signal.SIGKILL)

        def over(_: None) -> None:
            if force.active():
                force.cancel()

        return gone.addCallback(over)

    def last_words(self) -> str:
        """The last lines of the process's standard streams, or of its log. May be empty."""
        text = self._said
        if not text.strip() and self.log.exists():
            text = self.log.read_bytes()[-_TAIL:]
        lines = text.decode("utf-8", "replace").strip().splitlines()
        return " / ".join(line.strip() for line in lines[-3:])

    def _signal(self, number: int) -> None:
        process: Any = self.transport
        with suppress(ProcessExitedAlready):  # processEnded will follow
            process.signalProcess(number)

    # What Twisted calls

    def outReceived(self, data: bytes) -> None:
        self._said = (self._said + data)[-_TAIL:]

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        end: Any = reason.value
        code, number = end.exitCode, end.signal
        self.status = f"killed by signal {number}" if number is not None else f"exit status {code}"
        gone, self._gone = self._gone, []
        for waiting in gone:
            waiting.callback(None)
        if not self._stopping:
            self._ended(self)
