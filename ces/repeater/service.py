"""The repeater as a Twisted service: ports, the hub link, routes that are read again, and a clean end."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ces.access.bearer import TokenError
from ces.access.file import AccessError, access_of
from ces.link.listen import CannotServe, Listening
from ces.link.review import Rights
from ces.ops.gate import Gate
from ces.ops.http import make_site
from ces.ops.logging import LogLevels
from ces.ops.signals import Hangup, Termination
from ces.repeater.api import RepeaterApi
from ces.repeater.http_target import HttpClient
from ces.repeater.repeater import Repeater
from ces.repeater.routes_file import Routes, RoutesError, load, target_url
from ces.repeater.settings import RepeaterSettings
from ces.uplink.spool_file import SpoolError

EVERY = "*"


def read_routes(settings: RepeaterSettings) -> Routes:
    """The routes of the file, if there is one, with the central repeaters added to those of every room.

    :raises RoutesError: when the file cannot be used.
    """
    routes = load(settings.routes) if settings.routes else {}
    central = [target_url(text) for text in settings.central_repeater_addresses]
    if central:
        routes = {**routes, EVERY: tuple(dict.fromkeys([*routes.get(EVERY, ()), *central]))}
    return routes


class RepeaterLinks(Service):
    """The repeater's links as a service: dials the hub, and ends all links when it stops."""

    def __init__(self, repeater: Repeater, client: HttpClient) -> None:
        self._repeater = repeater
        self._client = client

    def startService(self) -> None:
        """Dial the hub.

        :raises CannotServe: when the spool on disk cannot be used. Only now is it known who uses it: twistd
            may have forked and given up privileges since the service was made.
        """
        super().startService()
        try:
            self._repeater.start()
        except SpoolError as error:
            raise CannotServe(f"ces-repeater: {error}") from None

    def stopService(self) -> Deferred[None]:
        """End every link; fires when they have gone."""
        super().stopService()
        return Deferred.fromCoroutine(self._goodbye())

    async def _goodbye(self) -> None:
        await self._repeater.stop()
        await self._client.close()


class RoutesFile:
    """Reads the routes again; a file that is bad leaves the old ones.

    :param read: reads them; may raise `RoutesError`.
    :param use: takes them.
    """

    def __init__(self, read: Callable[[], Routes], use: Callable[[Routes], None], log: Logger) -> None:
        self._read = read
        self._use = use
        self._log = log

    def reload(self) -> None:
        """Read the routes again."""
        try:
            routes = self._read()
        except RoutesError as error:
            self._log.error("the routes stay as they were: {error}", error=error)
        else:
            self._use(routes)
            self._log.info("the routes were read again: {count} patterns", count=len(routes))


def make_repeater_service(settings: RepeaterSettings, reactor: Any, levels: LogLevels) -> MultiService:
    """A service that listens, keeps the link to the hub up and serves until it is stopped.

    :raises SystemExit: with one sentence, when the routes, the access or the token file cannot be used.
    """
    log = levels.logger("ces.repeater")
    host = socket.gethostname()
    client = HttpClient(reactor, settings)
    node = f"{host}-{secrets.token_hex(4)}"
    try:
        repeater = Repeater(settings.id or host, node, settings, reactor, client.treq, log)
        repeater.route(read_routes(settings))
        gate = Gate(access_of(settings.access), repeater.side.refuse)
    except (RoutesError, AccessError, TokenError) as error:
        raise SystemExit(f"ces-repeater: {error}") from None
    api = RepeaterApi(repeater, reactor, levels, gate)
    service = MultiService()
    RepeaterLinks(repeater, client).setServiceParent(service)
    routes = RoutesFile(lambda: read_routes(settings), repeater.route, log)
    rights = Rights(settings.access, gate, repeater.side, log)
    Hangup([rights.reload, routes.reload], reactor).setServiceParent(service)
    Termination(reactor).setServiceParent(service)
    site = make_site(api.app.resource(), reactor, settings, refused=repeater.side.refuse)
    listening = Listening(
        "ces-repeater", settings.listen, site, reactor, log, door=site, anonymous=settings.allow_anonymous
    )
    listening.setServiceParent(service)
    return service
