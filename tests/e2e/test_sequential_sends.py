"""A sender that waits for each acknowledgement before it sends the next event gets it at once.

While more is coming, one acknowledgement stands for many events. When nothing more has come, the hub must not
wait for it: with a timer of 100 ms the obvious loop, ``await messenger.send(event)``, makes ten events a
second. ``python -m benchmarks.sends`` measures it. The bound here is one that a busy machine keeps.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet import Role, free_port
from tests.support.raw import RawLink

ROOM = "ITB-1108"
SENDS = 20
BOUND = 1.0
"""Seconds for `SENDS` sends one after the other. At 100 ms each they take 2 seconds."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Role]:
    role = Role(tmp_path_factory.mktemp("hub"), "ces-hub", free_port(), "--hold-time=0").start()
    yield role
    role.stop()


@pytest.fixture
def repeater(hub: Role, tmp_path: Path) -> Iterator[Role]:
    role = Role(tmp_path, "ces-repeater", free_port(), "--hub", f"127.0.0.1:{hub.port}").start()
    yield role
    role.stop()


def seconds_of(sender: RawLink) -> float:
    """How long `SENDS` sends take, each of which waits for its acknowledgement."""
    begun = time.monotonic()
    for number in range(SENDS):
        sender.send(number, 1, ROOM)
        sender.settle()
    return time.monotonic() - begun


@pytest.mark.parametrize("kind", ["messenger", "repeater", "hub"])
def test_a_hub_acknowledges_a_lone_event_without_waiting_for_more(hub: Role, kind: str) -> None:
    sender = RawLink.dial(hub.port, f"/connect/{kind}", f"sender-{kind}")
    assert seconds_of(sender) < BOUND
    sender.end_in_good_order()


def test_a_repeater_acknowledges_a_lone_event_without_waiting_for_more(repeater: Role) -> None:
    sender = RawLink.dial(repeater.port, f"/connect/{ROOM}/sender", "sender")
    assert seconds_of(sender) < BOUND
    sender.end_in_good_order()


def test_a_lone_event_is_acknowledged_while_others_send_without_end(hub: Role) -> None:
    others = [RawLink.dial(hub.port, "/connect/messenger", f"other-{number}") for number in range(2)]
    sender = RawLink.dial(hub.port, "/connect/messenger", "sender")
    begun = time.monotonic()
    for number in range(SENDS):
        for other in others:
            other.send(0, 100, ROOM)
        sender.send(number, 1, ROOM)
        sender.settle()
    seconds = time.monotonic() - begun
    assert seconds < BOUND
    for link in (sender, *others):
        link.end_in_good_order()
