"""A session that an uplink's owner has given up while the uplink was asking for it."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.testing import MemoryReactorClock

from ces.link.connection import Connection
from ces.model.wire import CES2
from tests.support.links import Alone, Lines, Recorder, make_side, make_uplink, run, upgraded


def test_a_session_that_was_given_up_meanwhile_does_not_go_on() -> None:
    clock, owner = MemoryReactorClock(), Recorder()
    uplink = make_uplink(owner, make_side(clock), clock)
    hello: dict[str, Any] = {"node": "peer", "session": "s1", "received": 0, "resumed": False}
    first = _answered(uplink, owner, clock)
    first.send_text({"hello": hello})
    assert uplink.link is not None
    uplink.link.put(run("A", "1"))
    first.flush()
    first.lose()
    second = _answered(uplink, owner, clock)
    assert b'"session":"s1"' in second.frames()[-1][1], "it asks for the session"
    uplink.link.break_session()
    given_up = uplink.link.queue.take_all()
    second.send_text({"hello": hello | {"received": 1, "resumed": True}})
    assert second.closed_with() == (4400, "the session is gone")
    assert [one.room for one in given_up] == [b"A"]
    assert owner.calls.count("attached") == 0
    second.lose()


def _answered(uplink: Any, owner: Recorder, clock: MemoryReactorClock) -> Alone:
    """A connection of the uplink whose opening handshake is done."""
    alone = Alone(owner, clock, cast(Connection, uplink.factory.buildProtocol(None)), Lines())
    alone.receive(upgraded(alone.written(), CES2))
    return alone
