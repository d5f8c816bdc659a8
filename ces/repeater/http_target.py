"""A target that speaks HTTP: each event is the body of one POST.

Owns the queue of events and the requests that are under way. Grammar::

    POST path HTTP/1.1
    Content-Type: application/json
    body   = event, its JSON unchanged
    answer = 2xx  accepted
           | 5xx  the event is retried after all events that have not been tried yet
           | any other: refused, which is final; redirects are not followed

Order: events are sent in order of arrival, up to `http_parallel` at a time. The target may see simultaneous
requests in any order. After a connection error an event keeps its place. After 5xx or a timeout it moves
behind the others, because that event itself may be the cause and must not block them. While the target fails,
one request at a time is made, with a growing delay.

Limits: events wait at most `target_patience` seconds, within `target_buffer` bytes. Expired, evicted and
refused events become dead letters; the oldest are evicted first. The target may get an event twice when it
accepted the event but the request timed out.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any, cast

from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed
from twisted.internet.interfaces import IAddress, IConsumer, IDelayedCall, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web._newclient import HTTP11ClientProtocol
from twisted.web.client import Agent, HTTPConnectionPool, _HTTP11ClientFactory
from twisted.web.iweb import IBodyProducer, IResponse
from zope.interface import implementer

import ces
from ces.link.link import Link
from ces.link.side import Side
from ces.model import wire
from ces.model.address import Address
from ces.model.wire import Run
from ces.ops.descriptors import why_failed
from ces.repeater.link_target import IDLE
from ces.repeater.settings import RepeaterSettings
from ces.repeater.target import FULL, LEAVING, PATIENCE, Target
from ces.repeater.undelivered import Undelivered
from ces.uplink.dialler import UP, WAITING

FIRST_DELAY, LONGEST_DELAY = 1.0, 30.0
"""First and longest delay between attempts while a target fails, in seconds. Each delay doubles the last."""

ANSWER_BYTES = 64 * 1024
"""Limit of an answer's body, in bytes. The connection of a longer answer is closed."""

HEAD_BYTES = 64 * 1024
"""Limit of an answer's head, in bytes, with the informational answers (1xx) before it. What the head leaves
of it is for the framing of the body: chunk sizes, chunk extensions and trailers."""

HEADERS: dict[bytes | str, bytes | str] = {"Content-Type": "application/json", "User-Agent": "ces"}


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A queued event with its place in the order and the time at which it expires."""

    number: int
    deadline: float
    room: bytes
    body: bytes

    @property
    def weight(self) -> int:
        """Bytes that the event counts for in `target_buffer`: those of its record, as in every queue."""
        return max(len(self.room) + len(self.body) + 2, wire.RECORD_BYTES)

    @property
    def run(self) -> Run:
        """The event as a run."""
        return Run(self.room, [b"%b\n%b\n" % (self.room, self.body)])


class HttpTarget(Target):
    """A target that receives events as POST requests.

    :param client: the HTTP client, which all targets of a pool share.
    """

    def __init__(
        self,
        address: Address,
        side: Side[Link],
        settings: RepeaterSettings,
        undelivered: Undelivered,
        client: HTTPClient,
    ) -> None:
        super().__init__(address, side, settings, undelivered)
        self._client = client
        self._sent = 0
        self._number = 0
        self._bytes = 0
        self._fresh: deque[_Waiting] = deque()
        self._retries: deque[_Waiting] = deque()
        self._requests: set[Deferred[None]] = set()
        self._unanswered = 0
        self._failing = False
        self._delay = FIRST_DELAY
        self._pause: IDelayedCall | None = None
        self._stopped = False

    @property
    def state(self) -> str:
        if self._pause is not None or (self._failing and self._requests):
            return WAITING
        return UP if self._requests else IDLE

    @property
    def sent(self) -> int:
        return self._sent

    @property
    def waiting(self) -> int:
        return self._bytes

    @property
    def holds(self) -> bool:
        # A request that fails returns its event to the queue without telling the pool.
        return bool(self._queued or self._unanswered)

    @property
    def _queued(self) -> bool:
        return bool(self._fresh or self._retries)

    def put(self, run: Run) -> None:
        deadline = self._clock.seconds() + self.settings.target_patience
        for event in run.events:
            self._number += 1
            item = _Waiting(self._number, deadline, run.room, event)
            self._bytes += item.weight
            self._fresh.append(item)
        evicted = []
        while self._bytes > self.settings.target_buffer and self._queued:
            # Retries are older than events that have not been tried.
            item = (self._retries or self._fresh).popleft()
            self._bytes -= item.weight
            evicted.append(item.run)
        self.give_up(evicted, FULL)
        self._start()

    def wake(self) -> None:
        self._delay = FIRST_DELAY
        if self._pause is not None:
            self._pause.cancel()
            self._resume()

    def expire(self, now: float) -> bool:
        expired = []
        while self._fresh and self._fresh[0].deadline <= now:
            expired.append(self._fresh.popleft())
        expired += [item for item in self._retries if item.deadline <= now]
        self._retries = deque(item for item in self._retries if item.deadline > now)
        self._bytes -= sum(item.weight for item in expired)
        expired.sort(key=lambda item: item.number)
        self.give_up([item.run for item in expired], PATIENCE)
        return self.holds

    def stop(self) -> Deferred[None]:
        self._stopped = True
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        requests = list(self._requests)
        left = len(self._fresh) + len(self._retries) + self._unanswered
        self._fresh.clear()
        self._retries.clear()
        self._bytes = 0
        self.drop(left, LEAVING)
        for request in requests:
            request.cancel()
        return succeed(None)

    def _start(self) -> None:
        """Start requests up to the limit of simultaneous requests."""
        while self._queued and self._pause is None and not self._stopped:
            if len(self._requests) >= (1 if self._failing else self.settings.http_parallel):
                return
            item = (self._fresh or self._retries).popleft()
            request = Deferred.fromCoroutine(self._post(item))
            self._requests.add(request)
            request.addBoth(self._done, request)

    def _done(self, result: object, request: Deferred[None]) -> None:
        self._requests.discard(request)
        if isinstance(result, Failure):
            self._side.log.failure("unexpected error in a request to {target}", result, target=self.url)
        self._start()

    async def _post(self, item: _Waiting) -> None:
        began = self._clock.seconds()
        timeout = self.settings.http_timeout
        self._unanswered += 1
        try:
            response = await self._client.post(
                self.url,
                data=item.body,
                headers=HEADERS,
                allow_redirects=False,
                unbuffered=True,
                reactor=cast(Any, self._clock),
            ).addTimeout(timeout, self._clock)
        except Exception as error:  # the client raises many types of errors; all mean that there is no answer
            if self._clock.seconds() >= began + timeout:
                self._retry(item, self._retries.append, f"no answer within {timeout:g} s")
            else:
                self._retry(item, self._put_back, _why(error))
            return
        finally:
            self._unanswered -= 1
        if response.code >= 500:
            self._retry(item, self._retries.append, f"it answered {response.code}")
        else:
            self._decided(item, response.code)
        await read_to_end(response, timeout, self._clock)

    def _decided(self, item: _Waiting, code: int) -> None:
        """The target has accepted or finally refused an event."""
        self._failing = False
        self._delay = FIRST_DELAY
        self._bytes -= item.weight
        if 200 <= code < 300:
            self._sent += 1
            self.reason = ""
        else:
            self.failures += 1
            self.reason = f"it answered {code}, which is final"
            self.give_up([item.run], self.reason)

    def _retry(self, item: _Waiting, put_back: Callable[[_Waiting], object], reason: str) -> None:
        """The target did not accept an event: return it to the queue and pause."""
        if self._stopped:
            return
        self._fail(reason)
        self._failing = True
        if item.deadline > self._clock.seconds():
            put_back(item)
        else:
            self._bytes -= item.weight
            self.give_up([item.run], PATIENCE)
        if self._pause is None:
            self._pause = self._clock.callLater(self._delay * random.uniform(0.5, 1.5), self._resume)
            self._delay = min(2 * self._delay, LONGEST_DELAY)

    def _resume(self) -> None:
        self._pause = None
        self._start()

    def _put_back(self, item: _Waiting) -> None:
        """Return an event to its old place.

        Cost: at most `http_parallel` steps, because only simultaneous requests can have overtaken it.
        """
        place = 0
        while place < len(self._fresh) and self._fresh[place].number < item.number:
            place += 1
        self._fresh.insert(place, item)


def _why(error: Exception) -> str:
    """The cause of an error of the HTTP client."""
    reasons = getattr(error, "reasons", None)
    if reasons:
        return why_failed(reasons[0])
    return str(error).rstrip(".") or type(error).__name__


class _Discard(Protocol):
    """Reads the body of an answer and discards it."""

    def __init__(self) -> None:
        self.end: Deferred[None] = Deferred(lambda _: self._cut())
        self._read = 0

    def dataReceived(self, data: bytes) -> None:
        self._read += len(data)
        if self._read > ANSWER_BYTES:
            self._cut()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.end.called:
            self.end.callback(None)

    def _cut(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


async def read_to_end(response: IResponse, timeout: float, clock: IReactorTime) -> None:
    """Read and discard an answer's body, so that its connection can be reused.

    The connection is closed when the body is longer than `ANSWER_BYTES`, or takes longer than `timeout`
    seconds.
    """
    discard = _Discard()
    response.deliverBody(discard)
    with suppress(TimeoutError, CancelledError):
        await discard.end.addTimeout(timeout, clock)


@implementer(IBodyProducer)
class Body:
    """A request's body that is written at once. That of treq writes in pieces, on the global reactor."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Write the whole body."""
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Does nothing: the body is already written."""

    def resumeProducing(self) -> None:
        """Does nothing: the body is already written."""

    def stopProducing(self) -> None:
        """Does nothing: the body is already written."""


class AnswerTooLarge(ces.Error):
    """A target's answer is larger than the limit. The text says which part, and the limit."""


class _BoundedAnswers(HTTP11ClientProtocol):
    """A connection to a target, with a limit on what one answer may hold beside its body.

    Twisted limits the length of a header line, but not the number of lines, of informational answers, or of
    chunks. Each answer is counted as it arrives: at most `HEAD_BYTES` until the head is complete, and at most
    `ANSWER_BYTES` more in all.
    """

    _left = 0
    """Bytes of the present answer that may still arrive before the next limit."""
    _in_head = False
    _too_large: AnswerTooLarge | None = None

    def request(self, request: Any) -> Deferred[IResponse]:
        """Send a request. Its answer is counted from zero."""
        self._left = HEAD_BYTES
        self._in_head = True
        answer: Deferred[IResponse] = super().request(request)
        return answer.addCallback(self._head_is_complete)

    def _head_is_complete(self, response: Any) -> Any:
        self._in_head = False
        self._left += ANSWER_BYTES
        # The body is discarded, so treq must not inflate it: 64 KiB can become 64 MiB.
        response.headers.removeHeader(b"Content-Encoding")
        return response

    def dataReceived(self, data: bytes) -> None:
        """Pass on as much of an answer as it may hold."""
        while data and self._too_large is None:
            if not self._left:
                self._cut()
                return
            part, data = data[: self._left], data[self._left :]
            self._left -= len(part)
            super().dataReceived(part)

    def _cut(self) -> None:
        what = "the head of its answer is" if self._in_head else "its answer is"
        limit = HEAD_BYTES if self._in_head else HEAD_BYTES + ANSWER_BYTES
        self._too_large = AnswerTooLarge(f"{what} larger than {limit} bytes")
        cast(ITCPTransport, self.transport).abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is closed: by this side, if the answer was too large."""
        super().connectionLost(reason if self._too_large is None else Failure(self._too_large))


class _Connections(_HTTP11ClientFactory):
    """Makes connections with bounded answers, and does not log each of them."""

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> HTTP11ClientProtocol:
        return _BoundedAnswers(self._quiescentCallback)


class HttpClient:
    """The connection pool for all HTTP targets of one repeater.

    treq: the client that targets use.
    """

    def __init__(self, reactor: Any, settings: RepeaterSettings) -> None:
        # Cast because Twisted's annotation allows only whole seconds as the timeout.
        self._connections = cast(Any, HTTPConnectionPool(reactor))
        self._connections._factory = _Connections
        self._connections.maxPersistentPerHost = settings.http_parallel
        self._connections.cachedConnectionTimeout = settings.idle_ttl
        agent = Agent(reactor, connectTimeout=settings.http_timeout, pool=self._connections)
        no_cookies = IndexableCookieJar(DefaultCookiePolicy(allowed_domains=[]))
        self.treq = HTTPClient(agent, no_cookies, Body)

    def close(self) -> Deferred[None]:
        """Close the idle connections. Fires when they are closed."""
        return cast("Deferred[None]", self._connections.closeCachedConnections())
