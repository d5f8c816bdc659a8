"""When to dial: at once, then with a delay that grows and is spread out, for ever.

`Dialler` is the client factory behind an uplink: a `ReconnectingClientFactory` that Twisted applications can
hand to ``connectWS`` or ``reactor.connectTCP``. Left to itself it dials like `HostnameEndpoint`: every
address of a name, IPv6 and IPv4, until one answers.

The delay is forgotten only when a connection has carried a record or has lasted `STABLE` seconds, so that a
server which accepts and then closes is not hammered.

A dial has time for two steps, the lookup of the name and the connection: Twisted's resolver has no timeout.

A server may refuse the handshake because it does not know the subprotocol: after an answer of the 400 class
it is dialled once more, at once and without it (docs/protocol.md section 3). A server that has spoken ces.2
before is not: there, such an answer comes from something on the way.
"""

from __future__ import annotations

import errno
import os
import random
from typing import Any, Protocol

from autobahn.twisted.websocket import WebSocketClientFactory
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IConnector, IDelayedCall, IStreamClientEndpoint
from twisted.internet.protocol import ReconnectingClientFactory
from twisted.internet.ssl import optionsForClientTLS
from twisted.python.failure import Failure

from ces.access.bearer import NO_BEARER, Bearer
from ces.link.connection import Connection, Opener
from ces.link.dialling import DiallingConnection
from ces.model.address import Address
from ces.model.wire import CES2
from ces.ops.descriptors import has_spare, why_failed
from ces.session.life import GOING_AWAY, NORMAL

STABLE = 10.0
"""A connection that has lasted this long, in seconds, resets the delay."""

BACK_AFTER = (0.5, 4.0)
"""Clients of a server that goes away come back after a time between these, in seconds, spread out."""

REFUSES_SUBPROTOCOL = frozenset(range(400, 500)) - {401, 403, 408, 425, 429}
"""HTTP statuses that may mean that a server does not know the subprotocol."""

DIALLING, UP, WAITING, STOPPED = "dialling", "up", "waiting", "stopped"


class Dials(Opener, Protocol):
    """Whom a dialler dials for."""

    def may_dial(self) -> bool:
        """Whether to dial again. Where it says no, the owner calls `Dialler.dial` when the time has come."""

    def changed(self, state: str) -> None:
        """The dialler's state has changed."""

    def failed(self, reason: str) -> None:
        """A dial has failed, or a connection has ended otherwise than by `Dialler.stop`."""


class Dialler(WebSocketClientFactory, ReconnectingClientFactory):
    """Keeps one connection to `address` up.

    :param path: the path of the endpoint, for example ``/connect/hub``.
    :param bearer: the token to show in each handshake.

    state: ``stopped``, ``dialling``, ``up`` or ``waiting``.
    reason: why the last dial or connection ended.
    last: the connection of the last dial that reached the other side, alive or not.
    """

    protocol = DiallingConnection
    noisy = False
    initialDelay = 1.0
    maxDelay = 30
    factor = 1.5
    """Small enough that a server which was away for up to 4 s has its clients back within about 5."""

    def __init__(
        self, opener: Dials, address: Address, path: str, reactor: Any, bearer: Bearer = NO_BEARER
    ) -> None:
        super().__init__(url=address.url(path), protocols=[CES2], useragent="ces", reactor=reactor)
        self.opener = opener
        self.address = address
        self.last: Connection | None = None
        self.state = STOPPED
        self.reason = ""
        self._bearer = bearer
        self._clock = opener.side.clock
        self._connector: IConnector | None = None
        """What a Twisted application dials with, where it is one that dials."""
        self._attempt: Deferred[Any] | None = None
        self._current: Connection | None = None
        self._spoke_ces2 = False
        self._stable: IDelayedCall | None = None
        self._stopped: list[Deferred[None]] = []
        self.delay = self.initialDelay
        self.continueTrying = 0
        limit = opener.side.settings.message_limit
        self.setProtocolOptions(
            failByDrop=False,
            maxFramePayloadSize=limit,
            maxMessagePayloadSize=limit,
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
            serverConnectionDropTimeout=0,
        )

    # -- what the uplink calls -------------------------------------------------------------------------------

    def dial(self) -> None:
        """Dial, now, and keep the connection up from then on; what is being stopped is dialled when gone."""
        self.continueTrying = 1
        if self.state in (DIALLING, UP):
            return
        self._cancel_retry()
        self._dial()

    def stop(self) -> Deferred[None]:
        """Dial no more and close the connection; fires when it is gone."""
        self.continueTrying = 0
        if self._cancel_retry() or self.state not in (DIALLING, UP):
            self._set(STOPPED)
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._stopped.append(done)
        if self._current is not None:
            self._current.end(NORMAL, "closing")
        elif self._attempt is not None:
            self._attempt.cancel()
        elif self._connector is not None:
            self._connector.stopConnecting()
        return done

    @property
    def closed_in_order(self) -> bool:
        """Whether the last connection ended with a closing handshake."""
        return self.last is not None and bool(self.last.wasClean)

    def stopTrying(self) -> None:
        """Dial no more; a connection that is up stays."""
        self.continueTrying = 0
        if self._cancel_retry() or self.state == WAITING:
            self._set(STOPPED)
        elif self._attempt is not None:
            self._attempt.cancel()
        elif self.state == DIALLING and self._current is None and self._connector is not None:
            self._connector.stopConnecting()

    def resetDelay(self) -> None:
        """Forget the delay. Unlike Twisted's, this does not begin to dial again."""
        self._settle()

    def abort(self) -> None:
        """End the connection, if there is one, without a closing handshake."""
        if self._current is not None:
            self._current.abort()

    def joined(self, connection: Connection) -> None:
        """The connection has its link."""
        self.reason = ""
        self._stable = self._clock.callLater(STABLE, self._settle)
        self._set(UP)

    def carried(self) -> None:
        """The connection has carried a record: it is a good one."""
        if self._stable is not None:
            self._settle()

    def lost(self, connection: Connection) -> None:
        """A connection is gone."""
        self._current = None
        if self._stable is not None:
            self._stable.cancel()
            self._stable = None
        # Also one that got no link, since another one to the same hub stayed.
        self._spoke_ces2 = self._spoke_ces2 or connection.dialect == CES2
        refused = connection.refused
        downgrade = refused is not None and (refused < 300 or refused in REFUSES_SUBPROTOCOL)
        self._ended(connection.ended, downgrade and not self._spoke_ces2)

    # -- what Twisted calls ----------------------------------------------------------------------------------

    def buildProtocol(self, addr: Any) -> Any:
        token = self._bearer.read(self._report)
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        connection: Any = super().buildProtocol(addr)
        self._current = self.last = connection
        return connection

    def _report(self, fault: str) -> None:
        say = "{fault}; the token that it had before is used"
        self.opener.side.limited.warn("token file", say, fault=fault)

    def startedConnecting(self, connector: IConnector) -> None:
        if connector is not self._connector:
            # Handed to a reactor. To ask its connector once more does not undo `stopTrying`.
            self._connector = connector
            self.continueTrying = 1
        self._set(DIALLING)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self._failed(reason)

    def clientConnectionLost(self, connector: IConnector, reason: Failure) -> None:
        """Nothing: the connection itself has told of its end (`lost`)."""

    def retry(self, connector: IConnector | None = None) -> None:
        """Dial again after half to one and a half of the delay, so that many do not come at once."""
        self.retries += 1
        told = self.last is not None and self.last.code == GOING_AWAY and self.retries == 1
        wait = random.uniform(*BACK_AFTER) if told else self.delay * random.uniform(0.5, 1.5)
        self.delay = min(self.delay * self.factor, self.maxDelay)
        self._callID = self._clock.callLater(wait, self._redial)

    # --------------------------------------------------------------------------------------------------------

    def _dial(self) -> None:
        if self._connector is not None:
            # In a turn of its own: a connector dials only once it has told of the end of its last connection.
            self._callID = self._clock.callLater(0, self._connect, self._connector)
            self._set(DIALLING)
            return
        before, self.state = self.state, DIALLING
        attempt = self._attempt = self._attempted()
        if before != DIALLING:
            self.opener.changed(DIALLING)  # now that a callback may stop it
        attempt.addCallbacks(self._connected, self._failed)

    def _attempted(self) -> Deferred[Any]:
        """Begin to dial; fires when it is known what has come of it."""
        if not has_spare():
            # Twisted's name lookup would raise where nobody looks, and never answer.
            return fail(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
        seconds = self.opener.side.settings.handshake_timeout
        return self._endpoint().connect(self).addTimeout(2 * seconds, self._clock)

    def _connect(self, connector: IConnector) -> None:
        self._callID = None
        connector.connect()

    def _endpoint(self) -> IStreamClientEndpoint:
        host, seconds = self.address.host, self.opener.side.settings.handshake_timeout
        endpoint = HostnameEndpoint(self.reactor, host, self.address.port, seconds)
        return wrapClientTLS(optionsForClientTLS(host), endpoint) if self.isSecure else endpoint

    def _connected(self, protocol: Any) -> None:
        self._attempt = None

    def _failed(self, reason: Failure) -> None:
        self._attempt = None
        stopped = not self.continueTrying
        self._ended("" if stopped else why_failed(reason), downgrade=False)

    def _ended(self, reason: str, downgrade: bool) -> None:
        self.reason = reason
        stopped, self._stopped = self._stopped, []
        if stopped or not self.continueTrying:
            self.protocols = [CES2]
            self._set(STOPPED)
            if self.continueTrying:
                self.dial()
            for done in stopped:
                done.callback(None)
            return
        once_more = downgrade and bool(self.protocols)
        self.protocols = [] if once_more else [CES2]
        if once_more:
            # This is no failure: the state stays.
            self._callID = self._clock.callLater(0, self._redial, True)
            return
        self._set(WAITING)
        if self.opener.may_dial() and self.state == WAITING:  # a callback may have stopped it
            self.retry()
        self.opener.failed(reason)

    def _redial(self, once_more: bool = False) -> None:
        self._callID = None
        if once_more or self.opener.may_dial():
            self._dial()

    def _cancel_retry(self) -> bool:
        """Do not dial again; whether that was to be done."""
        if self._callID is None:
            return False
        self._callID.cancel()
        self._callID = None
        self.protocols = [CES2]
        return True

    def _settle(self) -> None:
        if self._stable is not None and self._stable.active():
            self._stable.cancel()
        self._stable = None
        self.delay = self.initialDelay
        self.retries = 0

    def _set(self, state: str) -> None:
        if state != self.state:
            self.state = state
            self.opener.changed(state)
