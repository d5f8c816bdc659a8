"""A connection that was dropped, until its transport says that it is gone."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from tests.support.links import frame, record, serving


def test_to_end_a_dropped_connection_is_to_end_it_once() -> None:
    alone = serving()
    alone.written()
    alone.connection.abort()
    alone.connection.end(1000, "closing")
    assert alone.written() == b""
    assert alone.connection.ended == "it was aborted"
    alone.lose()
    assert alone.owner.calls.count("detached") == 1


def test_a_side_that_goes_away_takes_no_notice_of_a_dropped_connection() -> None:
    alone = serving()
    alone.connection.abort()
    gone = Deferred.fromCoroutine(alone.side.end_all())
    alone.lose()
    assert gone.called
    assert alone.owner.calls.count("left") == 1


def test_what_still_comes_on_a_dropped_connection_is_not_looked_at() -> None:
    alone = serving()
    alone.written()
    alone.connection.abort()
    alone.receive(frame(2, record("A")), frame(3, b""), frame(8, b"\x03\xe8"))
    assert alone.owner.runs == []
    assert alone.written() == b""
    assert alone.connection.ended == "it was aborted"
    alone.lose()
