"""A repeater on a network in memory, with its hub at one end and its targets at the other."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

from treq.client import HTTPClient
from treq.testing import StubTreq
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ces.link.turn import Memo
from ces.model.wire import CES2
from ces.ops.logging import LogLevels
from ces.repeater.api import RepeaterApi
from ces.repeater.repeater import Repeater
from ces.repeater.settings import RepeaterSettings
from tests.support.links import Lines
from tests.support.network import Dial, Meeting, Network

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
"""The present time of `Api`."""


class NoHttp:
    """A client for repeaters without HTTP targets: nobody asks it."""


class Bench:
    """One repeater, `hub` being its link's other end once `hub_up` has been called.

    :param settings: of the repeater.

    lines: what was logged.
    client: what HTTP targets are asked with.
    undelivered: what targets did not get.
    """

    def __init__(
        self,
        routes: dict[str, tuple[str, ...]] | None = None,
        client: Any = None,
        **settings: Any,
    ) -> None:
        self.network = Network()
        self.client = client or NoHttp()
        self.lines = Lines()
        self.repeater = Repeater(
            "rep-1",
            "rep-node",
            RepeaterSettings(hub="hub", **settings),
            self.network,
            cast(HTTPClient, self.client),
            Logger(namespace="ces.test", observer=self.lines),
        )
        self.undelivered = self.repeater.pool.undelivered
        self.repeater.route(routes or {})

    def hub_up(self, dialect: str = CES2) -> Meeting:
        """Dial the hub, if that has not been done, and let it answer."""
        if not self.network.dials:
            self.repeater.start()
        self.hub = self.network.dials[0].answer("hub-node", dialect, "repeater")
        return self.hub

    def from_hub(self, *runs: Any) -> None:
        """Records come from the hub."""
        for run in runs:
            self.hub.peer.put(run)
        self.hub.peer.flush(Memo())
        self.network.settle()

    @property
    def dial(self) -> Dial:
        """The one dial that waits."""
        return self.network.dial

    def target(self, url: str) -> dict[str, Any]:
        """What the status says of a target."""
        return next(target for target in self.repeater.pool.status() if target["address"] == url)

    def stop(self) -> None:
        """Stop the repeater; nothing must be left of it."""
        done = Deferred.fromCoroutine(self.repeater.stop())
        self.network.settle()
        self.network.pass_time(8)
        for answer in list(self.network.meetings):
            answer.cut()
        assert done.called
        done.addErrback(lambda failure: failure.raiseException())
        assert self.network.dials == []


class Api:
    """The repeater's HTTP side, asked without sockets."""

    def __init__(self, bench: Bench) -> None:
        api = RepeaterApi(bench.repeater, bench.network, LogLevels(), now=lambda: NOW)
        self._treq = StubTreq(api.app.resource())

    def ask(self, method: str, path: str, data: bytes | None = None) -> tuple[int, str]:
        found: list[Any] = []

        async def answer() -> tuple[int, str]:
            response = await self._treq.request(method, f"http://rep:7101{path}", data=data)
            return response.code, await self._treq.text_content(response)

        Deferred.fromCoroutine(answer()).addBoth(found.append)
        self._treq.flush()
        return found[0]
