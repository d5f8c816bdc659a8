"""A serving side and a dialling side on real sockets, without HTTP between them."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from twisted.internet.task import deferLater

from ces.config.link import LinkSettings
from ces.link.connection import Connection
from ces.link.serving import ServingFactory
from ces.model.address import Address
from ces.uplink.uplink import Uplink
from tests.support.links import Lines, Recorder, make_side


class Tcp:
    """A serving factory on a port of its own, and an uplink to it; `open` and `close` it.

    dialled, served: the two owners.
    uplinks: `uplink`, and those that `dial` has made.
    """

    def __init__(self, settings: LinkSettings | None = None) -> None:
        from twisted.internet import reactor

        self._reactor: Any = reactor
        self.lines = Lines()
        self.dialled = Recorder("dialled", instance="one")
        self.served = Recorder("served", instance="other")
        self._sides = [make_side(self._reactor, settings, self.lines) for _ in range(2)]
        factory: Any = ServingFactory(self.served, self._sides[1], "hub", self._reactor)
        self._port = self._reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.uplinks: list[Uplink] = []
        self.uplink = self._uplink()

    async def open(self) -> None:
        """Dial, until both ends have their link."""
        self.uplink.dial()
        await self.until(lambda: self.uplink.connected and self.served.links)

    def _uplink(self) -> Uplink:
        address = Address("ws", "127.0.0.1", self._port.getHost().port)
        uplink = Uplink(
            self.dialled,
            self._sides[0],
            address,
            "/connect/hub",
            "hub",
            self._reactor,
            window=120,
            may_dial=lambda: not uplink.covered,
        )
        self.uplinks.append(uplink)
        return uplink

    def dial(self) -> None:
        """Dial from another uplink, for the same link."""
        (here,), (there,) = self.dialled.links, self.served.links
        self.dialled.places["served"], self.served.places["dialled"] = here, there
        self._uplink().dial()

    def connections(self) -> tuple[Connection, Connection]:
        """The connections at the dialling and at the serving end."""
        near, far = (links[0].connection for links in (self.dialled.links, self.served.links))
        assert isinstance(near, Connection)
        assert isinstance(far, Connection)
        return near, far

    async def until(self, condition: Callable[[], object]) -> None:
        """Let the reactor turn until `condition` holds, for 10 s at the most."""
        deadline = monotonic() + 10
        while not condition():
            assert monotonic() < deadline, "what is waited for does not come"
            await deferLater(self._reactor, 0.001)

    async def close(self) -> None:
        """End everything."""
        for uplink in self.uplinks:
            await uplink.stop()
        for side in self._sides:
            await side.end_all()
        await self._port.stopListening()
