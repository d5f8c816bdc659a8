"""A link that is dialled, and dialled again.

Owns when to dial: at once, then with a delay that grows and is spread out, for ever; what it dials for is its
owner's. The delay is forgotten only when a link has carried a record or has been up for `STABLE` seconds, so
that a server which accepts and then closes is not hammered.

A server that refuses the handshake may do so because it does not know the subprotocol: it is dialled once
more, at once and without it, before that counts as a failure (docs/protocol.md section 3).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import cast

from autobahn.twisted.websocket import WebSocketClientFactory
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IConnector, IDelayedCall
from twisted.internet.protocol import ReconnectingClientFactory
from twisted.internet.ssl import optionsForClientTLS
from twisted.python.failure import Failure

from ces.link.ends import DiallingLink
from ces.link.protocol import GOING_AWAY, NORMAL, Link
from ces.link.server import Read, read_by_dialect
from ces.link.side import Side
from ces.model.address import Address
from ces.model.wire import CES2
from ces.session.session import Session

STABLE = 10.0
"""A link that has been up for so many seconds forgets the delay."""

BACK_AFTER = (0.5, 4.0)
"""So many seconds after a server has said that it goes away its clients come back, spread out."""

DIALLING, UP, WAITING, STOPPED = "dialling", "up", "waiting", "stopped"


class Dialler(WebSocketClientFactory, ReconnectingClientFactory):
    """Keeps one link to `address` up.

    :param path: the path of the endpoint, for example ``/connect/hub``.
    :param kind: of the link: what this side is to the other.
    :param session: with what is to be sent; by default one with an outbox of the side's bound. It outlives
        the links.
    :param up: told when a link has joined.
    :param failed: told why, whenever a dial or a link has ended otherwise than by `stop`.
    :param may_redial: asked before dialling again; where it says no, the owner calls `dial` when the time has
        come.
    """

    protocol = DiallingLink
    noisy = False
    initialDelay = 1.0
    maxDelay = 30
    factor = 1.5
    """Small enough that a server which was away for up to 4 s has its clients back within about 5."""

    def __init__(
        self,
        side: Side,
        address: Address,
        path: str,
        kind: str,
        reactor: object,
        session: Session | None = None,
        read: Read | None = None,
        up: Callable[[], None] | None = None,
        failed: Callable[[str], None] | None = None,
        may_redial: Callable[[], bool] | None = None,
    ) -> None:
        super().__init__(url=address.url(path), protocols=[CES2], useragent="ces", reactor=reactor)
        self.side = side
        self.address = address
        self.kind = kind
        self.session = side.new_session() if session is None else session
        self.read = read or read_by_dialect()
        self.link: Link | None = None
        """The link, once it has joined and until its connection is gone."""
        self.last: Link | None = None
        """The link of the last dial that reached the other side, alive or not."""
        self.state = STOPPED
        self.reason = ""
        """Why the last dial or link ended."""
        self._up = up
        self._failed = failed
        self._may_redial = may_redial
        self._current: Link | None = None
        self._kept: Link | None = None
        self._refused = False
        self._stable: IDelayedCall | None = None
        self._stopped: list[Deferred[None]] = []
        self.delay = self.initialDelay
        self.continueTrying = 0
        self.setProtocolOptions(
            failByDrop=False,
            maxFramePayloadSize=side.limits.message,
            maxMessagePayloadSize=side.limits.message,
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
            serverConnectionDropTimeout=0,
        )

    # -- what the owner calls --------------------------------------------------------------------------------

    def dial(self) -> None:
        """Dial, now, and keep the link up from then on; what is being stopped is dialled when it is gone."""
        self.continueTrying = 1
        if self.state in (DIALLING, UP):
            return
        self._cancel_retry()
        self.state = DIALLING
        seconds = self.side.limits.handshake
        if self.isSecure:
            tls = optionsForClientTLS(self.address.host)
            self.connector = self.reactor.connectSSL(self.address.host, self.address.port, self, tls, seconds)
        else:
            self.connector = self.reactor.connectTCP(self.address.host, self.address.port, self, seconds)

    def stop(self) -> Deferred[None]:
        """Dial no more and close the link; fires when its connection is gone."""
        self.continueTrying = 0
        self._cancel_retry()
        kept = self.predecessor()
        if kept is not None:
            kept.end(NORMAL, "closing")
        if self.state not in (DIALLING, UP):
            self.state = STOPPED
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._stopped.append(done)
        if self._current is not None:
            self._current.end(NORMAL, "closing")
        elif self.connector is not None:
            self.connector.stopConnecting()
        return done

    # -- what links and the reactor call ---------------------------------------------------------------------

    def buildProtocol(self, addr: IAddress | None) -> Link:
        link = cast(Link, super().buildProtocol(addr))
        self._current = self.last = link
        return link

    def startedConnecting(self, connector: IConnector) -> None:
        self.connector = connector
        self.state = DIALLING
        self.continueTrying = 1

    def link_joined(self, link: Link) -> None:
        """The link carries records now."""
        self.link = link
        self.state = UP
        self.reason = ""
        self._stable = self.side.clock.callLater(STABLE, self._settle)
        if self._up is not None:
            self._up()

    def carried(self) -> None:
        """The link has carried a record: it is a good one."""
        if self._stable is not None:
            self._stable.cancel()
            self._settle()

    def link_kept(self, link: Link) -> None:
        """The link was cut and its owner keeps it: the next one takes its place."""
        self._kept = link

    def predecessor(self) -> Link | None:
        """The kept link whose place a new one takes."""
        kept, self._kept = self._kept, None
        return kept if kept is not None and kept.detached else None

    def _settle(self) -> None:
        self._stable = None
        self.delay = self.initialDelay
        self.retries = 0

    def link_lost(self, link: Link) -> None:
        """The link's connection is gone; `clientConnectionLost` follows."""
        self.link = self._current = None
        self.reason = link.ended
        self._refused = link.refused
        if self._stable is not None:
            self._stable.cancel()
            self._stable = None

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self._ended(connector, reason.getErrorMessage().rstrip("."))

    def clientConnectionLost(self, connector: IConnector, reason: Failure) -> None:
        self._ended(connector, self.reason)

    def _ended(self, connector: IConnector, reason: str) -> None:
        self.connector = connector
        self.reason = reason
        stopped, self._stopped = self._stopped, []
        if stopped or not self.continueTrying:
            self._refused = False
            self.state = STOPPED
            if self.continueTrying:
                self.dial()
            for done in stopped:
                done.callback(None)
            return
        once_more = self._refused and bool(self.protocols)
        self._refused = False
        self.protocols = [] if once_more else [CES2]
        if once_more:
            self.state = DIALLING
            connector.connect()
            return
        self.state = WAITING
        if self._may_redial is None or self._may_redial():
            self.retry(connector)
        if self._failed is not None:
            self._failed(reason)

    def retry(self, connector: IConnector | None = None) -> None:
        """Dial again after half to one and a half of the delay, so that many do not come at once."""
        self.retries += 1
        told = self.last is not None and self.last.close_code == GOING_AWAY and self.retries == 1
        wait = random.uniform(*BACK_AFTER) if told else self.delay * random.uniform(0.5, 1.5)
        self.delay = min(self.delay * self.factor, self.maxDelay)
        self._callID = self.side.clock.callLater(wait, self._redial, connector)

    def _redial(self, connector: IConnector) -> None:
        self._callID = None
        self.state = DIALLING
        connector.connect()

    def _cancel_retry(self) -> None:
        if self._callID is not None:
            self._callID.cancel()
            self._callID = None


class DialService(Service):
    """A dialler as a service: dials when started, closes when stopped."""

    def __init__(self, dialler: Dialler) -> None:
        self.dialler = dialler

    def startService(self) -> None:
        super().startService()
        self.dialler.dial()

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return self.dialler.stop()
