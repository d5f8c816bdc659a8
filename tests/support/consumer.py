"""A consumer in a process of its own, which can be stopped and continued: a laptop that sleeps.

`Consumer` starts it, and has `on_event` and `on_gap` as a messenger has. The process is this module, run with
the port of the hub, its node, the settings of its link as JSON, and the rooms.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol, Protocol, connectionDone
from twisted.python.failure import Failure

from ces.config.link import LinkSettings
from ces.messenger import Messenger, State
from ces.model.event import Event


class Consumer(ProcessProtocol):
    """The process, and what it says.

    :param port: of the hub, or of a proxy before it.
    :param node: by which the hub knows it.
    :param env: added to its environment.

    linked: whether it is connected.
    pid: of the process; None once it has ended.
    """

    def __init__(
        self,
        port: int,
        rooms: Sequence[str],
        settings: LinkSettings,
        reactor: Any,
        node: str = "",
        env: dict[str, str] | None = None,
    ) -> None:
        env = env or {}
        self.linked = False
        self.errors = b""
        self._said = b""
        self._on_event: list[Callable[[Event, str], object]] = []
        self._on_gap: list[Callable[[int | None], object]] = []
        self._ended: Deferred[None] = Deferred()
        command = [
            sys.executable,
            "-m",
            "tests.support.consumer",
            str(port),
            node,
            json.dumps(asdict(settings)),
        ]
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [root, env.get("PYTHONPATH", os.environ.get("PYTHONPATH"))]))
        env = os.environ | env | {"PYTHONPATH": path}
        self._process = reactor.spawnProcess(self, sys.executable, [*command, *rooms], env=env, path=root)

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def on_event(self, callback: Callable[[Event, str], object]) -> None:
        """Call back with each event and its room."""
        self._on_event.append(callback)

    def on_gap(self, callback: Callable[[int | None], object]) -> None:
        """Call back with each number of events that were missed."""
        self._on_gap.append(callback)

    def close(self) -> Deferred[None]:
        """Close its link and end it."""
        self.transport.closeStdin()
        return self._ended

    # -- what Twisted calls ----------------------------------------------------------------------------------

    def outReceived(self, data: bytes) -> None:
        *lines, self._said = (self._said + data).split(b"\n")
        for line in lines:
            word, _, rest = line.decode().partition(" ")
            if word == "event":
                room, key, value, user = rest.split(" ")
                for hear in self._on_event:
                    hear(Event(key=key, value=value, user=user), room)
            elif word == "gap":
                for miss in self._on_gap:
                    miss(None if rest == "None" else int(rest))
            elif word == "state":
                self.linked = rest == State.CONNECTED.value

    def errReceived(self, data: bytes) -> None:
        self.errors += data

    def processEnded(self, reason: Failure) -> None:
        self._ended.callback(None)


def main(port: str, node: str, settings: str, *rooms: str) -> None:
    """Say what comes, until standard input is closed."""
    from twisted.internet import reactor, stdio

    def say(*words: object) -> None:
        print(*words, flush=True)

    known = json.loads(settings)
    known["keep_tags"] = tuple(known["keep_tags"])
    limits = LinkSettings(**known)
    messenger = Messenger(f"127.0.0.1:{port}", rooms, reactor=reactor, node=node, settings=limits)
    messenger.on_event(lambda event, room: say("event", room, event.key, event.value, event.user))
    messenger.on_gap(lambda lost: say("gap", lost))
    messenger.on_state(lambda state: say("state", state.value))
    messenger.connect()

    class Input(Protocol):
        def connectionLost(self, reason: Failure = connectionDone) -> None:
            messenger.close(2.0).addBoth(lambda _: reactor.stop())  # type: ignore[attr-defined]

    stdio.StandardIO(Input())
    reactor.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main(*sys.argv[1:])
