"""What a link sends: messages of either dialect, and what happens when the other side is slow."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from ces.config.link import LinkSettings
from ces.link.encoding import encoder
from ces.link.link import WRITE_BYTES
from ces.link.turn import Memo
from ces.model.control import SubscriptionChange
from ces.model.wire import CES1, CES2, Run
from tests.support.links import (
    Alone,
    Recorder,
    dialling,
    make_side,
    make_uplink,
    record,
    run,
    serving,
)
from tests.support.network import Network

ENDS = pytest.mark.parametrize("end", [serving, dialling])


@ENDS
def test_ces1_sends_one_record_in_each_message_and_ces2_sends_batches(end: Callable[..., Alone]) -> None:
    records = [record("A", "1"), record("A", "2"), record("B", "3")]
    for dialect, messages in ((CES1, records), (CES2, [b"".join(records)])):
        alone = end(dialect=dialect)
        alone.written()
        alone.link.put(run("A", "1", "2"))
        alone.link.put(run("B", "3"))
        assert alone.written() == b""
        alone.flush()
        assert alone.frames() == [(2, message) for message in messages]


@pytest.mark.parametrize("dialect", [CES1, CES2])
def test_serving_links_that_send_the_same_share_the_bytes(dialect: str) -> None:
    encode, memo, runs = encoder(True, dialect), Memo(), [run("A", "1"), run("B", "2")]
    assert encode(runs, memo) is encode(list(runs), memo)
    assert len(memo.frames) == 1


def test_serving_links_that_the_same_waits_for_share_what_is_kept_and_part_when_they_differ() -> None:
    one, other = serving(), serving()
    both, alone = run("A", "1"), run("A", "2")
    for number, link in enumerate((one.link, other.link)):
        link.put(both)
        link.put(alone if number else both)
    memo = Memo()
    one.link.flush(memo)
    other.link.flush(memo)
    assert one.frames() == [(2, both.parts[0] * 2)]
    assert other.frames() == [(2, both.parts[0] + alone.parts[0])]
    for end in (one, other):
        end.link.put(both)
        end.link.flush(memo)
        assert end.frames() == [(2, both.parts[0])]
    assert one.link.queue.latest is other.link.queue.latest
    one.send_text({"ack": 3})
    assert (one.link.queue.unacknowledged, other.link.queue.unacknowledged) == (0, 3)


def test_a_link_is_slow_while_something_waits_for_it() -> None:
    alone = serving()
    alone.connection.pauseProducing()
    alone.link.put(run("A"))
    alone.flush()
    assert list(alone.side.slow) == [alone.link]
    alone.clock.advance(3)
    assert alone.link.stalled_for == 3
    alone.connection.resumeProducing()
    assert (alone.link.stalled_for, list(alone.side.slow)) == (None, [])


def large(count: int) -> list[Run]:
    """Runs of 1000 bytes each."""
    return [run("A", f"{number:04}".ljust(1000 - len(record("A")), "x")) for number in range(count)]


def test_while_the_transport_is_full_the_records_stay_in_the_queue() -> None:
    alone = serving()
    alone.connection.pauseProducing()
    alone.connection.pauseProducing()
    runs = large(5)
    for one in runs:
        alone.link.put(one)
    alone.flush()
    assert (alone.written(), alone.link.queue.size, alone.link.backlogged) == (b"", 5000, True)
    alone.connection.resumeProducing()
    assert alone.frames() == [(2, b"".join(b"".join(one.parts) for one in runs))]
    assert not alone.link.backlogged


def test_what_exceeds_the_limit_of_the_queue_evicts_the_oldest_and_is_counted() -> None:
    alone = serving(settings=LinkSettings(link_buffer=3000))
    alone.connection.pauseProducing()
    runs = large(10)
    for one in runs:
        alone.link.put(one)
    alone.flush()
    assert (alone.link.dropped, alone.side.dropped, alone.link.queue.size) == (7, 7, 3000)
    assert alone.lines == ["7 records for messenger peer were dropped: too much waits for it (7 so far)"]
    alone.connection.resumeProducing()
    assert alone.frames() == [(1, b'{"gap":{"lost":7}}'), *((2, run.parts[0]) for run in runs[7:9])]
    alone.send_text({"ack": 1})
    assert alone.frames() == [(2, runs[9].parts[0])]


def test_a_gap_is_announced_as_soon_as_there_is_room_though_nothing_follows() -> None:
    alone = serving(settings=LinkSettings(link_buffer=3000))
    for one in large(2):
        alone.link.put(one)
    alone.flush()  # in flight: they fill their half of the limit
    alone.connection.pauseProducing()
    for one in large(2):
        alone.link.put(one)
    alone.flush()
    alone.link.evict(10_000)
    alone.connection.resumeProducing()
    alone.written()
    alone.send_text({"ack": 1})
    assert alone.frames() == [(1, b'{"gap":{"lost":2}}')]


def test_what_waits_behind_a_gap_that_stands_alone_is_sent_with_it() -> None:
    alone = serving(settings=LinkSettings(link_buffer=3000))
    queue, link = alone.link.queue, alone.link
    alone.connection.pauseProducing()
    for one in large(1):
        link.put(one)
    alone.flush()
    link.evict(10_000)
    alone.connection.resumeProducing()
    assert alone.frames() == [(1, b'{"gap":{"lost":1}}')]
    (one,) = large(1)
    link.put(one)
    alone.flush()
    assert alone.frames() == [(2, one.parts[0])]
    # A cut: both are sent again, at once.
    queue.resume(0)
    alone.flush()
    assert alone.frames() == [(1, b'{"gap":{"lost":1}}'), (2, one.parts[0])]


def test_a_transport_that_fills_up_is_given_no_more() -> None:
    alone = serving()
    write = alone.transport.writeSequence

    def fill(buffers: Iterable[bytes]) -> None:
        write(buffers)
        alone.connection.pauseProducing()

    alone.transport.writeSequence = fill  # type: ignore[method-assign]
    for one in large(1000):
        alone.link.put(one)
    alone.flush()
    assert len(alone.written()) <= WRITE_BYTES + 100
    assert alone.link.queue.size >= 1_000_000 - WRITE_BYTES
    alone.connection.resumeProducing()
    assert WRITE_BYTES / 2 < len(alone.written()) <= WRITE_BYTES + 100


def test_to_a_peer_that_does_not_read_no_pongs_and_errors_pile_up() -> None:
    alone = serving()
    alone.connection.pauseProducing()
    for number in range(50):
        alone.send(9, b"%d" % number)
        alone.send(2, b"no\n")
    assert alone.written() == b""
    alone.connection.resumeProducing()
    assert alone.frames() == [(10, b"49"), (1, b'{"ack":50}')]
    alone.connection.resumeProducing()
    assert alone.frames() == []


def test_what_waits_for_an_uplink_is_sent_when_it_is_up() -> None:
    network = Network()
    uplink = make_uplink(Recorder("dialled"), make_side(network), network)
    assert uplink.link is not None
    uplink.link.put(run("A", "kept"))
    uplink.flush()
    uplink.dial()
    served = network.dial.answer("served", kind="messenger")
    assert served.owner.records == [record("A", "kept")]


def test_a_peer_that_reads_no_control_messages_is_cut() -> None:
    alone = serving("hub", settings=LinkSettings(link_buffer=10_000))
    change = SubscriptionChange([f"ITB-{number}" for number in range(100)], True)
    alone.connection.pauseProducing()
    for _ in range(5):
        alone.connection.tell(change)
    alone.connection.resumeProducing()
    alone.connection.pauseProducing()
    for _ in range(5):
        alone.connection.tell(change)
    assert alone.link.connected
    for _ in range(10):
        alone.connection.tell(change)
    assert not alone.link.connected
    alone.lose()
    assert alone.owner.reasons == ["it reads too slowly: its control messages fill its buffer"]
