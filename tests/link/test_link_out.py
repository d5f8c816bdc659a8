"""What goes out on a link: messages of either dialect, and what happens when the other side is slow."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ces.link.owner import LinkLimits
from ces.link.protocol import WRITE_BYTES
from ces.link.turn import Memo
from ces.model.control import SubscriptionChange
from ces.model.wire import CES1, CES2, Run
from tests.support.links import (
    Alone,
    dialling,
    linked,
    make_dialler,
    record,
    run,
    serving,
)

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


def test_serving_links_that_send_the_same_share_the_bytes() -> None:
    made = []
    for dialect in (CES1, CES2):
        alone = serving(dialect=dialect)
        runs = [run("A", "1"), run("B", "2")]
        memo = Memo()
        assert alone.link._encoded(runs, memo) is alone.link._encoded(list(runs), memo)
        made.append(memo)
    assert [len(memo.frames) for memo in made] == [1, 1]


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
    assert one.link.session.latest is other.link.session.latest
    one.send_text({"ack": 3})
    assert (one.link.session.unacknowledged, other.link.session.unacknowledged) == (0, 3)


def test_a_link_for_which_something_waited_is_slow_no_more_once_it_takes_what_others_took() -> None:
    one, other = serving(), serving()
    other.link.pauseProducing()
    other.link.put(run("A"))
    other.flush()
    assert list(other.link.factory.side.slow) == [other.link]
    other.link.blocked = False
    other.link.flush(Memo())
    assert not other.link.factory.side.slow
    other.link._stuck = 0.0
    other.link.factory.side.slow[other.link] = None
    memo, same = Memo(), run("A", "1")
    for end in (one, other):
        end.link.put(same)
        end.link.flush(memo)
    assert (other.link._stuck, list(other.link.factory.side.slow)) == (None, [])


def large(count: int) -> list[Run]:
    """Runs of 1000 bytes each."""
    return [run("A", f"{number:04}".ljust(1000 - len(record("A")), "x")) for number in range(count)]


def test_while_the_transport_is_full_the_data_stays_in_the_outbox() -> None:
    alone = serving()
    alone.link.pauseProducing()
    alone.link.pauseProducing()
    runs = large(5)
    for one in runs:
        alone.link.put(one)
    alone.flush()
    assert (alone.written(), alone.link.outbox.size, alone.link.backlogged) == (b"", 5000, True)
    alone.link.resumeProducing()
    assert alone.frames() == [(2, b"".join(b"".join(one.parts) for one in runs))]
    assert not alone.link.backlogged


def test_what_does_not_fit_into_the_outbox_pushes_out_the_oldest_and_is_counted() -> None:
    alone = serving(limits=LinkLimits(outbox=3000))
    alone.link.pauseProducing()
    runs = large(10)
    for one in runs:
        alone.link.put(one)
    alone.flush()
    assert (alone.link.dropped, alone.link.factory.side.dropped, alone.link.outbox.size) == (7, 7, 3000)
    assert alone.lines == ["7 records for messenger peer were dropped: too much waits for it (7 so far)"]
    alone.link.resumeProducing()
    assert alone.frames() == [(1, b'{"gap":{"lost":7}}'), *((2, run.parts[0]) for run in runs[7:9])]
    alone.send_text({"ack": 1})
    assert alone.frames() == [(2, runs[9].parts[0])]


def test_a_transport_that_fills_up_is_given_no_more() -> None:
    alone = serving()
    written = alone.link._write

    def write(buffers: list[bytes], size: int) -> None:
        written(buffers, size)
        alone.link.pauseProducing()

    alone.link._write = write
    for one in large(1000):
        alone.link.put(one)
    alone.flush()
    assert len(alone.written()) <= WRITE_BYTES + 100
    assert alone.link.outbox.size >= 1_000_000 - WRITE_BYTES
    alone.link.resumeProducing()
    assert WRITE_BYTES / 2 < len(alone.written()) <= WRITE_BYTES + 100


def test_to_a_peer_that_does_not_read_no_pongs_and_errors_pile_up() -> None:
    alone = serving()
    alone.link.pauseProducing()
    for number in range(50):
        alone.send(9, b"%d" % number)
        alone.send(2, b"no\n")
    assert alone.written() == b""
    alone.link.resumeProducing()
    assert alone.frames() == [(10, b"49"), (1, b'{"ack":50}')]
    alone.link.resumeProducing()
    assert alone.frames() == []


def test_what_waits_in_an_outbox_that_outlives_its_links_is_sent_when_one_joins() -> None:
    pair = linked(settle=False)
    pair.link.outbox.pending.append(run("A", "kept"))
    pair.link.flush(Memo())
    pair.settle()
    assert pair.served.records == [record("A", "kept")]


def test_a_dialler_hands_its_session_to_each_link() -> None:
    pair = linked()
    session = pair.link.session
    dialler = make_dialler(pair.link.factory.side, pair.clock, "messenger", session=session)
    alone = Alone(pair.dialled, pair.clock, dialler.buildProtocol(None), pair.lines)
    assert (alone.link.session, alone.link.outbox) == (session, session.outbox)
    alone.link.connectionLost()


def test_a_peer_that_reads_no_control_messages_is_cut() -> None:
    alone = serving("hub", limits=LinkLimits(outbox=10_000))
    change = SubscriptionChange([f"ITB-{number}" for number in range(100)], True)
    alone.link.pauseProducing()
    for _ in range(5):
        alone.link.tell(change)
    alone.link.resumeProducing()
    alone.link.pauseProducing()
    for _ in range(5):
        alone.link.tell(change)
    assert alone.link.joined
    for _ in range(10):
        alone.link.tell(change)
    assert not alone.link.joined
    assert alone.owner.reasons == ["it reads too slowly: its control messages fill its buffer"]
