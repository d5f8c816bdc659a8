"""What arrives at a messenger, and who gets it: callbacks, the inbox, and whoever waits in `receive`.

Owns the callbacks, the inbox and the counts of what came; does not know the link or why there is none. It is
told of links as their owner (`ces.link.owner.Owner`) and passes their coming and going on.

Records go to every callback, at once. They go to the inbox as well once somebody has asked for one, and until
then where there is no callback; so nothing is lost before the first `receive`, and an application that lives
on callbacks alone fills no inbox.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from ces.link.owner import Owner
from ces.link.protocol import Link
from ces.messenger.inbox import Inbox, Received
from ces.messenger.waiting import Closed, Waiting
from ces.model.control import SubscriptionChange
from ces.model.event import Event, EventError
from ces.model.wire import Run
from ces.ops.logging import Limited

__all__ = ["EventCallback", "Received", "Reception", "RecordCallback"]

EventCallback = Callable[[Event, str], object]
RecordCallback = Callable[[bytes, bytes], object]
GapCallback = Callable[[int | None], object]
C = TypeVar("C", bound=Callable[..., object])


class Reception(Owner):
    """The receiving end, and the owner of the messenger's links.

    :param node: identifies the messenger.
    :param inbox: where records wait.
    :param waits: how many Deferreds may wait for records at a time.
    :param welcome: told of a link that has joined.
    :param farewell: told why a link that had joined ended.

    received_records: those that came. gaps: how often some were missed, or may have been. undecodable: those
    asked for as events that are none. failures: exceptions that callbacks raised.
    """

    limited: Limited  # set once the side that holds it exists

    def __init__(
        self,
        node: str,
        inbox: Inbox,
        waits: int,
        welcome: Callable[[Link], None],
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
        """Call back with each event."""
        self._on_event += (_plain(callback),)

    def on_record(self, callback: RecordCallback) -> None:
        """Call back with each record."""
        self._on_record += (_plain(callback),)

    def on_gap(self, callback: GapCallback) -> None:
        """Call back when records were missed, or may have been."""
        self._on_gap += (_plain(callback),)

    def forget(self, callback: Callable[..., object]) -> None:
        """Call back no more."""
        self._on_event = tuple(kept for kept in self._on_event if kept != callback)
        self._on_record = tuple(kept for kept in self._on_record if kept != callback)
        self._on_gap = tuple(kept for kept in self._on_gap if kept != callback)

    def next_event(self, closed: bool) -> Deferred[Event]:
        """The next record that is an event, at once or when it comes."""
        return self._next(self._decode, closed)

    def next_record(self, closed: bool) -> Deferred[Received]:
        """The next record, at once or when it comes."""
        return self._next(_same, closed)

    def close(self) -> None:
        """Nothing more will come: tell those who wait."""
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
        """A callback has raised: count it and say so. Called where the exception is handled."""
        self.failures += 1
        self.limited.error(
            "callback",
            "callback {callback} raised ({total} so far)\n{failure.getTraceback()}",
            callback=getattr(callback, "__qualname__", repr(callback)),
            total=self.failures,
            failure=Failure(),
        )

    # -- what links call -------------------------------------------------------------------------------------

    def admit(self, link: Link) -> str | None:
        """Every hub is welcome."""
        return None

    def joined(self, link: Link) -> None:
        """The link carries records."""
        self._welcome(link)

    def subscribed(self, link: Link, change: SubscriptionChange) -> None:
        """A messenger has no rooms that a hub could want."""

    def missed(self, link: Link, records: int) -> None:
        """The hub dropped so many records that were meant for this messenger."""
        self.gap(records)

    def gap(self, records: int | None) -> None:
        """So many records were missed; None when nobody knows how many, or whether any."""
        self.gaps += 1
        for callback in self._on_gap:
            try:
                callback(records)
            except Exception:  # a callback's mistake must not cost the other callbacks or the link
                self.failed(callback)

    def left(self, link: Link, reason: str) -> None:
        """The link carries no more."""
        self._farewell(reason)

    def received(self, link: Link, runs: list[Run]) -> None:
        """Records came."""
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
                    callback(room, event)
                except Exception:  # a callback's mistake must not cost the other callbacks or events
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


def _plain(callback: C) -> C:
    """The callback, if it can be called for an event and be done with it."""
    if inspect.iscoroutinefunction(callback):
        raise TypeError(f"{callback.__qualname__} is async; loop over `async for event in messenger` instead")
    return callback


def _same(record: Received) -> Received:
    return record
