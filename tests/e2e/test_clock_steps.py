"""The system clock is set while events flow: nothing stops, nothing ends, and nothing takes longer.

The hub and a messenger of ours run as processes whose system clock the test sets; the other peers are clients
of the ``websockets`` package.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.fleet import PATIENCE, Peer, Role, event, free_port, until
from tests.support.wall import Wall

HOUR = 3600.0

MESSENGER = """
import sys, time
from twisted.internet import reactor
from ces.messenger import Messenger

messenger = Messenger(sys.argv[1], rooms=["ITB-1108"], reactor=reactor)
messenger.on_record(lambda event, room: messenger.send(event, "OUT"))
messenger.on_gap(lambda lost: print("gap", flush=True))
messenger.connect()

def end():
    began = time.monotonic()
    def closed(_):
        print(f"closed {time.monotonic() - began:.1f}", flush=True)
        reactor.stop()
    messenger.close(timeout=3).addBoth(closed)

def read():
    sys.stdin.readline()
    reactor.callFromThread(end)

reactor.callInThread(read)
reactor.run()
"""


@pytest.fixture
def wall(tmp_path: Path) -> Wall:
    return Wall(tmp_path)


@pytest.fixture
def hub(tmp_path: Path, wall: Wall):
    role = Role(tmp_path, "ces-hub", free_port(), env=wall.env).start()
    yield role
    role.stop()


@pytest.fixture
def messenger(hub: Role, wall: Wall):
    process = subprocess.Popen(
        [sys.executable, "-c", MESSENGER, f"localhost:{hub.port}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | wall.env,
    )
    until(lambda: hub.info()["nexus"]["messengers"], "the messenger is there")
    yield process
    process.kill()
    process.wait(PATIENCE)
    process.stdin.close()
    process.stdout.close()


@pytest.mark.parametrize("step", [-HOUR, HOUR], ids=["back", "forward"])
def test_events_flow_on_when_the_system_clock_is_set(hub: Role, messenger, wall: Wall, step: float) -> None:
    reader = Peer(hub.port, "/connect/messenger", "ces.2")
    reader.subscribe("OUT")
    writer = Peer(hub.port, "/connect/messenger", "ces.2")
    until(lambda: "OUT" in hub.info()["nexus"]["messenger-mapping"], "the reader has subscribed")
    sent = 0
    for _ in range(20):
        for _ in range(50):
            writer.send("ITB-1108", event(sent))
            sent += 1
        wall.step(step / 10)
    # Each event passed the hub twice, and our messenger once; it was acknowledged, too.
    assert reader.numbers(sent) == list(range(sent))
    acks = []
    until(
        lambda: acks.extend(writer.records(0.05)) or any(c.get("ack") == sent for c in writer.controls), "ack"
    )
    assert "gap" not in str(reader.controls)
    for peer in (reader, writer):
        peer.close()


@pytest.mark.parametrize("step", [-HOUR, HOUR], ids=["back", "forward"])
def test_a_messenger_dials_again_and_closes_in_time_when_the_system_clock_is_set(
    hub: Role, messenger, wall: Wall, step: float
) -> None:
    hub.stop()
    wall.step(step)
    hub.start()
    until(lambda: hub.info()["nexus"]["messengers"], "it dials again")
    wall.step(step)
    messenger.stdin.write("\n")
    messenger.stdin.flush()
    said = json.dumps(messenger.communicate(timeout=PATIENCE)[0])
    assert "closed 0." in said, said


@pytest.mark.parametrize("step", [-HOUR, HOUR], ids=["back", "forward"])
def test_a_hub_stops_in_time_when_the_system_clock_is_set(tmp_path: Path, wall: Wall, step: float) -> None:
    hub = Role(tmp_path, "ces-hub", free_port(), env=wall.env).start()
    silent = Peer(hub.port, "/connect/messenger", "ces.2")
    wall.step(step)
    began = time.monotonic()
    hub.stop()
    assert time.monotonic() - began < 10
    silent.close()


def test_a_link_that_was_cut_is_kept_when_the_clock_goes_forward(hub: Role, wall: Wall) -> None:
    one = Peer(hub.port, "/connect/messenger", "ces.2", node="one")
    one.subscribe("ITB-1108")
    until(lambda: "ITB-1108" in hub.info()["nexus"]["messenger-mapping"], "it has subscribed")
    one.socket.socket.close()
    until(lambda: hub.info()["nexus"]["detached"], "it was cut")
    wall.step(HOUR)
    time.sleep(1.5)  # the sweep of links looks once a second
    assert len(hub.info()["nexus"]["detached"]) == 1
