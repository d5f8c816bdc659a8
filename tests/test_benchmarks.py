"""The pure parts of the benchmarks: what is sent, what is counted, and what is made of the numbers."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import goals, report
from benchmarks.__main__ import OLD, compare, in_order
from benchmarks.goals import Goal, Verdict
from benchmarks.load import Stream
from benchmarks.throughput import Stamps, percentile, stamped
from benchmarks.wire import (
    STAMP,
    Ces1,
    Ces2,
    Mqtt,
    Nats,
    NatsWebSocket,
    Speech,
    event,
    events,
    frame,
    frame_head,
    masked,
    mqtt,
    record,
)
from ces.model import frames, wire

ROOM = "ITB-1000"
EVENT = event(400, ROOM)
NATS_LINE = b"MSG ITB-1000 1 400\r\n" + EVENT + b"\r\n"

# -- what is sent --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [100, 329, 330, 400, 65536])
def test_an_event_has_exactly_the_size_that_was_asked_for_and_is_json(size):
    made = event(size, ROOM)
    assert len(made) == size
    assert json.loads(made)["value"] == STAMP.decode()


def test_the_events_of_a_load_have_one_size_and_no_two_are_equal():
    made = events(400, ROOM, 64, first=128)
    assert len(set(made)) == 64 and {len(one) for one in made} == {400}
    assert [int(json.loads(one)["value"]) for one in made] == list(range(128, 192))


def test_an_event_that_cannot_be_so_small_is_refused():
    with pytest.raises(ValueError, match="no event is as small as 20 bytes"):
        event(20)


@given(st.binary(max_size=70000))
def test_a_masked_frame_is_read_as_its_payload_by_the_hubs_own_scanner(payload):
    made = masked(payload)
    assert frames.scan(made, masked=True, limit=1 << 20).payloads == [payload]
    assert frame_head(made, 0) == (2, len(made) - len(payload), len(payload))


def test_the_keys_of_masks_differ():
    assert len({masked(b"x" * 20)[2:6] for _ in range(50)}) > 1


def test_ces1_publishes_one_record_per_message_and_ces2_all_in_one():
    one = frames.scan(Ces1().publish(ROOM, [EVENT] * 3), masked=True, limit=1 << 20).payloads
    two = frames.scan(Ces2().publish(ROOM, [EVENT] * 3), masked=True, limit=1 << 20).payloads
    assert one == [record(ROOM, EVENT)] * 3
    assert two == [record(ROOM, EVENT) * 3]
    (run,) = wire.read_ces2(two, wire.KnownRooms(), faults := [])
    assert (run.room, run.count, faults) == (ROOM.encode(), 3, [])


def test_nats_and_mqtt_publish_the_same_number_of_events_in_one_write():
    assert Nats().publish(ROOM, [EVENT] * 3) == (b"PUB ITB-1000 400\r\n" + EVENT + b"\r\n") * 3
    assert Mqtt().publish(ROOM, [EVENT] * 3).count(EVENT) == 3


@pytest.mark.parametrize(
    ("length", "written"), [(0, b"\0"), (127, b"\x7f"), (128, b"\x80\1"), (16384, b"\x80\x80\1")]
)
def test_the_remaining_length_of_an_mqtt_packet_is_written_in_groups_of_seven_bits(length, written):
    assert mqtt(0x30, b"x" * length) == b"\x30" + written + b"x" * length


# -- what is counted -----------------------------------------------------------------------------------------

BATCHES = [frame(record(ROOM, EVENT) * count) for count in (1, 8, 64)]
CONTROLS = [frame(b"", 9), frame(b"are you there", 9), frame(b"", 10), frame(b'{"hello":{}}', 1)]
LINES = [b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b'INFO {"max_payload":1048576}\r\n']
PACKETS = [mqtt(0x90, b"\0\1\0"), b"\xd0\0", mqtt(0x20, b"\0\0")]

STREAMS: dict[str, tuple[Speech, dict[bytes, int]]] = {
    "ces.1": (Ces1(), {frame(record(ROOM, EVENT)): 1} | dict.fromkeys(CONTROLS, 0)),
    "ces.2": (Ces2(), dict(zip(BATCHES, (1, 8, 64), strict=True)) | dict.fromkeys(CONTROLS, 0)),
    "nats": (Nats(), {NATS_LINE: 1} | dict.fromkeys(LINES, 0)),
    "nats-ws": (
        NatsWebSocket(),
        {frame(NATS_LINE * 5): 5, frame(NATS_LINE): 1}
        | dict.fromkeys([frame(b"".join(LINES)), frame(b"", 9)], 0),
    ),
    "mosquitto": (Mqtt(), {Mqtt().publish(ROOM, [EVENT]): 1} | dict.fromkeys(PACKETS, 0)),
}


def cut(data: bytes, places: list[int]) -> list[memoryview]:
    """The same bytes in pieces."""
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [memoryview(data)[start:end] for start, end in pairwise(edges) if start < end]


# Not parametrized: pytest-twisted wraps the inside of a parametrized hypothesis test once per parameter.
@given(st.sampled_from(list(STREAMS)), st.data())
def test_deliveries_are_counted_exactly_wherever_the_stream_is_cut_and_whatever_is_between(name, data):
    speech, items = STREAMS[name]
    chosen = data.draw(st.lists(st.sampled_from(list(items)), max_size=20))
    pieces = cut(b"".join(chosen), data.draw(st.lists(st.integers(0, 1 << 20), max_size=12)))
    counter = speech.counter(ROOM, EVENT)
    assert sum(counter.feed(piece) for piece in pieces) == sum(items[item] for item in chosen)
    assert not counter.farewell


def test_a_delivery_counts_when_its_last_byte_has_come():
    counter = Ces1().counter(ROOM, EVENT)
    delivery = frame(record(ROOM, EVENT))
    assert counter.feed(memoryview(delivery[:-1])) == 0
    assert counter.feed(memoryview(delivery[-1:])) == 1


def test_a_delivery_of_another_size_is_not_taken_for_one():
    counter = Ces1().counter(ROOM, EVENT)
    assert counter.feed(memoryview(frame(record(ROOM, event(401, ROOM))) * 3)) == 0


def test_a_lost_byte_does_not_go_unnoticed():
    counter = Nats().counter(ROOM, EVENT)
    stream = NATS_LINE * 2
    counter.feed(memoryview(stream[:100] + stream[101:] + NATS_LINE * 3))
    assert "unknown line" in counter.farewell


def test_pings_are_answered():
    websocket, lines = Ces1().counter(ROOM, EVENT), Nats().counter(ROOM, EVENT)
    websocket.feed(memoryview(frame(b"hello", 9)))
    lines.feed(memoryview(b"PING\r\n"))
    opcode, head, size = frame_head(websocket.answers, 0)
    assert (opcode, size, len(websocket.answers)) == (10, 5, head + 5)
    assert lines.answers == b"PONG\r\n"


def test_answers_to_questions_are_counted():
    for speech, answer in (
        (Ces2(), frame(b"", 10)),
        (Nats(), b"PONG\r\n"),
        (NatsWebSocket(), frame(b"PONG\r\n")),
    ):
        counter = speech.counter(ROOM, EVENT)
        counter.feed(memoryview(answer))
        assert counter.synced == 1


def test_what_came_before_a_close_still_counts_and_the_close_is_told():
    counter = Ces2().counter(ROOM, EVENT)
    assert counter.feed(memoryview(BATCHES[1] + frame((4408).to_bytes(2, "big") + b"too slow", 8))) == 8
    assert "4408" in counter.farewell and "too slow" in counter.farewell


def test_an_error_of_nats_is_told():
    counter = Nats().counter(ROOM, EVENT)
    counter.feed(memoryview(b"-ERR 'Slow Consumer'\r\n"))
    assert counter.farewell == "-ERR 'Slow Consumer'"


# -- the closed loop -----------------------------------------------------------------------------------------


class FakeConnection:
    """Counts what is written to it; takes `room` writes."""

    def __init__(self, room: int = 1000) -> None:
        self.room, self.received, self.written, self.unsent = room, 0, 0, b""

    def write(self, data: bytes) -> bool:
        self.written += 1
        if self.written >= self.room:
            self.unsent = b"rest"
        return not self.unsent


def test_a_publisher_stops_when_the_slowest_subscriber_is_a_window_behind():
    publisher, fast, slow = FakeConnection(), FakeConnection(), FakeConnection()
    stream = Stream(publisher, [b"chunk"], 64, 1024, [fast, slow])
    stream.push()
    assert stream.sent == 1024
    fast.received = 1024
    stream.push()
    assert stream.sent == 1024
    slow.received = 130
    stream.push()
    assert stream.sent == 1024 + 128


def test_a_publisher_whose_socket_is_full_waits_with_the_next_chunk():
    publisher = FakeConnection(room=3)
    stream = Stream(publisher, [b"chunk"], 64, 1024, [FakeConnection()])
    stream.push()
    assert stream.sent == 3 * 64


# -- times ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "speech", [Ces1(), Ces2(), Nats(), NatsWebSocket(), Mqtt()], ids=lambda speech: speech.name
)
def test_a_stamp_is_written_where_the_event_has_its_value(speech):
    message = speech.publish(ROOM, [EVENT])
    made = stamped(message, speech.tail, EVENT)(1234567890123456)
    expected = EVENT.replace(STAMP, b"1234567890123456")
    if speech.path:
        (payload,) = frames.scan(made, masked=True, limit=1 << 20).payloads
        assert expected in payload
    else:
        assert expected in made
    assert len(made) == len(message)


@given(st.lists(st.integers(0, 3000), max_size=8))
def test_every_stamp_is_read_once_wherever_the_stream_is_cut(places):
    times: list[int] = []
    read = Stamps(times)
    for piece in cut(NATS_LINE * 7, places):
        read(bytes(piece))
    assert len(times) == 7


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (50, 50), (99, 99), (100, 100)])
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(percent, value):
    assert percentile(list(range(1, 101)), percent) == value


def test_a_percentile_of_one_value_is_that_value():
    assert percentile([7], 50) == percentile([7], 99) == 7


# -- what is made of it --------------------------------------------------------------------------------------


def samples(ours: list[float], theirs: list[float], lost: float = 0) -> goals.Samples:
    return {
        "fan-out": {
            "ces.2": [{"per_cpu": v, "rate": v, "server_cpu": 1.0, "lost": lost} for v in ours],
            "nats": [{"per_cpu": v, "rate": v, "server_cpu": 0.5, "lost": 0} for v in theirs],
        }
    }


def test_a_ratio_is_that_of_the_medians():
    assert goals.ratio(samples([1, 30, 3], [2, 2, 100]), "fan-out", "ces.2", "nats", "per_cpu") == 1.5


def test_what_was_not_measured_has_no_ratio_and_meets_nothing():
    assert goals.ratio(samples([1], []), "fan-out", "ces.2", "nats", "per_cpu") is None
    (verdict,) = goals.judge({}, [Goal("fan-out", "ces.2", "per_cpu", 1.3, "nats")])
    assert verdict.value is None and not verdict.met


@pytest.mark.parametrize(
    ("value", "at_least", "lost", "met"),
    [
        (1.3, True, 0, True),
        (1.29, True, 0, False),
        (1.3, False, 0, True),
        (1.31, False, 0, False),
        (2.0, True, 1, False),
    ],
)
def test_a_goal_is_met_on_its_side_of_the_limit_and_only_without_loss(value, at_least, lost, met):
    assert Verdict(Goal("fan-out", "ces.2", "per_cpu", 1.3, "nats", at_least), value, lost).met is met


def test_a_loss_in_any_round_is_remembered():
    (verdict,) = goals.judge(
        samples([9, 9], [1, 1], lost=2), [Goal("fan-out", "ces.2", "per_cpu", 1.3, "nats")]
    )
    assert verdict.lost == 4 and not verdict.met


TITLES = {"ces.2": "our hub", "ces.1": "our hub, ces.1", "plain": "plain", "nats": "nats-server & co"}


def test_the_table_shows_each_goal_the_share_of_the_core_and_what_was_lost():
    results = {"samples": samples([4e6], [2e6], lost=5), "about": {"date": "today"}, "notes": ["mind this"]}
    text = report.markdown(results, TITLES)
    assert "| ≥ 1.3 x | 2.00 x | lost 5 |" in text
    assert "**4.00 M** (4.00 M/s, 100%) LOST 5" in text
    assert "**2.00 M** (2.00 M/s, 50%)" in text
    assert "- date: today" in text and "**mind this**" in text


def test_the_chart_is_svg_with_a_bar_for_each_peer():
    root = ElementTree.fromstring(report.chart(samples([4e6], [2e6]), TITLES))
    space = "{http://www.w3.org/2000/svg}"
    heights = {
        r.get("fill"): float(r.get("height")) for r in root.iter(f"{space}rect") if r.get("width") == "26"
    }
    assert heights == {report.COLOURS["ces.2"]: 300.0, report.COLOURS["nats"]: 150.0}


@pytest.mark.parametrize(
    ("value", "metric", "shown"),
    [
        (None, "rate", "-"),
        (2_500_000, "rate", "2.50 M"),
        (25_000, "rate", "25 k"),
        (0.8, "kept", "0.80"),
        (11_100, "bytes_each", "11.1 kB"),
        (1.5, "p50_ms", "1.50 ms"),
        (3e9, "bytes_per_s", "3,000 MB/s"),
    ],
)
def test_numbers_are_written_as_people_read_them(value, metric, shown):
    assert report.short(value, metric) == shown


def test_every_goal_names_a_row_and_peers_that_are_measured():
    from benchmarks.__main__ import ROWS

    for goal in goals.GOALS:
        assert goal.peer in ROWS[goal.row]
        assert not goal.against or goal.against in ROWS[goal.row]


def test_two_hubs_are_measured_next_to_each_other_in_an_order_that_is_turned_round() -> None:
    there, back = (in_order("fan-out", number, before=True) for number in (0, 1))
    assert there[:2] == (goals.HUB, OLD)
    assert back == there[::-1]
    assert in_order("fan-out", 2, before=True) == there
    assert OLD not in in_order("idle", 0, before=True) + in_order("fan-out", 0, before=False)


def test_two_hubs_are_compared_round_by_round() -> None:
    rounds = {goals.HUB: [{"per_cpu": n} for n in (100.0, 60.0, 10.0)]}
    rounds[OLD] = [{"per_cpu": n} for n in (100.0, 50.0, 20.0)]
    assert compare({"fan-out": rounds}, "fan-out") == [
        "fan-out: 1.00 times the deliveries per CPU-second of before (0.50 to 1.20 in 3 rounds)."
    ]
    assert compare({}, "fan-out") == []
