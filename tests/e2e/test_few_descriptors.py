"""A hub that may open few files, and more connections than that."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from tests.e2e.test_crowds import ELSEWHERE, dial, health
from tests.support.fleet import PATIENCE, Peer, Role, event, free_port, until
from tests.support.process import descriptors, unexpected

FILES = 64


class Poor(Role):
    """A role that may open `FILES` files."""

    def command(self, *twistd: str) -> list[str]:
        return ["sh", "-c", f'ulimit -n {FILES}; exec "$@"', "sh", *super().command(*twistd)]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Role]:
    role = Poor(tmp_path, "ces-hub", free_port()).start()
    yield role
    role.stop()


def cpu(role: Role) -> float:
    """The seconds of CPU that the process has used."""
    assert role.process is not None
    fields = Path(f"/proc/{role.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_silent_connections_beyond_the_descriptors_keep_nobody_out(hub: Role) -> None:
    reader, writer = (Peer(hub.port, "/connect/messenger", "ces.2") for _ in range(2))
    reader.subscribe("A")
    reader.socket.ping().wait(PATIENCE)
    with ExitStack() as crowd:
        for number in range(3 * FILES):
            crowd.enter_context(dial(hub))
            if number % FILES == 0:
                writer.send("A", event(number))
        assert health(hub) < 5
        assert reader.numbers(3) == [0, FILES, 2 * FILES]
        Peer(hub.port, "/connect/messenger", "ces.2").close()
        refused = hub.info()["nexus"]["refused"]
        assert refused["idle"] >= FILES and refused["descriptors"] > 0
    assert descriptors(hub) < FILES
    lines = hub.logged().splitlines()
    assert len(lines) < 30
    assert unexpected(hub.logged()) == []
    reader.close()
    writer.close()


def test_links_beyond_the_descriptors_wait_and_those_that_are_there_go_on(hub: Role) -> None:
    monitor = HTTPConnection("127.0.0.1", hub.port, timeout=PATIENCE, source_address=(ELSEWHERE, 0))

    def ask() -> float:
        began = time.monotonic()
        monitor.request("GET", "/health")
        assert monitor.getresponse().read() == b"ok"
        return time.monotonic() - began

    ask()
    first = monitor.sock
    links = [Peer(hub.port, "/connect/messenger") for _ in range(4)]
    with pytest.raises(InvalidStatus) as refused:
        while len(links) < FILES:
            links.append(Peer(hub.port, "/connect/messenger"))
    assert refused.value.response.status_code == 503
    assert refused.value.response.body == b"There are 24 links already, and no descriptor for more."
    links[0].subscribe("A")
    links[0].socket.ping().wait(PATIENCE)
    with ExitStack() as crowd:
        waiting = [crowd.enter_context(dial(hub)) for _ in range(50)]
        began, used = time.monotonic(), cpu(hub)
        for number in range(20):
            links[1].send("A", event(number))
            time.sleep(0.05)
            assert ask() < 1
            assert health(hub) < 1
        assert monitor.sock is first, "the connection of another address stays"
        assert links[0].numbers(20) == list(range(20))
        busy = (cpu(hub) - used) / (time.monotonic() - began)
        assert busy < 0.5, f"{busy:.0%} of a processor"
        assert descriptors(hub) <= FILES - FILES // 4 + 1
        assert len(hub.logged().splitlines()) < 60 + len(links)
        assert hub.logged().count("refused:") <= 4
        assert unexpected(hub.logged()) == []
        assert len(waiting) == 50
    for peer in links[2:]:
        peer.close()
    until(lambda: descriptors(hub) < FILES // 2, "the descriptors are free again")
    Peer(hub.port, "/connect/messenger").close()
    monitor.close()
    for peer in links[:2]:
        peer.close()
