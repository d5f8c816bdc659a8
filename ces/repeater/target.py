"""What a target is to the pool, whatever it speaks, and the bounds that each keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred

from ces.link.side import Side
from ces.model.address import Address
from ces.model.wire import Run
from ces.repeater.settings import RepeaterSettings
from ces.repeater.undelivered import Undelivered

PATIENCE, FULL, LEAVING = (
    "the target was away for too long",
    "too much waits for the target",
    "the repeater stops",
)
"""Why records for a target are dropped."""


@dataclass(frozen=True)
class TargetLimits:
    """The bounds of one target; times in seconds.

    buffer: so many bytes of records wait for it.
    patience: so long they wait while it is away.
    idle_ttl: so long a link to it is kept that carries nothing.
    http_timeout: so long a request may take.
    http_parallel: so many requests are under way at a time.
    """

    buffer: int = 1024 * 1024
    patience: float = 60.0
    idle_ttl: float = 5.0
    http_timeout: float = 10.0
    http_parallel: int = 4

    @classmethod
    def of(cls, settings: RepeaterSettings) -> TargetLimits:
        """The bounds that a repeater's settings name."""
        return cls(
            buffer=settings.target_buffer,
            patience=settings.target_patience,
            idle_ttl=settings.idle_ttl,
            http_timeout=settings.http_timeout,
            http_parallel=settings.http_parallel,
        )


class Target:
    """One target: where events go out to, what waits for it and how it fares.

    url: its address in full, which names it.
    failures: dials, links and requests that failed.
    reason: why the last of them did.

    :param undelivered: keeps what the target does not get, for all targets.
    """

    def __init__(self, address: Address, side: Side, limits: TargetLimits, undelivered: Undelivered) -> None:
        self.address = address
        self.url = address.url()
        self.limits = limits
        self.failures = 0
        self.reason = ""
        self._lost = 0
        self._undelivered = undelivered
        self._side = side
        self._clock = side.clock

    @property
    def state(self) -> str:
        """``idle`` (nothing is under way), ``dialling``, ``up``, or ``waiting`` for the next attempt."""
        raise NotImplementedError

    @property
    def sent(self) -> int:
        """Records that it was given so far."""
        raise NotImplementedError

    @property
    def dropped(self) -> int:
        """Records that it was not given and that wait for it no more."""
        return self._lost

    @property
    def waiting(self) -> int:
        """Bytes of records that wait for it."""
        raise NotImplementedError

    @property
    def holds(self) -> bool:
        """Whether anything waits that may wait too long."""
        raise NotImplementedError

    def put(self, run: Run) -> None:
        """Send these records when that is possible, within the bounds."""
        raise NotImplementedError

    def wake(self) -> None:
        """The target is said to be back: make the next attempt now, not after a delay."""
        raise NotImplementedError

    def expire(self, now: float) -> bool:
        """Drop what has waited too long; what `holds` is then."""
        raise NotImplementedError

    def stop(self) -> Deferred[None]:
        """End what is under way; fires when it has ended. What waits is dropped."""
        raise NotImplementedError

    def status(self) -> dict[str, Any]:
        """What ``/status`` says of it; `buffer-utilization` and `buffer-capacity` are in bytes."""
        return {
            "address": self.url,
            "state": self.state,
            "buffer-utilization": self.waiting,
            "buffer-capacity": self.limits.buffer,
            "sent": self.sent,
            "dropped": self.dropped,
            "failures": self.failures,
            "reason": self.reason,
        }

    def give_up(self, runs: list[Run], why: str) -> None:
        """The target does not get these: count and tell, and keep them, to be read and sent again."""
        self.drop(sum(run.count for run in runs), why)
        for run in runs:
            self.keep(run, why)

    def keep(self, run: Run, why: str) -> None:
        """Keep what the target does not get, with the last failure where that says more; it is not counted
        here.
        """
        if self.reason not in ("", why):
            why = f"{why}: {self.reason}"
        lost = self._undelivered.put(self.url, run, why, self._clock.seconds())
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
        """Count and tell of records that the target does not get."""
        if not records:
            return
        self._lost += records
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
        """Count and tell of an attempt that failed."""
        self.failures += 1
        self.reason = reason
        self._side.limited.warn(
            f"failed {self.url}", "target {target} failed: {reason}", target=self.url, reason=reason
        )
