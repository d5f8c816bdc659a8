"""The messenger: one link to a hub, its subscriptions and its spool.

Owns the rooms and the state. `ces.uplink.uplink.Uplink` dials and reconnects,
`ces.messenger.reception.Reception` handles what arrives, `ces.messenger.outgoing.Outgoing` holds what the
hub has not acknowledged.

On the wire (docs/protocol.md sections 4 to 6): a new link first carries the subscriptions, then what the hub
has not acknowledged, then what waits in the spool. A ces.1 hub does not acknowledge: each event is sent at
most once, and an event that was written to a connection which then broke is lost.

Not thread-safe. From another thread, use ``reactor.callFromThread(messenger.send, event)``.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, TypeVar

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.logger import Logger

from ces.access.bearer import Bearer
from ces.config.link import LinkSettings
from ces.link.link import Link
from ces.link.side import Side
from ces.messenger.inbox import Inbox, Received
from ces.messenger.outgoing import Outgoing, fail_unless_ignored
from ces.messenger.reception import EventCallback, GapCallback, Reception, RecordCallback, not_async
from ces.messenger.sendable import Sendable, make_run
from ces.messenger.waiting import Closed, Dropped, TimedOut, TooManyWaiting, Waiting
from ces.model.address import HUB_PORT, Address, parse_address
from ces.model.event import Event
from ces.model.routing import MESSENGER
from ces.model.wire import KnownRooms, room_fault
from ces.ops.clock import utc_now
from ces.session.interest import Interest
from ces.uplink.dialler import DIALLING, STOPPED, UP, WAITING, Dialler
from ces.uplink.uplink import Uplink

PATH: Final = "/connect/messenger"
BUFFER: Final = 8 * 1024 * 1024

S = TypeVar("S", bound=Callable[["State"], object])


class State(StrEnum):
    """State of the link. Its value is the word that logs and `Messenger.status` show."""

    CLOSED = STOPPED
    """Not connected yet, or closed."""
    CONNECTING = DIALLING
    """Dialling the hub."""
    CONNECTED = UP
    """The link carries events."""
    WAITING = WAITING
    """The last dial failed, or the connection was lost. The messenger dials again after a delay."""


class Messenger:
    """Connects a service to the Central Event System.

    Call `connect` to dial the hub, or pass `factory` to ``connectWS`` or ``reactor.connectTCP``. The
    messenger reconnects by itself: after 1 s at first, later after up to 30 s, with a random part in each
    delay. It makes its subscriptions again and sends what waits in its spool. Call `close` at the end.

    :param address: address of the hub: ``ws://event-hub``, ``wss://event-hub:443``, ``localhost:7100`` or
        ``event-hub``. The default port is 7100. Of a host name, every address is tried, IPv6 and IPv4.
    :param rooms: rooms to subscribe to. ``*`` is every room. Empty: only send.
    :param reactor: the Twisted reactor.
    :param spool: limit for the spool in bytes. Events wait there until the hub has acknowledged them. A full
        spool drops its oldest events and counts them.
    :param spool_dir: directory for a copy of the spool on disk, created when absent. What waits there
        outlives the process: the next messenger with this directory sends it first. Some of it may arrive
        twice. Two messengers must not use one directory at the same time. Empty: no copy on disk.
    :param inbox: limit for the inbox in bytes. Events wait there for `receive`. A full inbox drops its oldest
        events and counts them.
    :param waits: limit for the number of Deferreds that wait, for each of `receive` (with `receive_record`),
        `flush` and `when_connected`.
    :param token: the token that the hub is shown, where it lets in only those that it knows.
    :param token_file: a file with the token instead, which is read again for each dial.
    :param node: identifies this process to the hub. Default: the host name and a random part.
    :param settings: limits of the link, as docs/settings.md names them; not part of the public API. Default:
        the defaults there.
    :param log: logger; not part of the public API.
    :param now: returns the present time as an aware datetime, for events without a time stamp. Default: the
        system clock. A test may pass its own.
    :raises TypeError: when `rooms` is not a list of str or another iterable of them.
    :raises ValueError: when the address cannot be used, a room's name breaks the rules, or there is no token
        where one is said to be.
    :raises ces.uplink.spool_file.SpoolError: when the spool on disk cannot be used: it is damaged, in use,
        not writable, or written by a later version.
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
        token: str = "",
        token_file: str | os.PathLike[str] = "",
        node: str = "",
        settings: LinkSettings | None = None,
        log: Logger | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        if isinstance(address, str):
            address = parse_address(address, HUB_PORT, strip=PATH)
        bearer = Bearer(token, token_file)
        self._state = State.CLOSED
        self._on_state: tuple[Callable[[State], object], ...] = ()
        self._closed = False
        self._links = 0
        self._now = now
        self._known = KnownRooms()
        self._connected: Waiting[None, None] = Waiting(waits)
        self._rooms: dict[str, None] = dict.fromkeys(_checked_list(rooms))
        self._reception = Reception(
            node or f"{socket.gethostname()}-{secrets.token_hex(4)}",
            Inbox(inbox),
            waits,
            self._welcome,
            self._farewell,
        )
        log = log or Logger(namespace="ces.messenger")
        self._side: Side[Link] = Side(settings or LinkSettings(), reactor, log)
        self._reception.limited = self._side.limited
        self._outgoing = Outgoing(self._side, spool, spool_dir, waits, self._report_lost)
        self.address = address
        """Address of the hub."""
        self._uplink = Uplink(
            self._reception,
            self._side,
            address,
            PATH,
            MESSENGER,
            reactor,
            queue=self._outgoing.queue,
            failed=self._report_failed,
            changed=self._changed,
            bearer=bearer,
        )
        self._outgoing.open()

    # -- the link --------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Dial the hub, and reconnect from then on. After `close` has fired, it may be called again.

        Returns at once. `when_connected`, `on_state` and `state` tell about the link.

        :raises ces.uplink.spool_file.SpoolError: when the spool on disk, which `close` has closed, cannot be
            opened again.
        """
        self._outgoing.open()
        self._uplink.dial()

    @property
    def factory(self) -> Dialler:
        """The client factory: for ``connectWS(messenger.factory)`` and ``reactor.connectTCP(host, port,
        messenger.factory)``. Use it instead of `connect`.
        """
        return self._uplink.factory

    @property
    def reason(self) -> str:
        """Why the last dial failed or the last connection ended; empty while connected."""
        return self._uplink.reason

    @property
    def state(self) -> State:
        """State of the link."""
        return self._state

    def _changed(self, word: str) -> None:
        """The uplink has a new state: tell the callbacks."""
        state = State(word)
        if state is self._state:
            return
        if state is State.CONNECTING:
            # An application may dial with `factory`, too.
            self._outgoing.open()
            self._closed = False
        self._state = state
        for callback in self._on_state:
            try:
                callback(state)
            except Exception:  # a callback's mistake must not harm the other callbacks or the link
                self._reception.failed(callback)

    @property
    def connected(self) -> bool:
        """Whether the state is `State.CONNECTED`."""
        return self._state is State.CONNECTED

    def on_state(self, callback: S) -> S:
        """Register a callback that is called with the new state after each change.

        :param callback: ``callback(state: State)``; not async.
        :return: the callback, so that this can be a decorator.
        :raises TypeError: when the callback is async.
        """
        self._on_state += (not_async(callback),)
        return callback

    def when_connected(self) -> Deferred[None]:
        """Fires when the messenger is connected, at once if it is. Fails with `Closed`.

        :raises TooManyWaiting: when the limit of waiting Deferreds is reached.
        """
        if self.connected:
            return succeed(None)
        return fail(Closed("the messenger is closed")) if self._closed else self._connected.wait(None)

    def close(self, timeout: float = 5.0) -> Deferred[None]:
        """Send what waits, if connected, and close the link.

        Events that still wait are dropped and counted (`Dropped`), or stay in the spool on disk (`Kept`).
        Events that have arrived can still be received.

        :param timeout: timeout for sending what waits, in seconds; then the same time again for the closing
            handshake.
        :return: fires when the connection is closed. Never fails.
        """
        return Deferred.fromCoroutine(self._close(timeout))

    async def _close(self, timeout: float) -> None:
        if self.connected:
            with suppress(TimedOut, TooManyWaiting):  # what then waits is told below
                await self.flush(timeout)
        self._closed = True
        abort = self._side.clock.callLater(timeout, self._uplink.factory.abort)
        await self._uplink.stop()
        if abort.active():
            abort.cancel()
        self._outgoing.close()
        self._reception.close()
        self._connected.fail(Closed("the messenger was closed"))

    # -- rooms -----------------------------------------------------------------------------------------------

    @property
    def rooms(self) -> frozenset[str]:
        """The subscribed rooms. Without a link, the messenger subscribes to them when it connects."""
        return frozenset(self._rooms)

    def subscribe(self, *rooms: str) -> None:
        """Subscribe to rooms, connected or not. ``*`` is every room.

        :param rooms: ids of rooms, each a str. A room that is subscribed already is ignored.
        :raises TypeError: when a room is not a str.
        :raises ValueError: when a room's name breaks the rules. Then no subscription changes.
        """
        new = [room for room in dict.fromkeys(_checked(rooms, "subscribe")) if room not in self._rooms]
        self._rooms.update(dict.fromkeys(new))
        self._announce(new)

    def unsubscribe(self, *rooms: str) -> None:
        """End the subscriptions to these rooms. Without arguments: to all rooms.

        :param rooms: ids of rooms, each a str. A room that is not subscribed is ignored.
        :raises TypeError: when a room is not a str. Then no subscription changes.
        """
        _check_types(rooms, "unsubscribe")
        old = [room for room in dict.fromkeys(rooms or self._rooms) if room in self._rooms]
        for room in old:
            del self._rooms[room]
        self._announce(old)

    def _announce(self, rooms: list[str]) -> None:
        """Tell the hub of rooms that are wanted now and were not, or the other way round."""
        link = self._uplink.link
        if link is not None and link.interest is not None:
            link.interest.changed([room.encode() for room in rooms])
            link.announce()

    def _is_wanted(self, room: bytes) -> bool:
        return room.decode() in self._rooms

    def _wanted(self) -> list[bytes]:
        return [room.encode() for room in self._rooms]

    # -- what comes ------------------------------------------------------------------------------------------

    def on_event(self, callback: EventCallback) -> EventCallback:
        """Register a callback that is called with each event.

        A record that is not a v2 event is counted, logged and skipped. An exception from a callback is
        counted and logged; other callbacks and events are not affected.

        :param callback: ``callback(event: Event, room: str)``; not async. The room is the record's.
        :return: the callback, so that this can be a decorator.
        :raises TypeError: when the callback is async.
        """
        self._reception.on_event(callback)
        return callback

    def on_record(self, callback: RecordCallback) -> RecordCallback:
        """Register a callback that is called with each record, without decoding it.

        :param callback: ``callback(event: bytes, room: bytes)``; not async. The event is JSON as it arrived.
        :return: the callback, so that this can be a decorator.
        :raises TypeError: when the callback is async.
        """
        self._reception.on_record(callback)
        return callback

    def on_gap(self, callback: GapCallback) -> GapCallback:
        """Register a callback that is called when events were missed, or may have been.

        The number is known when the hub dropped events for this messenger. It is None after the hub began a
        new session, for example because it was restarted, and after each reconnect to a ces.1 hub.

        :param callback: ``callback(events: int | None)``; not async.
        :return: the callback, so that this can be a decorator.
        :raises TypeError: when the callback is async.
        """
        self._reception.on_gap(callback)
        return callback

    def forget(self, callback: Callable[..., object]) -> None:
        """Remove a callback, whatever it was registered for."""
        self._on_state = tuple(kept for kept in self._on_state if kept != callback)
        self._reception.forget(callback)

    def receive(self) -> Deferred[Event]:
        """Fires with the next event, at once when one waits in the inbox.

        A Deferred that is cancelled takes no event. Fails with `Closed` when the messenger is closed and the
        inbox is empty.

        :raises TooManyWaiting: when the limit of waiting Deferreds is reached.
        """
        return self._reception.next_event(self._closed)

    def receive_record(self) -> Deferred[Received]:
        """Fires with the next record, not decoded. Otherwise as `receive`."""
        return self._reception.next_record(self._closed)

    def __aiter__(self) -> Messenger:
        """Iterate over events with ``async for``, until the messenger is closed and the inbox is empty."""
        return self

    async def __anext__(self) -> Event:
        try:
            return await self.receive()
        except Closed:
            raise StopAsyncIteration from None

    # -- what goes -------------------------------------------------------------------------------------------

    def send(self, event: Sendable, room: str | None = None) -> Deferred[None]:
        """Send an event now, or when the messenger is connected. Never blocks.

        An Event or a mapping without a time stamp gets the present time. JSON is sent as it is, with or
        without a time stamp: a time stamp in it must be RFC 3339, or the fleet's Go services refuse it.

        :param event: an Event, a mapping with the keys of one, or JSON as bytes or str.
        :param room: room to send the event to; "" is the blank room. Default: the event's affected room, else
            the room of its target device.
        :return: fires when the hub has acknowledged the event; with a ces.1 hub, which does not acknowledge,
            when the event has been written to the connection. Fails with `Dropped` or `Kept`, both `NotSent`.
            It may be ignored. Cancelling it does not cancel the event.
        :raises TypeError: when the event or the room has a wrong type.
        :raises ValueError: when the event is not a v2 event, names no room while `room` is not given, has a
            room whose name breaks the rules, or is larger than a message may be. Never because of the hub.
        """
        run = make_run(event, room, self._known, self._side.settings.message_limit, self._now)
        if self._closed:
            self._outgoing.queue.dropped += 1
            refused: Deferred[None] = Deferred()
            fail_unless_ignored(refused, Dropped("the messenger is closed"))
            return refused
        # Before `put`: so an event that is done as soon as it is written (ces.1) never reaches the file.
        self._uplink.flush()
        return self._outgoing.put(run)

    def flush(self, timeout: float = 5.0) -> Deferred[None]:
        """Fires when every event sent so far has left: the hub has acknowledged it, or it was dropped.

        :param timeout: timeout in seconds. Then this fails with `TimedOut`; the events go on waiting.
        :return: fails with `TooManyWaiting` when the limit of waiting Deferreds is reached.
        """
        return Deferred.fromCoroutine(self._flush(timeout))

    async def _flush(self, timeout: float) -> None:
        emptied = self._outgoing.emptied()
        timer = self._side.clock.callLater(timeout, emptied.cancel)
        try:
            await emptied
        except CancelledError:
            if timer.active():
                raise
            why = f": {self.reason}" if self.reason else ""
            where = f"the link to {self.address} is {self.state}{why}"
            waiting = f"{self._outgoing.records} not sent within {timeout:g} s"
            raise TimedOut(f"{waiting}: {where}") from None
        finally:
            if timer.active():
                timer.cancel()

    # -- what the link and the spool tell --------------------------------------------------------------------

    def _welcome(self, link: Link, fresh: bool) -> None:
        self._links += 1
        if fresh and self._links > 1:
            self._reception.gap(None)
        if fresh:
            link.announces(Interest(self._is_wanted, self._wanted, self._side.settings.message_limit))
        self._side.limited.info(
            "joined", "connected to {address}, speaking {dialect}", address=self.address, dialect=link.dialect
        )
        while self._connected:
            self._connected.pop().callback(None)

    def _farewell(self, reason: str) -> None:
        self._side.limited.info(
            "left", "the link to {address} has ended: {reason}", address=self.address, reason=reason
        )

    def _report_failed(self, reason: str) -> None:
        self._side.limited.warn(
            "failed", "no link to {address}: {reason}; dialling again", address=self.address, reason=reason
        )

    def _report_lost(self, records: int) -> None:
        self._side.limited.warn(
            "lost",
            "events for {address} dropped unsent: {records} ({total} so far)",
            records=records,
            address=self.address,
            total=self._outgoing.queue.dropped,
        )

    # -- what it shows ---------------------------------------------------------------------------------------

    @property
    def counters(self) -> dict[str, int]:
        """Counters since the messenger was made, in events unless stated otherwise.

        sent: written to a connection. dropped: dropped from the spool, or not sent before the close.
        received: arrived. missed: dropped by the hub, as it reported. gaps: number of calls of `on_gap`
        callbacks. unread: dropped from the inbox. malformed: records and messages that break the rules of the
        wire, and records that are not v2 events. failures: exceptions from callbacks. reconnects: number of
        times that the messenger connected again.
        """
        reception = self._reception
        return {
            "sent": self._outgoing.queue.taken,
            "dropped": self._outgoing.queue.dropped,
            "received": reception.received_records,
            "missed": self._side.missed,
            "gaps": reception.gaps,
            "unread": reception.inbox.dropped,
            "malformed": self._side.malformed + reception.undecodable,
            "failures": reception.failures,
            "reconnects": max(0, self._links - 1),
        }

    def status(self) -> dict[str, Any]:
        """A snapshot for logs and status pages, as JSON values. Buffers are in bytes."""
        node, dialect = self._uplink.hub
        return {
            "address": self.address.url(),
            "state": self.state.value,
            "reason": self.reason,
            "dialect": dialect,
            "hub": node,
            "rooms": sorted(self._rooms),
            "spool-utilization": self._outgoing.waiting,
            "spool-capacity": self._outgoing.queue.limit,
            "spool-disk": self._outgoing.spool.status(),
            "inbox-utilization": self._reception.inbox.bytes,
            "inbox-capacity": self._reception.inbox.limit,
            **self.counters,
        }


def _checked_list(rooms: Iterable[str]) -> list[str]:
    """Return the rooms as a list when all of them may be subscribed to."""
    if isinstance(rooms, str | bytes) or not isinstance(rooms, Iterable):
        raise TypeError(f'rooms is a list such as ["ITB-1108"], not {rooms!r:.80}')
    return _checked(list(rooms))


def _check_types(rooms: Iterable[object], method: str = "") -> None:
    """Refuse what is no str, with the right call of the method."""
    for room in rooms:
        if not isinstance(room, str):
            how = f': call {method}("A", "B"), or {method}(*rooms)' if method else ""
            raise TypeError(f"a room is a str, not {type(room).__name__}{how}")


def _checked(rooms: Iterable[str], method: str = "") -> list[str]:
    """Return the rooms as a list when all of them may be subscribed to."""
    checked = list(rooms)
    _check_types(checked, method)
    for room in checked:
        fault = room_fault(room.encode("utf-8", "surrogatepass"))
        if fault is not None:
            raise ValueError(f"cannot subscribe to {room[:80]!r}: {fault}")
    return checked
