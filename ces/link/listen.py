"""A service that listens on ports. At shutdown it stops before all other services."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.tcp import Port
from twisted.logger import Logger

import ces
from ces.ops.descriptors import Accepting, Door


class CannotServe(SystemExit, ces.Error):
    """A service cannot start, for example because a port is in use. The text is one sentence.

    Ends the process with status 1. It is an Exception as well as a SystemExit: twistd as a daemon removes its
    pid file and informs its parent only on an Exception. After a plain SystemExit the parent waits for ever.
    """


BACKLOG = 1024
"""Limit of connections that wait to be accepted. After an outage all peers reconnect at once, and a peer that
finds the backlog full retries only after a second.
"""


def with_backlog(endpoint: str) -> str:
    """Add `BACKLOG` to an endpoint string without a backlog. Twisted's default is 50."""
    silent = endpoint.partition(":")[0] in ("tcp", "tcp6", "ssl") and "backlog=" not in endpoint
    return f"{endpoint}:backlog={BACKLOG}" if silent else endpoint


class Listening(Service):
    """Serves `factory` on every endpoint.

    :param name: the role's name in log lines and errors.
    :param endpoints: Twisted endpoint strings, such as ``tcp:7100:interface=127.0.0.1``.
    :param door: says how many newcomers to accept, and makes room for them; with None all are accepted.
    :param anonymous: whether anyone is let in who reaches them: that is logged at every start.
    :raises CannotServe: at start, when an endpoint cannot be listened on.
    """

    def __init__(
        self,
        name: str,
        endpoints: Sequence[str],
        factory: IProtocolFactory,
        reactor: Any,
        log: Logger,
        door: Door | None = None,
        anonymous: bool = False,
    ) -> None:
        self._role = name
        self._endpoints = endpoints
        self._factory = factory
        self._reactor = reactor
        self._log = log
        self._door = door
        self._accepting: list[Accepting] = []
        self._anonymous = anonymous
        self.ports: list[IListeningPort] = []

    def privilegedStartService(self) -> None:
        """Listen. twistd still has its privileges here, which ports below 1024 require."""
        for endpoint in self._endpoints:
            results: list[Any] = []
            server = serverFromString(self._reactor, with_backlog(endpoint))
            server.listen(self._factory).addBoth(results.append)
            result: Any = results[0] if results else None
            if isinstance(result, Exception) or not hasattr(result, "getHost"):
                raise CannotServe(f"{self._role}: cannot listen on {endpoint}: {_why(result)}")
            self.ports.append(result)
            if self._door is not None and isinstance(result, Port):
                self._accepting.append(Accepting(result, self._reactor, self._door))
            self._log.info("{role} listens on {endpoint}", role=self._role, endpoint=endpoint)
        if self._anonymous:
            self._log.warn("--allow-anonymous: anyone who reaches this process may read and send every event")

    def stopService(self) -> Deferred[Any]:
        """Stop listening. Existing connections stay open. Fires when all ports are closed."""
        super().stopService()
        for accepting in self._accepting:
            accepting.stop()
        self._accepting.clear()
        ports, self.ports = self.ports, []
        return DeferredList([Deferred.fromCoroutine(_stopped(port)) for port in ports])


async def _stopped(port: IListeningPort) -> None:
    stopping: Any = port.stopListening()  # a Deferred on every reactor, though the interface does not say so
    await stopping


def _why(failure: Any) -> str:
    error = getattr(failure, "value", failure)
    if isinstance(error, CannotListenError):
        why = getattr(error.socketError, "strerror", None) or error.socketError
        return f"{why}; choose another with --listen"
    return str(error) or type(error).__name__
