"""The hub: takes records from its links and puts them into the outboxes of those that want them.

Owns the routes, the live links and what is held for a repeater; does not know sockets, HTTP or who dialled
whom. The way of an event::

    link -> received(link, runs) -> routes.destinations(room, kind) -> put(run) into outboxes -> turn -> write

Two hubs keep one link (docs/protocol.md section 5): `admit` decides which, both ends by the same rule, so
that they agree without a word.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ces.link.owner import LinkLimits, Owner
from ces.link.protocol import REPLACED, Link
from ces.link.shown import registrations, trouble
from ces.link.side import Side
from ces.model.control import Error, SubscriptionChange
from ces.model.routing import HUB, MESSENGER, REPEATER, HubRoutes
from ces.model.wire import CES1, CES2, EVERY_ROOM, Run
from ces.model.withdrawn import withdraw
from ces.session.held import Held
from ces.session.outbox import Spare

ANNOUNCED_ROOMS = 1000
"""At most so many rooms in one subscription change to another hub: far below any message limit."""

ANNOUNCED_PER_TURN = 10 * ANNOUNCED_ROOMS
"""At most so many changed rooms are told to other hubs in one turn of the reactor, lest it stall."""

CHANGED_ROOMS = 100_000
"""At most so many changed rooms are still to be told; what is beyond is told at once, whatever that takes."""

NOT_ALLOWED = 4403

SELF = "this hub and that one are the same: it would talk to itself"


class Hub(Owner):
    """One hub's routing, without its ports.

    :param node: identifies the running process.
    :param in_room: do not pass events from repeaters on to hubs.
    :param spare: which records outlive others when too much waits for a link.
    :param room_limit: so many rooms one link may want.
    :param subscription_limit: so many all links together may, each counted once for each link.
    :param held: what waits while no repeater is connected.
    """

    def __init__(
        self,
        node: str,
        clock: IReactorTime,
        limits: LinkLimits | None = None,
        in_room: bool = False,
        held: Held | None = None,
        log: Logger | None = None,
        spare: Spare | None = None,
        room_limit: int = 100_000,
        subscription_limit: int = 1_000_000,
    ) -> None:
        self.node = node
        self.log = log or Logger(namespace="ces.hub")
        self.side = Side(self, limits or LinkLimits(), clock, self.log, spare)
        self.routes: HubRoutes[Link] = HubRoutes(in_room)
        self.held = Held(1024 * 1024, 30.0) if held is None else held
        self.received_records = {kind: 0 for kind in (HUB, MESSENGER, REPEATER)}
        self.unrouted = 0
        """Records that nobody wanted."""
        self.sent_records = 0
        """Records taken from the outboxes of links that have gone; `sent` adds those of the living."""
        self.hub_gone: Callable[[str], None] = lambda node: None
        """Told the node of another hub when the link to it has gone."""
        self._clock = clock
        self._rooms = room_limit
        self._subscriptions = subscription_limit
        self._expiry: IDelayedCall | None = None
        self._changed: dict[bytes, None] = {}
        self._whole: dict[Link, None] = {}
        """Hubs that get every room, asked for or not, since they want more than is remembered of them."""
        self._withdrawn: dict[Link, dict[bytes, None]] = {}
        """Rooms that a hub was told are wanted no more; on a link that was cut it may not have heard it."""

    # -- links come and go -----------------------------------------------------------------------------------

    def admit(self, link: Link) -> str | None:
        """One link per pair of hubs, and none from a hub to itself."""
        if link.kind != HUB:
            return None
        if link.node == self.node:
            return SELF
        other = self.hub_link(link.node)
        if other is None or other.detached or other.serving == link.serving:
            return None
        dialled_by = link.node if link.serving else self.node
        if dialled_by == min(self.node, link.node):
            return None
        return f"the link that hub {min(self.node, link.node)} dialled stays"

    def hub_link(self, node: str) -> Link | None:
        """The link to the hub `node`, live or kept."""
        return next((link for link in self.routes.links(HUB) if link.node == node), None) if node else None

    def joined(self, link: Link) -> None:
        """A link of any kind came."""
        replaced = self.hub_link(link.node) if link.kind == HUB else None
        self.routes.join(link, link.kind, everything=link.kind == HUB and link.dialect == CES1)
        self.side.limited.info(
            f"{link.kind} joined", "{link} joined, speaking {dialect}", link=link.name, dialect=link.dialect
        )
        if replaced is not None:
            replaced.end(REPLACED, "a newer link to the same hub stays")
        self._announce_to(link)
        self._hand_out(link)

    def _hand_out(self, link: Link) -> None:
        """Give a repeater that has come what is held for it."""
        if link.kind == REPEATER:
            for run in self.held.take(self._clock.seconds()):
                self._to_repeater(run)
            self._watch_held()

    def keeps(self, link: Link) -> bool:
        """Every link that was cut stays in the routes for as long as its session may be resumed. Only
        repeaters get nothing new meanwhile: another can have it.
        """
        self.routes.rest(link)
        self.side.limited.info(
            f"{link.kind} cut",
            "{link} was cut and is waited for: {reason}",
            link=link.name,
            reason=link.ended,
        )
        return True

    def superseded(self, link: Link) -> bool:
        """Two hubs keep one link: whether there is another one to the same hub."""
        return link.kind == HUB and any(
            other.node == link.node and other is not link and not other.detached
            for other in self.routes.links(HUB)
        )

    def resumed(self, old: Link, new: Link, fresh: bool) -> None:
        """A link that was cut is back."""
        withdrawn = self._withdrawn.pop(old, {})
        whole = old in self._whole
        self._whole.pop(old, None)
        if fresh:
            self._change(self.routes.leave(old))
            self.joined(new)
            return
        self.routes.replace(old, new)
        self.side.limited.info(f"{new.kind} resumed", "{link} is back", link=new.name)
        self._withdrawn[new] = withdrawn
        if whole:
            self._whole[new] = None
        self._announce([new], [room for room in withdrawn if not self.routes.is_wanted(room)], create=False)
        self._announce_to(new)
        self._hand_out(new)

    def _announce_to(self, link: Link) -> None:
        if link.kind == HUB and link.dialect == CES2:
            self._withdrawn.setdefault(link, {})
            self._announce([link], self.routes.wanted(), create=True)

    def left(self, link: Link, reason: str) -> None:
        """A link went; what it could not send goes to whoever takes its place, or is counted as lost."""
        self._withdrawn.pop(link, None)
        self._whole.pop(link, None)
        self._change(self.routes.leave(link))
        self.side.limited.info(f"{link.kind} left", "{link} left: {reason}", link=link.name, reason=reason)
        self.sent_records += link.outbox.taken
        link.outbox.taken = 0
        runs = link.leftover()
        heir = self.hub_link(link.node) if link.kind == HUB else None
        if link.kind == REPEATER:
            for run in runs:
                self._to_repeater(run)
        elif heir is not None:
            for run in runs:
                heir.put(run)
            self.side.turn.add(heir)
        else:
            self._lose(link, runs, "it left before they were sent")
        if link.kind == HUB and heir is None and link.node:
            self.hub_gone(link.node)

    def undelivered(self, link: Link, runs: list[Run]) -> None:
        """Another repeater takes what one may not have got; for others it is lost."""
        if link.kind == REPEATER:
            for run in runs:
                self._to_repeater(run)
        else:
            self._lose(link, runs, "it was cut while it closed")

    def _lose(self, link: Link, runs: list[Run], why: str) -> None:
        if runs:
            self.side.drop(link, sum(run.count for run in runs), why)

    # -- what links want -------------------------------------------------------------------------------------

    def subscribed(self, link: Link, change: SubscriptionChange) -> None:
        """A messenger, or another hub in ces.2, changed what it wants."""
        if link not in self.routes or link.kind == REPEATER:
            return
        rooms = [room.encode() for room in change.rooms]
        if change.create:
            self._change(self.routes.subscribe(link, self._within(link, rooms)))
            return
        if not rooms:
            self._whole.pop(link, None)
        elif link in self._whole:
            rooms = [room for room in rooms if room != EVERY_ROOM]
            if not rooms:
                return
        self._change(self.routes.unsubscribe(link, rooms or None))

    def _within(self, link: Link, rooms: list[bytes]) -> list[bytes]:
        """As many of the rooms as the link may have. A hub that wants more gets every room instead: what is
        too much for it is not lost.
        """
        mine = self.routes.rooms(link)
        one, every = self._rooms - len(mine), self._subscriptions - self.routes.wants
        free = max(0, min(one, every))
        if len(rooms) <= free:
            return rooms
        new = [room for room in dict.fromkeys(rooms) if room not in mine]
        if len(new) <= free:
            return new
        if link.kind == HUB:
            if link in self._whole:
                return []
            self._whole[link] = None
            limit = f"{self._rooms} rooms" if one <= every else f"{self._subscriptions} rooms in all"
            self.side.refuse("rooms", f"more than {limit} for {link.name}: it gets every room")
            return [EVERY_ROOM]
        limit = f"{self._rooms}, the most for one link"
        if every < one:
            limit = f"{self._subscriptions}, the most for all links together"
        reason = f"{len(new) - free} rooms beyond {limit}"
        self.side.refuse("rooms", f"{reason}, for {link.name}")
        if link.dialect == CES2:
            link.tell(Error(code=NOT_ALLOWED, reason=reason))
        return new[:free]

    def _change(self, rooms: Iterable[bytes]) -> None:
        """What messengers want has changed in these rooms: tell the other hubs, once per turn."""
        changed = dict.fromkeys(rooms)
        if changed and not self._changed:
            self._clock.callLater(0, self._announce_changes)
        self._changed.update(changed)
        while len(self._changed) > CHANGED_ROOMS:
            self._announce_some()

    def _announce_changes(self) -> None:
        self._announce_some()
        if self._changed:
            self._clock.callLater(0, self._announce_changes)

    def _announce_some(self) -> None:
        rooms = list(itertools.islice(self._changed, ANNOUNCED_PER_TURN))
        for room in rooms:
            del self._changed[room]
        hubs = [link for link in self.routes.links(HUB) if link.dialect == CES2]
        if hubs:
            wanted = self.routes.is_wanted
            self._announce(hubs, [room for room in rooms if wanted(room)], create=True)
            self._announce(hubs, [room for room in rooms if not wanted(room)], create=False)

    def _announce(self, hubs: list[Link], rooms: list[bytes], create: bool) -> None:
        for start in range(0, len(rooms), ANNOUNCED_ROOMS):
            part = rooms[start : start + ANNOUNCED_ROOMS]
            change = SubscriptionChange([room.decode() for room in part], create)
            for link in hubs:
                link.tell(change)
                withdrawn = self._withdrawn[link]
                if not create:
                    withdraw(withdrawn, part)
                elif withdrawn:
                    for room in part:
                        withdrawn.pop(room, None)

    # -- the way of an event ---------------------------------------------------------------------------------

    def received(self, link: Link, runs: list[Run]) -> None:
        """Records came on a link."""
        self.route(runs, link.kind, link)

    def route(self, runs: list[Run], kind: str, source: Link | None = None) -> None:
        """Put records that came from a link of `kind` into the outboxes of those that get them.

        :param source: the link they came on, which gets none of them; None for what came by HTTP.
        """
        destinations = self.routes.destinations
        turn = self.side.turn
        full = self.side.pressure.full
        records = 0
        for run in runs:
            records += run.count
            group = destinations(run.room, kind, source)
            for link in group.links:
                link.put(run)
            if group.links:
                turn.add(group)
            elif not group.repeater:
                self.unrouted += run.count
            if group.repeater:
                self._to_repeater(run)
            if full and source is not None:
                self._press(source, group.among(full))
        self.received_records[kind] += records
        turn.took(runs)

    def _press(self, source: Link, full: list[Link]) -> None:
        if full:
            self.side.pressure.fed(source, full)

    def _to_repeater(self, run: Run) -> None:
        repeater = self.routes.next_repeater(_is_backlogged)
        if repeater is not None:
            repeater.put(run)
            self.side.turn.add(repeater)
            return
        self._report_held(self.held.put(run, self._clock.seconds()))
        self._watch_held()

    def stop(self) -> None:
        """Wait for repeaters no more; what is still held is lost."""
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
        expires = self.held.expires()
        if expires is not None and self._expiry is None:
            self._expiry = self._clock.callLater(max(0.0, expires - self._clock.seconds()), self._expire_held)
        elif expires is None and self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    def _expire_held(self) -> None:
        self._expiry = None
        self._report_held(self.held.expire(self._clock.seconds()))
        self._watch_held()

    # -- what it shows ---------------------------------------------------------------------------------------

    @property
    def sent(self) -> int:
        """Records written to links since the start."""
        alive = sum(
            link.outbox.taken for kind in (HUB, MESSENGER, REPEATER) for link in self.routes.links(kind)
        )
        return self.sent_records + alive

    def status(self) -> dict[str, Any]:
        """``info.nexus`` of ``/status``, with the names that the fleet's monitoring reads."""
        routes = self.routes
        return {
            "hubs": registrations(routes.links(HUB)),
            "messengers": registrations(routes.links(MESSENGER)),
            "repeaters": registrations(routes.links(REPEATER)),
            "messenger-mapping": {
                room.decode(): registrations(links) for room, links in routes.messengers_by_room().items()
            },
            **trouble(self.side),
        }


def _is_backlogged(link: Link) -> bool:
    return link.backlogged
