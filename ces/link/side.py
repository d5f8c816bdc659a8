"""What all links of one owner share: limits, sweep, turn, log, counters, and the links in trouble.

Knows links by the few things that `Member` names. A side belongs to one hub, repeater or messenger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

import ces
from ces.access.principal import Login
from ces.config.link import LinkSettings
from ces.link.direct import Sockets
from ces.link.keepalive import Keepalive
from ces.link.pressure import Congestible, Pressure
from ces.link.schedule import Step
from ces.link.slices import Slices
from ces.link.turn import Turn
from ces.model.shares import Shares, network_of
from ces.ops.clock import use_monotonic_time
from ces.ops.descriptors import WHAT_TO_DO, for_links, limit
from ces.ops.logging import Limited
from ces.session.life import GOING_AWAY
from ces.session.priority import priority_tags
from ces.session.queue import SendQueue, Tally, Watcher
from ces.session.session import ACK_SECONDS, Session

GRACE = 2.0
"""Grace period, in seconds, for the closing handshakes when a side goes away."""

REFUSED = (
    "links",
    "address",
    "rate",
    "rooms",
    "http",
    "idle",
    "descriptors",
    "interconnections",
    "node",
    "browsers",
    "login",
    "rights",
)
"""What is refused: links in all or of one address, records or bytes a second, rooms, HTTP requests,
connections that are no links and wait for their peers, those beyond the descriptors of the process, addresses
of other hubs, for being too much; a hub whose node another one has; web pages of other sites; somebody who is
not known, and what a principal may not do: requests, links, records and rooms."""

SPARE = 16
"""Seats beyond the limit of links, for connections that others of the same links are replacing."""

LOOK = 0.01
"""Seconds between two looks at connections that are busy."""

FEW = 4
"""When records came on more connections than this in one turn, all of them count as busy."""

DISOWNED = 1000
"""So many sessions that this side was offered and did not have are remembered."""

DRAIN_STEP = 0.05
"""Seconds between two looks at whether all has been sent."""


class Member(Congestible, Protocol):
    """A link, as far as a side knows it."""

    @property
    def name(self) -> str: ...

    @property
    def unfinished(self) -> bool:
        """Whether anything is still to be sent, or to be acknowledged by the other side."""

    def evict(self, excess: int) -> None:
        """Evict `excess` bytes of what waits, because all links together exceed their limit."""

    def end(self, code: int, reason: str) -> None:
        """Close the connection, or end the session of a link that has none."""

    def review(self, judge: Judge) -> None:
        """As `Socket.review`, while it has no connection."""


class Revoked(ces.Error):
    """The other side may not be what it is any more; the text says why.

    :param code: to close it with.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


Judge = Callable[[Login, str], Login]
"""Says what a login with a link of a kind is now; raises `Revoked`."""


class Socket(Protocol):
    """A connection, as far as a side knows it."""

    host: str
    serving: bool
    session: Session
    due_bucket: int | None

    def due(self, now: float) -> float | None:
        """Do what is due (`ces.link.keepalive.Watched`)."""

    def acknowledge(self) -> None:
        """Tell the other side what has been taken."""

    def broke(self) -> None:
        """An error in this program while it served the connection: it costs this one, and no other."""

    def review(self, judge: Judge) -> None:
        """The rights of all have changed: ask for its own, and close it when it has none."""

    @property
    def unfinished(self) -> bool:
        """Whether its link has anything to send on it, or to be acknowledged."""

    def end(self, code: int, reason: str) -> None:
        """Close it."""

    def abort(self) -> None:
        """End it at once."""


L = TypeVar("L", bound=Member)


class Side(Generic[L]):
    """One owner's side of its links.

    :param settings: the limits of every link.
    :param clock: the reactor or a test's Clock.

    malformed: malformed records and texts received so far.
    dropped: records evicted from send queues, or left in them when their link ended.
    missed: records that other sides dropped, as they said.
    refused: how often something was refused, by what it was (`REFUSED`).
    sessions: the links whose session may be resumed, by its id.
    detached: the links that were cut and may be resumed, oldest first.
    slow: the links that something waits for because they did not take it, the detached among them.
    pressure: which publishers are paused, and for which congested links.
    slices: work that would take too long for one turn.
    ending: no connection is served any more, and no session kept of those that were.
    """

    def __init__(self, settings: LinkSettings, clock: IReactorTime, log: Logger) -> None:
        if not settings.wall_clock:
            use_monotonic_time(clock)
        self.settings = settings
        self.clock = clock
        self.log = log
        self.limited = Limited(log, clock)
        self.keepalive = Keepalive(clock, log, settings.grain)
        self.turn = Turn(clock, log, self.relieve)
        self.slices = Slices(clock, log)
        self.sockets = Sockets(log, direct=not settings.plain_sockets)
        self.malformed = 0
        self.dropped = 0
        self.missed = 0
        self.refused: Counter[str] = Counter(dict.fromkeys(REFUSED, 0))
        self.priority = priority_tags(settings.keep_tags)
        self.pressure: Pressure[L] = Pressure(clock, log, settings.backpressure_time)
        self.tally = Tally()
        self.slow: dict[L, None] = {}
        self.sessions: dict[str, L] = {}
        self.detached: dict[L, None] = {}
        self.ending = False
        self._disowned: dict[str, None] = {}
        self._drained = 0.0
        self._unacknowledged: dict[Socket, None] = {}
        self._acknowledging = Step(clock, self._acknowledge, "acknowledging", log)
        self._new: dict[Socket, int] = {}
        self._busy: dict[Socket, int] = {}
        """Connections on which more came, with what had been received when they were looked at."""
        self._waiting_a_turn = Step(clock, self._wait_a_turn, "waiting for the next turn", log)
        self._looking_at_new = Step(clock, self._look_at_new, "the look at new publishers", log)
        self._looking = Step(clock, self._look_at_busy, "the look at busy publishers", log)
        self._sockets: dict[Socket, None] = {}
        self._seats: Shares[Socket | L] = Shares()
        """What counts towards the limits of served links, by address: connections that have a link, until
        they are gone, and links that were cut."""
        self._all_gone: Deferred[None] | None = None

    # -- connections -----------------------------------------------------------------------------------------

    def came(self, socket: Socket) -> None:
        """A connection was made, whatever comes of it."""
        self._sockets[socket] = None
        self.keepalive.watch(socket)
        if self.ending and socket.serving:
            # On a port that was closed a moment later: nothing else would end it.
            socket.abort()

    def went(self, socket: Socket) -> None:
        """A connection is gone."""
        self._sockets.pop(socket, None)
        self._seats.discard(socket)
        self._unacknowledged.pop(socket, None)
        self._busy.pop(socket, None)
        self._stop_acknowledging()
        self.keepalive.unwatch(socket)
        if not self._sockets and self._all_gone is not None:
            done, self._all_gone = self._all_gone, None
            done.callback(None)

    def seat(self, socket: Socket) -> None:
        """A connection has got its link: it counts towards the limits until it is gone."""
        if socket.serving:
            self._seats.add(socket, network_of(socket.host))

    def served(self) -> list[Socket]:
        """The connections that were dialled from elsewhere."""
        return [socket for socket in self._sockets if socket.serving]

    def no_room(self, host: str) -> str | None:
        """Why no new link is served, or none from the address `host`; None when there is room.

        A link that was cut keeps its seat, and need not ask when it comes back. To ask is to count and log a
        refusal.
        """
        links, address = self.settings.link_limit, self.settings.address_limit
        if len(self._seats) >= links:
            self.refuse("links", f"{links} links, the limit")
            return f"There are {links} links already, the limit of this server."
        room = for_links()
        if len(self._seats) >= room:
            self.refuse("descriptors", f"a link: the process may have {limit()} descriptors. {WHAT_TO_DO}")
            return f"There are {room} links already, and no descriptor for more."
        if host and self._seats.size(network_of(host)) >= address:
            self.refuse("address", f"{address} links from {host}, the limit for one address")
            return f"There are {address} links from {host} already, the limit for one address."
        return None

    @property
    def overfull(self) -> bool:
        """Whether links that came back hold `SPARE` seats beyond the limit, with connections of theirs that
        close. There is no time for more closing handshakes then.
        """
        return len(self._seats) >= self.settings.link_limit + SPARE

    def refuse(self, what: str, why: str, times: int = 1) -> None:
        """Something of `REFUSED` is refused: count and log it."""
        self.refused[what] += times
        self.limited.warn(
            f"refused {what}", "refused: {why} ({total} so far)", why=why, total=self.refused[what]
        )

    def disown(self, session: str) -> None:
        """This side says that it does not have a session: it must not begin it later."""
        self._disowned[session] = None
        if len(self._disowned) > DISOWNED:
            del self._disowned[next(iter(self._disowned))]

    def has_disowned(self, session: str) -> bool:
        """Whether this side has said that it does not have a session."""
        return session in self._disowned

    # -- acknowledgements ------------------------------------------------------------------------------------

    def acknowledge_soon(self, socket: Socket) -> None:
        """Records came on a connection and are to be acknowledged within `ACK_SECONDS`.

        A serving connection on which nothing more comes is acknowledged in the next turn but one, so that a
        publisher that awaits each acknowledgement is not held up. A connection on which more comes is busy,
        and all are where many publish at once: they are looked at each `LOOK` seconds, which costs a flood
        next to nothing.
        """
        if socket in self._unacknowledged:
            return
        self._unacknowledged[socket] = None
        if not self._acknowledging.waits:
            self._acknowledging.within(ACK_SECONDS)
        if socket.serving:
            if not self._new:
                self._waiting_a_turn.within(0)
            self._new[socket] = socket.session.received

    def _acknowledge(self) -> None:
        sockets, self._unacknowledged = self._unacknowledged, {}
        self._busy.clear()
        for socket in sockets:
            _acknowledge(socket)

    def _wait_a_turn(self) -> None:
        self._looking_at_new.within(0)

    def _look_at_new(self) -> None:
        new, self._new = self._new, {}
        if len(new) > FEW:
            self._busy.update(new)
            self._look_again()
        else:
            self._acknowledge_quiet(new)

    def _look_at_busy(self) -> None:
        busy, self._busy = self._busy, {}
        self._acknowledge_quiet(busy)

    def _acknowledge_quiet(self, sockets: dict[Socket, int]) -> None:
        """Acknowledge on those connections on which nothing has come since; look at the others again."""
        for socket, before in sockets.items():
            if socket not in self._unacknowledged:
                continue
            received = socket.session.received
            if received == before:
                del self._unacknowledged[socket]
                _acknowledge(socket)
            else:
                self._busy[socket] = received
        self._look_again()

    def _look_again(self) -> None:
        if self._busy and not self._looking.waits:
            self._looking.within(LOOK)

    def _stop_acknowledging(self) -> None:
        if not self._unacknowledged:
            self._acknowledging.cancel()
        if not self._busy:
            self._looking.cancel()

    # -- queues ----------------------------------------------------------------------------------------------

    def new_queue(self, watcher: Watcher | None = None, limit: int | None = None) -> SendQueue:
        """An empty send queue that counts towards the bytes of all links.

        :param limit: bytes; by default the setting `link_buffer`.
        """
        limit = self.settings.link_buffer if limit is None else limit
        return SendQueue(limit, self.priority, self.tally, watcher)

    def relieve(self) -> None:
        """If too much waits for all links together, evict from the longest queues. To find them takes a look
        at all links that something waits for: so this is asked once for all that are flushed together.
        """
        excess = self.tally.bytes - self.settings.buffer_limit
        if excess <= 0:
            return
        for link in sorted(self.slow, key=_waiting, reverse=True):
            if excess <= 0:
                return
            before = self.tally.bytes
            link.evict(excess)
            excess -= before - self.tally.bytes

    def drop(self, link: str, records: int, why: str) -> None:
        """Records that were meant for `link` are lost: count and log it."""
        self.dropped += records
        self.limited.warn(
            f"dropped {why}",
            "{records} records for {link} were dropped: {why} ({total} so far)",
            records=records,
            link=link,
            why=why,
            total=self.dropped,
        )

    # -- the end ---------------------------------------------------------------------------------------------

    def keep(self, link: L, socket: Socket) -> None:
        """A link was cut and may be resumed. Their number is bounded: the oldest makes room.

        :param socket: its last connection. If that was served, the link keeps the seat of it.
        """
        self.detached[link] = None
        if socket.serving:
            self._seats.add(link, network_of(socket.host))
        if len(self.detached) > self.settings.session_limit:
            next(iter(self.detached)).end(GOING_AWAY, "too many links that were cut are kept")

    def unkeep(self, link: L) -> None:
        """The link has a connection again, or is over."""
        self.detached.pop(link, None)
        self._seats.discard(link)

    async def drain(self, busy: Callable[[], bool] = lambda: False) -> None:
        """Serve no new connections, and return when nothing is left to be sent or acknowledged.

        It takes at most `drain_timeout` seconds from the first call.

        :param busy: whether the owner has anything else to wait for.
        """
        if not self.ending:
            self.ending = True
            self._drained = self.clock.seconds() + self.settings.drain_timeout
        deadline = self._drained
        while busy() or any(socket.unfinished for socket in self._sockets):
            left = deadline - self.clock.seconds()
            if left <= 0:
                return
            await deferLater(self.clock, min(left, DRAIN_STEP))

    async def end_all(self, reason: str = "going away") -> None:
        """Close all connections with 4001; return when all are gone. Abort after `GRACE` seconds."""
        self.ending = True
        for link in list(self.detached):
            link.end(GOING_AWAY, reason)
        self.end_served(reason)
        for socket in list(self._sockets):
            socket.end(GOING_AWAY, reason)
        if not self._sockets:
            return
        done = self._all_gone = Deferred()
        cut = self.clock.callLater(GRACE, self._abort_all)
        await done
        if cut.active():
            cut.cancel()

    def end_served(self, reason: str = "going away") -> None:
        """Close every connection that was dialled from elsewhere with 4001."""
        for socket in list(self._sockets):
            if socket.serving:
                socket.end(GOING_AWAY, reason)

    def say_totals(self) -> None:
        """Log how much was dropped in all: lines are rare, and the last ones may not have been written."""
        if self.dropped:
            self.log.warn("{records} records were dropped since the start", records=self.dropped)

    def _abort_all(self) -> None:
        for socket in list(self._sockets):
            socket.abort()


def _acknowledge(socket: Socket) -> None:
    try:
        socket.acknowledge()
    except Exception:
        socket.broke()


def _waiting(link: Member) -> int:
    return link.queue.settled_bytes
