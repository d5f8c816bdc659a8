"""The parent's end of one twistd process.

Owns the process, its log file, and what became of it; does not know what it serves.
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

_PATIENCE: Final = 10.0  # seconds between SIGTERM and SIGKILL; a hub may drain for 7
_TAIL: Final = 2000  # bytes of the log that may explain an end
# The parent's settings are not for its children: the demonstration brings its own.
_SETTINGS: Final = ("ROOM_SYSTEM", "SYSTEM_ID", "HUB_ADDRESS", "CENTRAL_REPEATER_ADDRESSES")


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without settings of hubs and repeaters, and in which this very package is found."""
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

    name: what people call it. arguments: twistd's, from the role's plugin name on. folder: where it runs and
    keeps its log and its pidfile, named after it. ended: called when it has ended without having been
    stopped.
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
        """How the process ended, in words; empty while it runs."""

    def start(self, reactor: Reactor, environment: Mapping[str, str]) -> None:
        """Start the process."""
        self._reactor = reactor
        command = [sys.executable, "-m", "ces.cli.follower", *self._arguments]
        reactor.spawnProcess(self, sys.executable, command, env=environment, path=str(self._folder))

    def stop(self) -> Deferred[None]:
        """End the process, by force when it takes longer than 5 s; fires when it is gone."""
        self._stopping = True
        if self.transport is None or self.status:
            return succeed(None)
        gone: Deferred[None] = Deferred()
        self._gone.append(gone)
        self._signal(signal.SIGTERM)
        force = self._reactor.callLater(_PATIENCE, self._signal, signal.SIGKILL)

        def over(_: None) -> None:
            if force.active():
                force.cancel()

        return gone.addCallback(over)

    def last_words(self) -> str:
        """What the process said last, on its standard streams or in its log; may be empty."""
        text = self._said
        if not text.strip() and self.log.exists():
            text = self.log.read_bytes()[-_TAIL:]
        lines = text.decode("utf-8", "replace").strip().splitlines()
        return " / ".join(line.strip() for line in lines[-3:])

    def _signal(self, number: int) -> None:
        process: Any = self.transport
        with suppress(ProcessExitedAlready):  # then processEnded is on its way
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
