"""What a link asks of who owns it, and the limits it keeps. No behaviour but what an owner leaves out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ces.config.settings import LinkSettings
from ces.model.control import SubscriptionChange
from ces.model.wire import Run

if TYPE_CHECKING:
    from ces.link.protocol import Link


@dataclass(frozen=True)
class LinkLimits:
    """Times in seconds and sizes in bytes that one link keeps.

    ping_interval: the serving side pings this often.
    silence: a serving link that hears nothing for so long is dead.
    dial_silence: the same for a dialling link.
    handshake: how long the opening handshake, the hello and the closing handshake may each take.
    message: the largest message that is accepted; a larger one closes the link with 1009.
    outbox: how much may wait for the link, what it has not acknowledged included.
    window: so long the session of a link that was cut is kept.
    detached: so many such sessions are kept at a time; the oldest makes room.
    slow: a link that has taken nothing for so long, though something waits for it, is closed with 4408.
    total: how much may wait for all links of a side together, what is not acknowledged included.
    patience: so long the links that feed one that is full are not read from while it drains.
    drain: so long a side that goes away waits for what is still to be sent.
    header: the longest opening handshake.
    links: so many links are served at a time, and `address` of them from one address.
    record_rate, byte_rate: what a messenger or an outside service may send a second; more than
        `RATE_SECONDS` times that at once closes its link with 4429. 0 is no limit.
    malformed: after so many malformed records and no good one the link is closed with 4400.
    """

    ping_interval: float = 30.0
    silence: float = 60.0
    dial_silence: float = 90.0
    handshake: float = 10.0
    message: int = 1024 * 1024
    outbox: int = 8 * 1024 * 1024
    malformed: int = 100
    window: float = 120.0
    detached: int = 10_000
    slow: float = 30.0
    total: int = 256 * 1024 * 1024
    patience: float = 5.0
    drain: float = 5.0
    header: int = 16 * 1024
    links: int = 20_000
    address: int = 10_000
    record_rate: int = 0
    byte_rate: int = 0

    @property
    def grain(self) -> float:
        """How exactly the times are kept: a tenth of the shortest, and no finer than need be."""
        return min(1.0, min(self.ping_interval, self.silence, self.dial_silence, self.handshake) / 10)

    @classmethod
    def of(cls, settings: LinkSettings, outbox: int) -> LinkLimits:
        """The limits that a role's settings name, and the bound of its outboxes."""
        return cls(
            ping_interval=settings.ping_interval,
            silence=settings.silence_timeout,
            dial_silence=settings.dial_silence_timeout,
            handshake=settings.handshake_timeout,
            message=settings.message_limit,
            outbox=outbox,
            window=settings.session_window,
            slow=settings.slow_timeout,
            patience=settings.backpressure_time,
            total=settings.buffer_limit,
            drain=settings.drain_timeout,
            header=settings.header_limit,
            links=settings.link_limit,
            address=settings.address_limit,
            record_rate=settings.record_rate,
            byte_rate=settings.byte_rate,
        )


class Owner:
    """Who owns links: hub, repeater, messenger."""

    node: str
    """Identifies the running process (docs/protocol.md section 5)."""

    def admit(self, link: Link) -> str | None:
        """Whether the link may join, now that its kind and node are known; a reason refuses it with 4409."""
        return None

    def joined(self, link: Link) -> None:
        """The link carries records from now on."""

    def received(self, link: Link, runs: list[Run]) -> None:
        """Records came: to return is to have taken responsibility for them. May still be called after `left`,
        for what the other side had sent before it knew.
        """

    def subscribed(self, link: Link, change: SubscriptionChange) -> None:
        """The other side changed what it wants."""

    def missed(self, link: Link, records: int) -> None:
        """The other side dropped so many records that were meant for this one."""

    def keeps(self, link: Link) -> bool:
        """Whether a link that was cut stays, detached, for as long as its session may be resumed; what is put
        into it waits. If not, it has `left`.
        """
        return False

    def superseded(self, link: Link) -> bool:
        """Whether another link of this owner stays in the place of `link`, which the other side has closed as
        replaced.
        """
        return False

    def resumed(self, old: Link, new: Link, fresh: bool) -> None:
        """`new` takes the place of `old`, a link that was kept, or that lives and is not known to be dead.

        :param fresh: the other side had forgotten the session, and what it wants with it.
        """

    def left(self, link: Link, reason: str) -> None:
        """A link that joined takes no more records; `Link.leftover` is what it could not send. Told once."""

    def undelivered(self, link: Link, runs: list[Run]) -> None:
        """These were sent on a link that had left and was then cut: nobody knows whether they arrived."""
