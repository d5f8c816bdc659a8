"""A link: one peer's relationship with us. It outlives its connections.

Owns the session, the send queue and the counters; does not know frames, sockets or Autobahn. Routes, hub,
repeater and messenger hold links. The owner is told in this order, whatever happens in between::

    admit -> joined -> (received | told | detached -> attached)* -> left

The life of a link::

    attach(connection)            a connection carries records for it
      detach: closing or cut      it waits for the next connection; its queue goes on filling, up to its limit
      attach: resumed             the session goes on: the other side said what it has received
      attach: fresh               a new session: what was not acknowledged is retransmitted in it
    left                          the session has ended, or the window has passed

**Replaced.** A connection may come while the one before still lives: a proxy kept that one, or two hubs are
linked twice. It resumes the session. The one before is closed with 4409 and takes nothing more, so that what
each side says it has received stays true.

The way in: connection -> `take(payloads)` -> runs -> `Owner.received`. The way out: `put(run)` (a list
append) -> `flush`, once per reactor turn -> one write. Cost: both touch nothing but slots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import ces
from ces.access.principal import ANYONE, Login
from ces.link.encoding import Encode, encoder
from ces.link.side import Judge, Revoked, Side, Socket
from ces.link.turn import Memo
from ces.model import wire
from ces.model.bucket import Bucket
from ces.model.control import Error, Gap, Hello, Message, SubscriptionChange
from ces.model.patterns import KnownAnswers
from ces.model.routing import MESSENGER, REPEATER
from ces.model.wire import CES1, CES2, KnownRooms, Run, read_ces1, read_ces2
from ces.session.interest import WINDOW, Interest
from ces.session.life import NORMAL, NOT_ALLOWED, PROTOCOL_ERROR, TOO_FAST, TOO_SLOW, Fate, fate
from ces.session.queue import SendQueue
from ces.session.session import Session

WRITE_BYTES = 256 * 1024
"""Limit of bytes that are handed to the transport at a time. What it cannot pass on stays in the queue."""

CHANGE_ROOMS = 1000
"""Rooms of a subscription change that are taken at a time."""

RATE_SECONDS = 10
"""A link may send at once what it may send in this time, in seconds."""

RATED = (MESSENGER, "outside")
"""Kinds of links whose rate may be limited. Links to hubs and from repeaters carry what others say."""


class Refused(ces.Error):
    """The owner does not admit a connection; the text is the reason.

    :param link: the link that stays in its place, if there is one.
    """

    def __init__(self, reason: str, link: Link | None = None) -> None:
        super().__init__(reason)
        self.link = link


class Owner:
    """Who owns links: hub, repeater, messenger. The only interface upward."""

    node: str
    """Identifies the running process (docs/protocol.md section 5)."""

    instance = ""
    """Tells this process from another one that was given the same node; "" says nothing."""

    def admit(self, kind: str, node: str, instance: str, serving: bool) -> Link | None:
        """Whether a connection may have a link, now that its kind and node are known.

        :param instance: the other side's; "" when it does not say.
        :param serving: whether the other side has dialled.
        :return: the link that it gets; None for a new one, or for the one that dialled.
        :raises Refused: when it gets none; it is closed with 4409.
        """
        return None

    def joined(self, link: Link) -> None:
        """A link carries records for the first time. Told once."""

    def received(self, link: Link, runs: list[Run]) -> None:
        """Records came. To return is to have taken responsibility for them."""

    def told(self, link: Link, message: SubscriptionChange | Gap) -> None:
        """The other side changed what it wants, or dropped records that were meant for this side."""

    def detached(self, link: Link) -> None:
        """The link carries no records for now: its connection closes or was cut (`Link.ended` says why)."""

    def attached(self, link: Link, fresh: bool) -> None:
        """The link carries records again.

        :param fresh: the other side has forgotten the session, and what it wants with it.
        """

    def authorized(self, link: Link) -> None:
        """The other side may do other things than before (`Link.login`)."""

    def left(self, link: Link, undelivered: list[Run]) -> None:
        """A link that had joined is over (`Link.ended` says why). Told once.

        :param undelivered: what the other side did not get, or may not have got.
        """


Look = tuple[float, int, int, float, float]
"""What a link had done when somebody looked at it: seconds, records received and sent; and its rates then, in
records per second. (A plain tuple: there may be one of each link a second.)
"""


class Carrier(Socket, Protocol):
    """A connection, as far as its link knows it."""

    dialect: str
    peer: Any
    login: Login
    instance: str
    changes: int | None
    blocked: bool
    heard: float
    agent: str
    round_trip: float | None
    write: Callable[[list[bytes], int], None]

    def tell(self, message: Message) -> None:
        """Send a text message."""

    def watch(self) -> None:
        """Something is due earlier than before: ask `due` anew."""

    def unsent(self) -> int:
        """Bytes that were written and wait for the kernel."""

    def probe(self) -> None:
        """Ping the other side; end the connection if nothing comes."""

    def replaced(self) -> None:
        """A newer connection takes its place: take nothing more, and close."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


Read = Callable[[str, str, list[bytes], list[str]], list[Run]]
"""Turns the messages of one read into runs, by dialect and the path of the link; what is wrong with any goes
to the list of faults.
"""


def read_by_dialect() -> Read:
    """Read what the dialect says, with a memory of good rooms of its own."""
    known = KnownRooms()

    def read(dialect: str, path: str, messages: list[bytes], faults: list[str]) -> list[Run]:
        return (read_ces1 if dialect == CES1 else read_ces2)(messages, known, faults)

    return read


class Link:
    """One peer's relationship with us.

    :param kind: what the dialling side is (docs/protocol.md, "Words"), or "outside" on a repeater.
    :param read: how messages become runs.
    :param queue: what is to be sent; by default an empty one.
    :param window: seconds for which the session is kept after a cut. None keeps it until `end`, and leaves
        what then remains in the queue to whose queue it is.
    :param path: what was dialled, on a repeater.

    login: who the other side is; `ANYONE` where this side has dialled.
    node: the identity of the other process; "" on a ces.1 link.
    instance: tells that process from another one with the same node; "" when it does not say.
    interest: the rooms that the other side is told of; None when it is told of none.
    dialect: ``ces.1`` or ``ces.2``.
    connected: whether a connection carries records.
    serving: whether the other side has dialled the present connection, or the last one.
    replacing: its connection was ended since another one, which is still opening, is to take its place.
    stalled_since: since when the link has taken nothing of what waits for it; None when nothing waits.
    close_code: what the last connection was closed with, by whichever side; None when it was cut.
    ended: why the last connection ended.
    since: when it joined. resumes: how often its session went on with another connection.
    looked: what it had done when it was last looked at (`ces.link.faces`).
    """

    __slots__ = (
        "_encode",
        "_expires",
        "_known",
        "_may_publish",
        "_narrowed",
        "_pauses",
        "_rates",
        "_read",
        "_window",
        "_write",
        "close_code",
        "connected",
        "connection",
        "dialect",
        "due_bucket",
        "ended",
        "instance",
        "interest",
        "joined",
        "kind",
        "login",
        "looked",
        "malformed",
        "node",
        "over",
        "owner",
        "path",
        "peer",
        "put",
        "queue",
        "records_in",
        "replacing",
        "resumes",
        "serving",
        "session",
        "side",
        "since",
        "stalled_since",
    )

    def __init__(
        self,
        owner: Owner,
        side: Side[Link],
        kind: str,
        read: Read,
        queue: SendQueue | None = None,
        window: float | None = None,
        path: str = "",
    ) -> None:
        self.owner = owner
        self.side = side
        self.kind = kind
        self.path = path
        self.queue = side.new_queue() if queue is None else queue
        self.put = self.queue.pending.append
        self.session = Session()
        self.node = self.instance = self.peer = self.ended = ""
        self.dialect = CES1
        self.serving = False
        self.connection: Carrier | None = None
        self._write: Callable[[list[bytes], int], None] | None = None
        """Writes to the connection; None while nothing may be written."""
        self._encode: Encode = encoder(False, CES1)
        self._read = read
        self._window = window
        self._expires = 0.0
        self._rates: Sequence[tuple[Bucket, str, str]] = ()
        self.login = ANYONE
        self._may_publish: KnownAnswers | None = None
        """Whether the other side may send records for a room; None when it may for all."""
        self._narrowed = False
        """What is in the queue may be for rooms that the other side may not have any more."""
        self.interest: Interest | None = None
        self.connected = self.joined = self.over = self.replacing = False
        self._pauses = 0
        """For how many reasons nothing is read."""
        self.stalled_since: float | None = None
        self.close_code: int | None = None
        self.due_bucket: int | None = None
        self.records_in = 0
        self.since = 0.0
        self.resumes = 0
        self.looked: Look | None = None
        self.malformed = 0

    @property
    def name(self) -> str:
        """What the link is called in logs and in ``/status``."""
        return f"{self.kind} {self.node or self.peer}"

    @property
    def links(self) -> tuple[Link]:
        """A link is a group of one (`ces.link.turn.Group`)."""
        return (self,)

    @property
    def detached(self) -> bool:
        """Whether the link was cut and may be resumed."""
        return self.joined and not self.over and self.connection is None

    @property
    def dropped(self) -> int:
        """Records evicted from its queue so far."""
        return self.queue.dropped

    # -- connections come and go -----------------------------------------------------------------------------

    def prepare(self, hello: Hello) -> None:
        """The session is to be resumed by a new connection: rewind to what the other side has received.

        :param hello: says so.
        :raises OutOfStep: when that cannot be.
        """
        if isinstance(hello.changes, int) and self.interest is not None:
            self.interest.check(hello.changes)
        self.queue.resume(hello.received, hello.gaps if isinstance(hello.gaps, int) else None)

    def attach(self, connection: Carrier, node: str, session: Session, resumed: bool, path: str = "") -> None:
        """A connection carries records from now on.

        :param session: the receiving half: the link's own when `resumed`, else a new one.
        :param resumed: whether the session goes on (`prepare` was called); else it begins.
        """
        side = self.side
        before, self.connection = self.connection, connection
        if self.session.id:
            side.sessions.pop(self.session.id, None)
        side.unkeep(self)
        side.keepalive.unwatch(self)
        if not resumed:
            self.queue.restart(bool(session.id))
        self.session = session
        if session.id:
            side.sessions[session.id] = self
        if self.interest is not None:
            if resumed:
                self.interest.resume(connection.changes)
            else:
                self.interest.restart(connection.changes is not None)
        self.node, self.dialect, self.instance = node, connection.dialect, connection.instance
        self.peer, self.serving = connection.peer, connection.serving
        self._authorize(connection.login)
        self._discard()
        self.path = path or self.path
        self._encode = encoder(connection.serving, connection.dialect)
        self.stalled_since = None
        side.slow.pop(self, None)
        self.connected, self.close_code, self.ended = True, None, ""
        self.replacing = False
        self._open()
        if before is not None:
            before.replaced()
        if self._pauses:
            connection.pause_reading()
        if self.joined:
            self.resumes += resumed
            self.owner.attached(self, fresh=not resumed)
        else:
            self.joined = True
            self.since = side.keepalive.seconds()
            self._limit_rate()
            self.owner.joined(self)
        self.announce()
        if self.queue.waits:
            side.turn.add(self)

    def _authorize(self, login: Login) -> None:
        if login.principal is not self.login.principal:
            rooms = login.principal.publish
            self._may_publish = None if rooms.everything else KnownAnswers(rooms)
            self._narrowed = not login.principal.subscribe.everything
        self.login = login

    def authorize(self, login: Login) -> None:
        """The other side may do other things than before."""
        self._authorize(login)
        self.owner.authorized(self)
        self._discard()

    def review(self, judge: Judge) -> None:
        """The rights of all have changed while the link had no connection."""
        try:
            login = judge(self.login, self.kind)
        except Revoked as revoked:
            self.end(revoked.code, str(revoked))
            return
        if login is not self.login:
            self.authorize(login)

    def shut(self) -> None:
        """Write nothing more on the present connection, which is about to be closed."""
        self._write = None

    def _discard(self) -> None:
        """Discard what waits for rooms that the other side may not have. What is in flight is looked at when
        it is to be retransmitted.
        """
        if self._narrowed:
            lost = self.queue.discard(self.login.principal.subscribe)
            self._dropped(lost, "it may not have their rooms any more")

    def closing(self, connection: Carrier, code: int | None, ended: str) -> None:
        """A connection carries no more records: a close frame was sent or received, or it was cut."""
        if connection is not self.connection or not self.connected:
            return
        self.connected = False
        self._write = None
        self.close_code, self.ended = code, ended
        self.side.pressure.forget(self)
        try:
            self.owner.detached(self)
        except Exception:  # the connection must end whatever the owner makes of it, and the sweep go on
            self.side.log.failure("unexpected error when link {link} was detached", link=self.name)

    def lost(self, connection: Carrier, code: int | None, finished: bool) -> None:
        """A connection is gone. `closing` was called before.

        :param code: what it was closed with; None when it was cut.
        :param finished: both close frames were exchanged, the other side's stream was read to its end, and
            other side took all that was sent before.
        """
        if connection is not self.connection:
            return
        self.connection = None
        side = self.side
        side.pressure.forget(self)
        # A side that ends is dialled no more, but dials until all is sent.
        keeps = bool(self.session.id) and self._window != 0 and not (side.ending and self.serving)
        if code == TOO_SLOW and self.kind == REPEATER:
            keeps = False  # what it did not get goes to another repeater
        what = fate(code if keeps else NORMAL, finished)
        if what is Fate.DELIVERED:
            self.queue.delivered()
        if what is not Fate.KEPT:
            self._forget_session()
        if self._window is None:
            return
        if what is Fate.KEPT:
            self._expires = side.keepalive.seconds() + self._window
            side.keepalive.watch(self)
            side.keep(self, connection)
        else:
            self._leave()

    def hush(self) -> None:
        """Take nothing more on the present connection, since another one is about to take its place. Call
        `not_replaced` if nothing comes of it.
        """
        if self.connection is not None:
            self.replacing = self.replacing or self.connected
            self.connection.replaced()

    def not_replaced(self) -> None:
        """The connection that was to take the place of the last one has ended before it did."""
        self.replacing = False

    def _open(self) -> None:
        """Let `flush` write, if it may."""
        connection = self.connection
        writes = self.connected and connection is not None and not connection.blocked
        self._write = connection.write if writes and connection is not None else None

    def _forget_session(self) -> None:
        if self.session.id:
            self.side.sessions.pop(self.session.id, None)
        self.session = Session()

    def break_session(self) -> None:
        """The other side is out of step, or reads nothing: the session cannot go on."""
        self._forget_session()

    def due(self, now: float) -> float | None:
        """The sweep's question while the link is detached (`ces.link.keepalive.Watched`)."""
        if not self.detached or self._window is None:
            return None
        if now >= self._expires:
            self.ended = f"{self.ended}; it did not come back within {self._window:g} s"
            self._leave()
            return None
        return self._expires

    def end(self, code: int, reason: str) -> None:
        """Close the connection once what it takes of the queue is written; without one, end the session.

        To end twice is to end once.
        """
        if self.connection is not None:
            self.connection.end(code, reason)
        elif not self.over:
            if not self.ended.endswith(reason):
                self.ended = f"{self.ended}; {reason}" if self.ended else reason
            self._leave()

    def _leave(self) -> None:
        if self.over:
            return
        self.over = True
        side = self.side
        side.keepalive.unwatch(self)
        side.unkeep(self)
        side.slow.pop(self, None)
        side.pressure.left(self)
        self._forget_session()
        undelivered: list[Run] = []
        if self._window is not None:
            undelivered = self.queue.take_all()
            self.put = _nowhere  # it may be among the destinations of some rooms for a few turns more
        if not self.joined:
            return
        try:
            self.owner.left(self, undelivered)
        except Exception:
            side.log.failure("unexpected error when link {link} left", link=self.name)

    # -- in --------------------------------------------------------------------------------------------------

    def take(self, connection: Carrier, payloads: list[bytes], size: int) -> int:
        """Binary messages came on a connection.

        :param size: bytes of all of them. :return: how many good records they held.
        """
        faults: list[str] = []
        limit = self.side.settings.message_limit
        runs = self._read(connection.dialect, self.path, payloads, faults)
        if any([run.size > limit for run in runs]):
            runs = wire.within(limit, runs, faults)
        records = sum([run.count for run in runs])
        taken = records + len(faults)
        may_publish = self._may_publish
        if may_publish is not None and not all([may_publish[run.room] for run in runs]):
            runs = self._permitted(runs, may_publish)
            records = sum([run.count for run in runs])
        self.records_in += records
        if faults:
            self.fault(connection, faults)
        try:
            if runs:
                self.owner.received(self, runs)
        finally:  # what the owner fails at would fail it again
            session = connection.session
            if session.id:
                if session.took(taken, size):
                    connection.acknowledge()
                else:
                    self.side.acknowledge_soon(connection)
        if self._rates:
            self._rate(connection, taken, size)
        return records

    def _permitted(self, runs: list[Run], may_publish: KnownAnswers) -> list[Run]:
        """Those of the runs that the other side may send. The others are taken, and go nowhere."""
        denied = sum([run.count for run in runs if not may_publish[run.room]])
        self.deny(denied, f"{denied} records were for rooms that may not be sent to")
        return [run for run in runs if may_publish[run.room]]

    def deny(self, times: int, what: str) -> None:
        """The other side has done what it may not: count, log, tell. Of the room itself it learns nothing.

        :param what: it was, as a sentence.
        """
        self.side.refuse("rights", f"{self.login.principal.name or 'anyone'}, {self.name}: {what}", times)
        connection = self.connection
        if self.dialect == CES2 and connection is not None and not connection.blocked:
            self.tell(Error(code=NOT_ALLOWED, reason=what))

    def take_change(self, connection: Carrier, message: SubscriptionChange) -> Iterator[None]:
        """A subscription change came on a connection: take it in steps of `CHANGE_ROOMS`. It counts as taken
        after the last one.
        """
        rooms = message.rooms
        try:
            for start in range(0, len(rooms) or 1, CHANGE_ROOMS):
                if start:
                    yield
                if connection is not self.connection:
                    return  # on the newer connection all rooms are announced again
                self.owner.told(self, SubscriptionChange(rooms[start : start + CHANGE_ROOMS], message.create))
        except Exception:  # what the owner fails at would fail it again
            self._took_change(connection)
            raise
        self._took_change(connection)

    def _took_change(self, connection: Carrier) -> None:
        if connection.changes is not None:
            if connection.session.took_change():
                connection.acknowledge()
            else:
                self.side.acknowledge_soon(connection)

    def take_message(self, connection: Carrier, message: Gap | Error) -> None:
        """Another text message came on a connection."""
        side = self.side
        if isinstance(message, Error):
            side.limited.warn(
                "error from peer",
                "{link} says: {code} {reason}",
                link=self.name,
                code=message.code,
                reason=message.reason[:200],
            )
            return
        connection.session.gaps += 1
        side.missed += message.lost
        side.limited.warn("gap", "{link} dropped {lost} records for us", link=self.name, lost=message.lost)
        self.owner.told(self, message)

    def acknowledged(self, connection: Carrier, number: int) -> bool:
        """The other side has taken responsibility for the first `number` records.

        :return: whether that was news.
        :raises OutOfStep: when that cannot be.
        """
        queue = self.queue
        if connection is not self.connection:
            return False  # the newer one said what was received
        if number == queue.acknowledged:
            return False
        queue.acknowledge(number)
        if self.stalled_since is not None:
            self.stalled_since = self.side.keepalive.seconds()
            if self._write is not None:
                self.side.turn.add(self)
        return True

    def acknowledged_changes(self, connection: Carrier, number: int) -> None:
        """The other side has taken the first `number` subscription changes.

        :raises OutOfStep: when that cannot be.
        """
        if connection is self.connection and self.interest is not None:
            self.interest.acknowledge(number)
            self.announce()

    def fault(self, connection: Carrier, faults: Sequence[str]) -> None:
        """Malformed records or text came: count, log, tell; close a connection that brings nothing else."""
        self.malformed += len(faults)
        side = self.side
        side.malformed += len(faults)
        side.limited.warn(
            "malformed",
            "malformed from {link}: {fault} ({count} so far)",
            link=self.name,
            fault=faults[0],
            count=self.malformed,
        )
        if connection.dialect == CES2 and not connection.blocked:
            more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
            connection.tell(Error(code=PROTOCOL_ERROR, reason=faults[0] + more))
        if not self.records_in and self.malformed >= side.settings.malformed_limit:
            connection.end(
                PROTOCOL_ERROR, f"nothing but malformed records, {self.malformed} of them: {faults[-1]}"
            )

    def _limit_rate(self) -> None:
        settings = self.side.settings
        if self.serving and self.kind in RATED:
            now = self.side.keepalive.seconds()
            self._rates = [
                (Bucket(rate, rate * RATE_SECONDS, now), unit, f"{rate} {unit} a second")
                for rate, unit in ((settings.record_rate, "records"), (settings.byte_rate, "bytes"))
                if rate
            ]

    def _rate(self, connection: Carrier, records: int, size: int) -> None:
        now = self.side.keepalive.seconds()
        for bucket, unit, limit in self._rates:
            within = bucket.take(records if unit == "records" else size, now)
            if not within and self.connected:
                self.side.refuse("rate", f"{self.name} sends more than {limit}")
                connection.acknowledge()
                connection.end(TOO_FAST, f"more than {limit}")

    # -- out -------------------------------------------------------------------------------------------------

    def flush(self, memo: Memo) -> None:
        """Write what waits, as far as the connection takes it and what is in flight allows it."""
        queue = self.queue
        if memo.batch is not None and self._write is not None and self.serving and queue.take_as(memo.batch):
            self._write(*memo.encoded)
            if self.stalled_since is None:
                return
        # Not `queue.waits`: to ask is a tenth of what this costs for each link and turn.
        while (write := self._write) is not None:
            if not (queue.pending or queue.settled_bytes or queue.retransmit or queue.gap):
                break
            gap, runs = queue.take(WRITE_BYTES)
            if gap and self.dialect == CES2 and self.connection is not None:
                self.connection.tell(Gap(gap))
            if not runs:
                if gap:
                    continue  # it was evicted when nothing else waited; more may wait behind it now
                break
            encoded = self._encode(runs, memo)
            write(*encoded)
            if self.serving and not gap:
                memo.batch, memo.encoded = queue.latest, encoded
        if queue.pending or queue.settled_bytes or queue.gap:
            self._wait()
        elif self.stalled_since is not None:
            self.stalled_since = None
            self.side.slow.pop(self, None)

    def _wait(self) -> None:
        """Something has to wait."""
        side = self.side
        self._dropped(self.queue.settle(), "too much waits for it")
        side.slow[self] = None
        if self.connected and self.connection is not None:
            if self.stalled_since is None:
                self.stalled_since = side.keepalive.seconds()
                self.connection.watch()
            side.pressure.grown(self, self.stalled_since)

    def blocked(self, connection: Carrier) -> None:
        """A connection takes nothing more for now."""
        if connection is self.connection:
            self._write = None

    def writable(self, connection: Carrier) -> None:
        """A connection takes more again."""
        if connection is not self.connection:
            return
        if self.stalled_since is not None:
            self.stalled_since = self.side.keepalive.seconds()
        self._open()
        self.announce()
        if self._write is not None and self.queue.waits:
            self.flush(Memo())

    def announces(self, interest: Interest) -> None:
        """Tell the other side of these rooms from now on; the connection may go, the interest stays."""
        self.interest = interest
        if self.connection is not None:
            interest.restart(self.connection.changes is not None)
            self.announce()

    def announce(self) -> None:
        """Tell the other side which rooms are wanted, as far as it takes it now."""
        interest, connection = self.interest, self.connection
        if interest is None or connection is None:
            return
        for _ in range(WINDOW):
            if not self.connected or connection.blocked:
                return
            change = interest.take()
            if change is None:
                return
            connection.tell(change)
        if interest.due:
            self.side.turn.add(Announcement(self))

    def broke(self) -> None:
        """An error in this program while it served this link: it costs this one, and no other."""
        if self.connection is not None:
            self.connection.broke()
        else:
            self.side.log.failure("unexpected error with link {link}", link=self.name)

    def tell(self, message: Message) -> None:
        """Send a text message, if there is a connection."""
        if self.connected and self.connection is not None:
            self.connection.tell(message)

    def evict(self, excess: int) -> None:
        """Evict `excess` bytes of what waits, because all links together exceed their limit."""
        self._dropped(self.queue.evict(excess), "too much waits for all links together")

    def _dropped(self, lost: int, why: str) -> None:
        if lost:
            self.side.drop(self.name, lost, why)

    # -- backpressure ----------------------------------------------------------------------------------------

    def progress(self) -> tuple[int, ...]:
        """Numbers that change whenever the link takes something."""
        unsent = 0 if self.connection is None else self.connection.unsent()
        return unsent, self.queue.acknowledged, self.queue.taken

    def pause(self) -> None:
        """Stop reading, for one more reason."""
        self._pauses += 1
        if self._pauses == 1 and self.connection is not None:
            self.connection.pause_reading()

    def resume(self) -> None:
        """There is one reason less; without any, read again."""
        self._pauses -= 1
        if not self._pauses and self.connection is not None:
            self.connection.resume_reading()

    # -- what it shows ---------------------------------------------------------------------------------------

    @property
    def stalled_for(self) -> float | None:
        """For how many seconds the link has taken nothing of what waits for it; None when nothing waits."""
        return None if self.stalled_since is None else self.side.keepalive.seconds() - self.stalled_since

    @property
    def backlogged(self) -> bool:
        """Whether something waits that cannot be written now."""
        return not self.connected or ((self._write is None or self.queue.shut) and self.queue.unsent)

    @property
    def unfinished(self) -> bool:
        """Whether anything is still to be sent, or to be acknowledged by the other side."""
        return self.connected and (self.queue.waits or bool(self.queue.unacknowledged))

    def check_stalled(self, now: float) -> float | None:
        """Close a connection that takes nothing with 4408; when to ask again, None for not at all."""
        if self.stalled_since is None or not self.connected:
            return None
        limit = self.side.settings.slow_timeout
        if now >= self.stalled_since + limit:
            self.end(TOO_SLOW, f"it has taken nothing for {limit:g} s")
            return None
        return self.stalled_since + limit


def _nowhere(run: Run) -> None:
    """A run that came for a link that has left."""


class Announcement:
    """Rooms that a link is told of at the end of the turn (`ces.link.turn.Group`)."""

    __slots__ = ("_link",)

    def __init__(self, link: Link) -> None:
        self._link = link

    @property
    def links(self) -> tuple[Announcement]:
        """It is alone."""
        return (self,)

    def flush(self, memo: Memo) -> None:
        """Tell the other side."""
        self._link.announce()

    def broke(self) -> None:
        """It costs the link."""
        self._link.broke()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Announcement) and other._link is self._link

    def __hash__(self) -> int:
        return id(self._link)
