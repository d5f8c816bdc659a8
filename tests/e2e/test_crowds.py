"""Crowds at the door of a real hub: silent connections, heads that trickle, handshakes without a hello. Who
has something to say gets in, whatever address the crowd comes from.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path

import pytest
from websockets.sync.client import connect

from ces.ops.entrance import RESERVE
from tests.support.fleet import PATIENCE, Role, free_port, until

CROWD = 1000
"""As many as --http-connections allows by default."""
JOINS = 60
HERE, ELSEWHERE = "127.0.0.3", "127.0.0.2"
"""Addresses of clients; not the one on which roles look for a free port."""
SLOWEST = 1.0
"""Within this time, in seconds, /health must answer beside a crowd."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Role]:
    role = Role(tmp_path, "ces-hub", free_port()).start()
    yield role
    role.stop()


@pytest.fixture
def crowd() -> Iterator[ExitStack]:
    """Holds the sockets of a crowd, and closes them in the end."""
    with ExitStack() as sockets:
        yield sockets


def dial(role: Role, host: str = HERE) -> socket.socket:
    """A connection that comes from the address `host`."""
    return socket.create_connection(("127.0.0.1", role.port), PATIENCE, (host, 0))


def join(role: Role, host: str, dialect: str) -> bool:
    """Whether a newcomer from `host` gets a link."""
    try:
        offered = ["ces.2"] if dialect == "ces.2" else None
        url = f"ws://127.0.0.1:{role.port}/connect/messenger"
        with connect(url, sock=dial(role, host), subprotocols=offered, compression=None) as peer:  # type: ignore[arg-type]
            if dialect == "ces.2":
                peer.send(json.dumps({"hello": {"node": "n", "session": None, "received": 0}}))
                return "hello" in str(peer.recv(PATIENCE))
            peer.send(json.dumps({"rooms": ["A"], "create": True}))
            peer.ping().wait(PATIENCE)
            return True
    except Exception:
        return False


def health(role: Role, path: str = "/health") -> float:
    """The seconds in which a newcomer gets 200."""
    began = time.monotonic()
    assert role.get(path)[0] == 200
    return time.monotonic() - began


def upgrade(role: Role) -> bytes:
    """The head of a ces.2 handshake."""
    return (
        f"GET /connect/messenger HTTP/1.1\r\nHost: 127.0.0.1:{role.port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: ces.2\r\n\r\n"
    ).encode()


@pytest.mark.parametrize("said", ["nothing", "part of a head", "part of a body", "no hello"])
def test_a_crowd_keeps_no_newcomer_out(hub: Role, crowd: ExitStack, said: str) -> None:
    data = {
        "nothing": b"",
        "part of a head": b"GET /health HTTP/1.1\r\nHost",
        "part of a body": b"POST /event HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n[",
        "no hello": upgrade(hub),
    }[said]
    for _ in range(CROWD + 100):
        sock = crowd.enter_context(dial(hub))
        sock.sendall(data)
    health(hub)  # the hub has taken in the crowd
    assert health(hub) < SLOWEST
    for host in (ELSEWHERE, HERE):
        for dialect in ("ces.1", "ces.2"):
            joined = [join(hub, host, dialect) for _ in range(JOINS // 2)]
            assert all(joined), f"{joined.count(True)} of {len(joined)} joined from {host}"
    assert health(hub, "/livez") < SLOWEST
    refused = hub.info()["nexus"]["refused"]
    assert refused["idle"] > 100 - RESERVE
    assert len(re.findall("gave way", hub.logged())) <= 3


def test_a_crowd_does_not_touch_the_idle_connection_of_another_address(hub: Role, crowd: ExitStack) -> None:
    monitor = HTTPConnection("127.0.0.1", hub.port, timeout=PATIENCE, source_address=(ELSEWHERE, 0))
    monitor.request("GET", "/health")
    assert monitor.getresponse().read() == b"ok"
    sock = monitor.sock
    for _ in range(CROWD + 100):
        crowd.enter_context(dial(hub))
    monitor.request("GET", "/health")
    assert monitor.getresponse().read() == b"ok"
    assert monitor.sock is sock, "it is still the first connection"
    monitor.close()


def test_a_head_that_trickles_is_cut_in_time(hub: Role, crowd: ExitStack) -> None:
    slow = crowd.enter_context(dial(hub))
    began = time.monotonic()
    slow.settimeout(1)
    gone = False
    while not gone and time.monotonic() < began + 30:
        try:
            slow.sendall(b"G")
            gone = slow.recv(100) == b""
        except TimeoutError:
            continue
        except OSError:
            gone = True
    assert 9 < time.monotonic() - began < 15


def test_links_that_were_there_before_come_back_to_a_hub_that_is_full(tmp_path: Path) -> None:
    role = Role(tmp_path, "ces-hub", free_port(), "--link-limit=10").start()
    try:
        assert_links_come_back(role)
    finally:
        role.stop()


def assert_links_come_back(role: Role) -> None:
    url = f"ws://127.0.0.1:{role.port}/connect/messenger"

    def hello(node: str, session: str | None):
        peer = connect(url, subprotocols=["ces.2"], compression=None, ping_interval=None)  # type: ignore[list-item]
        peer.send(json.dumps({"hello": {"node": node, "session": session, "received": 0}}))
        return peer, json.loads(peer.recv(PATIENCE))

    old = [hello(f"old-{number}", None) for number in range(5)]
    for peer, _ in old[:3]:
        peer.socket.shutdown(socket.SHUT_RDWR)
    until(lambda: len(role.info()["nexus"]["detached"]) == 3, "three are cut")
    new = [connect(url, compression=None, ping_interval=None) for _ in range(5)]
    assert not join(role, ELSEWHERE, "ces.1"), "the places of those that were cut are kept"
    assert not join(role, ELSEWHERE, "ces.2")
    # Three that were cut, and one whose connection the hub takes for alive.
    for number, (_, answer) in enumerate(old[:4]):
        peer, again = hello(f"old-{number}", answer["hello"]["session"])
        assert again["hello"]["resumed"], again
        new.append(peer)
    assert len(role.info()["nexus"]["messengers"]) == 10
    for peer in new:
        peer.close()
    until(lambda: join(role, ELSEWHERE, "ces.2"), "there is room again")
