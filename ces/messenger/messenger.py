"""The messenger: one link to a hub, kept up, with what it wants and what it has to say.

Owns the rooms, the state and the ends of the spool; the link is dialled and dialled again by
`ces.uplink.reconnect.Dialler`, which this is, and what arrives is `ces.messenger.reception.Reception`'s.

On the wire (docs/protocol.md sections 4 to 6): each new link is told the rooms again, then carries what the
hub has not acknowledged and what waits in the spool. On a ces.1 link nobody acknowledges: each event is sent
at most once, and one that was written to a link which then broke is gone.

Not thread-safe, as little in Twisted is: from another thread, ``reactor.callFromThread(messenger.send,
event)``.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import StrEnum
from typing import Any, Final, TypeVar

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IConnector
from twisted.logger import Logger

from ces.link.owner import LinkLimits
from ces.link.protocol import Link
from ces.link.side import Side
from ces.messenger.inbox import Inbox, Received
from ces.messenger.reception import EventCallback, GapCallback, Reception, RecordCallback
from ces.messenger.sendable import Sendable, make_run
from ces.messenger.spool import Spool, fail_unless_ignored
from ces.messenger.waiting import Closed, Dropped, TimedOut, TooManyWaiting, Waiting
from ces.model.address import Address, parse_address
from ces.model.control import SubscriptionChange
from ces.model.event import Event
from ces.model.routing import MESSENGER
from ces.model.wire import KnownRooms, room_fault
from ces.model.withdrawn import withdraw
from ces.session.session import Session
from ces.uplink.reconnect import DIALLING, STOPPED, UP, WAITING, Dialler
from ces.uplink.spool_file import SpoolFile

DEFAULT_PORT: Final = 7100
PATH: Final = "/connect/messenger"
BUFFER: Final = 8 * 1024 * 1024

ROOMS_AT_A_TIME: Final = 1000
"""At most so many rooms in one subscription change: 256 kB, far below any message limit."""

S = TypeVar("S", bound=Callable[["State"], object])


class State(StrEnum):
    """What becomes of the link; the values are the words of logs and of `Messenger.status`."""

    CLOSED = STOPPED
    """Not dialled yet, or closed."""
    CONNECTING = DIALLING
    CONNECTED = UP
    WAITING = WAITING
    """The last dial failed, or the link was lost; dials again after a delay."""


class Messenger(Dialler):
    """A service's link to the Central Event System.

    Dialled with `connect`, or by handing it to ``connectWS`` or ``reactor.connectTCP`` as the client factory
    that it is. Whatever becomes of the hub, it dials again after 1 s, growing to 30 s, each time spread out
    by chance.

    :param address: of the hub: ``ws://event-hub``, ``wss://event-hub:443``, ``localhost:7100``,
        ``event-hub``.
    :param rooms: to subscribe to at first, ``*`` for every room; none for one that only sends.
    :param reactor: the reactor.
    :param spool: bytes of events that may wait while there is no link; beyond it the oldest are dropped and
        counted.
    :param spool_dir: a directory, made if need be, in which what waits in the spool is kept on disk as well,
        so that it survives the process: the next messenger with this directory sends it first, some of it
        perhaps a second time. No two may use one at a time. Empty for none.
    :param inbox: bytes of events that may wait for `receive`; beyond it the oldest are dropped and counted.
    :param waits: how many Deferreds of `receive`, `flush` and `when_connected` may wait at a time, of each.
    :param node: identifies this process to the hub; by default the host name and a random part.
    :param limits: of the link.
    :raises ces.model.address.AddressError: a ValueError, when no address can be read from `address`.
    :raises ValueError: when a room's name breaks the rules.
    :raises ces.uplink.spool_file.SpoolError: when the spool on disk cannot be used: damaged, in use, not
        writable, or written by a later version.
    """

    def __init__(
        self,
        address: str | Address,
        rooms: Iterable[str] = (),
        *,
        reactor: Any,
        spool: int = BUFFER,
        spool_dir: str | os.PathLike[str] = "",
        inbox: int = BUFFER,
        waits: int = 1000,
        node: str = "",
        limits: LinkLimits | None = None,
        log: Logger | None = None,
    ) -> None:
        if isinstance(address, str):
            address = parse_address(address, DEFAULT_PORT, strip=PATH)
        self._state = State.CLOSED
        self._on_state: tuple[Callable[[State], object], ...] = ()
        self._closed = False
        self._links = 0
        self._known = KnownRooms()
        self._connected: Waiting[None, None] = Waiting(waits)
        self._rooms: dict[str, None] = dict.fromkeys(_checked(rooms))
        self._unwanted: dict[str, None] = {}
        """Unsubscribed in this session; on a link that was cut the hub may not have heard it."""
        self._reception = Reception(
            node or f"{socket.gethostname()}-{secrets.token_hex(4)}",
            Inbox(inbox),
            waits,
            self._welcome,
            self._farewell,
        )
        self._spool = Spool(spool, waits, reactor, self._report_lost)
        side = Side(
            self._reception, limits or LinkLimits(), reactor, log or Logger(namespace="ces.messenger")
        )
        self._reception.limited = side.limited
        self._spool_dir = os.path.abspath(spool_dir) if spool_dir else ""
        super().__init__(
            side, address, PATH, MESSENGER, reactor, session=Session(self._spool), failed=self._report_failed
        )
        self._open()

    # -- the link --------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Dial the hub, and keep the link up from then on; again after `close` has fired, if need be.

        :raises ces.uplink.spool_file.SpoolError: when the spool on disk, which `close` has closed, cannot be
            used again.
        """
        self._open()
        self.dial()

    def _open(self) -> None:
        """Use the spool on disk, if there is to be one."""
        if not self._spool_dir or self._spool.file is not None:
            return
        file = SpoolFile(self._spool_dir, "messenger", self.side.clock, self.side.limited)
        found = self._spool.restore(file)
        if found:
            self.side.log.info(
                "{records} events for {address} were found in {path}",
                records=found,
                address=self.address,
                path=file.path,
            )

    @property
    def state(self) -> State:
        """What becomes of the link."""
        return self._state

    @state.setter
    def state(self, word: str) -> None:
        # The dialler's to set; here is where everyone is told.
        state = State(word)
        if state is self._state:
            return
        self._state = state
        for callback in self._on_state:
            try:
                callback(state)
            except Exception:  # a callback's mistake must not cost the other callbacks or the link
                self._reception.failed(callback)

    @property
    def connected(self) -> bool:
        """Whether there is a link."""
        return self._state is State.CONNECTED

    def on_state(self, callback: S) -> S:
        """Call back with the state whenever it has changed; returns the callback, so as to be a decorator."""
        self._on_state += (callback,)
        return callback

    def when_connected(self) -> Deferred[None]:
        """Fires when there is a link, at once if there is; fails with `Closed`.

        :raises TooManyWaiting: when too many wait for it.
        """
        if self.connected:
            return succeed(None)
        return fail(Closed("the messenger is closed")) if self._closed else self._connected.wait(None)

    def close(self, timeout: float = 5.0) -> Deferred[None]:
        """Send what waits, if there is a link, and close it.

        What then still waits is dropped and counted, or stays in the spool on disk (`Kept`). What has arrived
        can still be received.

        :param timeout: seconds for what waits, and seconds for the hub to answer the close.
        :return: fires when the connection is gone; never fails.
        """
        return Deferred.fromCoroutine(self._close(timeout))

    async def _close(self, timeout: float) -> None:
        if self.connected:
            with suppress(TimedOut, TooManyWaiting):  # what then waits is told below
                await self.flush(timeout)
        self._closed = True
        cut = self.side.clock.callLater(timeout, self._cut)
        await self.stop()
        if cut.active():
            cut.cancel()
        kept = self._spool.close(self.session.take_sent() + self.session.take_waiting())
        if kept:
            self.side.log.info(
                "{records} events for {address} are kept in {folder}",
                records=kept,
                address=self.address,
                folder=self._spool_dir,
            )
        self.session.restart("")
        self._reception.close()
        self._connected.fail(Closed("the messenger was closed"))

    def _cut(self) -> None:
        if self._current is not None:
            self._current.transport.abortConnection()

    def startedConnecting(self, connector: IConnector) -> None:
        self._open()
        self._closed = False
        super().startedConnecting(connector)

    # -- rooms -----------------------------------------------------------------------------------------------

    @property
    def rooms(self) -> frozenset[str]:
        """The rooms that are subscribed to, or will be once there is a link."""
        return frozenset(self._rooms)

    def subscribe(self, *rooms: str) -> None:
        """Receive the events of these rooms from now on, ``*`` for every room; twice is once.

        :raises ValueError: when a room's name breaks the rules; then none of them is subscribed to.
        """
        new = [room for room in dict.fromkeys(_checked(rooms)) if room not in self._rooms]
        self._rooms.update(dict.fromkeys(new))
        for room in new:
            self._unwanted.pop(room, None)
        self._announce(new, create=True)

    def unsubscribe(self, *rooms: str) -> None:
        """Receive the events of these rooms no more; of none at all when no room is named."""
        old = [room for room in dict.fromkeys(rooms or self._rooms) if room in self._rooms]
        for room in old:
            del self._rooms[room]
        if self.session.id:
            withdraw(self._unwanted, old)
        self._announce(old, create=False)

    def _announce(self, rooms: list[str], create: bool) -> None:
        if self.link is not None and self.link.joined:
            for start in range(0, len(rooms), ROOMS_AT_A_TIME):
                self.link.tell(SubscriptionChange(rooms[start : start + ROOMS_AT_A_TIME], create))

    # -- what comes ------------------------------------------------------------------------------------------

    def on_event(self, callback: EventCallback) -> EventCallback:
        """Call back with each event and the room that its record was tagged with.

        What does not decode as a v2 event is counted, logged and skipped; a callback that raises is logged
        and costs nothing else.

        :return: the callback, so that this can be used as a decorator.
        """
        self._reception.on_event(callback)
        return callback

    def on_record(self, callback: RecordCallback) -> RecordCallback:
        """Call back with the room and the JSON of each event, as the bytes that came; returns it."""
        self._reception.on_record(callback)
        return callback

    def on_gap(self, callback: GapCallback) -> GapCallback:
        """Call back when events were missed: with how many, or with None when nobody knows how many, or
        whether any. Returns the callback.

        A hub that dropped events for this messenger says how many. None is known after a hub that had to
        begin a new session, for instance because it was started anew, and after every cut of a ces.1 link.
        """
        self._reception.on_gap(callback)
        return callback

    def forget(self, callback: Callable[..., object]) -> None:
        """Call back no more, neither with events nor with records nor with gaps nor with states."""
        self._on_state = tuple(kept for kept in self._on_state if kept != callback)
        self._reception.forget(callback)

    def receive(self) -> Deferred[Event]:
        """The next event, at once or when it comes; cancelled, it takes none. Fails with `Closed`.

        :raises TooManyWaiting: when too many wait already.
        """
        return self._reception.next_event(self._closed)

    def receive_record(self) -> Deferred[Received]:
        """As `receive`, the next event as the bytes that came."""
        return self._reception.next_record(self._closed)

    def __aiter__(self) -> Messenger:
        """Events as they come, until the messenger is closed and what had arrived has been received."""
        return self

    async def __anext__(self) -> Event:
        try:
            return await self.receive()
        except Closed:
            raise StopAsyncIteration from None

    # -- what goes -------------------------------------------------------------------------------------------

    def send(self, event: Sendable, room: str | None = None) -> Deferred[None]:
        """Send an event, now or when there is a link.

        :param event: an Event, a mapping with the keys of one, or its JSON, which is sent as it is.
        :param room: to tag it with; by default the event's affected room, else its target device's, else a
            blank one.
        :return: fires when the hub has taken responsibility for the event; with a ces.1 hub, which does not
            say so, when it has been handed to the transport. Fails with `Dropped` when it was pushed out of
            the spool, or when the messenger is closed before; with `Kept`, a kind of it, when the event then
            stays on disk. May be ignored. To cancel it does not take the event back.
        :raises ValueError: when it is no event, its room is none, or it is too large for a message. Never
            because of the hub.
        """
        run = make_run(event, room, self._known, self.side.limits.message)
        if self._closed:
            self._spool.dropped += 1
            refused: Deferred[None] = Deferred()
            fail_unless_ignored(refused, Dropped("the messenger is closed"))
            return refused
        if self.link is not None:
            # First, so that what is done with once it is written (ces.1) never comes to the file.
            self.side.turn.add(self.link)
        return self._spool.put(run)

    def flush(self, timeout: float = 5.0) -> Deferred[None]:
        """Fires when all that was sent so far has been taken by the hub, or dropped (see `send`).

        :param timeout: seconds; then it fails with `TimedOut`, and what waits goes on waiting.
        """
        return Deferred.fromCoroutine(self._flush(timeout))

    async def _flush(self, timeout: float) -> None:
        emptied = self._spool.emptied()
        timer = self.side.clock.callLater(timeout, emptied.cancel)
        try:
            await emptied
        except CancelledError:
            if timer.active():
                raise
            why = f": {self.reason}" if self.reason else ""
            where = f"the link to {self.address} is {self.state}{why}"
            waiting = f"{self._spool.records} not sent within {timeout:g} s"
            raise TimedOut(f"{waiting}: {where}") from None
        finally:
            if timer.active():
                timer.cancel()

    # -- what the link and the spool tell --------------------------------------------------------------------

    def _welcome(self, link: Link) -> None:
        self._links += 1
        if link.resumed:
            self._announce(list(self._unwanted), create=False)
        else:
            self._unwanted.clear()
            if self._links > 1:
                self._reception.gap(None)
        self._announce(list(self._rooms), create=True)
        self.side.limited.info(
            "joined", "connected to {address}, speaking {dialect}", address=self.address, dialect=link.dialect
        )
        while self._connected:
            self._connected.pop().callback(None)

    def _farewell(self, reason: str) -> None:
        self.side.limited.info(
            "left", "the link to {address} has ended: {reason}", address=self.address, reason=reason
        )

    def _report_failed(self, reason: str) -> None:
        self.side.limited.warn(
            "failed", "no link to {address}: {reason}; dialling again", address=self.address, reason=reason
        )

    def _report_lost(self, records: int) -> None:
        self.side.limited.warn(
            "lost",
            "events for {address} dropped unsent: {records} ({total} so far)",
            records=records,
            address=self.address,
            total=self._spool.dropped,
        )

    # -- what it shows ---------------------------------------------------------------------------------------

    @property
    def counters(self) -> dict[str, int]:
        """Since the start, in events unless said otherwise.

        sent: handed to a link. dropped: pushed out of the spool, or waiting at the close. received: came on a
        link. missed: dropped by the hub, as it said. gaps: how often events were missed, or may have been.
        unread: pushed out of the inbox. malformed: records and messages that break the wire's rules,
        and events that did not decode. failures: exceptions raised by callbacks. reconnects: links after the
        first.
        """
        reception = self._reception
        return {
            "sent": self._spool.taken,
            "dropped": self._spool.dropped,
            "received": reception.received_records,
            "missed": self.side.missed,
            "gaps": reception.gaps,
            "unread": reception.inbox.dropped,
            "malformed": self.side.malformed + reception.undecodable,
            "failures": reception.failures,
            "reconnects": max(0, self._links - 1),
        }

    def status(self) -> dict[str, Any]:
        """What is worth showing; buffers are in bytes."""
        return {
            "address": self.address.url(),
            "state": self.state.value,
            "reason": self.reason,
            "dialect": self.link.dialect if self.link is not None else "",
            "hub": self.link.node if self.link is not None else "",
            "rooms": sorted(self._rooms),
            "spool-utilization": self._spool.waiting,
            "spool-capacity": self._spool.limit,
            "spool-disk": None if self._spool.file is None else self._spool.file.status(),
            "inbox-utilization": self._reception.inbox.bytes,
            "inbox-capacity": self._reception.inbox.limit,
            **self.counters,
        }


def _checked(rooms: Iterable[str]) -> list[str]:
    """The rooms, all of which may be subscribed to."""
    if isinstance(rooms, str):
        raise ValueError(f"rooms is the text {rooms!r}; expected a list such as [{rooms!r}]")
    checked = list(rooms)
    for room in checked:
        fault = room_fault(room.encode("utf-8", "surrogatepass"))
        if fault is not None:
            raise ValueError(f"cannot subscribe to {room[:80]!r}: {fault}")
    return checked
