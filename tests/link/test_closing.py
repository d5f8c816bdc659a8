"""Both ends close at once: nothing that was written before is lost, and each knows what the other has taken
(docs/protocol.md section 5).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_twisted

from ces.config.link import LinkSettings
from ces.link.link import Link
from ces.model.control import Gap
from tests.support.links import Recorder, record, run, serving
from tests.support.network import linked
from tests.support.tcp import Tcp

COUNT = 40


@asynccontextmanager
async def opened(settings: LinkSettings) -> AsyncIterator[Tcp]:
    """A dialled connection on real sockets."""
    tcp = Tcp(settings)
    try:
        await tcp.open()
        yield tcp
    finally:
        await tcp.close()


def large(room: str, count: int = COUNT) -> list[bytes]:
    """Records of 20 kB each."""
    return [record(room, f"{number:04}".ljust(20_000, "x")) for number in range(count)]


def put(link: Link, records: list[bytes]) -> None:
    """Queue records, each a run of its own."""
    for one in records:
        link.put(run(one.split(b"\n")[0].decode(), one.split(b'"')[3].decode()))


SETTINGS = pytest.mark.parametrize(
    "settings", [LinkSettings(), LinkSettings(plain_sockets=True)], ids=["direct", "plain"]
)


@SETTINGS
@pytest_twisted.ensureDeferred
async def test_all_that_was_written_before_crossing_closes_arrives_and_the_rest_is_undelivered(
    settings: LinkSettings,
) -> None:
    async with opened(settings) as tcp:
        near, far = tcp.connections()
        (here,), (there,) = tcp.dialled.links, tcp.served.links
        up, down = large("up"), large("down")
        put(here, up)
        put(there, down)
        tcp.uplink.factory.stopTrying()
        for connection in (near, far):
            connection.end(1000, "done")
        await tcp.until(lambda: here.over and there.over)
        assert near.finished and far.finished
        for sent, sender, receiver in ((up, tcp.dialled, tcp.served), (down, tcp.served, tcp.dialled)):
            written = len(receiver.records)
            assert written > 0
            assert receiver.records == sent[:written]
            assert sender.undelivered == sent[written:]
        assert here.queue.unacknowledged == there.queue.unacknowledged == 0


@SETTINGS
@pytest_twisted.ensureDeferred
async def test_after_crossing_closes_with_4001_the_session_goes_on_and_everything_arrives_once(
    settings: LinkSettings,
) -> None:
    async with opened(settings) as tcp:
        near, far = tcp.connections()
        (here,), (there,) = tcp.dialled.links, tcp.served.links
        up, down = large("up"), large("down")
        put(here, up)
        put(there, down)
        for connection in (near, far):
            connection.end(4001, "going away")
        await tcp.until(lambda: here.detached and there.detached)
        assert near.finished and far.finished
        tcp.uplink.dial()
        await tcp.until(lambda: here.connected and there.connected)
        await tcp.until(lambda: (len(tcp.served.records), len(tcp.dialled.records)) == (COUNT, COUNT))
        assert (tcp.served.records, tcp.dialled.records) == (up, down)
        assert (tcp.dialled.fresh, tcp.served.fresh) == ([False], [False])
        await tcp.until(lambda: not here.queue.unacknowledged and not there.queue.unacknowledged)
        assert (tcp.served.records, tcp.dialled.records) == (up, down)


@pytest.mark.parametrize("far", [False, True], ids=["dialling", "serving"])
def test_a_close_that_is_not_answered_is_a_cut(far: bool) -> None:
    """Whether the other side has read what was sent is then not known."""
    pair = linked("hub", window=120)
    link, owner = (pair.peer, pair.served) if far else (pair.link, pair.dialled)
    connection = pair.meeting.served if far else pair.meeting.dialled
    link.put(run("A", "1"))
    link.end(1000, "done")
    pair.meeting.silence()
    pair.network.pass_time(11)
    assert (link.detached, connection.finished, owner.undelivered) == (True, False, [])
    pair.network.pass_time(121, 1)
    assert link.over
    assert owner.undelivered == [record("A", "1")]


@pytest.mark.parametrize("far", [False, True], ids=["dialling", "serving"])
@pytest.mark.parametrize("code", [4400, 4429])
def test_a_side_that_takes_nothing_more_has_not_got_what_was_under_way(code: int, far: bool) -> None:
    """It has acknowledged what it took before it closed."""
    pair = linked("hub", window=120)
    sender, receiver = (pair.served, pair.dialled) if far else (pair.dialled, pair.served)
    link = pair.peer if far else pair.link
    closing = pair.meeting.dialled if far else pair.meeting.served
    link.put(run("A", "taken"))
    link.side.turn.add(link)
    pair.network.advance(0)
    pair.meeting.deliver(served=not far)
    assert receiver.records == [record("A", "taken")]
    link.put(run("A", "under way"))
    link.side.turn.add(link)
    pair.network.advance(0)
    closing.end(code, "no more")
    pair.settle()
    assert (link.over, receiver.records) == (True, [record("A", "taken")])
    assert sender.undelivered == [record("A", "under way")]


@pytest.mark.parametrize("kind", ["messenger", "hub", "repeater"])
def test_a_link_that_was_too_slow_resumes_as_after_a_cut_unless_it_is_a_repeaters(kind: str) -> None:
    """What a repeater did not get goes to another one."""
    pair = linked(kind, window=120)
    link = pair.peer
    link.put(run("A", "1"))
    link.side.turn.add(link)
    pair.network.advance(0)
    link.end(4408, "it takes nothing")
    pair.meeting.silence()
    pair.network.pass_time(11)
    assert link.over == (kind == "repeater")
    assert pair.served.undelivered == ([record("A", "1")] if kind == "repeater" else [])
    assert link.detached == (kind != "repeater")


@pytest.mark.parametrize("code", [1000, 4001])
def test_a_gap_that_comes_while_this_side_closes_counts_as_the_records_behind_it_do(code: int) -> None:
    pair = linked("messenger", window=120)
    pair.meeting.dialled.tell(Gap(3))
    pair.link.put(run("A", "1"))
    pair.link.side.turn.add(pair.link)
    pair.network.advance(0)
    pair.meeting.served.end(code, "going away")
    pair.settle()
    assert (pair.served.records, pair.served.gaps) == ([record("A", "1")], [3])


@pytest.mark.parametrize(("ours", "theirs"), [(1000, 4400), (1000, 4409), (1000, 4001), (1000, 1000)])
@pytest.mark.parametrize("far", [False, True], ids=["dialling", "serving"])
def test_what_crossing_closes_say_of_what_was_sent(ours: int, theirs: int, far: bool) -> None:
    """Behind a close with 1000 or 4001 a side still takes what the other one had sent before it knew."""
    pair = linked("hub", window=120)
    sender, receiver = (pair.served, pair.dialled) if far else (pair.dialled, pair.served)
    link = pair.peer if far else pair.link
    here, there = pair.meeting.served, pair.meeting.dialled
    if not far:
        here, there = there, here
    link.put(run("A", "1"))
    here.end(ours, "ours")
    there.end(theirs, "theirs")
    pair.settle()
    assert link.over
    taken = theirs in (1000, 4001)
    assert receiver.records == ([record("A", "1")] if taken else [])
    assert sender.undelivered == ([] if taken else [record("A", "1")])


@pytest.mark.parametrize("first", [True, False], ids=["first", "answer"])
def test_a_close_frame_of_the_other_side_without_a_code_counts_as_1000(first: bool) -> None:
    """RFC 6455 section 5.5.1: a close frame may be empty."""
    alone = serving()
    alone.link.put(run("A", "1"))
    alone.flush()
    if not first:
        alone.link.end(1000, "done")
    alone.send(8, b"")
    alone.lose()
    assert (alone.link.over, alone.connection.finished) == (True, True)
    assert alone.owner.undelivered == []


def test_each_owner_is_told_once_of_crossing_closes() -> None:
    pair = linked("hub", window=120)
    owners: list[Recorder] = [pair.dialled, pair.served]
    pair.meeting.dialled.end(1000, "from here")
    pair.meeting.served.end(1000, "from there")
    pair.settle()
    assert [owner.calls for owner in owners] == [["admit", "joined", "detached", "left"]] * 2
    assert [owner.reasons for owner in owners] == [
        ["closed with 1000: from here"],
        ["closed with 1000: from there"],
    ]
