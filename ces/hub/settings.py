"""The settings of a hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ces.config.link import LinkSettings
from ces.config.settings import option
from ces.config.values import address, any_value_is_true, flag, integer, plain, seconds, size, word
from ces.model.address import HUB_PORT

INTERCONNECTIONS = 1000
"""The most interconnections that a hub keeps or dials at a time."""


@dataclass(frozen=True)
class HubSettings(LinkSettings):
    """The settings of one hub. Times are in seconds, sizes in bytes."""

    prefix: ClassVar[str] = "CES_HUB_"

    listen: tuple[str, ...] = option(
        (f"tcp:{HUB_PORT}:interface=127.0.0.1",),
        plain("ENDPOINT"),
        f"Where to listen: a Twisted endpoint such as tcp:{HUB_PORT}; beyond this machine only with"
        " --access or --allow-anonymous",
        many=True,
    )
    interconnect: tuple[str, ...] = option(
        (),
        address(HUB_PORT),
        "A hub to link to, permanently: host, host:port or a ws/wss URL",
        many=True,
    )
    node_id: str = option(
        "",
        word("ID"),
        "Identity of this process among hubs",
        env={"SYSTEM_ID": None},
        default_text="the host name and a random part",
    )
    in_room: bool = option(
        False,
        flag,
        "This hub serves one room: events from repeaters go to its messengers only",
        env={"ROOM_SYSTEM": any_value_is_true},
    )
    room_limit: int = option(
        100_000,
        integer(1, 10**7),
        "Rooms that one link may subscribe to; another hub that wants more gets every room",
    )
    subscription_limit: int = option(
        1_000_000,
        integer(1, 10**8),
        "Rooms that all links together may subscribe to, each counted once per link; a link may have as many"
        " as are still free, the links of one address four times as many",
    )
    hold_time: float = option(
        30.0, seconds(0), "Time for which events wait for a repeater while none is connected"
    )
    hold_bytes: int = option(2**20, size(0), "Bytes that may wait while no repeater is connected")

    @property
    def descriptors(self) -> int:
        """Those of every role, and one for each hub that is dialled."""
        return super().descriptors + INTERCONNECTIONS

    def conflict(self) -> str | None:
        """A hub must listen where it may, and cannot have more interconnections than `INTERCONNECTIONS`."""
        if not self.listen:
            return f"listen is empty; expected at least one endpoint such as tcp:{HUB_PORT}"
        if len(self.interconnect) > INTERCONNECTIONS:
            named = len(self.interconnect)
            return f"interconnect names {named} hubs; at most {INTERCONNECTIONS} can be linked to"
        return self._open_to_anyone(self.listen) or super().conflict()
