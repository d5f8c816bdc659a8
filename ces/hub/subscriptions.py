"""Which rooms the links of a hub may subscribe to, and what becomes of those that they may not.

Owns the shares of `--subscription-limit` and the list of links that are *short*: that have fewer rooms than
they asked for. Does not know who is told of changes. The way of a room that a link asks for::

    within the limit of the link, and its share -> routes (`ces.model.allotment` says what its share is)
    beyond the limit of the link                -> refused for good
    beyond its share                            -> remembered -> routes, when there is room again
                                                -> forgotten, when too many are remembered

Another hub that wants more than it may have gets every room instead: nothing is lost, and it never is short.

When rooms are given up, the links that are short are looked at in turn, the one that has waited longest
first, `LOOKS` of them and about `GRANTS` rooms at a time. A link in ces.2 is told of what it lacks, and when
it may ask again for what was forgotten. In ces.1 nothing can be said on the wire: the log, ``/status`` and
``/metrics`` say it, and a connection whose forgotten rooms have room again is closed with 4001, since a
messenger that dials again asks for all of its rooms.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator
from itertools import islice
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime

from ces.hub.settings import INTERCONNECTIONS, HubSettings
from ces.link.link import Link
from ces.link.schedule import Step
from ces.link.side import Side
from ces.model.allotment import Allotment
from ces.model.control import Error
from ces.model.patterns import Rooms
from ces.model.routing import HUB, STEP_ROOMS, HubRoutes
from ces.model.shares import network_of
from ces.model.wire import CES2, EVERY_ROOM
from ces.session.life import GOING_AWAY, NOT_ALLOWED

REMEMBERED, REMEMBERED_EACH = 10, 20
"""Rooms that links lack are remembered: at most 1/`REMEMBERED` of the limit of all subscriptions, and of that
at most 1/`REMEMBERED_EACH` for one link.
"""

LOOKS, GRANTS = 200, 1000
"""Links that are looked at, and rooms that one of them gets, in one step."""

STEP_SECONDS = 0.02
"""Seconds between two steps."""


class Short(NamedTuple):
    """A link that has fewer rooms than it asked for.

    waiting: rooms that it gets when there is room. forgotten: rooms that it must ask for again.
    """

    link: Link
    waiting: int
    forgotten: int


class _Missing:
    """What a link lacks."""

    __slots__ = ("forgotten", "rooms")

    def __init__(self) -> None:
        self.rooms: dict[bytes, None] = {}
        self.forgotten = 0


class Subscriptions:
    """The subscriptions of one hub.

    :param changed: told of rooms that messengers begin or cease to want.

    waiting: rooms that links lack and get when there is room, of all links.
    """

    def __init__(
        self,
        routes: HubRoutes[Link],
        settings: HubSettings,
        side: Side[Link],
        clock: IReactorTime,
        changed: Callable[[list[bytes]], None],
    ) -> None:
        self._routes = routes
        self._settings = settings
        self._side = side
        self._changed = changed
        links = settings.link_limit + settings.session_limit + INTERCONNECTIONS
        self._shares: Allotment[Link] = Allotment(settings.subscription_limit, links)
        remembered = settings.subscription_limit // REMEMBERED
        self._remembered: Allotment[Link] = Allotment(remembered, links)
        self._remembered_each = remembered // REMEMBERED_EACH
        self._address: dict[Link, str] = {}
        self._short: OrderedDict[Link, _Missing] = OrderedDict()
        self.waiting = 0
        self._whole: dict[Link, None] = {}
        """Hubs that get every room, asked for or not, since they want more than is remembered of them."""
        self._looks = 0
        """How many links that are short are still to be looked at."""
        self._granting = Step(clock, self._grant_some, "the granting of rooms", side.log)

    def joined(self, link: Link) -> None:
        """The link has come, and may have a room already."""
        host = "" if link.connection is None else link.connection.host
        self._address[link] = network_of(host) if host else ""
        self._recount(link)

    def left(self, link: Link) -> None:
        """The link is gone. Its subscriptions go in slices: they may be very many."""
        self._whole.pop(link, None)
        self._forget(link)
        leaving = self._side.slices.finish(self._leaving(link, self._address.pop(link, "")))
        leaving.addErrback(
            lambda failure: self._side.log.failure(
                "unexpected error when {link} left", failure, link=link.name
            )
        )

    def _leaving(self, link: Link, address: str) -> Generator[None, None, None]:
        left = len(self._routes.rooms(link)) if link in self._routes else 0
        for ended in self._routes.leaving(link):
            self._changed(ended)
            left -= STEP_ROOMS
            self._shares.hold(link, address, max(0, left))
            if left > 0:
                yield
        self._shares.hold(link, address, 0)
        self._given_up()

    def subscribe(self, link: Link, rooms: list[bytes]) -> None:
        """The link asks for these rooms."""
        within = self._within(link, rooms)
        if link in self._routes:  # it may have ended with what it was told of a limit
            self._take(link, within)

    def unsubscribe(self, link: Link, rooms: list[bytes]) -> None:
        """The link gives these rooms up; all of them when none are named."""
        if not rooms:
            self._whole.pop(link, None)
            self._forget(link)
        elif link in self._whole:
            rooms = [room for room in rooms if room != EVERY_ROOM]
            if not rooms:
                return
        missing = self._short.get(link)
        if missing is not None:
            for room in rooms:
                missing.rooms.pop(room, None)
            self._recount(link)
        self._changed(self._routes.unsubscribe(link, rooms or None))
        self._recount(link)
        self._grant(link)
        self._given_up()

    def restrict(self, link: Link, limit: Rooms | None) -> None:
        """The link may have these rooms alone from now on; None for all. It loses the others, also those that
        are remembered for it.
        """
        self._routes.restrict(link, limit)
        if limit is None:
            return
        missing = self._short.get(link)
        asked = [*self._routes.rooms(link), *(() if missing is None else missing.rooms)]
        beyond = [room for room in asked if room != EVERY_ROOM and room not in limit]
        if beyond:  # no rooms at all would mean every room
            self.unsubscribe(link, beyond)

    def stop(self) -> None:
        """Grant nothing any more."""
        self._granting.cancel()

    def room(self, link: Link) -> int:
        """How many more rooms the link may have now."""
        of_link = self._settings.room_limit - len(self._routes.rooms(link))
        return max(0, min(of_link, self._shares.room(link, self._address[link])))

    @property
    def short(self) -> int:
        """How many links have fewer rooms than they asked for."""
        return len(self._short)

    def shorts(self, limit: int) -> Iterator[Short]:
        """The first `limit` of them."""
        for link, missing in islice(list(self._short.items()), limit):
            yield Short(link, len(missing.rooms), missing.forgotten)

    # -- how many ----------------------------------------------------------------------------------------

    def _within(self, link: Link, rooms: list[bytes]) -> list[bytes]:
        """As many of the rooms as the link may have; what becomes of the others is seen to."""
        mine = self._routes.rooms(link)
        of_link = max(0, self._settings.room_limit - len(mine))
        shared = self._shares.room(link, self._address[link])
        if len(rooms) <= min(of_link, shared):
            return rooms
        new = [room for room in dict.fromkeys(rooms) if room not in mine]
        if len(new) <= min(of_link, shared):
            return new
        if link.kind == HUB:
            return self._give_every_room(link, of_link < shared)
        if len(new) > of_link:
            limit = f"{self._settings.room_limit}, the limit of one link"
            self._refuse(link, f"{len(new) - of_link} rooms beyond {limit}")
            new = new[:of_link]
        if len(new) > shared:
            self._remember(link, new[shared:])
        return new[:shared]

    def _give_every_room(self, link: Link, of_link: bool) -> list[bytes]:
        if link in self._whole:
            return []
        self._whole[link] = None
        settings = self._settings
        limit = (
            f"{settings.room_limit} rooms" if of_link else f"its share of {settings.subscription_limit} rooms"
        )
        self._side.refuse("rooms", f"more than {limit} for {link.name}: it gets every room")
        return [EVERY_ROOM]

    def _refuse(self, link: Link, reason: str) -> None:
        self._side.refuse("rooms", f"{reason}, for {link.name}")
        if link.dialect == CES2:
            link.tell(Error(code=NOT_ALLOWED, reason=reason))

    def _remember(self, link: Link, rooms: list[bytes]) -> None:
        """The link has no share for these rooms now."""
        missing = self._short.setdefault(link, _Missing())
        new = [room for room in rooms if room not in missing.rooms]
        if not new:
            return
        space = self._remembered.room(link, self._address[link])
        space = max(0, min(space, self._remembered_each - len(missing.rooms)))
        missing.rooms.update(dict.fromkeys(new[:space]))
        missing.forgotten += max(0, len(new) - space)
        self._recount(link)
        limit = f"its share of {self._settings.subscription_limit}, the limit of all links together"
        reason = f"{len(new)} rooms beyond {limit}: {min(len(new), space)} wait until others are given up"
        if len(new) > space:
            reason += f", and {len(new) - space} must be asked for again"
        self._refuse(link, reason)

    def _take(self, link: Link, rooms: list[bytes]) -> None:
        self._changed(self._routes.subscribe(link, rooms))
        missing = self._short.get(link)
        if missing is not None:
            for room in rooms:
                missing.rooms.pop(room, None)
            if not (missing.rooms or missing.forgotten):
                self._forget(link)
        self._recount(link)

    def _recount(self, link: Link) -> None:
        """What the link has, or lacks, has changed."""
        address = self._address[link]
        self._shares.hold(link, address, len(self._routes.rooms(link)))
        missing = self._short.get(link)
        self.waiting -= self._remembered.held(link)
        count = 0 if missing is None else len(missing.rooms)
        self.waiting += count
        self._remembered.hold(link, address, count)

    def _forget(self, link: Link) -> None:
        """The link lacks nothing any more."""
        if self._short.pop(link, None) is not None:
            self.waiting -= self._remembered.held(link)
            self._remembered.hold(link, "", 0)

    # -- when there is room again --------------------------------------------------------------------------

    def _given_up(self) -> None:
        """Rooms were given up: look at each link that is short."""
        self._looks = len(self._short)
        if self._looks:
            self._granting.within(STEP_SECONDS)
        else:
            self._granting.cancel()

    def _grant_some(self) -> float | None:
        granted = 0
        for _ in range(min(LOOKS, self._looks)):
            if not self._short or granted >= GRANTS:
                break
            link = next(iter(self._short))
            self._looks -= 1
            self._short.move_to_end(link)
            granted += self._grant(link)
        return STEP_SECONDS if self._looks > 0 and self._short else None

    def _grant(self, link: Link) -> int:
        """Give a link what it lacks, as far as there is room, `GRANTS` at a time. How many rooms it got."""
        missing = self._short.get(link)
        if missing is None:
            return 0
        free = self.room(link)
        rooms = list(islice(missing.rooms, min(free, GRANTS)))
        if rooms:
            self._take(link, rooms)
        if missing.rooms and len(rooms) == GRANTS:  # it has its turn until it has what it may have
            self._short.move_to_end(link, last=False)
            self._looks += 1
        elif not missing.rooms and free - len(rooms) >= missing.forgotten:
            self._satisfied(link, missing.forgotten)
        return len(rooms)

    def _satisfied(self, link: Link, forgotten: int) -> None:
        """The link has what was remembered for it, and there is room for what was forgotten."""
        self._forget(link)
        if not forgotten:
            self._side.limited.info("rooms granted", "{link} has every room that it lacked", link=link.name)
            return
        reason = f"there is room again for {forgotten} rooms that were refused: subscribe to them again"
        self._side.limited.warn("rooms again", "{link}: {reason}", link=link.name, reason=reason)
        if link.dialect == CES2:
            link.tell(Error(code=NOT_ALLOWED, reason=reason))
        else:  # a Go messenger dials again and subscribes to everything; it understands nothing else
            link.end(GOING_AWAY, reason)
