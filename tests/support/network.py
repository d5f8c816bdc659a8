"""A network in memory: whoever dials waits until the test answers, refuses or leaves it waiting.

`Network` is a reactor and its clock. `Network.dials` are the `Dial`s that wait, oldest first; `Dial.answer()`
puts a serving link at the other end, whose owner is a `Recorder`.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionRefusedError, UserError
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, connect

from ces.link.owner import LinkLimits
from ces.link.protocol import Link
from ces.link.server import ServingFactory
from ces.model.wire import CES2
from tests.support.links import Recorder, make_side


class Network(MemoryReactorClock):
    """A reactor whose connections the test makes."""

    def __init__(self) -> None:
        super().__init__()
        self.dials: list[Dial] = []
        self.answers: list[Answer] = []

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: object = None
    ) -> Any:
        dial = Dial(self, host, port, factory)
        dial.connect()
        return dial

    def settle(self) -> None:
        """Move bytes until none is left, and run what is due now."""
        moved = True
        while moved:
            self.advance(0)
            moved = any([answer.move() for answer in list(self.answers)])

    def pass_time(self, seconds: float, step: float = 0.5) -> None:
        for _ in range(round(seconds / step)):
            self.advance(step)
            self.settle()


class Dial:
    """One connector: a dial that waits, or the connection that came of it."""

    def __init__(self, network: Network, host: str, port: int, factory: Any) -> None:
        self.network, self.host, self.port, self.factory = network, host, port, factory

    @property
    def path(self) -> str:
        return str(self.factory.resource)

    def connect(self) -> None:
        self.network.dials.append(self)
        self.factory.doStart()
        self.factory.startedConnecting(self)

    def stopConnecting(self) -> None:
        self._end(Failure(UserError()))

    def refuse(self) -> None:
        self._end(Failure(ConnectionRefusedError("Connection refused")))

    def _end(self, failure: Failure) -> None:
        self.network.dials.remove(self)
        self.factory.clientConnectionFailed(self, failure)
        self.factory.doStop()

    def answer(self, node: str = "peer", dialect: str = CES2, kind: str = "outside") -> Answer:
        """Let a serving link answer, and let both settle."""
        self.network.dials.remove(self)
        answer = Answer(self, node, dialect, kind)
        self.network.answers.append(answer)
        self.network.settle()
        return answer


class Answer:
    """A connection: `peer` is the link at the end that was dialled, `owner` its owner."""

    def __init__(self, dial: Dial, node: str, dialect: str, kind: str) -> None:
        self.dial, self.network = dial, dial.network
        self.owner = Recorder(node)
        factory = ServingFactory(
            make_side(self.owner, self.network, LinkLimits(dial_silence=1e9)), kind, self.network
        )
        here, there = IPv4Address("TCP", "127.0.0.1", 40000), IPv4Address("TCP", "127.0.0.1", dial.port)
        if dialect != CES2:
            dial.factory.protocols = []
        self.link = cast(Link, dial.factory.buildProtocol(there))
        self.peer = cast(Link, factory.buildProtocol(here))
        client, server = (
            FakeTransport(self.link, False, here, there),
            FakeTransport(self.peer, True, there, here),
        )
        self.pump = connect(self.peer, server, self.link, client)

    def move(self) -> bool:
        """Move bytes; whether there were any. Tells the dialler when its connection is gone."""
        moved = bool(self.pump.pump())
        if self.pump.clientIO.disconnected:
            self.network.answers.remove(self)
            self.dial.factory.clientConnectionLost(self.dial, Failure(ConnectionDone()))
            return True
        return moved

    def cut(self) -> None:
        """End the connection without a closing handshake."""
        self.pump.clientIO.disconnecting = self.pump.serverIO.disconnecting = True
        self.network.settle()

    def end(self, code: int) -> None:
        """Close from the other side."""
        self.peer.end(code, "test")
        self.network.settle()
