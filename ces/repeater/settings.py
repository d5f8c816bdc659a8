"""The settings of a repeater."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ces.config.link import LinkSettings
from ces.config.settings import option
from ces.config.values import address, integer, plain, seconds, size, word
from ces.model.address import HTTP_SCHEMES, HUB_PORT, REPEATER_PORT, WEBSOCKET_SCHEMES


@dataclass(frozen=True)
class RepeaterSettings(LinkSettings):
    """The settings of one repeater. Times are in seconds, sizes in bytes."""

    prefix: ClassVar[str] = "CES_REPEATER_"

    listen: tuple[str, ...] = option(
        (f"tcp:{REPEATER_PORT}:interface=127.0.0.1",),
        plain("ENDPOINT"),
        f"Where to listen: a Twisted endpoint such as tcp:{REPEATER_PORT}; beyond this machine only with"
        " --access or --allow-anonymous",
        many=True,
    )
    hub: str = option(
        f"ws://localhost:{HUB_PORT}",
        address(HUB_PORT),
        "The hub: host, host:port or a ws/wss URL",
        env={"HUB_ADDRESS": None},
    )
    id: str = option(
        "",
        word("ID"),
        "Name of this repeater, as its targets see it",
        env={"SYSTEM_ID": None},
        default_text="the host name",
    )
    routes: str = option("", plain("FILE"), "Routes file (TOML); SIGHUP reads it again")
    central_repeater_addresses: tuple[str, ...] = option(
        (),
        address(REPEATER_PORT, WEBSOCKET_SCHEMES + HTTP_SCHEMES),
        "A target that gets the events of every room, in addition to the routes file",
        many=True,
        env={"CENTRAL_REPEATER_ADDRESSES": None},
    )
    idle_ttl: float = option(5.0, seconds(0.1), "Time after which a link that carries nothing is closed")
    target_buffer: int = option(2**20, size(1024), "Bytes that may wait for one target")
    target_patience: float = option(
        60.0, seconds(0.1), "Time for which events wait for a target that is away"
    )
    http_timeout: float = option(10.0, seconds(0.1), "Timeout of one request to an HTTP target")
    http_parallel: int = option(4, integer(1, 1000), "Requests at a time to one HTTP target")
    undelivered_bytes: int = option(
        2**20, size(0), "Bytes of undelivered events kept to be sent again; 0 keeps none"
    )
    spool_bytes: int = option(8 * 2**20, size(1024), "Bytes that may wait for the hub")
    spool: str = option(
        "", plain("DIR"), "Directory for a copy on disk of what waits for the hub, which survives a restart"
    )

    def conflict(self) -> str | None:
        """A repeater must listen where it may, and the largest message must fit wherever it may wait."""
        if not self.listen:
            return f"listen is empty; expected at least one endpoint such as tcp:{REPEATER_PORT}"
        return (
            self._open_to_anyone(self.listen)
            or self._too_small_for_a_message("target-buffer", self.target_buffer)
            or self._too_small_for_a_message("spool-bytes", self.spool_bytes)
            or super().conflict()
        )
