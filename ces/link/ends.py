"""The two ends of a link: what is answered and what is asked in the opening handshake, and how records are
written.

Records that go out of a serving end are not masked, so that links share the encoded bytes; those of a
dialling end are, each frame with a key of its own (RFC 6455 section 5.3).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from autobahn.twisted.websocket import WebSocketClientProtocol, WebSocketServerProtocol

from ces.link.protocol import Link
from ces.link.turn import Encoded, Memo
from ces.model import frames, wire
from ces.model.wire import CES1, CES2, Run


class ServingLink(Link, WebSocketServerProtocol):
    """The end that was dialled: frames come masked and go unmasked, so that links share encoded bytes."""

    serving = True

    def onConnect(self, request: Any) -> str | None:
        # Not request.path, which lacks what follows a ";".
        self.path = self.http_request_uri.partition("?")[0]
        if CES2 in request.protocols:
            self.dialect = CES2
            return CES2
        return None

    def failHandshake(self, reason: str, code: int = 400, responseHeaders: Any = None) -> None:
        self._handshake_failed(reason)
        super().failHandshake(reason, code, responseHeaders)

    def sendHttpErrorResponse(self, code: int, reason: str, responseHeaders: Any = None) -> None:
        """Say why in the body, where it is looked for; Autobahn has a status line alone, of any length."""
        body = f"This is no good WebSocket handshake: {reason[:200]}.".encode()
        head = [f"HTTP/1.1 {code} {HTTPStatus(code).phrase}", "Content-Type: text/plain; charset=utf-8"]
        head += [f"Content-Length: {len(body)}", "Connection: close"]
        head += [f"{name}: {value}" for name, value in responseHeaders or ()]
        self.sendData("\r\n".join([*head, "\r\n"]).encode() + body)

    def flush(self, memo: Memo) -> None:
        if memo.batch is not None and self.joined and not self.blocked and self.session.take_as(memo.batch):
            self._write(*memo.encoded)
            if self._stuck is None:
                return
        super().flush(memo)

    def _encoded(self, runs: list[Run], memo: Memo) -> Encoded:
        key = (self.dialect, *runs)
        made = memo.frames.get(key)
        if made is None:
            if self.dialect == CES1:
                buffers = [buffer for run in runs for buffer in run.ces1_frames]
            else:
                buffers = frames.gathered(wire.pack(runs))
            made = memo.frames[key] = buffers, sum(map(len, buffers))
        return made


class DiallingLink(Link, WebSocketClientProtocol):
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
        self._handshake_failed(reason)
        super().failHandshake(reason)

    def _encoded(self, runs: list[Run], memo: Memo) -> Encoded:
        if self.dialect == CES1:
            data = frames.masked_frames([record for run in runs for record in run.records])
        else:
            data = frames.masked_frames([b"".join(parts) for parts in wire.pack(runs)])
        return [data], len(data)
