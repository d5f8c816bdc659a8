"""The links that this hub dials to other hubs.

Owns one `Interconnection` per address, each of which keeps a connection to the hub there; does not know
routes. Two hubs share one link. An interconnection is *covered* while another connection carries that link,
since its own was refused or replaced (docs/protocol.md section 5): it does not dial until that connection is
gone.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList

import ces
from ces.access.bearer import NO_BEARER, Bearer
from ces.hub.hub import Hub, MeetsItself
from ces.hub.settings import INTERCONNECTIONS
from ces.link.link import Link
from ces.model.address import Address, AddressError, parse_address
from ces.model.routing import HUB
from ces.session.life import NORMAL
from ces.uplink.dialler import DIALLING, STOPPED, UP, WAITING
from ces.uplink.uplink import Uplink

PATH = "/connect/hub"
OVERTAKEN = 3
"""A dial that another connection to the same hub has overtaken is repeated at once, at most this often."""

SERVED = 1000
"""Limit of links in ``GET /interconnect`` that other hubs have dialled."""

COVERED, ITSELF, CUT = "covered", "itself", "cut"
ADDRESS, NODE = "address", "node"
"""What a name may be by which a link to another hub is ended."""


class Unreachable(ces.Error):
    """No link came of it; the text says why."""


class IsItself(Unreachable):
    """The address leads back to this hub."""


def hub_address(text: str) -> Address:
    """The address of a hub as people write it, with or without scheme, port and path.

    :raises ces.model.address.AddressError: when it is none.
    """
    return parse_address(text, 7100, strip=PATH)


class TooMany(ces.Error):
    """No more addresses can be linked to; the text says how many there are."""


class Ambiguous(ces.Error):
    """A name is the address of one link and the node of another; the text says so."""


class Interconnection:
    """One address and the uplink to the hub there.

    :param keep: whether to go on dialling when the first dial fails.
    :param bearer: the token that the hub there is shown.
    """

    def __init__(
        self, hub: Hub, address: Address, reactor: object, keep: bool, bearer: Bearer = NO_BEARER
    ) -> None:
        self.address = address
        self.keep = keep
        self.uplink = Uplink(
            hub,
            hub.side,
            address,
            PATH,
            HUB,
            reactor,
            window=hub.settings.session_window,
            up=self._up,
            failed=self._failed,
            may_dial=self._may_dial,
            in_vain=hub.hub_detached,
            bearer=bearer,
        )
        self._hub = hub
        self._waiting: list[Deferred[None]] = []
        self._overtaken = 0
        self._again = False
        """The dial under way is older than the question that waits for it: if it fails, dial once more."""

    @property
    def state(self) -> str:
        """``up``, ``dialling``, ``waiting``, ``covered``, ``itself`` or ``stopped``."""
        uplink = self.uplink
        if uplink.state in (DIALLING, STOPPED) or uplink.connected:
            return uplink.state
        if isinstance(uplink.refusal, MeetsItself):
            return ITSELF
        if uplink.covered:
            return COVERED
        return WAITING

    @property
    def good(self) -> bool:
        """Whether the hub there has a link with this one, dialled by this interconnection or covering it."""
        return self.uplink.connected or self.uplink.covered

    @property
    def wanted(self) -> bool:
        """Whether it is to be kept, or anyone waits for it."""
        return bool(self._waiting) or (self.keep and self.state != ITSELF)

    def connected(self) -> Deferred[None]:
        """Dial if need be; fires when there is a link, or fails with `Unreachable` when this dial has."""
        result: Deferred[None] = Deferred(self._waiting_no_more)
        if self.good:
            result.callback(None)
            return result
        self._waiting.append(result)
        self._again = self.uplink.state == DIALLING
        self.uplink.dial()
        return result

    def dial(self) -> None:
        """Dial now, unless there is a link."""
        if not self.good:
            self.uplink.dial()

    def detached(self, link: Link) -> None:
        """The link to a hub has lost its connection: if it covered this interconnection, dial."""
        if link is self.uplink.link and self.keep and self.uplink.state == WAITING:
            self.uplink.dial()

    async def stop(self) -> None:
        """End the link and dial no more."""
        self._answer(Unreachable("it was ended while it was dialled"))
        await self.uplink.stop()

    def status(self) -> dict[str, Any]:
        """What ``GET /interconnect`` says of it."""
        node, dialect = self.uplink.hub
        last = self.uplink.factory.last
        return {
            "address": self.address.url(),
            "direction": "out",
            "state": self.state,
            "node": node or (last.node if last is not None else ""),
            "dialect": dialect,
            "reason": self.uplink.reason,
        }

    def _up(self) -> None:
        self._overtaken = 0
        self.keep = True
        self._answer(None)

    def _may_dial(self) -> bool:
        if isinstance(self.uplink.refusal, MeetsItself):
            return False
        if self.uplink.covered:
            self.keep = True
            return False
        return self.keep

    def _failed(self, reason: str) -> None:
        self._hub.side.limited.warn(
            f"interconnect {self.address.netloc}",
            "interconnection with {address} is {state}: {reason}",
            address=self.address.url(),
            state=self.state if self.keep or self.state == ITSELF else "given up",
            reason=reason,
        )
        again, self._again = self._again, False
        if self.uplink.overtaken and self._overtaken < OVERTAKEN:
            self._overtaken += 1
            again = True
        if again and self._waiting and self.uplink.state == WAITING and not self.good:
            self.uplink.dial()
        elif self.state == ITSELF:
            self._answer(IsItself(f"{self.address.netloc} is this hub itself"))
        elif self.state == COVERED:
            self._answer(None)
        else:
            self._answer(Unreachable(reason))

    def _waiting_no_more(self, result: Deferred[None]) -> None:
        self._waiting.remove(result)

    def _answer(self, failure: Unreachable | None) -> None:
        waiting, self._waiting = self._waiting, []
        for result in waiting:
            if failure is None:
                result.callback(None)
            else:
                result.errback(failure)


def _served(link: Link) -> dict[str, Any]:
    """What ``GET /interconnect`` says of a link that another hub dialled."""
    return {
        "address": link.peer,
        "direction": "in",
        "state": UP if link.connected else CUT,
        "node": link.node,
        "dialect": link.dialect if link.connected else "",
        "reason": link.ended,
    }


def _named(status: dict[str, Any]) -> dict[str, Any]:
    """What tells one link to a hub from the others."""
    return {name: status[name] for name in ("address", "direction", "node")}


class Interconnections:
    """All of them, by address.

    :raises ces.access.bearer.TokenError: when the token file has no token.
    """

    def __init__(self, hub: Hub, reactor: object) -> None:
        self._hub = hub
        settings = hub.settings
        self._bearer = Bearer(file=settings.token_file)
        self._trusted = frozenset(hub_address(text) for text in settings.interconnect)
        """The hubs that are shown the token: those of the configuration. Who may name another at run time
        could otherwise have it sent to any address.
        """
        self._reactor = reactor
        self._by_address: dict[Address, Interconnection] = {}
        hub.hub_detached = self._detached

    def keep(self, address: Address) -> None:
        """Keep a link to the hub at `address` up for ever.

        :raises TooMany: when `INTERCONNECTIONS` others are linked to.
        """
        interconnection = self._open(address)
        interconnection.keep = True
        interconnection.dial()

    async def connect(self, address: Address) -> None:
        """Return once there is a link to the hub at `address`, and keep it from then on.

        When it fails or is cancelled, nothing is kept, unless it had been before or another waits for it.

        :raises Unreachable: when this dial failed.
        :raises TooMany: when `INTERCONNECTIONS` others are linked to.
        """
        interconnection = self._open(address)
        try:
            await interconnection.connected()
        except (Unreachable, CancelledError):
            if not interconnection.wanted:
                if self._by_address.get(address) is interconnection:
                    del self._by_address[address]
                await interconnection.stop()
            raise

    async def end(self, name: str, kind: str = "") -> list[dict[str, Any]]:
        """End links to another hub.

        :param name: an address, as it was dialled or as ``GET /interconnect`` shows it, or the node of a hub.
        :param kind: what the name is, `ADDRESS` or `NODE`. Without it, the name must mean one of them only.
        :return: the address, direction and node of each link that was ended. A node ends every link to its
            hub, whichever side dialled.
        :raises ces.model.address.AddressError: when the name is no address and can be nothing else.
        :raises Ambiguous: when the name without a kind means different links. None is ended.
        """
        by_node = self._with_node(name) if kind != ADDRESS else []
        by_address: list[Interconnection | Link] = []
        if kind != NODE:
            try:
                by_address = self._at(name)
            except AddressError:
                if not by_node:
                    raise
        if by_node and by_address and by_node != by_address:
            raise Ambiguous(f"{name!r} is the address of one link and the node of another")
        found = by_node or by_address
        ended = [_named(one.status() if isinstance(one, Interconnection) else _served(one)) for one in found]
        for one in found:
            if isinstance(one, Interconnection):
                del self._by_address[one.address]
            else:
                one.end(NORMAL, "ended by an operator")
        for one in found:
            if isinstance(one, Interconnection):
                await one.stop()
        return ended

    def _with_node(self, node: str) -> list[Interconnection | Link]:
        dialled = [one for one in self._by_address.values() if one.status()["node"] == node]
        return [*dialled, *[link for link in self._links_served() if link.node == node]]

    def _at(self, address: str) -> list[Interconnection | Link]:
        served = [link for link in self._links_served() if link.peer == address]
        if served:
            return [*served]
        dialled = self._by_address.get(hub_address(address))
        return [dialled] if dialled is not None else []

    def _links_served(self) -> list[Link]:
        return [link for link in self._hub.routes.links(HUB) if link.serving]

    def stop(self) -> Deferred[Any]:
        """End them all."""
        gone = [Deferred.fromCoroutine(each.stop()) for each in self._by_address.values()]
        self._by_address.clear()
        return DeferredList(gone)

    def status(self) -> list[dict[str, Any]]:
        """Every link to another hub that was dialled from here, and the first `SERVED` of those that were
        dialled from there, with their states.
        """
        dialled = [interconnection.status() for interconnection in self._by_address.values()]
        return dialled + [_served(link) for link in self._links_served()[:SERVED]]

    def _open(self, address: Address) -> Interconnection:
        interconnection = self._by_address.get(address)
        if interconnection is None:
            if len(self._by_address) >= INTERCONNECTIONS:
                why = f"{INTERCONNECTIONS} interconnections, the most that are kept"
                self._hub.side.refuse("interconnections", why)
                raise TooMany(f"There are {why}: end one with DELETE before you make another")
            bearer = self._bearer if address in self._trusted else NO_BEARER
            interconnection = Interconnection(self._hub, address, self._reactor, False, bearer)
            self._by_address[address] = interconnection
        return interconnection

    def _detached(self, link: Link) -> None:
        if link.replacing and not link.over:
            return  # one of them is about to carry it
        for interconnection in list(self._by_address.values()):
            interconnection.detached(link)
