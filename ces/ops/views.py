"""Large answers: built in slices, shared by all who ask, and sent as their readers take them.

A view is what a client sees of the process: its status, its links, its rooms. It may be large, and anybody
may ask for it, so it must not cost much::

    answer(request, key, build) -> kept from a moment ago ------------------> sent in pieces, shared
                                -> being built: wait for it --------------^
                                -> wait for those being built -> slices --^

- **Time.** A view is built in slices of `SLICE` seconds with a pause of `PAUSE` between them, one view at a
  time. It is kept for `SHARE` times what it cost, and at most `LIFETIME` seconds: clients that ask for the
  same view all the time take a tenth of the process's time at most. A view that cost less than `CHEAP` is
  always built anew, so that what was changed before is seen.
- **Memory.** All who read a view share its bytes. A connection gets the next piece when it has taken the one
  before, so a client that does not read holds `PIECE` bytes and what the transport buffers. The bytes of all
  views that are being read are bounded by `READ_BYTES`: beyond it the connections that read the oldest view
  are cut.

Cost of a view that is kept: a dict lookup.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable
from time import thread_time
from typing import Any, NamedTuple, TypeAlias, cast

import msgspec
from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from zope.interface import implementer

import ces

SLICE = 0.005
"""A view is built for this time at a stretch, in seconds, and one step more."""

PAUSE = 0.02
"""Pause between two slices, in seconds: a fifth of the time goes to views at most."""

LIFETIME, SHARE, CHEAP = 1.0, 10, 0.002
"""A view is kept for `SHARE` times the seconds that it cost, at most for `LIFETIME` seconds. One that cost
less than `CHEAP` seconds is not kept.
"""

KEPT_BYTES = 16 * 2**20
"""Limit of the bytes of all views that are kept."""

BUILDING = 32
"""Limit of different views that are being built, or wait for their turn."""

PIECE = 2**15
"""Bytes of a view that are given to the transport at a time."""

READ_BYTES = 32 * 2**20
"""Limit of the bytes of all views that are being read."""

INDENTED = 2**16
"""JSON of more bytes than this is not indented. It is for programs, and indentation doubles it."""

Build: TypeAlias = Generator[None, None, Any]
"""Builds a view: yields after each step of bounded time, and returns what is shown."""

JSON = "application/json"


class Busy(ces.Error):
    """Too many different views are asked for; the text says so."""


def ready(value: object) -> Build:
    """A view that needs no steps."""
    return value
    yield


def to_json(value: object) -> bytes:
    """JSON, indented for people unless it has more than `INDENTED` bytes."""
    content = msgspec.json.encode(value)
    return (msgspec.json.format(content, indent=2) if len(content) <= INDENTED else content) + b"\n"


def to_compact_json(value: object) -> bytes:
    """JSON that is not indented: for data from others, since indentation multiplies deeply nested JSON."""
    return msgspec.json.encode(value) + b"\n"


class _Kept(NamedTuple):
    content: bytes
    until: float


class Views:
    """The views of one HTTP side.

    :param clock: the reactor, or a test's Clock.
    :param refused: callback for connections that are cut because they do not read; gets ``http`` and the
        reason.
    :param worked: the processor time that was used so far, in seconds. Time in which other processes had the
        processor costs this one nothing: a view must not count as dear, and be kept, because of it.
    """

    def __init__(
        self,
        clock: IReactorTime,
        refused: Callable[[str, str], None],
        worked: Callable[[], float] = thread_time,
    ) -> None:
        self._clock = clock
        self._refused = refused
        self._worked = worked
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._building: dict[Hashable, list[Deferred[bytes]]] = {}
        self._one_at_a_time = DeferredLock()
        self._read: OrderedDict[int, dict[_Reader, None]] = OrderedDict()
        """Who reads each view, by the identity of its bytes; the oldest view first."""

    def answer(
        self,
        request: IRequest,
        key: Hashable,
        build: Callable[[], Build],
        encode: Callable[[Any], bytes] = to_json,
        content_type: str = JSON,
    ) -> Deferred[None]:
        """Answer with a view. A Klein route returns the result.

        :param key: what is asked for: questions with the same key get the same bytes.
        :param build: begins to build the view.
        :param encode: makes the body of what was built.
        :raises Busy: when `BUILDING` other views are being built.
        """
        body = self._get(key, build, encode)
        return body.addCallback(self._send, request, content_type)

    # -- building --------------------------------------------------------------------------------------------

    def _get(
        self, key: Hashable, build: Callable[[], Build], encode: Callable[[Any], bytes]
    ) -> Deferred[bytes]:
        self._drop_old()
        kept = self._kept.get(key)
        if kept is not None:
            return succeed(kept.content)
        waiting = self._building.get(key)
        if waiting is None:
            if len(self._building) >= BUILDING:
                raise Busy(f"{BUILDING} other views are being built")
            begun = self._building[key] = waiting = []
        else:
            begun = None
        result: Deferred[bytes] = Deferred(waiting.remove)
        waiting.append(result)
        if begun is not None:
            Deferred.fromCoroutine(self._build(key, build, encode))
        return result

    async def _build(self, key: Hashable, build: Callable[[], Build], encode: Callable[[Any], bytes]) -> None:
        await self._one_at_a_time.acquire()
        content: bytes | Failure
        try:
            content, cost = await self._in_slices(build, encode)
        except Exception:  # each of those who wait is answered with it
            content, cost = Failure(), 0.0
        finally:
            self._one_at_a_time.release()
        if isinstance(content, bytes) and cost >= CHEAP:
            self._keep(key, _Kept(content, self._clock.seconds() + min(LIFETIME, SHARE * cost)))
        for result in self._building.pop(key):
            result.callback(content)

    async def _in_slices(
        self, build: Callable[[], Build], encode: Callable[[Any], bytes]
    ) -> tuple[bytes, float]:
        """Build a view; its bytes, and the seconds that were spent on it."""
        worked = self._worked
        spent, began = 0.0, worked()
        built: list[Any] = []
        for _ in _steps(build(), built):
            slice = worked() - began
            if slice >= SLICE:
                spent += slice
                await deferLater(self._clock, PAUSE)
                began = worked()
        content = encode(built.pop())
        return content, spent + worked() - began

    def _keep(self, key: Hashable, kept: _Kept) -> None:
        self._kept[key] = kept
        size = sum(len(one.content) for one in self._kept.values())
        while size > KEPT_BYTES:
            size -= len(self._kept.popitem(last=False)[1].content)

    def _drop_old(self) -> None:
        now = self._clock.seconds()
        for key in [key for key, kept in self._kept.items() if now >= kept.until]:
            del self._kept[key]

    # -- sending ---------------------------------------------------------------------------------------------

    def _send(self, content: bytes, request: IRequest, content_type: str) -> Deferred[None]:
        request.setResponseCode(200)
        request.setHeader("Content-Type", content_type)
        request.setHeader("Content-Length", str(len(content)))
        if len(content) <= PIECE or request.method == b"HEAD":
            request.write(content)
            return succeed(None)
        readers = self._read.setdefault(id(content), {})
        reader = _Reader(request, content, self._done)
        readers[reader] = None
        self._cut_old()
        return reader.start()

    def _done(self, reader: _Reader) -> None:
        key = id(reader.content)
        readers = self._read[key]
        del readers[reader]
        if not readers:
            del self._read[key]

    def _cut_old(self) -> None:
        """While too many bytes are being read, cut those who read the oldest view."""
        while len(self._read) > 1:
            size = sum(len(next(iter(readers)).content) for readers in self._read.values())
            if size <= READ_BYTES:
                return
            for reader in list(next(iter(self._read.values()))):
                self._refused("http", f"answers of {size} bytes in all are not read: the oldest is cut off")
                reader.cut()


def _steps(build: Build, built: list[Any]) -> Generator[None, None, None]:
    built.append((yield from build))


@implementer(IPushProducer)
class _Reader:
    """One connection that reads a view.

    :param done: called once, when it reads no more, whatever the reason.
    """

    def __init__(self, request: IRequest, content: bytes, done: Callable[[_Reader], None]) -> None:
        self.content = content
        self._request: Any = request
        self._done = done
        self._offset = 0
        self._paused = False
        self._finished: Deferred[None] = Deferred(lambda _: self._end())

    def start(self) -> Deferred[None]:
        """Begin to send. Fires when the transport has been given everything."""
        finished = self._finished
        self._request.registerProducer(self, True)
        self.resumeProducing()
        return finished

    def cut(self) -> None:
        """Cut the connection."""
        channel = cast(Any, self._request).channel
        self._end()
        channel.transport.abortConnection()

    def pauseProducing(self) -> None:
        """The transport has enough."""
        self._paused = True

    def resumeProducing(self) -> None:
        """The transport takes more."""
        self._paused = False
        while self._request is not None and not self._paused:
            piece = self.content[self._offset : self._offset + PIECE]
            self._offset += PIECE
            request = self._request
            if self._offset >= len(self.content):
                self._end()
                request.write(piece)
                self._finished.callback(None)
            else:
                request.write(piece)

    def stopProducing(self) -> None:
        """The connection is gone."""
        self._end()

    def _end(self) -> None:
        """Let go of everything: what is left of the request may live on in reference cycles."""
        request, self._request = self._request, None
        if request is None:
            return
        if request.channel is not None:
            request.unregisterProducer()
        request.producer = None
        self._done(self)
        self.content = b""
