"""The repeater's uplink to its hub, and the spool of what waits for it."""

from __future__ import annotations

from typing import Any

from ces.access.bearer import Bearer
from ces.link.link import Link, Owner
from ces.link.side import Side
from ces.model.address import HUB_PORT, parse_address
from ces.model.routing import HUB
from ces.model.wire import Run
from ces.repeater.settings import RepeaterSettings
from ces.uplink.spool import Spool
from ces.uplink.uplink import Uplink

PATH = "/connect/repeater"


class HubLink:
    """Keeps a link to one hub up. The link is of the kind ``hub``: that is what is at the other end.

    :param owner: of the link.
    :raises ces.access.bearer.TokenError: when the token file has no token.
    """

    def __init__(self, owner: Owner, side: Side[Link], settings: RepeaterSettings, reactor: Any) -> None:
        self.address = address = parse_address(settings.hub, HUB_PORT, strip=PATH)
        self.spool = Spool(side, settings.spool_bytes, "repeater", settings.spool)
        self.uplink = Uplink(
            owner,
            side,
            address,
            PATH,
            HUB,
            reactor,
            queue=self.spool.queue,
            failed=self._failed,
            bearer=Bearer(file=settings.token_file),
        )
        self._side = side
        self._stopped = False

    @property
    def away(self) -> str | None:
        """Why there is no link, as a sentence; None when there is one."""
        if self.uplink.connected:
            return None
        reason = f": {self.uplink.reason}" if self.uplink.reason else ""
        return f"there is no link to the hub at {self.address.url()}{reason}"

    def start(self) -> None:
        """Dial the hub; what an earlier process has left on disk goes to it before all else.

        :raises ces.uplink.spool_file.SpoolError: when the spool on disk cannot be used.
        """
        self.spool.open()
        file = self.spool.file
        if file is not None and file.damaged:
            self._side.drop(f"the hub at {self.address.url()}", file.damaged, "they were damaged on disk")
        self.uplink.flush()  # what was found may be more than the limit
        self.uplink.dial()

    def put(self, runs: list[Run]) -> None:
        """Send these records to the hub, now or when it is there."""
        if self._stopped:
            self._lose(runs)
            return
        self.spool.queue.pending += runs
        # First, so that what is done with once it is written (ces.1) never comes to the file.
        self.uplink.flush()
        self.spool.add(runs)
        self._side.turn.took(sum([run.size for run in runs]))

    async def stop(self) -> None:
        """Send what can be sent and end the link; what then still waits is dropped, unless it is on disk."""
        await self.uplink.stop()
        self._stopped = True
        self._lose(self.spool.close(self.spool.queue.take_all()))

    def _lose(self, runs: list[Run]) -> None:
        lost = sum(run.count for run in runs)
        if lost:
            self.spool.queue.dropped += lost
            self._side.drop(f"the hub at {self.address.url()}", lost, "the repeater stops")

    def status(self) -> dict[str, Any]:
        """What ``/status`` says of it; sizes in bytes."""
        node, dialect = self.uplink.hub
        queue = self.spool.queue
        return {
            "address": self.address.url(),
            "state": self.uplink.state,
            "node": node,
            "dialect": dialect,
            "reason": self.uplink.reason,
            "buffer-utilization": queue.size,
            "buffer-capacity": queue.limit,
            "sent": queue.taken,
            "dropped": queue.dropped,
            "spool-disk": self.spool.status(),
        }

    def _failed(self, reason: str) -> None:
        self._side.limited.warn(
            "hub away", "the hub at {hub} is away: {reason}", hub=self.address.url(), reason=reason
        )
