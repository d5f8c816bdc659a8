"""The hub: takes records from its links and puts them into the queues of the links that want them.

Owns the routes, the links, their subscriptions and what is held for a repeater; does not know sockets, HTTP
or who dialled whom.
The way of an event::

    link -> received(link, runs) -> routes.destinations(room, kind) -> put(run) into queues -> turn -> write

Two hubs share one link (docs/protocol.md section 5): `admit` decides which connection carries it, both ends
by the same rule, so that they agree without a word.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ces.hub.settings import HubSettings
from ces.hub.subscriptions import Subscriptions
from ces.link.faces import DEPARTED, Departed, departed
from ces.link.link import Announcement, Link, Owner, Refused
from ces.link.schedule import Step
from ces.link.side import Side
from ces.model.control import Gap, SubscriptionChange
from ces.model.patterns import Rooms
from ces.model.routing import HUB, MESSENGER, REPEATER, Group, HubRoutes
from ces.model.wire import BATCH_BYTES, CES1, EVERY_ROOM, Run, mixed
from ces.session.held import Held
from ces.session.interest import Interest

SLICE = 128 * 2**20
"""How much one link's records may cost in a turn: each run costs `LOOKUP`, each delivery its bytes and
`DELIVERY`. That is about 5 ms of very small records, or 30 ms of large ones. The rest waits for later turns.
"""

LOOKUP = 48 * 1024
"""What it costs to find out who gets a run: it takes as long as to write so many bytes."""

POSTED = 8 * 2**20
"""While more bytes than this came by HTTP and are not yet routed, no more are taken."""

DELIVERY = 4096
"""What a delivery costs beside its bytes, for the queue and the frame."""


class MeetsItself(Refused):
    """The hub at the other end is this hub."""


class Hub(Owner):
    """One hub's routing, without its ports.

    :param node: identifies the running process.
    """

    def __init__(
        self, node: str, settings: HubSettings, clock: IReactorTime, log: Logger | None = None
    ) -> None:
        self.node = node
        self.instance = secrets.token_hex(8)
        self.log = log or Logger(namespace="ces.hub")
        self.settings = settings
        self.side: Side[Link] = Side(settings, clock, self.log)
        self.routes: HubRoutes[Link] = HubRoutes(settings.in_room)
        self.held = Held(settings.hold_bytes, settings.hold_time)
        self.received_records = {kind: 0 for kind in (HUB, MESSENGER, REPEATER)}
        self.unrouted = 0
        """Records that nobody wanted."""
        self.sent_records = 0
        """Records taken from the queues of links that have left; `sent` adds those of the others."""
        self.departed: deque[Departed] = deque(maxlen=DEPARTED)
        """The links that have left last, the latest first."""
        self.hub_detached: Callable[[Link], None] = lambda link: None
        """Called when the link to another hub has lost its connection, or has left."""
        self._clock = clock
        self._expiry = Step(clock, self._expire_held, "the expiry of held records", self.log)
        self._told: dict[Link, Interest] = {}
        """The hubs that are told which rooms are wanted, with what each is still to be told."""
        self._behind: dict[Link | None, Behind] = {}
        """Links that have sent more than a `SLICE`, with what is still to be routed; None for HTTP."""
        self.subscriptions = Subscriptions(self.routes, settings, self.side, clock, self._change)

    # -- links come and go -----------------------------------------------------------------------------------

    def admit(self, kind: str, node: str, instance: str, serving: bool) -> Link | None:
        """One link per pair of hubs, none from a hub to itself, and one process for each node."""
        if kind != HUB or not node:
            return None
        if node == self.node:
            if instance in ("", self.instance):
                raise MeetsItself("this hub and that one are the same: it would talk to itself")
            raise self._taken(node)
        link = self.hub_link(node)
        if link is None or (link.connection is None and not link.replacing):
            return link
        if instance and link.instance and instance != link.instance:
            # It may be the same hub, started again, whose old connection has not ended here yet.
            if link.connection is not None:
                link.connection.probe()
            raise self._taken(node)
        if not link.connected or link.serving == serving:
            return link
        stays = min(self.node, node)
        if stays == (node if serving else self.node):
            return link
        raise Refused(f"the link that hub {stays} dialled stays", link)

    def _taken(self, node: str) -> Refused:
        reason = f"another hub has the node id {node} already: give each hub one of its own"
        self.side.refuse("node", reason)
        return Refused(reason)

    def hub_link(self, node: str) -> Link | None:
        """The link to the hub `node`, connected or not."""
        return next((link for link in self.routes.links(HUB) if link.node == node), None)

    def joined(self, link: Link) -> None:
        """A link of any kind came."""
        everything = link.kind == HUB and link.dialect == CES1
        self.routes.join(link, link.kind, everything, _limit(link))
        self.subscriptions.joined(link)
        self.side.limited.info(
            f"{link.kind} joined", "{link} joined, speaking {dialect}", link=link.name, dialect=link.dialect
        )
        self._announce_to(link)
        self._hand_out(link)

    def detached(self, link: Link) -> None:
        """The link has no connection. It stays in the routes; only a repeater gets nothing new meanwhile:
        another one can have it.
        """
        self.routes.rest(link)
        self.side.limited.info(
            f"{link.kind} detached",
            "{link} has no connection: {reason}",
            link=link.name,
            reason=link.ended,
        )
        if link.kind == HUB:
            self.hub_detached(link)

    def attached(self, link: Link, fresh: bool) -> None:
        """The link has a connection again."""
        self.routes.wake(link)
        self._keep_within_rights(link)
        self.side.limited.info(f"{link.kind} attached", "{link} is back", link=link.name)
        if link.kind == HUB and link.dialect == CES1:
            self.subscriptions.subscribe(link, [EVERY_ROOM])
        self._announce_to(link)
        self._hand_out(link)

    def left(self, link: Link, undelivered: list[Run]) -> None:
        """A link left; what it did not get goes to another repeater, or is counted as lost."""
        self._told.pop(link, None)
        self.subscriptions.left(link)
        self.side.limited.info(
            f"{link.kind} left", "{link} left: {reason}", link=link.name, reason=link.ended
        )
        self.sent_records += link.queue.taken
        self.departed.appendleft(departed(link, self.side.keepalive.seconds()))
        if link.kind == REPEATER:
            for run in undelivered:
                self._to_repeater(run)
        elif undelivered:
            lost = sum(run.count for run in undelivered)
            self.side.drop(link.name, lost, "it left before they were delivered")
        if link.kind == HUB:
            self.hub_detached(link)

    def _announce_to(self, link: Link) -> None:
        """Tell another hub which rooms are wanted, if it speaks ces.2, from now on."""
        if link.kind != HUB:
            return
        if link.dialect == CES1:
            self._told.pop(link, None)
            link.interest = None
        elif link not in self._told:
            # The other hub may remember rooms of an earlier process with this node id.
            limit = self.settings.message_limit
            self._told[link] = Interest(self.routes.is_wanted, self.routes.wanted, limit, reset=True)
            link.announces(self._told[link])

    def _hand_out(self, link: Link) -> None:
        """Give a repeater that has come what is held, as far as it may have it."""
        if link.kind == REPEATER:
            may = link.login.principal.subscribe
            for run in self.held.take(self._clock.seconds(), may):
                self._to_repeater(run)
            self._watch_held()

    # -- what links want -------------------------------------------------------------------------------------

    def told(self, link: Link, message: SubscriptionChange | Gap) -> None:
        """A messenger, or another hub in ces.2, changed what it wants."""
        if isinstance(message, Gap) or link not in self.routes or link.kind == REPEATER:
            return
        rooms = [room.encode() for room in message.rooms]
        if message.create:
            self.subscriptions.subscribe(link, self._permitted(link, rooms))
        else:
            self.subscriptions.unsubscribe(link, rooms)

    def _permitted(self, link: Link, rooms: list[bytes]) -> list[bytes]:
        """Those of the rooms that the link may have; ``*`` is all that it may have."""
        limit = self.routes.limit(link)
        if limit is None:
            return rooms
        may = [room for room in rooms if room in limit or (room == EVERY_ROOM and limit)]
        if len(may) < len(rooms):
            denied = len(rooms) - len(may)
            link.deny(denied, f"{denied} of the rooms may not be subscribed to")
        return may

    def authorized(self, link: Link) -> None:
        """The other side may do other things than before."""
        if link in self.routes:
            self._keep_within_rights(link)
            self._hand_out(link)

    def _keep_within_rights(self, link: Link) -> None:
        """The rights may be others now, or another principal's: two hubs share one link, whichever dials."""
        limit = _limit(link)
        if limit != self.routes.limit(link):
            self.subscriptions.restrict(link, limit)

    def _change(self, rooms: list[bytes]) -> None:
        """What messengers want has just changed in these rooms: the other hubs are told at the end of the
        turn, as far as they take it then.
        """
        if rooms:
            for link, interest in self._told.items():
                interest.changed(rooms)
                self.side.turn.add(Announcement(link))

    # -- the way of an event ---------------------------------------------------------------------------------

    def received(self, link: Link, runs: list[Run]) -> None:
        """Records came on a link."""
        if len(runs) == 1 and not self._behind:
            run = runs[0]
            self._deliver(run, self.routes.destinations(run.room, link.kind, link), link)
            self.received_records[link.kind] += run.count
            self.side.turn.took(run.size)
        else:
            self._take(runs, link.kind, link)

    def posted(self, runs: list[Run]) -> bool:
        """Records came by HTTP.

        :return: whether they are taken; not while `POSTED` bytes that came before them wait.
        """
        behind = self._behind.get(None)
        if behind is not None and behind.bytes > POSTED:
            return False
        self._take(runs, MESSENGER, None)
        return True

    def _take(self, runs: list[Run], kind: str, source: Link | None) -> None:
        """Route records. Those that would take too long are routed in the next turns; meanwhile their source
        is not read.
        """
        behind = self._behind.get(source)
        if behind is not None:
            behind.put(runs)
            return
        rest = self.route(runs, kind, source)
        if rest:
            behind = self._behind[source] = Behind(self, kind, source, rest)
            self.side.slices.add(behind)
            if source is not None:
                source.pause()

    def caught_up(self, source: Link | None) -> None:
        """All that came from there is routed."""
        del self._behind[source]
        if source is not None:
            source.resume()

    def route(self, runs: list[Run], kind: str, source: Link | None = None) -> list[Run]:
        """Put records that came from a link of `kind` into the queues of those that get them. Neighbours that
        go to the same links become one run.

        :param source: the link they came on, which gets none of them; None for what came by HTTP.
        :return: those that have to wait, since this was a `SLICE`.
        """
        destinations = self.routes.destinations
        cost = place = records = size = weight = 0
        last: Group[Link] | None = None
        alike: list[Run] = []
        for place, run in enumerate(runs, 1):
            group = destinations(run.room, kind, source)
            if group is not last or weight > BATCH_BYTES:
                if last is not None:
                    self._deliver(mixed(alike), last, source)
                    if cost + place * LOOKUP > SLICE:
                        place -= 1
                        last = None
                        break
                last, alike, weight = group, [], 0
                cost += len(group.links) * DELIVERY
            alike.append(run)
            records += run.count
            weight += run.weight
            size += run.size
            cost += len(group.links) * run.size
        if last is not None:
            self._deliver(mixed(alike), last, source)
        self.received_records[kind] += records
        self.side.turn.took(size)
        return runs[place:]

    def _deliver(self, run: Run, group: Group[Link], source: Link | None) -> None:
        """Put a run into the queues of those that get it."""
        for link in group.links:
            link.put(run)
        if group.links:
            self.side.turn.add(group)
        elif not group.repeater:
            self.unrouted += run.count
        if group.repeater:
            self._to_repeater(run)
        congested = self.side.pressure.congested
        if congested and source is not None and source.connected:
            self.side.pressure.fed(source, group.among(congested), run.weight)

    def _to_repeater(self, run: Run) -> None:
        # Links that get several rooms alike may all have them; of the repeaters, some may not.
        for part in run.apart() if self.routes.limits_repeaters else (run,):
            self._to_one_repeater(part)

    def _to_one_repeater(self, run: Run) -> None:
        repeater = self.routes.next_repeater(run.room, _is_backlogged)
        if repeater is not None:
            repeater.put(run)
            self.side.turn.add(repeater)
            return
        self._report_held(self.held.put(run, self._clock.seconds()))
        self._watch_held()

    async def drain(self) -> None:
        """Serve no new links, and return when all that came is routed, sent and acknowledged, or it takes too
        long.
        """
        await self.side.drain(lambda: bool(self._behind))

    def stop(self) -> None:
        """Wait for repeaters no more. What is still held, or still to be routed, is lost."""
        self.subscriptions.stop()
        for behind in list(self._behind.values()):
            behind.lose("the hub stops")
        lost = sum(run.count for run in self.held.take(self._clock.seconds()))
        self._watch_held()
        if lost:
            self.log.warn(
                "{records} records that waited for a repeater are lost: the hub stops", records=lost
            )

    def _report_held(self, lost: list[Run]) -> None:
        if lost:
            self.side.limited.warn(
                "held",
                "{records} records were dropped: no repeater came within {seconds:g} s and {limit} bytes"
                " ({total} so far)",
                records=sum(run.count for run in lost),
                seconds=self.held.seconds,
                limit=self.held.limit,
                total=self.held.dropped,
            )

    def _watch_held(self) -> None:
        self._expiry.cancel()
        wait = self._next_expiry()
        if wait is not None:
            self._expiry.within(wait)

    def _expire_held(self) -> float | None:
        self._report_held(self.held.expire(self._clock.seconds()))
        return self._next_expiry()

    def _next_expiry(self) -> float | None:
        expires = self.held.expires()
        return None if expires is None else max(0.0, expires - self._clock.seconds())

    # -- what it shows ---------------------------------------------------------------------------------------

    @property
    def sent(self) -> int:
        """Records written to links since the start."""
        alive = sum(
            link.queue.taken for kind in (HUB, MESSENGER, REPEATER) for link in self.routes.links(kind)
        )
        return self.sent_records + alive


class Behind:
    """What has come from one source and is still to be routed (`ces.link.slices.Sliced`).

    It has been taken, whatever becomes of its source. It counts towards the bytes of all links.

    :param source: the link that it came on; None for HTTP.
    """

    def __init__(self, hub: Hub, kind: str, source: Link | None, runs: list[Run]) -> None:
        self._hub = hub
        self._kind = kind
        self._source = source
        self._runs: list[Run] = []
        self.bytes = 0
        self.put(runs)

    def put(self, runs: list[Run]) -> None:
        """Further records, which were read before the source was paused."""
        self._runs += runs
        self._count(sum([run.weight for run in runs]))

    def slice(self) -> bool:
        """Route as much as may be routed in a turn."""
        before = self._runs
        self._runs = self._hub.route(before, self._kind, self._source)
        self._count(-sum([run.weight for run in before[: len(before) - len(self._runs)]]))
        if not self._runs:
            self._hub.caught_up(self._source)
        return bool(self._runs)

    def lose(self, why: str) -> None:
        """Route no more of it."""
        self._hub.side.slices.remove(self)
        self._count(-self.bytes)
        self._hub.side.drop(self._name, sum(run.count for run in self._runs), why)
        self._hub.caught_up(self._source)

    def broke(self) -> None:
        """It costs the link, and what it has sent."""
        self._hub.side.log.failure("unexpected error while routing what came from {name}", name=self._name)
        self.lose("an internal error, see the log")
        if self._source is not None:
            self._source.broke()

    @property
    def _name(self) -> str:
        return "HTTP" if self._source is None else self._source.name

    def _count(self, size: int) -> None:
        self.bytes += size
        self._hub.side.tally.bytes += size


def _limit(link: Link) -> Rooms | None:
    """The only rooms that a link may have; None for all."""
    rooms = link.login.principal.subscribe
    return None if rooms.everything else rooms


def _is_backlogged(link: Link) -> bool:
    return link.backlogged
