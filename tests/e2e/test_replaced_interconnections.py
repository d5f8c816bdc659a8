"""A link between two hubs is replaced by another one while events flow: each event arrives once and in order.

Two hubs keep one link (docs/protocol.md section 5). It is replaced when the same hub is dialled again under
another name, or from the other end. Nobody behind the hubs may notice that.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.support.fleet import PATIENCE, Role, free_port, until
from tests.support.flow import Flow, faults, probe, reach, running
from tests.support.raw import RawLink

ROOM = "ITB-1108"
EVENTS = 13_000
"""More than may be unacknowledged on a link: some of it waits in the hub, the rest is on its way."""

HOSTS = ("localhost", "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5")
"""The same hub, under so many names beside ``127.0.0.1``. What goes wrong when a link is replaced depends on
which of two connections is read first: so it is replaced several times.
"""

TIMES = 3
"""How often a link is replaced by one from the other end."""


@contextmanager
def two_hubs(folder: Path, node_a: str, node_b: str) -> Iterator[tuple[Role, Role]]:
    """Hubs A and B, of these nodes. B listens at all of `HOSTS`."""
    a = Role(folder, "ces-hub", free_port(), "--hold-time=0", "--node-id", node_a, name="a")
    port = free_port()
    listens = [f"--listen=tcp:{port}:interface={host}" for host in HOSTS if host[0].isdigit()]
    b = Role(folder, "ces-hub", port, "--hold-time=0", "--node-id", node_b, *listens, name="b")
    with running(a), running(b):
        yield a, b
    assert "Traceback" not in a.logged() + b.logged()


@contextmanager
def events_flow(a: Role, b: Role) -> Iterator[tuple[Flow, Flow]]:
    """Events flow both ways for as long as this lasts; then, each must have arrived once and in order."""
    flows = Flow(a, b, "A-TO-B"), Flow(b, a, "B-TO-A")
    for flow in flows:
        flow.start()
    try:
        for flow in flows:
            flow.goes_on()
        yield flows
    finally:
        for flow in flows:
            flow.hush()
        for flow in flows:
            flow.stop()
    found = {flow.room: flow.faults() for flow in flows}
    counted = {hub.name: counts(hub) for hub in (a, b)}
    assert not any(found.values()), f"{found} of {[flow.sent for flow in flows]}; the hubs say {counted}"


def counts(hub: Role) -> dict[str, int]:
    """What a hub says of losses."""
    nexus = hub.info()["nexus"]
    return {what: nexus[what] for what in ("dropped", "missed")}


def linked(hub: Role) -> None:
    until(lambda: len(hub.info()["nexus"]["hubs"]) == 1, f"{hub.name} has one link to another hub")


def interconnect(hub: Role, address: str) -> None:
    assert hub.request("POST", f"/interconnect/{address}") == (200, "ok")


@pytest.mark.parametrize("nodes", [("a", "b"), ("b", "a")], ids=["smaller dials", "greater dials"])
def test_a_hub_that_is_dialled_under_other_names_loses_nothing(
    nodes: tuple[str, str], tmp_path: Path
) -> None:
    with two_hubs(tmp_path, *nodes) as (a, b):
        interconnect(a, f"127.0.0.1:{b.port}")
        with events_flow(a, b) as flows:
            for host in HOSTS:
                interconnect(a, f"{host}:{b.port}")
                for flow in flows:
                    flow.goes_on()
        linked(a), linked(b)


@pytest.mark.parametrize("nodes", [("a", "b"), ("b", "a")], ids=["smaller dials last", "greater dials last"])
def test_a_hub_that_is_dialled_back_loses_nothing(nodes: tuple[str, str], tmp_path: Path) -> None:
    with two_hubs(tmp_path, *nodes) as (a, b):
        interconnect(b, f"127.0.0.1:{a.port}")
        with events_flow(a, b) as flows:
            for _ in range(TIMES):
                interconnect(a, f"127.0.0.1:{b.port}")
                for flow in flows:
                    flow.goes_on()
                with flows[0].pause(), flows[1].pause():  # an operator who ends a link may lose events
                    assert a.request("DELETE", f"/interconnect/127.0.0.1:{b.port}")[0] == 200
                    linked(a), linked(b)
                    reach(a, b), reach(b, a)
                for flow in flows:
                    flow.goes_on()


@pytest.mark.parametrize("stopped", ["a", "b"], ids=["towards the dialling hub", "towards the dialled hub"])
def test_what_is_on_its_way_when_a_link_is_replaced_arrives_once_and_in_order(
    stopped: str, tmp_path: Path
) -> None:
    with two_hubs(tmp_path, "a", "b") as (a, b):
        source, destination = (b, a) if stopped == "a" else (a, b)
        interconnect(a, f"127.0.0.1:{b.port}")
        subscriber = RawLink.dial(destination.port, "/connect/messenger", "subscriber")
        subscriber.tell({"rooms": [ROOM], "create": True})
        publisher = RawLink.dial(source.port, "/connect/messenger", "publisher")
        probe(publisher, subscriber, ROOM)
        found = []
        for host in HOSTS:
            destination.process.send_signal(signal.SIGSTOP)
            publisher.send(0, EVENTS, ROOM)
            publisher.settle()
            request = HTTPConnection("127.0.0.1", a.port, timeout=PATIENCE)
            request.request("POST", f"/interconnect/{host}:{b.port}")
            if stopped == "b":
                until(lambda: "dialling" in states(a), "it dials the stopped hub again")
            destination.process.send_signal(signal.SIGCONT)
            assert request.getresponse().read() == b"ok"
            request.close()
            subscriber.read_until_quiet(1.0, EVENTS)
            subscriber.read_until_quiet(0.2)
            found.append(faults(subscriber.numbers, EVENTS))
            subscriber.numbers.clear()
        counted = {hub.name: counts(hub) for hub in (a, b)}
        subscriber.end_in_good_order()
        publisher.end_in_good_order()
    assert not any(found), f"{found} of {EVENTS} each time; the hubs say {counted}"


def states(hub: Role) -> list[str]:
    """Those of all links that a hub has dialled to others, or that others have dialled."""
    return [link["state"] for link in json.loads(hub.get("/interconnect")[1])]
