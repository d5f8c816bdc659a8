"""Without the direct way to sockets, hub and repeater do the same."""

from __future__ import annotations

from pathlib import Path
from signal import SIGTERM

import pytest

from tests.support.fleet import Peer, Role, event, free_port, until


@pytest.mark.parametrize("options", [(), ("--plain-sockets",)], ids=["direct", "plain"])
def test_events_go_through_repeater_and_hub_in_order(tmp_path: Path, options: tuple[str, ...]) -> None:
    hub = Role(tmp_path, "ces-hub", free_port(), *options).start()
    repeater = Role(tmp_path, "ces-repeater", free_port(), "--hub", f"localhost:{hub.port}", *options).start()
    reader = Peer(hub.port, "/connect/messenger")
    reader.subscribe("*")
    until(lambda: "*" in hub.info()["nexus"]["messenger-mapping"], "the subscription arrives")
    for start in range(0, 3000, 100):
        body = b"[" + b",".join(event(number) for number in range(start, start + 100)) + b"]"
        assert repeater.request("POST", "/send", body) == (200, "ok")
    assert reader.numbers(3000) == list(range(3000))
    reader.close()
    assert (repeater.stop(), hub.stop()) == (-SIGTERM, -SIGTERM)
    assert "Traceback" not in repeater.logged() + hub.logged()
