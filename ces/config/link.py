"""The settings of links, which every role has.

They are passed down as one object, `settings`; a limit has the same name everywhere. Times are in seconds,
sizes in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from ces.config.endpoint import stays_here
from ces.config.settings import Settings, option
from ces.config.values import (
    LOG_LEVELS,
    choice,
    flag,
    host,
    integer,
    origin,
    plain,
    seconds,
    show_seconds,
    show_size,
    size,
    word,
)


@dataclass(frozen=True)
class LinkSettings(Settings):
    """The settings of the links of a hub, a repeater or a messenger (docs/protocol.md sections 2 and 8)."""

    access: str = option(
        "",
        plain("FILE"),
        "Access file (TOML): who may do what; without one, anyone on this machine may do everything",
    )
    allow_anonymous: bool = option(
        False,
        flag,
        "Listen beyond this machine without an access file: anyone who reaches it may do everything but"
        " administer it",
    )
    token_file: str = option(
        "",
        plain("FILE"),
        "File with the token that the hubs of the configuration are shown; it is read again for each dial",
    )
    ping_interval: float = option(30.0, seconds(0.1), "Interval between pings on a served connection")
    silence_timeout: float = option(60.0, seconds(0.1), "Silence after which a served connection is closed")
    dial_silence_timeout: float = option(
        90.0, seconds(0.1), "Silence after which a dialled connection is closed"
    )
    handshake_timeout: float = option(
        10.0,
        seconds(0.1),
        "Timeout of each step of opening and closing a connection: dial, handshake, hello, close",
    )
    session_window: float = option(
        120.0, seconds(0, 3600), "Time in which a link whose connection was cut can resume its session"
    )
    session_limit: int = option(
        10_000,
        integer(1, 10**6),
        "Sessions of cut links kept at a time; beyond it the oldest ends",
    )
    slow_timeout: float = option(
        30.0, seconds(0.5), "Time after which a stalled link, which takes nothing, is closed with 4408"
    )
    backpressure_time: float = option(
        5.0,
        seconds(0, 60),
        "Longest time for which publishers are paused while a subscriber is congested; 0 never pauses",
    )
    link_buffer: int = option(
        8 * 2**20,
        size(2**16),
        "Bytes that may wait for one link, in flight included; beyond it the oldest records are evicted",
    )
    buffer_limit: int = option(
        2**28,
        size(2**16),
        "Bytes that may wait for all links together; beyond it the fullest links lose their oldest records",
    )
    keep_tags: tuple[str, ...] = option(
        ("alert", "user-generated"),
        word("TAG"),
        "Event tags whose records are evicted last",
        many=True,
    )
    drain_timeout: float = option(
        5.0, seconds(0, 600), "Grace period for sending what waits before the process stops"
    )
    message_limit: int = option(
        2**20, size(1024, 2**30), "Largest message accepted on a link; a larger one is answered with 1009"
    )
    header_limit: int = option(
        2**14, size(1024, 2**20), "Largest opening handshake, and largest head of an HTTP request"
    )
    link_limit: int = option(
        20_000,
        integer(1, 10**6),
        "Links served at a time, those that were cut and may resume among them; further ones are answered"
        " with 503 or closed with 4429",
    )
    address_limit: int = option(
        10_000,
        integer(1, 10**6),
        "The same from one address; a proxy is one, and so is a network of 64 bits in IPv6",
    )
    record_rate: int = option(
        0,
        integer(0, 10**9),
        "Records per second that a messenger or an outside service may send, in bursts of up to ten seconds'"
        " worth; beyond it the link is closed with 4429; 0 sets no limit",
    )
    byte_rate: int = option(
        0,
        size(0),
        "Bytes per second that a messenger or an outside service may send, in bursts of up to ten seconds'"
        " worth; beyond it the link is closed with 4429; 0 sets no limit",
    )
    malformed_limit: int = option(
        100,
        integer(1, 10**6),
        "Malformed records, without a single good one, after which a connection is closed with 4400",
    )
    http_connections: int = option(
        1000,
        integer(1, 10**6),
        "HTTP requests answered at a time; further ones are answered with 503. And, with 16 more, connections"
        " that are no links: beyond it the one that waits longest is closed",
    )
    allow_origin: tuple[str, ...] = option(
        (),
        origin,
        "Origin whose web pages may open WebSockets and send requests that change something; * allows all",
        many=True,
    )
    allow_host: tuple[str, ...] = option(
        (),
        host,
        "Host name under which web pages may do so, besides IP addresses, localhost and the name of this"
        " machine; * allows all",
        many=True,
    )
    json_depth: int = option(64, integer(1, 500), "Deepest nesting allowed in an event that comes by HTTP")
    plain_sockets: bool = option(
        False, flag, "Read and write sockets through Twisted alone, without the direct way (slower)"
    )
    wall_clock: bool = option(
        False, flag, "Let timers follow the system clock, as Twisted's do; they jump when it is set"
    )
    log_level: str = option("info", choice("LEVEL", LOG_LEVELS), "Lowest level that is logged")

    @property
    def grain(self) -> float:
        """The precision of link timers, in seconds: a tenth of the shortest timeout, and at most 1 s."""
        shortest = min(
            self.ping_interval, self.silence_timeout, self.dial_silence_timeout, self.handshake_timeout
        )
        return min(1.0, shortest / 10)

    @property
    def descriptors(self) -> int:
        """The file descriptors of all connections when every limit is reached."""
        return self.link_limit + self.http_connections

    def conflict(self) -> str | None:
        """The largest message must fit into link-buffer, and a ping must come before the silence timeout."""
        return self._too_small_for_a_message("link-buffer", self.link_buffer) or self._silent_between_pings()

    def _open_to_anyone(self, listen: tuple[str, ...]) -> str | None:
        """What would let in anyone without its being said; None when nothing does."""
        if self.access and self.allow_anonymous:
            return (
                "--allow-anonymous contradicts --access FILE, which says who gets in: leave one of them out"
            )
        wide = [endpoint for endpoint in listen if not stays_here(endpoint)]
        if not wide or self.access or self.allow_anonymous:
            return None
        return (
            f"listen: {wide[0]} can be reached from other machines: say who gets in with --access FILE,"
            " let in anyone with --allow-anonymous, or add :interface=127.0.0.1"
        )

    def _too_small_for_a_message(self, name: str, bound: int) -> str | None:
        """The conflict between message-limit and the option `name`, in which a message may wait."""
        if self.message_limit <= bound:
            return None
        return (
            f"message-limit ({show_size(self.message_limit)}) must not be above {name} ({show_size(bound)}),"
            " or the largest messages could never be passed on"
        )

    def _silent_between_pings(self) -> str | None:
        if self.silence_timeout > self.ping_interval:
            return None
        return (
            f"silence-timeout ({show_seconds(self.silence_timeout)}) must be longer than ping-interval "
            f"({show_seconds(self.ping_interval)}), or idle links would be closed between two pings"
        )
