"""A target that speaks HTTP: each event is the body of one POST.

Owns the events that wait for the target and the requests that are under way. Grammar::

    POST path HTTP/1.1
    Content-Type: application/json
    body   = event, the JSON as it came
    answer = 2xx  taken
           | 5xx  the event is tried again, after those that have not been tried yet
           | any other: refused for good; redirects are not followed

Order: events are sent in the order in which they came, up to `http_parallel` at a time, so the target may
see events that are under way together in any order. After a connection error events keep their places;
after 5xx or a timeout, which may be one event's own fault, it steps behind the others, so that it cannot
hold them up. While the target fails, one request at a time tries it, with a growing delay.

Events wait at most `patience` seconds and within `buffer` bytes; what is beyond is given up, the oldest
first, and so is what was refused for good. A request that timed out may have been taken: then the target gets
that event again.
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
from twisted.internet.interfaces import IConsumer, IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, _HTTP11ClientFactory
from twisted.web.iweb import IBodyProducer, IResponse
from zope.interface import implementer

from ces.link.side import Side
from ces.model.address import Address
from ces.model.wire import Run
from ces.repeater.link_target import IDLE
from ces.repeater.target import FULL, LEAVING, PATIENCE, Target, TargetLimits
from ces.repeater.undelivered import Undelivered
from ces.uplink.reconnect import UP, WAITING

FIRST_DELAY, LONGEST_DELAY = 1.0, 30.0
"""Seconds between attempts while a target fails, each about twice the one before."""

ANSWER_BYTES = 64 * 1024
"""A connection whose answer is longer is closed rather than read to the end."""

HEADERS: dict[bytes | str, bytes | str] = {"Content-Type": "application/json", "User-Agent": "ces"}


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An event with its place in the order and the time at which it is too old."""

    number: int
    deadline: float
    room: bytes
    body: bytes

    @property
    def run(self) -> Run:
        """The event as it was routed."""
        return Run(self.room, [b"%b\n%b\n" % (self.room, self.body)])


class HttpTarget(Target):
    """A target that takes POSTs.

    :param client: shared by all targets of a pool.
    """

    def __init__(
        self,
        address: Address,
        side: Side,
        limits: TargetLimits,
        undelivered: Undelivered,
        client: HTTPClient,
    ) -> None:
        super().__init__(address, side, limits, undelivered)
        self._client = client
        self._sent = 0
        self._number = 0
        self._bytes = 0
        self._fresh: deque[_Waiting] = deque()
        self._again: deque[_Waiting] = deque()
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
        # What is under way comes back when it fails, and nobody else would say so.
        return bool(self._queued or self._unanswered)

    @property
    def _queued(self) -> bool:
        return bool(self._fresh or self._again)

    def put(self, run: Run) -> None:
        deadline = self._clock.seconds() + self.limits.patience
        for event in run.events:
            self._number += 1
            self._bytes += len(event)
            self._fresh.append(_Waiting(self._number, deadline, run.room, event))
        lost = []
        while self._bytes > self.limits.buffer and self._queued:
            # What has been tried came before what has not.
            item = (self._again or self._fresh).popleft()
            self._bytes -= len(item.body)
            lost.append(item.run)
        self.give_up(lost, FULL)
        self._start()

    def wake(self) -> None:
        self._delay = FIRST_DELAY
        if self._pause is not None:
            self._pause.cancel()
            self._resume()

    def expire(self, now: float) -> bool:
        late = []
        while self._fresh and self._fresh[0].deadline <= now:
            late.append(self._fresh.popleft())
        late += [item for item in self._again if item.deadline <= now]
        self._again = deque(item for item in self._again if item.deadline > now)
        self._bytes -= sum(len(item.body) for item in late)
        late.sort(key=lambda item: item.number)
        self.give_up([item.run for item in late], PATIENCE)
        return self.holds

    def stop(self) -> Deferred[None]:
        self._stopped = True
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        requests = list(self._requests)
        lost = len(self._fresh) + len(self._again) + self._unanswered
        self._fresh.clear()
        self._again.clear()
        self._bytes = 0
        self.drop(lost, LEAVING)
        for request in requests:
            request.cancel()
        return succeed(None)

    def _start(self) -> None:
        """Begin as many requests as may be under way."""
        while self._queued and self._pause is None and not self._stopped:
            if len(self._requests) >= (1 if self._failing else self.limits.http_parallel):
                return
            item = (self._fresh or self._again).popleft()
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
        timeout = self.limits.http_timeout
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
        except Exception as error:  # there are many ways to get no answer, and all mean that
            if self._clock.seconds() >= began + timeout:
                self._retry(item, self._again.append, f"no answer within {timeout:g} s")
            else:
                self._retry(item, self._put_back, _why(error))
            return
        finally:
            self._unanswered -= 1
        if response.code >= 500:
            self._retry(item, self._again.append, f"it answered {response.code}")
        else:
            self._taken(item, response.code)
        await read_to_end(response, timeout, self._clock)

    def _taken(self, item: _Waiting, code: int) -> None:
        """The target has decided about an event."""
        self._failing = False
        self._delay = FIRST_DELAY
        self._bytes -= len(item.body)
        if 200 <= code < 300:
            self._sent += 1
            self.reason = ""
        else:
            self.failures += 1
            self.reason = f"it answered {code}, which is final"
            self.give_up([item.run], self.reason)

    def _retry(self, item: _Waiting, put_back: Callable[[_Waiting], object], reason: str) -> None:
        """The target did not take an event: try again, later."""
        if self._stopped:
            return
        self._fail(reason)
        self._failing = True
        if item.deadline > self._clock.seconds():
            put_back(item)
        else:
            self._bytes -= len(item.body)
            self.give_up([item.run], PATIENCE)
        if self._pause is None:
            self._pause = self._clock.callLater(self._delay * random.uniform(0.5, 1.5), self._resume)
            self._delay = min(2 * self._delay, LONGEST_DELAY)

    def _resume(self) -> None:
        self._pause = None
        self._start()

    def _put_back(self, item: _Waiting) -> None:
        """Into its old place: at most as many events have overtaken it as requests are under way."""
        place = 0
        while place < len(self._fresh) and self._fresh[place].number < item.number:
            place += 1
        self._fresh.insert(place, item)


def _why(error: Exception) -> str:
    """What is behind an error of the HTTP client."""
    reasons = getattr(error, "reasons", None)
    if reasons:
        return str(reasons[0].getErrorMessage()).rstrip(".")
    return str(error).rstrip(".") or type(error).__name__


class _Discard(Protocol):
    """Takes the body of an answer and keeps nothing of it."""

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
    """Read an answer's body, so that its connection can be used again; a long one is cut off."""
    discard = _Discard()
    response.deliverBody(discard)
    with suppress(TimeoutError, CancelledError):
        await discard.end.addTimeout(timeout, clock)


@implementer(IBodyProducer)
class Body:
    """A request's body that is there as a whole (treq's own reads it in pieces, on the global reactor)."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Write it all."""
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Nothing is left to pause."""

    def resumeProducing(self) -> None:
        """Nothing is left to resume."""

    def stopProducing(self) -> None:
        """Nothing is left to stop."""


class _Quiet(_HTTP11ClientFactory):
    """Does not log each connection."""

    noisy = False


class HttpClient:
    """The connections to all HTTP targets of one repeater.

    treq: what the targets ask.
    """

    def __init__(self, reactor: Any, limits: TargetLimits) -> None:
        # Twisted types its timeout as whole seconds and takes any.
        self._connections = cast(Any, HTTPConnectionPool(reactor))
        self._connections._factory = _Quiet
        self._connections.maxPersistentPerHost = limits.http_parallel
        self._connections.cachedConnectionTimeout = limits.idle_ttl
        agent = Agent(reactor, connectTimeout=limits.http_timeout, pool=self._connections)
        no_cookies = IndexableCookieJar(DefaultCookiePolicy(allowed_domains=[]))
        self.treq = HTTPClient(agent, no_cookies, Body)

    def close(self) -> Deferred[None]:
        """Close the connections that are kept for the next request."""
        return cast("Deferred[None]", self._connections.closeCachedConnections())
