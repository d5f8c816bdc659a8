"""Ports as a service."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from ces.link.listen import Listening, with_backlog
from tests.support.fleet import Role
from tests.support.links import Lines


def listening(*endpoints: str, lines: Lines | None = None) -> Listening:
    from twisted.internet import reactor

    log = Logger(namespace="ces.test", observer=Lines() if lines is None else lines)
    return Listening("ces-hub", endpoints, Factory(), reactor, log)


@pytest_twisted.ensureDeferred
async def test_it_listens_on_every_endpoint_and_stops() -> None:
    lines = Lines()
    endpoint = "tcp:0:interface=127.0.0.1"
    service = listening(endpoint, endpoint, lines=lines)
    service.privilegedStartService()
    assert len({port.getHost().port for port in service.ports}) == 2
    assert lines == [f"ces-hub listens on {endpoint}"] * 2
    await service.stopService()
    assert service.ports == []


@pytest_twisted.ensureDeferred
async def test_a_port_that_is_taken_is_one_sentence() -> None:
    first = listening("tcp:0:interface=127.0.0.1")
    first.privilegedStartService()
    endpoint = f"tcp:{first.ports[0].getHost().port}:interface=127.0.0.1"
    sentence = f"ces-hub: cannot listen on {endpoint}: Address already in use; choose another with --listen"
    with pytest.raises(SystemExit, match=f"^{re.escape(sentence)}$"):
        listening(endpoint).privilegedStartService()
    await first.stopService()


@pytest_twisted.ensureDeferred
async def test_a_daemon_whose_port_is_taken_says_so_and_leaves_no_pid_file(tmp_path: Path) -> None:
    first = listening("tcp:0:interface=127.0.0.1")
    first.privilegedStartService()
    role = Role(tmp_path, "ces-hub", first.ports[0].getHost().port)
    said = role.fail_as_daemon("Address already in use; choose another with --listen")
    assert f"ces-hub: cannot listen on tcp:{role.port}:" in said
    await first.stopService()


def test_an_address_of_another_machine_is_one_sentence() -> None:
    with pytest.raises(
        SystemExit, match=r"^ces-hub: cannot listen on tcp:0:interface=192\.0\.2\.1: .*; choose"
    ):
        listening("tcp:0:interface=192.0.2.1").privilegedStartService()


@pytest.mark.parametrize(
    ("written", "used"),
    [
        ("tcp:7100", "tcp:7100:backlog=1024"),
        ("ssl:7100:privateKey=k", "ssl:7100:privateKey=k:backlog=1024"),
        ("tcp:7100:backlog=5", "tcp:7100:backlog=5"),
        ("unix:/run/ces-hub/hub.sock", "unix:/run/ces-hub/hub.sock"),
    ],
)
def test_many_connections_may_wait_to_be_accepted(written: str, used: str) -> None:
    assert with_backlog(written) == used
