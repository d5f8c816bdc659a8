"""A fake HTTP client for repeaters. The test chooses its answers."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone

URL = "http://collector:80/event"


class Answered:
    """A response with the status `code`. Its body ends at once unless it is open-ended."""

    def __init__(self, code: int, body: bytes = b"", open_ended: bool = False) -> None:
        self.code, self._body, self._open = code, body, open_ended
        self.closed = False

    def deliverBody(self, protocol: Any) -> None:
        self._protocol = protocol
        protocol.makeConnection(self)
        protocol.dataReceived(self._body)
        if not self._open:
            self.end()

    def loseConnection(self) -> None:
        self.closed = True
        self.end()

    def end(self) -> None:
        self._protocol.connectionLost(Failure(ResponseDone()))


class Client:
    """Replaces treq. The test answers each request.

    asked: the requests that wait for an answer.
    bodies: the bodies of all requests.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, Deferred[Any]]] = []
        self.bodies: list[bytes] = []
        self.cancelled = 0

    def post(self, url: str, *, data: bytes, **more: Any) -> Deferred[Any]:
        assert url == URL
        assert more["headers"]["Content-Type"] == "application/json"
        request: Deferred[Any] = Deferred(self._cancel)
        self.asked.append((data, request))
        self.bodies.append(data)
        return request

    def _cancel(self, request: Deferred[Any]) -> None:
        self.cancelled += 1
        self.asked = [(data, other) for data, other in self.asked if other is not request]

    def answer(self, code: int, position: int = 0) -> bytes:
        """Answer a request. Returns the request's body."""
        data, request = self.asked.pop(position)
        request.callback(Answered(code))
        return data

    def fail(self, position: int = 0) -> None:
        self.asked.pop(position)[1].errback(Failure(ConnectionRefusedError("Connection refused")))
