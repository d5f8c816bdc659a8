"""Two hubs with one node id: the older link stays, the newer hub is refused, and both are told."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet import Role, free_port, until
from tests.support.flow import Flow, running

SAME = "two-of-a-kind"


@pytest.fixture
def center(tmp_path: Path) -> Iterator[Role]:
    with running(Role(tmp_path, "ces-hub", free_port(), "--hold-time=0", name="center")) as hub:
        yield hub


def twin(folder: Path, name: str, center: Role) -> Role:
    """A hub with the same node id as the other twin, which dials the hub in the center."""
    address = f"127.0.0.1:{center.port}"
    return Role(
        folder,
        "ces-hub",
        free_port(),
        "--node-id",
        SAME,
        "--interconnect",
        address,
        "--hold-time=0",
        name=name,
    )


def interconnection(hub: Role) -> dict[str, str]:
    (link,) = json.loads(hub.get("/interconnect")[1])
    found: dict[str, str] = link
    return found


def refused(hub: Role) -> int:
    return hub.info()["nexus"]["refused"]["node"]


def test_the_older_one_keeps_its_link_and_gets_every_event(tmp_path: Path, center: Role) -> None:
    with running(twin(tmp_path, "older", center)) as older:
        until(lambda: interconnection(older)["state"] == "up", "the older one is linked")
        flow = Flow(center, older, "ITB-1108").start()
        back = Flow(older, center, "ITB-1109").start()
        with running(twin(tmp_path, "newer", center)) as newer:
            until(lambda: refused(center) > 1, "the newer one has been refused, and again")
            for each in (flow, back):
                each.goes_on(2000)
                each.stop()
                assert each.faults() == {}
            assert interconnection(older)["state"] == "up"
            assert interconnection(newer)["state"] == "waiting"
            assert f"the node id {SAME} already" in interconnection(newer)["reason"]
            assert f"the node id {SAME} already" in newer.logged()
            assert f"the node id {SAME} already" in center.logged()
            # The newer one gets its link as soon as the older one has gone.
            older.stop(signal.SIGKILL)
            until(lambda: interconnection(newer)["state"] == "up", "the newer one is linked", 40)


def test_a_hub_that_is_started_again_is_no_other_hub(tmp_path: Path, center: Role) -> None:
    hub = twin(tmp_path, "again", center)
    with running(hub):
        until(lambda: interconnection(hub)["state"] == "up", "it is linked")
        hub.stop(signal.SIGKILL)
    with running(hub):
        until(lambda: interconnection(hub)["state"] == "up", "it is linked again")
    assert refused(center) == 0


def test_twins_that_dial_each_other_are_told_what_is_wrong(tmp_path: Path, center: Role) -> None:
    with running(twin(tmp_path, "one", center)) as one, running(twin(tmp_path, "other", center)) as other:
        code, said = one.request("POST", f"/interconnect/127.0.0.1:{other.port}")
        assert code != 200
        assert f"the node id {SAME} already" in said
