"""A target that speaks WebSocket: another repeater, or a service in a room.

Owns one uplink while it is used. The target is dialled for the first record, at
``TARGET/connect/{room}/{repeater id}`` with that record's room. What arrives while there is no connection is
held, and follows when there is one. A connection that is not used is closed with 1000, and the next record
dials anew. One that is cut resumes its session, so that what was in flight arrives once. Rooms are handled no
further: each record bears its own.

A record is in one of two places: in the queue, or held behind all that is in the queue. Both together have
one bound in bytes, and one in time while there is no connection. What is beyond becomes a dead letter.

A failed dial is repeated with the dialler's growing delay while records wait. A target that ends each
connection at once is dialled at most once in `PAUSE` seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from ces.link.link import Link, Owner, Refused
from ces.link.side import Side
from ces.model.address import Address
from ces.model.wire import Run
from ces.repeater.idle import Idle
from ces.repeater.settings import RepeaterSettings
from ces.repeater.target import FULL, LEAVING, PATIENCE, Target
from ces.repeater.undelivered import Undelivered
from ces.session.held import Held
from ces.session.life import GOING_AWAY, NORMAL
from ces.session.queue import SendQueue
from ces.uplink.dialler import WAITING
from ces.uplink.uplink import Uplink

KIND = "target"
"""The kind of links to targets, as the repeater and its log name it."""

IDLE = "idle"

PAUSE = 1.0
"""A connection that was up for a shorter time, in seconds, counts as failed. The next dial then waits as
long.
"""

ITSELF = "this repeater and that one are the same: it would talk to itself"

Came = Callable[[Link, list[Run]], None]
"""Takes what comes back on a link to a target."""


class LinkTarget(Target, Owner):
    """A target at the end of a link, which it owns.

    :param name: this repeater's id, the last part of the dialled path.
    :param node: identifies this process.
    :param idle: watches the targets that have a connection, and calls `rest` for an unused one.
    :param came: takes the events that come back.
    :param waits: called when something must wait for a connection: `expire` must then be called.
    """

    def __init__(
        self,
        address: Address,
        name: str,
        node: str,
        side: Side[Link],
        settings: RepeaterSettings,
        idle: Idle[LinkTarget],
        reactor: Any,
        undelivered: Undelivered,
        came: Came,
        waits: Callable[[], None],
    ) -> None:
        super().__init__(address, side, settings, undelivered)
        self.node = node
        self._name = name
        self._idle = idle
        self._reactor = reactor
        self._came = came
        self._waits = waits
        self._held = Held(settings.target_buffer, settings.target_patience)
        self._queue = self._new_queue()
        self._before = {"taken": 0, "dropped": 0}
        """What the queues of connections that were not used any more have counted."""
        self._room = b""
        self._uplink: Uplink | None = None
        self._was_up = False
        self._since = 0.0
        self._away_since = 0.0
        self._not_before = 0.0
        self._pause: IDelayedCall | None = None

    @property
    def state(self) -> str:
        if self._uplink is None:
            return IDLE
        return WAITING if self._pause is not None else self._uplink.state

    @property
    def sent(self) -> int:
        return self._before["taken"] + self._queue.taken

    @property
    def dropped(self) -> int:
        return self._dropped + self._before["dropped"] + self._queue.dropped

    @property
    def waiting(self) -> int:
        return self._held.bytes + self._queue.size

    @property
    def holds(self) -> bool:
        return bool(self._held) or (not self._connected and bool(self._queue.size))

    @property
    def _connected(self) -> bool:
        return self._uplink is not None and self._uplink.connected

    def put(self, run: Run) -> None:
        if self._connected:
            assert self._uplink is not None
            self._queue.pending.append(run)
            self._uplink.flush()
            self._idle.used(self)
            return
        self._room = run.room
        self._hold(run)
        if self._uplink is None:
            self._dial()

    def _hold(self, run: Run) -> None:
        now = self._clock.seconds()
        self.give_up(self._held.expire(now), PATIENCE)
        self._dial_no_more_for_nothing()
        limit = self.settings.target_buffer
        # What is in the queue is older.
        evicted = self._queue.settle()
        evicted += self._queue.evict(self.waiting + run.weight - limit)
        if evicted:
            self._side.drop(f"{KIND} {self.url}", evicted, FULL)
        self._held.limit = limit - self._queue.size
        self.give_up(self._held.put(run, now), FULL)

    def wake(self) -> None:
        if self._uplink is not None and self._pause is None and self._uplink.state == WAITING:
            self._uplink.dial()

    def rest(self) -> None:
        """The connection has not been used for a while: close it, unless something is still on its way."""
        if self.waiting:
            self._idle.used(self)
            return
        self._let_go()
        # The connection may take a while to close. What becomes known of its records meanwhile does not
        # concern those of the next one.
        self._before["taken"] += self._queue.taken
        self._before["dropped"] += self._queue.dropped
        self._queue = self._new_queue()

    def expire(self, now: float) -> bool:
        self.give_up(self._held.expire(now), PATIENCE)
        if (
            not self._connected
            and self._queue.size
            and now >= self._away_since + self.settings.target_patience
        ):
            link = None if self._uplink is None else self._uplink.link
            if link is not None:
                link.break_session()
            self.give_up(self._queue.take_all(), PATIENCE)
        self._dial_no_more_for_nothing()
        return self.holds

    def stop(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        now = self._clock.seconds()
        self.give_up(self._held.expire(now), PATIENCE)
        gone = self._let_go()
        await gone
        left = self._queue.take_all() + self._held.take(now)
        self.drop(sum(run.count for run in left), LEAVING)

    def _let_go(self) -> Deferred[None]:
        """Close the connection, if there is one; the next record dials anew."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._idle.forget(self)
        uplink, self._uplink = self._uplink, None
        self._was_up = False
        return Deferred.fromCoroutine(_stopped(uplink))

    def _dial_no_more_for_nothing(self) -> None:
        """Nothing waits: the next dial is for the next record."""
        if self.state == WAITING and not self.holds:
            self._let_go()

    def _new_queue(self) -> SendQueue:
        # No record has priority: none may be dropped that does not become a dead letter.
        return SendQueue(self.settings.target_buffer, None, self._side.tally, self)

    # -- the uplink ------------------------------------------------------------------------------------------

    def _dial(self) -> None:
        path = f"/connect/{quote(self._room, safe='')}/{quote(self._name, safe='')}"
        self._uplink = Uplink(
            self,
            self._side,
            self.address,
            path,
            KIND,
            self._reactor,
            queue=self._queue,
            up=self._up,
            failed=self._failed,
            may_dial=self._may_dial,
        )
        wait = self._not_before - self._clock.seconds()
        if wait > 0:
            self._pause = self._clock.callLater(wait, self._paused, self._uplink)
        else:
            self._uplink.dial()

    def _paused(self, uplink: Uplink) -> None:
        self._pause = None
        uplink.dial()

    def _up(self) -> None:
        assert self._uplink is not None
        now = self._since = self._clock.seconds()
        self._was_up = True
        self.reason = ""
        self._idle.used(self)
        self.give_up(self._held.expire(now), PATIENCE)
        self._queue.pending += self._held.take(now)
        self._uplink.flush()

    @property
    def _ended_well(self) -> bool:
        """Whether the connection that has just ended had lasted, and was closed by a target that means it."""
        return self._lasted_until(NORMAL)

    def _lasted_until(self, code: int) -> bool:
        last = None if self._uplink is None else self._uplink.factory.last
        lasted = self._was_up and self._clock.seconds() >= self._since + PAUSE
        return lasted and last is not None and last.code == code

    def _may_dial(self) -> bool:
        return self.holds and not self._ended_well

    def _failed(self, reason: str) -> None:
        self._idle.forget(self)
        ended_well, went_away = self._ended_well, self._lasted_until(GOING_AWAY)
        self._was_up = False
        if not ended_well:
            if not went_away:
                self._not_before = self._clock.seconds() + PAUSE
                self._fail(reason)
            if self.holds:
                return  # the dialler dials again
        self._let_go()
        if self.holds:
            self._dial()

    # -- what the link tells (`ces.link.link.Owner`) ---------------------------------------------------------

    def admit(self, kind: str, node: str, instance: str, serving: bool) -> Link | None:
        """Anyone but this repeater itself."""
        if node == self.node:
            raise Refused(ITSELF)
        return None

    def joined(self, link: Link) -> None:
        """A connection is up."""
        self._side.limited.info(
            f"{KIND} joined", "{link} joined, speaking {dialect}", link=link.name, dialect=link.dialect
        )

    def received(self, link: Link, runs: list[Run]) -> None:
        """Events come back: the connection is in use."""
        if self._connected:
            self._idle.used(self)
        self._came(link, runs)

    def detached(self, link: Link) -> None:
        """There is no connection: what comes now is held."""
        self._away_since = self._clock.seconds()
        self._waits()

    def left(self, link: Link, undelivered: list[Run]) -> None:
        """The link is over; what it did not deliver waits in the queue for the next one."""
        self._side.limited.info(f"{KIND} left", "{link} left: {reason}", link=link.name, reason=link.ended)

    # -- what the queue tells (`ces.session.queue.Watcher`) --------------------------------------------------

    def done(self, runs: list[Run]) -> None:
        """Delivered."""

    def evicted(self, run: Run) -> None:
        """The queue was full; the link counts and logs."""
        self.keep(run, FULL)

    def cut(self, run: Run, rest: Run) -> None:
        """The first records of a run are delivered."""


async def _stopped(uplink: Uplink | None) -> None:
    if uplink is not None:
        await uplink.stop()
