"""What a repeater can be told, and the default of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ces.config.settings import LinkSettings, option
from ces.config.values import address, integer, plain, seconds, show_size, size, word
from ces.model.address import HTTP_SCHEMES, WEBSOCKET_SCHEMES

DEFAULT_PORT = 7101
HUB_PORT = 7100


@dataclass(frozen=True)
class RepeaterSettings(LinkSettings):
    """The settings of one repeater; times in seconds, sizes in bytes."""

    prefix: ClassVar[str] = "CES_REPEATER_"

    listen: tuple[str, ...] = option(
        (f"tcp:{DEFAULT_PORT}",),
        plain("ENDPOINT"),
        "where to listen, a Twisted endpoint such as tcp:7101:interface=127.0.0.1",
        many=True,
    )
    hub: str = option(
        f"ws://localhost:{HUB_PORT}",
        address(HUB_PORT),
        "the hub: host, host:port or a ws/wss URL",
        env={"HUB_ADDRESS": None},
    )
    id: str = option(
        "",
        word("ID"),
        "the name of this repeater towards its targets",
        env={"SYSTEM_ID": None},
        default_text="the host name",
    )
    routes: str = option("", plain("FILE"), "routes file (TOML); read again on SIGHUP")
    central_repeater_addresses: tuple[str, ...] = option(
        (),
        address(DEFAULT_PORT, WEBSOCKET_SCHEMES + HTTP_SCHEMES),
        "a target that gets the events of every room, beside those of the routes file",
        many=True,
        env={"CENTRAL_REPEATER_ADDRESSES": None},
    )
    idle_ttl: float = option(5.0, seconds(0.1), "how long a link that carries nothing is kept")
    target_buffer: int = option(2**20, size(1024), "how much may wait for one target")
    target_patience: float = option(60.0, seconds(0.1), "how long events wait for a target that is away")
    http_timeout: float = option(10.0, seconds(0.1), "how long one request to an HTTP target may take")
    http_parallel: int = option(4, integer(1, 1000), "requests at a time to one HTTP target")
    undelivered_bytes: int = option(
        2**20, size(0), "how much is kept of what targets did not get, to be sent again; 0 keeps none"
    )
    spool_bytes: int = option(8 * 2**20, size(1024), "how much may wait for the hub")
    spool: str = option(
        "", plain("DIR"), "directory in which this is kept on disk as well, so that it survives a restart"
    )

    def conflict(self) -> str | None:
        """One message of the largest size must fit into every place where it may wait."""
        for name, bound in (("target-buffer", self.target_buffer), ("spool-bytes", self.spool_bytes)):
            if self.message_limit > bound:
                return (
                    f"message-limit ({show_size(self.message_limit)}) must not be above {name} "
                    f"({show_size(bound)}), or the largest messages could never be passed on"
                )
        if not self.listen:
            return f"listen is empty; expected at least one endpoint such as tcp:{DEFAULT_PORT}"
        return super().conflict()
