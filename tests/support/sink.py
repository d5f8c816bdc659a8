"""An HTTP target that records the numbered events it gets."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from tests.support.lives import Lives


class Sink(Resource):
    """Listens on a free loopback port.

    :param name: by which `lives` knows it.
    :param senders: whose events are recorded; others are of no interest.
    """

    isLeaf = True

    def __init__(self, name: str, senders: set[str], lives: Lives, reactor: Any) -> None:
        super().__init__()
        self._name, self._senders, self._lives = name, senders, lives
        site = Site(self)
        site.noisy = False
        self._listening = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.url = f"http://127.0.0.1:{self._listening.getHost().port}/event"

    def render_POST(self, request: Request) -> bytes:
        assert request.content is not None
        event = msgspec.json.decode(request.content.read())
        if event["key"] in self._senders:
            self._lives.arrive(self._name, event["key"], int(event["user"]))
        return b"ok"

    async def stop(self) -> None:
        """Listen no more."""
        await self._listening.stopListening()
