"""What a target is to the pool, whatever it speaks, and the bounds that each keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred

from ces.link.side import Side
from ces.model.address import Address
from ces.model.wire import Run
from ces.repeater.settings import RepeaterSettings

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
    """

    def __init__(self, address: Address, side: Side, limits: TargetLimits) -> None:
        self.address = address
        self.url = address.url()
        self.limits = limits
        self.failures = 0
        self.reason = ""
        self._lost = 0
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
        """Records that it was not given, and will not be."""
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
