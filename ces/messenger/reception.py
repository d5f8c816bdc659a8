"""Passes what arrives at a messenger to callbacks, to the inbox, and to who waits in `receive`.

Owns the callbacks, the inbox and the counters of what arrived. As the owner of the messenger's links
(`ces.link.link.Owner`) it hears when a link joins and when it leaves, and tells the messenger.

Every callback gets every record at once. The inbox gets a record when the application has called `receive`
before, or when there is no callback. So nothing is lost before the first `receive`, and an application that
has callbacks alone does not fill the inbox.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from ces.link.link import Link, Owner
from ces.messenger.inbox import Inbox, Received
from ces.messenger.waiting import Closed, Waiting
from ces.model.control import Gap, SubscriptionChange
from ces.model.event import Event, EventError
from ces.model.wire import Run
from ces.ops.logging import Limited

__all__ = ["EventCallback", "Received", "Reception", "RecordCallback"]

EventCallback = Callable[[Event, str], object]
RecordCallback = Callable[[bytes, bytes], object]
GapCallback = Callable[[int | None], object]
C = TypeVar("C", bound=Callable[..., object])


class Reception(Owner):
    """The receiving end of a messenger, and the owner of its links.

    :param node: identifies the messenger.
    :param inbox: where records wait.
    :param waits: limit for the number of Deferreds that wait for records.
    :param welcome: called when the messenger is connected, with the link and whether the session is new.
    :param farewell: called with the reason when the connection has ended.

    received_records: number of records that arrived. gaps: number of times that records were missed, or may
    have been. undecodable: number of records that are not v2 events. failures: number of exceptions that
    callbacks raised.
    """

    limited: Limited  # set by the messenger as soon as its side exists

    def __init__(
        self,
        node: str,
        inbox: Inbox,
        waits: int,
        welcome: Callable[[Link, bool], None],
        farewell: Callable[[str], None],
    ) -> None:
        self.node = node
        self.inbox = inbox
        self.received_records = 0
        self.undecodable = 0
        self.failures = 0
        self._welcome = welcome
        self._farewell = farewell
        self._on_event: tuple[EventCallback, ...] = ()
        self._on_record: tuple[RecordCallback, ...] = ()
        self._on_gap: tuple[GapCallback, ...] = ()
        self.gaps = 0
        self._asked = False
        self._waiting: Waiting[Any, Callable[[Received], object]] = Waiting(waits)

    # -- who gets it -----------------------------------------------------------------------------------------

    def on_event(self, callback: EventCallback) -> None:
        """Call the callback with each event."""
        self._on_event += (not_async(callback),)

    def on_record(self, callback: RecordCallback) -> None:
        """Call the callback with each record."""
        self._on_record += (not_async(callback),)

    def on_gap(self, callback: GapCallback) -> None:
        """Call the callback when records were missed, or may have been."""
        self._on_gap += (not_async(callback),)

    def forget(self, callback: Callable[..., object]) -> None:
        """Do not call the callback any more."""
        self._on_event = tuple(kept for kept in self._on_event if kept != callback)
        self._on_record = tuple(kept for kept in self._on_record if kept != callback)
        self._on_gap = tuple(kept for kept in self._on_gap if kept != callback)

    def next_event(self, closed: bool) -> Deferred[Event]:
        """Fires with the next record that is an event."""
        return self._next(self._decode, closed)

    def next_record(self, closed: bool) -> Deferred[Received]:
        """Fires with the next record."""
        return self._next(_same, closed)

    def close(self) -> None:
        """Nothing more will arrive: the Deferreds that wait fail."""
        self._waiting.fail(Closed("the messenger was closed"))

    def _next(self, read: Callable[[Received], object], closed: bool) -> Deferred[Any]:
        self._asked = True
        if not self._waiting:
            while self.inbox:
                found = read(self.inbox.take())
                if found is not None:
                    return succeed(found)
        if closed:
            return fail(Closed("the messenger is closed and nothing more will come"))
        return self._waiting.wait(read)

    def failed(self, callback: object) -> None:
        """Count and log the exception of a callback. Call this in the `except` block."""
        self.failures += 1
        self.limited.error(
            "callback",
            "callback {callback} raised ({total} so far)\n{failure.getTraceback()}",
            callback=getattr(callback, "__qualname__", repr(callback)),
            total=self.failures,
            failure=Failure(),
        )

    # -- what links call -------------------------------------------------------------------------------------

    def joined(self, link: Link) -> None:
        """The messenger is connected for the first time."""
        self._welcome(link, True)

    def attached(self, link: Link, fresh: bool) -> None:
        """The messenger is connected again."""
        self._welcome(link, fresh)

    def detached(self, link: Link) -> None:
        """The connection has ended."""
        self._farewell(link.ended)

    def told(self, link: Link, message: SubscriptionChange | Gap) -> None:
        """The hub dropped records for this messenger. A hub does not subscribe at a messenger."""
        if isinstance(message, Gap):
            self.gap(message.lost)

    def gap(self, records: int | None) -> None:
        """Tell the application that records were missed; None when the number is not known."""
        self.gaps += 1
        for callback in self._on_gap:
            try:
                callback(records)
            except Exception:  # a callback's mistake must not harm the other callbacks or the link
                self.failed(callback)

    def received(self, link: Link, runs: list[Run]) -> None:
        """Records have arrived."""
        for run in runs:
            self.received_records += run.count
            if self._on_record:
                self._call_with_records(run)
            if self._on_event:
                self._call_with_events(run)
            if self._asked or not (self._on_event or self._on_record):
                self._keep(run)
        while self._waiting and self.inbox:
            found = self._waiting.first()(self.inbox.take())
            if found is not None:
                self._waiting.pop().callback(found)

    def _keep(self, run: Run) -> None:
        lost = self.inbox.put(run)
        if lost:
            self.limited.warn(
                "inbox",
                "the inbox is full, events dropped unread: {lost} ({total} so far); receive faster",
                lost=lost,
                total=self.inbox.dropped,
            )

    def _call_with_records(self, run: Run) -> None:
        room = run.room
        for callback in self._on_record:
            for event in run.events:
                try:
                    callback(event, room)
                except Exception:  # a callback's mistake must not harm the other callbacks or events
                    self.failed(callback)

    def _call_with_events(self, run: Run) -> None:
        room = run.room.decode()
        callbacks = self._on_event
        decode = Event.from_json
        for text in run.events:
            try:
                event = decode(text)
            except EventError as fault:
                self._not_an_event(run.room, fault)
                continue
            for callback in callbacks:
                try:
                    callback(event, room)
                except Exception:  # as above
                    self.failed(callback)

    def _decode(self, record: Received) -> Event | None:
        try:
            return Event.from_json(record.event)
        except EventError as fault:
            self._not_an_event(record.room, fault)
            return None

    def _not_an_event(self, room: bytes, fault: EventError) -> None:
        self.undecodable += 1
        self.limited.warn(
            "undecodable",
            "a record for room {room!r} holds no v2 event: {fault} ({total} so far)",
            room=room.decode(),
            fault=fault,
            total=self.undecodable,
        )


def not_async(callback: C) -> C:
    """Return the callback.

    :raises TypeError: when it is an `async def`: nobody would await it.
    """
    if inspect.iscoroutinefunction(callback):
        raise TypeError(f"{callback.__qualname__} is async; loop over `async for event in messenger` instead")
    return callback


def _same(record: Received) -> Received:
    return record
