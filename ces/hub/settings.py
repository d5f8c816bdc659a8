"""What a hub can be told, and the default of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ces.config.settings import LinkSettings, option
from ces.config.values import address, any_value_is_true, flag, integer, plain, seconds, show_size, size, word

DEFAULT_PORT = 7100

INTERCONNECTIONS = 1000
"""So many other hubs may be linked to, or be dialled, at a time."""


@dataclass(frozen=True)
class HubSettings(LinkSettings):
    """The settings of one hub; times in seconds, sizes in bytes."""

    prefix: ClassVar[str] = "CES_HUB_"

    listen: tuple[str, ...] = option(
        (f"tcp:{DEFAULT_PORT}",),
        plain("ENDPOINT"),
        "where to listen, a Twisted endpoint such as tcp:7100:interface=127.0.0.1",
        many=True,
    )
    interconnect: tuple[str, ...] = option(
        (),
        address(DEFAULT_PORT),
        "a hub to link to and to stay linked to: host, host:port or a ws/wss URL",
        many=True,
    )
    node_id: str = option(
        "",
        word("ID"),
        "the identity of this process among hubs",
        env={"SYSTEM_ID": None},
        default_text="the host name and a random part",
    )
    in_room: bool = option(
        False,
        flag,
        "this hub serves a room: events from repeaters stay with its messengers",
        env={"ROOM_SYSTEM": any_value_is_true},
    )
    link_buffer: int = option(8 * 2**20, size(2**16), "how much may wait for one link")
    room_limit: int = option(
        100_000,
        integer(1, 10**7),
        "how many rooms one link may want; another hub that wants more gets all",
    )
    subscription_limit: int = option(
        1_000_000,
        integer(1, 10**8),
        "how many rooms all links together may want, each counted once for each link that wants it",
    )
    hold_time: float = option(30.0, seconds(0), "how long events wait while no repeater is connected")
    hold_bytes: int = option(2**20, size(0), "how much may wait while no repeater is connected")

    def conflict(self) -> str | None:
        """One message of the largest size must fit into what may wait for a link."""
        if self.message_limit > self.link_buffer:
            return (
                f"message-limit ({show_size(self.message_limit)}) must not be above link-buffer "
                f"({show_size(self.link_buffer)}), or the largest messages could never be passed on"
            )
        if not self.listen:
            return f"listen is empty; expected at least one endpoint such as tcp:{DEFAULT_PORT}"
        if len(self.interconnect) > INTERCONNECTIONS:
            named = len(self.interconnect)
            return f"interconnect names {named} hubs; at most {INTERCONNECTIONS} can be linked to"
        return super().conflict()
