"""The dialling end of a connection. What it is dialled for, and when, is the business of `ces.uplink`."""

from __future__ import annotations

import re
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
        """The HTTP status of the answer; 0 when it has none (RFC 9112 section 4: three digits)."""
        status = re.match(r"\S+\s+([0-9]{3})(?!\S)", str(getattr(self, "http_status_line", "")))
        return 0 if status is None else int(status[1])
