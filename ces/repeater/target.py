"""The base class of targets, as the pool uses them."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from ces.link.link import Link
from ces.link.side import Side
from ces.model.address import Address
from ces.model.wire import Run
from ces.ops.clock import utc_now
from ces.repeater.settings import RepeaterSettings
from ces.repeater.undelivered import Undelivered

PATIENCE, FULL, LEAVING = (
    "the target was away for too long",
    "too much waits for the target",
    "the repeater stops",
)
"""The reasons for which records for a target are dropped."""


class Target:
    """One target: its address, its queue and its counters.

    :param undelivered: the dead letters of all targets.

    url: its full URL, which identifies it.
    failures: number of failed dials, links and requests.
    reason: why the last of them failed.
    """

    def __init__(
        self, address: Address, side: Side[Link], settings: RepeaterSettings, undelivered: Undelivered
    ) -> None:
        self.address = address
        self.url = address.url()
        self.settings = settings
        self.failures = 0
        self.reason = ""
        self._dropped = 0
        self._undelivered = undelivered
        self._side = side
        self._clock = side.clock

    @property
    def state(self) -> str:
        """``idle`` (nothing under way), ``dialling``, ``up``, or ``waiting`` (for the next attempt)."""
        raise NotImplementedError

    @property
    def sent(self) -> int:
        """The number of records sent so far."""
        raise NotImplementedError

    @property
    def dropped(self) -> int:
        """The number of records dropped so far."""
        return self._dropped

    @property
    def waiting(self) -> int:
        """Bytes of the records that wait for the target."""
        raise NotImplementedError

    @property
    def holds(self) -> bool:
        """Whether records wait that may expire. The pool then calls `expire`."""
        raise NotImplementedError

    def put(self, run: Run) -> None:
        """Queue records for the target, within its limits."""
        raise NotImplementedError

    def wake(self) -> None:
        """Make the next attempt now, without the delay after a failure."""
        raise NotImplementedError

    def expire(self, now: float) -> bool:
        """Drop the expired records. Returns `holds`."""
        raise NotImplementedError

    def stop(self) -> Deferred[None]:
        """Drop what waits and end what is under way. Fires when that has ended."""
        raise NotImplementedError

    def status(self) -> dict[str, Any]:
        """The state as ``/status`` shows it. `buffer-utilization` and `buffer-capacity` are in bytes."""
        return {
            "address": self.url,
            "state": self.state,
            "buffer-utilization": self.waiting,
            "buffer-capacity": self.settings.target_buffer,
            "sent": self.sent,
            "dropped": self.dropped,
            "failures": self.failures,
            "reason": self.reason,
        }

    def give_up(self, runs: list[Run], why: str) -> None:
        """Count and log these records as dropped, and add them to the dead letters."""
        self.drop(sum(run.count for run in runs), why)
        for run in runs:
            self.keep(run, why)

    def keep(self, run: Run, why: str) -> None:
        """Add records to the dead letters. Does not count them as dropped.

        :param why: the reason. The target's last failure is appended to it.
        """
        if self.reason not in ("", why):
            why = f"{why}: {self.reason}"
        lost = self._undelivered.put(self.url, run, why, utc_now().timestamp())
        if lost and self._undelivered.limit:
            self._side.limited.warn(
                "undelivered full",
                "{records} undelivered records are lost: more than {limit} bytes are undelivered"
                " ({total} so far)",
                records=lost,
                limit=self._undelivered.limit,
                total=self._undelivered.lost,
            )

    def drop(self, records: int, why: str) -> None:
        """Count and log records as dropped. Does not add them to the dead letters."""
        if not records:
            return
        self._dropped += records
        self._side.dropped += records
        self._side.limited.warn(
            f"dropped {self.url}",
            "{records} records for {target} were dropped: {why} ({total} so far)",
            records=records,
            target=self.url,
            why=why,
            total=self.dropped,
        )

    def _fail(self, reason: str) -> None:
        """Count and log a failed attempt."""
        self.failures += 1
        self.reason = reason
        self._side.limited.warn(
            f"failed {self.url}", "target {target} failed: {reason}", target=self.url, reason=reason
        )
