"""Sessions and links belong to the principal that began them; a login that ends closes its connection."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.testing import MemoryReactorClock

from ces.access.principal import ANYONE, Login
from ces.link.serving import ServingFactory
from tests.support.access import login
from tests.support.links import UPGRADE, Alone, Lines, Recorder, frame, make_side

ANN, BOB = login("ann"), login("bob")


def come(
    owner: Recorder,
    side: Any,
    who: Login,
    session: str | None = None,
    lasts: float | None = None,
    **hello: Any,
) -> Alone:
    """A connection of a principal says hello with the node "n"."""
    connection: Any = ServingFactory(owner, side, "messenger", side.clock).buildProtocol(None)
    connection.login, connection.lasts = who, lasts
    alone = Alone(owner, side.clock, connection, Lines())
    alone.receive(UPGRADE % b"Sec-WebSocket-Protocol: ces.2\r\n")
    alone.written()
    alone.send_text({"hello": {"node": "n", "session": session, "received": 0, **hello}})
    return alone


def said(alone: Alone) -> dict[str, Any]:
    """The hello that was answered."""
    hello: dict[str, Any] = json.loads(alone.frames()[0][1])["hello"]
    return hello


def test_a_session_is_resumed_by_its_own_principal_alone() -> None:
    """CVE-2026-33215, CVE-2026-6564: to know the name of a session, and the node, is not enough."""
    owner, side = Recorder(), make_side(MemoryReactorClock())
    first = come(owner, side, ANN)
    session = said(first)["session"]
    other = come(owner, side, BOB, session)
    answer = said(other)
    assert (answer["resumed"], answer["session"] == session) == (False, False)
    assert first.link.connected and first.link is not other.link
    anyone = come(owner, side, ANYONE, session)
    assert said(anyone)["resumed"] is False
    again = come(owner, side, ANN, session)
    assert said(again)["resumed"] is True
    assert again.link is first.link


def test_what_waits_for_a_link_that_was_cut_is_not_given_to_another_principal() -> None:
    owner, side = Recorder(), make_side(MemoryReactorClock())
    first = come(owner, side, ANN)
    session = said(first)["session"]
    link = first.link
    first.lose()
    other = come(owner, side, BOB, session)
    assert said(other)["resumed"] is False
    assert link.detached


def test_the_link_of_a_node_is_not_given_to_another_principal() -> None:
    """CVE-2026-33223, CVE-2026-33246: a node is what a peer says of itself."""
    owner, side = Recorder(instance="i"), make_side(MemoryReactorClock())
    first = come(owner, side, ANN, instance="x")
    session = said(first)["session"]
    owner.places["n"] = first.link
    other = come(owner, side, BOB, instance="x")
    frames = other.frames()
    assert json.loads(frames[0][1])["hello"]["session"] is None
    assert session.encode() not in b"".join(payload for _, payload in frames)
    assert int.from_bytes(frames[-1][1][:2], "big") == 4403
    assert first.link.connected
    assert side.refused["rights"] == 1


def test_a_login_that_ends_closes_the_connection_and_its_session() -> None:
    owner, side = Recorder(), make_side(MemoryReactorClock())
    alone = come(owner, side, ANN, lasts=20.0)
    session = said(alone)["session"]
    assert session in side.sessions
    for _ in range(19):
        alone.clock.advance(1)
    assert alone.connection.code is None
    alone.written()
    for _ in range(3):
        alone.clock.advance(1)
    code, reason = alone.closed_with()
    assert (code, reason) == (4401, "the login has expired")
    alone.receive(frame(8, (4401).to_bytes(2, "big")))
    alone.lose()
    assert session not in side.sessions
    assert owner.links == []
