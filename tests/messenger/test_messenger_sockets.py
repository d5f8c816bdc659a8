"""The messenger on real sockets, against a hub that is not ours: `GoHub` does as the fleet's hubs do.

It knows no subprotocol, takes subscriptions as text, sends one record per binary message with a line feed
more in front of the event and none behind it, pings with nothing in the ping, and sends an empty pong that
nobody asked for.
"""

from __future__ import annotations

import json
import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, TypeVar

import pytest
import pytest_twisted
from autobahn.twisted.websocket import connectWS
from twisted.internet import reactor as the_reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from ces.messenger import Messenger, State, send_once
from tests.support.messengers import event, record

reactor: Any = the_reactor
PATIENCE = 15.0
T = TypeVar("T")


class GoHub:
    """One hub, in threads of its own. It may be killed and started again, on the same port.

    port: where it listens, from the first start on.
    strict: refuse a handshake that offers a subprotocol.
    changes, received: what messengers said in text and in binary, in order.
    reads: cleared, the hub stops reading.
    """

    def __init__(self, strict: bool = False) -> None:
        self.port = 0
        self.changes: queue.Queue[Any] = queue.Queue()
        self.received: queue.Queue[bytes] = queue.Queue()
        self.reads = threading.Event()
        self.reads.set()
        self._strict = strict
        self._rooms: dict[ServerConnection, set[bytes]] = {}
        self._server: Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._server = serve(
            self._serve,
            "127.0.0.1",
            self.port,
            process_request=self._refuse if self._strict else None,
            ping_interval=None,
            compression=None,
            max_queue=1,
            close_timeout=1,
        )
        self.port = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def kill(self) -> None:
        """End as a process does that is killed: no close frames, and nobody listens any more."""
        if self._server is None or self._thread is None:
            return
        self.reads.set()
        self._server.socket.close()
        for connection in list(self._rooms):
            with suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)
        self._server.shutdown()
        self._thread.join(PATIENCE)
        self._server = None

    def ping(self) -> list[threading.Event]:
        """Ping every messenger; each event is set when the pong has come."""
        for connection in list(self._rooms):
            connection.pong(b"")
        return [connection.ping(b"") for connection in list(self._rooms)]

    @staticmethod
    def _refuse(connection: ServerConnection, request: Request) -> Response | None:
        if "Sec-WebSocket-Protocol" in request.headers:
            return connection.respond(400, "unknown subprotocol\n")
        return None

    def _serve(self, connection: ServerConnection) -> None:
        assert connection.request is not None and connection.request.path == "/connect/messenger"
        rooms = self._rooms[connection] = set()
        try:
            for message in connection:
                if isinstance(message, str):
                    self._subscribe(rooms, json.loads(message))
                    self.changes.put(json.loads(message))
                else:
                    self.received.put(message)
                    self._route(connection, message)
                self.reads.wait()
        except ConnectionClosed:
            pass  # killed
        finally:
            del self._rooms[connection]

    @staticmethod
    def _subscribe(rooms: set[bytes], change: Any) -> None:
        named = {room.encode() for room in change["rooms"]}
        if change["create"]:
            rooms |= named
        else:
            rooms -= named or set(rooms)

    def _route(self, source: ServerConnection, message: bytes) -> None:
        room, _, text = message.partition(b"\n")
        for connection, rooms in list(self._rooms.items()):
            if connection is not source and (room in rooms or b"*" in rooms):
                with suppress(ConnectionClosed):
                    connection.send(room + b"\n\n" + text.rstrip(b"\n"))


@pytest.fixture
def hub() -> Iterator[GoHub]:
    hub = GoHub()
    hub.start()
    yield hub
    hub.kill()


def make(hub: GoHub, *rooms: str, **more: Any) -> Messenger:
    """A messenger that dials again quickly."""
    messenger = Messenger(f"127.0.0.1:{hub.port}", rooms, reactor=reactor, **more)
    messenger.factory.initialDelay = messenger.factory.delay = 0.02
    messenger.factory.maxDelay = 1
    return messenger


def soon(deferred: Deferred[T]) -> Deferred[T]:
    return deferred.addTimeout(PATIENCE, reactor)


def said(what: queue.Queue[T]) -> Deferred[T]:
    """The next thing that the hub was told."""
    return deferToThread(what.get, True, PATIENCE)


def state(messenger: Messenger, wanted: State) -> Deferred[None]:
    """Fires when the messenger has come to this state."""
    done: Deferred[None] = Deferred()

    @messenger.on_state
    def changed(now: State) -> None:
        if now is wanted:
            messenger.forget(changed)
            done.callback(None)

    return soon(done)


@pytest_twisted.ensureDeferred
async def test_events_pass_between_messengers_through_a_go_hub_each_once_and_in_order(hub: GoHub) -> None:
    listener, sender = make(hub, "ITB-1108"), make(hub)
    listener.connect()
    sender.connect()
    assert await said(hub.changes) == {"rooms": ["ITB-1108"], "create": True}
    await soon(sender.when_connected())
    for number in range(500):
        sender.send(event(f"{number}"))
        sender.send(event("elsewhere", "BNSN-W002"))
    await sender.flush()
    for number in range(500):
        assert (await soon(listener.receive())).key == f"{number}"
    assert [await said(hub.received) for _ in range(2)] == [record("0"), record("elsewhere", "BNSN-W002")]
    await listener.close()
    await sender.close()
    assert listener.counters["received"] == 500
    assert sender.counters["sent"] == 1000


@pytest_twisted.ensureDeferred
async def test_rooms_may_change_while_the_link_is_up(hub: GoHub) -> None:
    listener, sender = make(hub), make(hub)
    connectWS(listener.factory)
    sender.connect()
    await soon(listener.when_connected())
    await soon(sender.when_connected())
    listener.subscribe("A", "B")
    await said(hub.changes)
    listener.unsubscribe("A")
    assert await said(hub.changes) == {"rooms": ["A"], "create": False}
    for room in ("A", "B", "C"):
        sender.send(event("for " + room, room))
    assert (await soon(listener.receive())).key == "for B"
    listener.unsubscribe()
    await said(hub.changes)
    listener.subscribe("*")
    await said(hub.changes)
    sender.send(event("for all", ""), room="")
    assert (await soon(listener.receive())).key == "for all"
    await listener.close()
    await sender.close()


@pytest_twisted.ensureDeferred
async def test_a_hub_that_is_killed_and_returns_finds_everything_as_it_was(hub: GoHub) -> None:
    listener, sender = make(hub, "ITB-1108"), make(hub)
    for messenger in (listener, sender):
        messenger.connect()
        await soon(messenger.when_connected())
    await said(hub.changes)
    lost = [state(listener, State.WAITING), state(sender, State.WAITING)]
    await deferToThread(hub.kill)
    for each in lost:
        await each
    listener.subscribe("BNSN-W002")
    dialled_in_vain = [state(listener, State.WAITING), state(sender, State.WAITING)]
    for each in dialled_in_vain:
        await each
    assert "refused" in listener.reason
    hub.start()
    assert await said(hub.changes) == {"rooms": ["ITB-1108", "BNSN-W002"], "create": True}
    kept = [sender.send(event(key)) for key in ("one", "two")]
    sender.send(event("three", "BNSN-W002"))
    for sent in kept:
        await soon(sent)
    assert [(await soon(listener.receive())).key for _ in range(3)] == ["one", "two", "three"]
    assert listener.counters["reconnects"] == 1
    await listener.close()
    await sender.close()


@pytest_twisted.ensureDeferred
async def test_what_is_sent_while_the_hub_is_dead_arrives_when_it_is_back(hub: GoHub) -> None:
    sender = make(hub)
    sender.connect()
    await soon(sender.when_connected())
    lost = state(sender, State.WAITING)
    await deferToThread(hub.kill)
    await lost
    sent = [sender.send(event(f"{number}")) for number in range(100)]
    hub.start()
    for each in sent:
        await soon(each)
    assert [await said(hub.received) for _ in range(100)] == [record(f"{number}") for number in range(100)]
    await sender.close()


@pytest_twisted.ensureDeferred
async def test_pings_of_a_go_hub_are_answered(hub: GoHub) -> None:
    messenger = make(hub, "A")
    messenger.connect()
    await said(hub.changes)
    for _ in range(3):
        (answered,) = hub.ping()
        assert await deferToThread(answered.wait, PATIENCE)
    await messenger.close()


@pytest_twisted.ensureDeferred
async def test_a_server_that_refuses_the_subprotocol_gets_a_link_without_it() -> None:
    hub = GoHub(strict=True)
    hub.start()
    messenger = make(hub, "A")
    states: list[State] = []
    messenger.on_state(states.append)
    messenger.connect()
    await soon(messenger.when_connected())
    assert State.WAITING not in states, "it is not a failure"
    await messenger.close()
    await deferToThread(hub.kill)


@pytest_twisted.ensureDeferred
async def test_a_hub_that_stops_reading_costs_the_oldest_and_goes_on_in_order(hub: GoHub) -> None:
    count, size = 3000, 10_000
    sender = make(hub, spool=100 * size)
    sender.connect()
    await soon(sender.when_connected())
    hub.reads.clear()
    outcomes: list[Deferred[bool]] = []
    for number in range(count):
        text = f'{{"key":"{number}","value":"{"x" * size}"}}'
        sent = sender.send(text, "A")
        outcomes.append(sent.addCallbacks(lambda _: True, lambda _: False))
        if number % 10 == 9:
            turn: Deferred[None] = Deferred()
            reactor.callLater(0, turn.callback, None)
            await turn
    assert sender.status()["spool-utilization"] > 99 * size
    hub.reads.set()
    arrived = [number for number, outcome in enumerate(outcomes) if await soon(outcome)]
    keys = [json.loads((await said(hub.received)).partition(b"\n")[2])["key"] for _ in arrived]
    assert keys == [str(number) for number in arrived]
    assert arrived[0] == 0 and arrived[-1] == count - 1
    counters = sender.counters
    assert counters["dropped"] > 0
    assert counters["sent"] + counters["dropped"] == count
    assert counters["sent"] == len(arrived)
    await sender.close()
    assert hub.received.empty()


@pytest_twisted.ensureDeferred
async def test_send_once_fires_when_the_hub_has_the_event(hub: GoHub) -> None:
    await soon(send_once(f"127.0.0.1:{hub.port}", event("once"), reactor=reactor))
    assert await said(hub.received) == record("once")


@pytest_twisted.ensureDeferred
async def test_send_once_without_a_hub_says_why(hub: GoHub) -> None:
    hub.kill()
    with pytest.raises(TimeoutError, match=r"1 not sent within 0\.5 s: .* refused"):
        await send_once(f"127.0.0.1:{hub.port}", event("once"), reactor=reactor, timeout=0.5)
