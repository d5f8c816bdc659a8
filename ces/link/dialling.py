"""The dialling end of a connection. What it is dialled for, and when, is the business of `ces.uplink`."""

from __future__ import annotations

from typing import Any

from autobahn.twisted.websocket import WebSocketClientProtocol

from ces.link.connection import Connection
from ces.model.wire import CES2


class DiallingConnection(Connection, WebSocketClientProtocol):
    """The end that dialled: every frame goes out under a key of its own."""

    serving = False

    def onConnect(self, response: Any) -> None:
        if response.protocol == CES2:
            self.dialect = CES2

    def processHandshake(self) -> None:
        try:
            super().processHandshake()
        except UnicodeDecodeError:  # Autobahn decodes the answer for its log
            self.failHandshake("the answer to the handshake is not UTF-8")

    def failHandshake(self, reason: str) -> None:
        self.refused = self._status()
        self.handshake_failed(reason)
        super().failHandshake(reason)

    def _status(self) -> int:
        """The HTTP status of the answer; 0 when there is none that can be read."""
        parts = str(getattr(self, "http_status_line", "")).split()
        return int(parts[1]) if len(parts) > 1 and parts[1].isdecimal() else 0
