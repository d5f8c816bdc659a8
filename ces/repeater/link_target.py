"""A target that speaks WebSocket: another repeater, or a service in a room.

Owns one link while it is used. It is dialled for the first record, at ``TARGET/connect/{room}/{repeater
id}`` with that record's room; what arrives meanwhile is held, bounded in bytes and in time, and follows
when the link is up, as does what a link that ended could not send. A link that is not used is closed with
1000, and the next record dials anew. Rooms are handled no further: each record bears its own.

A failed dial is repeated with the dialler's growing delay for as long as anything is held. A target that
ends links as soon as they are up is not dialled more than once in `PAUSE` seconds, though nothing is held.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall

from ces.link.protocol import GOING_AWAY, NORMAL, Link
from ces.link.side import Side
from ces.model.address import Address
from ces.model.wire import Run
from ces.repeater.idle import Idle
from ces.repeater.target import FULL, LEAVING, PATIENCE, Target, TargetLimits
from ces.repeater.undelivered import Undelivered
from ces.session.held import Held
from ces.session.outbox import Outbox
from ces.session.session import Session
from ces.uplink.reconnect import WAITING, Dialler

KIND = "target"
"""The kind of links to targets, as this repeater's owner and its log know them."""

IDLE = "idle"

PAUSE = 1.0
"""A link that was up for less than so many seconds has failed, and the next dial is so many seconds later."""


class _Outbox(Outbox):
    """An outbox that tells what it pushes out."""

    __slots__ = ("_pushed_out",)

    def __init__(self, limit: int, pushed_out: Callable[[Run], None]) -> None:
        super().__init__(limit)
        self._pushed_out = pushed_out

    def lost(self, run: Run) -> None:
        self._pushed_out(run)


class LinkTarget(Target):
    """A target at the end of a link.

    :param name: this repeater's id, the last part of the path that is dialled.
    :param idle: watches targets whose link is up; it calls `rest`.
    """

    def __init__(
        self,
        address: Address,
        name: str,
        side: Side,
        limits: TargetLimits,
        idle: Idle[LinkTarget],
        reactor: object,
        undelivered: Undelivered,
    ) -> None:
        super().__init__(address, side, limits, undelivered)
        self._name = name
        self._idle = idle
        self._reactor = reactor
        self._held = Held(limits.buffer, limits.patience)
        self._outbox = _Outbox(limits.buffer, self._pushed_out)
        self._session = Session(self._outbox)
        self._room = b""
        self._dialler: Dialler | None = None
        self._link: Link | None = None
        self._since = 0.0
        self._ended_well = False
        self._not_before = 0.0
        self._pause: IDelayedCall | None = None

    @property
    def state(self) -> str:
        if self._dialler is None:
            return IDLE
        return WAITING if self._pause is not None else self._dialler.state

    @property
    def sent(self) -> int:
        return self._outbox.taken

    @property
    def dropped(self) -> int:
        return self._lost + self._outbox.dropped

    @property
    def waiting(self) -> int:
        return self._held.bytes + self._session.size

    @property
    def holds(self) -> bool:
        return bool(self._held)

    def put(self, run: Run) -> None:
        link = self._link
        if link is not None:
            link.put(run)
            self._side.turn.add(link)
            self._idle.used(self)
            return
        self._room = run.room
        self._hold(run)
        if self._dialler is None:
            self._dial()

    def received(self, link: Link) -> None:
        """Something came back on a link: it is in use."""
        if link is self._link:
            self._idle.used(self)

    def left(self, link: Link) -> None:
        """A link takes no more records: what it could not send waits for the next."""
        if link is not self._link:
            return
        self._link = None
        self._idle.forget(self)
        self._ended_well = (
            link.close_code in (NORMAL, GOING_AWAY) and self._clock.seconds() >= self._since + PAUSE
        )
        for run in link.leftover():
            self._hold(run)
        self._session.restart("")

    def wake(self) -> None:
        if self._dialler is not None and self._pause is None and self._dialler.state == WAITING:
            self._dialler.dial()

    def rest(self) -> None:
        """The link has not been used for a while: close it, unless it is stuck with something to send."""
        if self._session.size:
            self._idle.used(self)
        elif self._dialler is not None:
            dialler, self._dialler, self._link = self._dialler, None, None
            dialler.stop()

    def expire(self, now: float) -> bool:
        self.give_up(self._held.expire(now), PATIENCE)
        return bool(self._held)

    def stop(self) -> Deferred[None]:
        self._idle.forget(self)
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        dialler, self._dialler, self._link = self._dialler, None, None
        gone = succeed(None) if dialler is None else dialler.stop()
        now = self._clock.seconds()
        self.give_up(self._held.expire(now), PATIENCE)
        left = self._held.take(now) + self._session.take_all()
        self.drop(sum(run.count for run in left), LEAVING)
        return gone

    def _dial(self) -> None:
        path = f"/connect/{quote(self._room, safe='')}/{quote(self._name, safe='')}"
        self._dialler = Dialler(
            self._side,
            self.address,
            path,
            KIND,
            self._reactor,
            session=self._session,
            up=self._up,
            failed=self._failed,
            may_redial=self._may_redial,
        )
        wait = self._not_before - self._clock.seconds()
        if wait > 0:
            self._pause = self._clock.callLater(wait, self._paused, self._dialler)
        else:
            self._dialler.dial()

    def _paused(self, dialler: Dialler) -> None:
        self._pause = None
        dialler.dial()

    def _up(self) -> None:
        assert self._dialler is not None
        link = self._link = self._dialler.link
        assert link is not None
        now = self._since = self._clock.seconds()
        self.reason = ""
        self._idle.used(self)
        self.give_up(self._held.expire(now), PATIENCE)
        for run in self._held.take(now):
            link.put(run)
        self._side.turn.add(link)

    def _may_redial(self) -> bool:
        return bool(self._held) and not self._ended_well

    def _failed(self, reason: str) -> None:
        ended_well, self._ended_well = self._ended_well, False
        if not ended_well:
            self._not_before = self._clock.seconds() + PAUSE
            self._fail(reason)
            if self._held:
                return  # the dialler goes on
        self._dialler = None
        if self._held:
            self._dial()

    def _hold(self, run: Run) -> None:
        now = self._clock.seconds()
        self.give_up(self._held.expire(now), PATIENCE)
        self.give_up(self._held.put(run, now), FULL)

    def _pushed_out(self, run: Run) -> None:
        """The outbox was full; its link counts and tells."""
        self.keep(run, FULL)
