"""The hub as a Twisted service: ports, interconnections and a clean end."""

from __future__ import annotations

import secrets
import socket
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred

from ces.access.bearer import TokenError
from ces.access.file import AccessError, access_of
from ces.hub.api import HubApi
from ces.hub.hub import Hub
from ces.hub.interconnect import Interconnections, hub_address
from ces.hub.settings import HubSettings
from ces.link.listen import Listening
from ces.link.review import Rights
from ces.ops.gate import Gate
from ces.ops.http import make_site
from ces.ops.logging import LogLevels
from ces.ops.signals import Hangup, Termination


class HubLinks(Service):
    """The hub's links as a service: dials what is to be kept up, and ends all links when it stops."""

    def __init__(self, hub: Hub, interconnections: Interconnections, keep: tuple[str, ...]) -> None:
        self._hub = hub
        self._interconnections = interconnections
        self._keep = keep

    def startService(self) -> None:
        """Dial every hub that is to be linked to."""
        super().startService()
        for address in self._keep:
            self._interconnections.keep(hub_address(address))

    def stopService(self) -> Deferred[None]:
        """Tell every link that the hub goes away; fires when they have gone."""
        super().stopService()
        return Deferred.fromCoroutine(self._goodbye())

    async def _goodbye(self) -> None:
        await self._hub.drain()
        gone = self._interconnections.stop()
        await self._hub.side.end_all()
        await gone
        self._hub.stop()
        self._hub.side.say_totals()


def make_hub_service(settings: HubSettings, reactor: Any, levels: LogLevels) -> MultiService:
    """A service that listens, keeps its interconnections up and serves until it is stopped.

    :raises SystemExit: with one sentence, when the access file or the token file cannot be used.
    """
    log = levels.logger("ces.hub")
    node = settings.node_id or f"{socket.gethostname()}-{secrets.token_hex(4)}"
    hub = Hub(node, settings, reactor, log)
    try:
        interconnections = Interconnections(hub, reactor)
        gate = Gate(access_of(settings.access), hub.side.refuse)
    except (AccessError, TokenError) as error:
        raise SystemExit(f"ces-hub: {error}") from None
    api = HubApi(hub, interconnections, reactor, levels, gate)
    service = MultiService()
    HubLinks(hub, interconnections, settings.interconnect).setServiceParent(service)
    Hangup([Rights(settings.access, gate, hub.side, log).reload], reactor).setServiceParent(service)
    Termination(reactor).setServiceParent(service)
    site = make_site(api.app.resource(), reactor, settings, refused=hub.side.refuse)
    listening = Listening(
        "ces-hub", settings.listen, site, reactor, log, door=site, anonymous=settings.allow_anonymous
    )
    listening.setServiceParent(service)
    return service
