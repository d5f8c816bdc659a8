"""Interconnections on real sockets: however a mesh was made, each event arrives once."""

from __future__ import annotations

import json
import socket
import time

import pytest

from tests.support.fleet import PATIENCE, Peer, Role, event, free_port, until
from tests.support.links import upgraded

ROOM = "ITB-1108"
N = 30


@pytest.fixture
def mesh(tmp_path):
    """Makes and ends hubs: `mesh(name, *options)` starts one."""
    started: list[Role] = []

    def start(name: str, *options: str, port: int | None = None) -> Role:
        role = Role(tmp_path, "ces-hub", port or free_port(), "--node-id", name, *options, name=name)
        started.append(role)
        return role.start()

    yield start
    for role in started:
        role.stop()
        assert "Traceback" not in role.logged(), role.logged()


def linked(*hubs: Role) -> bool:
    return all(len(hub.info()["nexus"]["hubs"]) == len(hubs) - 1 for hub in hubs)


def deliver(hubs: list[Role]) -> dict[str, list[int]]:
    """What a subscriber on each hub gets when N events are sent to the first."""
    readers = {hub.name: Peer(hub.port, "/connect/messenger", "ces.1") for hub in hubs}
    for reader in readers.values():
        reader.subscribe(ROOM)
    until(
        lambda: all(ROOM in hub.info()["nexus"]["messenger-mapping"] for hub in hubs), "subscriptions arrive"
    )
    writer = Peer(hubs[0].port, "/connect/messenger", "ces.2")
    writer.send(ROOM, event(0))
    for reader in readers.values():
        assert reader.numbers(1, 0.05) == [0]
    writer.send(ROOM, *[event(number) for number in range(N)])
    found = {name: reader.numbers(N) for name, reader in readers.items()}
    for peer in (*readers.values(), writer):
        peer.close()
    return found


def everything(*hubs: Role) -> dict[str, list[int]]:
    return {hub.name: list(range(N)) for hub in hubs}


def test_made_from_both_ends_twice_and_under_two_names_it_delivers_once(mesh):
    a_port = free_port()
    b = mesh("b", "--interconnect", f"127.0.0.1:{a_port}", "--interconnect", f"localhost:{a_port}")
    a = mesh("a", "--interconnect", f"ws://127.0.0.1:{b.port}", port=a_port)
    assert a.request("POST", f"/interconnect/localhost:{b.port}") == (200, "ok")
    assert a.request("POST", f"/interconnect/localhost:{b.port}") == (200, "ok")
    assert b.request("POST", f"/interconnect/127.0.0.1:{a.port}") == (200, "ok")
    until(lambda: linked(a, b), "one link stays")
    assert deliver([a, b]) == everything(a, b)
    assert linked(a, b)


def test_a_triangle_delivers_once(mesh):
    a = mesh("a")
    b = mesh("b", "--interconnect", f"127.0.0.1:{a.port}")
    c = mesh("c", "--interconnect", f"127.0.0.1:{a.port}", "--interconnect", f"127.0.0.1:{b.port}")
    until(lambda: linked(a, b, c), "all are linked")
    assert deliver([a, b, c]) == everything(a, b, c)


def test_it_comes_back_when_the_other_hub_was_killed(mesh):
    b = mesh("b")
    a = mesh("a", "--interconnect", f"127.0.0.1:{b.port}")
    until(lambda: linked(a, b), "they are linked")
    b.stop(9)
    until(lambda: not a.info()["nexus"]["hubs"], "the link is gone")
    b.start()
    until(lambda: linked(a, b), "they are linked again")
    assert deliver([a, b]) == everything(a, b)


def test_a_covered_interconnection_takes_over_when_the_link_that_covered_it_is_gone(mesh):
    b = mesh("b")
    a = mesh("a", "--interconnect", f"127.0.0.1:{b.port}")
    until(lambda: linked(a, b), "they are linked")
    assert b.request("POST", f"/interconnect/127.0.0.1:{a.port}") == (200, "ok")
    assert [one["state"] for one in json.loads(b.get("/interconnect")[1])] == ["covered", "up"]
    code, ended = a.request("DELETE", f"/interconnect/address/127.0.0.1:{b.port}")
    shown = {"address": f"ws://127.0.0.1:{b.port}", "direction": "out", "node": b.name}
    assert (code, json.loads(ended)) == (200, {"ended": [shown]})
    until(lambda: linked(a, b), "b dials now")
    assert [one["direction"] for one in json.loads(a.get("/interconnect")[1])] == ["in"]


def test_a_hub_does_not_link_to_itself(mesh):
    a = mesh("a")
    code, reason = a.request("POST", f"/interconnect/127.0.0.1:{a.port}")
    assert (code, reason) == (409, f"127.0.0.1:{a.port} is this hub itself.")
    assert json.loads(a.get("/interconnect")[1]) == []


def test_where_no_hub_is_nothing_is_kept_unless_asked_for(mesh):
    a = mesh("a")
    nobody = free_port()
    code, reason = a.request("POST", f"/interconnect/127.0.0.1:{nobody}")
    assert code == 502 and reason.startswith(f"No hub could be reached at ws://127.0.0.1:{nobody}: ")
    assert json.loads(a.get("/interconnect")[1]) == []
    assert a.request("POST", f"/interconnect/127.0.0.1:{nobody}?retry=true")[0] == 202
    (kept,) = json.loads(a.get("/interconnect")[1])
    assert kept["state"] in ("waiting", "dialling")
    b = mesh("b", port=nobody)
    until(lambda: linked(a, b), "it was dialled again")
    assert a.request("DELETE", f"/interconnect/127.0.0.1:{nobody}")[0] == 200
    assert a.request("DELETE", f"/interconnect/127.0.0.1:{nobody}")[0] == 404


@pytest.mark.parametrize(
    "written", ["127.0.0.1:{}", "ws://127.0.0.1:{}", "ws%3A%2F%2F127.0.0.1%3A{}", "127.0.0.1%3A{}"]
)
def test_an_address_may_be_written_in_each_of_these_ways(mesh, written):
    b = mesh("b")
    a = mesh("a")
    assert a.request("POST", f"/interconnect/{written.format(b.port)}") == (200, "ok")
    assert linked(a, b)


def test_a_bad_address_is_told_so(mesh):
    a = mesh("a")
    code, reason = a.request("POST", "/interconnect/ftp://somewhere")
    assert code == 400 and "expected ws or wss" in reason


def test_a_hub_that_never_answers_a_close_does_not_keep_this_one_from_stopping(mesh):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        a = mesh("a", "--interconnect", f"127.0.0.1:{server.getsockname()[1]}")
        link, _ = server.accept()
        with link:
            link.sendall(upgraded(link.recv(4096), "ces.1"))
            until(lambda: a.info()["nexus"]["hubs"], "they are linked")
            began = time.monotonic()
            a.stop()
            assert time.monotonic() - began < 5, "its links have two seconds to close"
