"""What goes out over HTTP: requests, what their answers mean, order, bounds and delays."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, cast

import pytest
from treq.client import HTTPClient
from treq.testing import RequestTraversalAgent, StringStubbingResource
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.web.iweb import IBodyProducer
from zope.interface.verify import verifyObject

from ces.link.link import Link
from ces.link.side import Side
from ces.model.address import Address
from ces.model.wire import RECORD_BYTES, Run
from ces.repeater.http_target import ANSWER_BYTES, Body, HttpTarget, read_to_end
from ces.repeater.settings import RepeaterSettings
from ces.repeater.undelivered import Undelivered
from tests.support.http import Answered, Client
from tests.support.links import Lines

URL = "http://collector:80/event"


class Bench:
    def __init__(self, settings: RepeaterSettings, client: Any = None) -> None:
        self.clock, self.lines = Clock(), Lines()
        self.client = client or Client()
        self.undelivered = Undelivered(1024 * 1024)
        side: Side[Link] = Side(settings, self.clock, Logger(namespace="ces.test", observer=self.lines))
        address = Address("http", "collector", 80, "/event")
        self.target = HttpTarget(address, side, settings, self.undelivered, cast(HTTPClient, self.client))

    def put(self, *numbers: int) -> None:
        self.target.put(Run(b"A", [b'A\n{"n":%d}\n' % number for number in numbers]))

    def waiting(self) -> list[bytes]:
        return [data for data, _ in self.client.asked]


def body(number: int) -> bytes:
    return b'{"n":%d}' % number


def bodies(*numbers: int) -> list[bytes]:
    return [body(number) for number in numbers]


@pytest.fixture
def make() -> Iterator[Any]:
    benches: list[Bench] = []

    def bench(**settings: Any) -> Bench:
        benches.append(Bench(RepeaterSettings(**settings)))
        return benches[-1]

    yield bench
    for made in benches:
        made.target.stop()
        assert made.clock.getDelayedCalls() == []


def test_each_event_is_one_post_of_its_json_as_it_came_through_treq() -> None:
    seen = []

    def answer(
        method: bytes, url: str, params: object, headers: dict[bytes, list[bytes]], data: bytes
    ) -> Any:
        seen.append((method, url, headers[b"Content-Type"], data))
        return 200, {}, b"thanks"

    agent = RequestTraversalAgent(StringStubbingResource(answer))
    bench = Bench(RepeaterSettings(), client=HTTPClient(agent, data_to_body_producer=Body))
    bench.target.put(Run(b"A", [b'A\n{"key": "power",  "x":1}\n', b"A\n{}\n"]))
    expected = [
        (b"POST", "http://collector/event", [b"application/json"], data)
        for data in (b'{"key": "power",  "x":1}', b"{}")
    ]
    assert seen == expected
    assert bench.target.sent == 2
    assert bench.clock.getDelayedCalls() == []


def test_events_go_in_order_at_most_so_many_at_a_time(make: Any) -> None:
    bench = make(http_parallel=3)
    bench.put(*range(7))
    assert bench.waiting() == bodies(0, 1, 2)
    assert bench.client.answer(200, 1) == body(1)
    assert bench.waiting() == bodies(0, 2, 3)
    while bench.client.asked:
        bench.client.answer(204)
    assert bench.client.bodies == bodies(*range(7))
    assert (bench.target.sent, bench.target.waiting, bench.target.state) == (7, 0, "idle")


@pytest.mark.parametrize("code", [301, 400, 404, 410, 429])
def test_an_answer_that_is_no_success_and_no_5xx_is_final(make: Any, code: int) -> None:
    bench = make()
    bench.put(0, 1)
    bench.client.answer(code)
    bench.client.answer(200)
    bench.clock.pump([1] * 30)
    assert bench.client.bodies == bodies(0, 1)
    status = bench.target.status()
    assert (status["sent"], status["dropped"], status["failures"]) == (1, 1, 1)
    assert status["buffer-utilization"] == 0
    assert f"it answered {code}, which is final" in bench.lines[0]


def test_after_5xx_an_event_is_tried_again_behind_the_others(make: Any) -> None:
    bench = make(http_parallel=1)
    bench.put(0, 1, 2)
    bench.client.answer(500)
    assert bench.client.asked == []
    assert bench.target.state == "waiting"
    bench.clock.advance(1.5)
    assert bench.client.answer(200) == body(1)
    assert bench.client.answer(200) == body(2)
    assert bench.client.answer(200) == body(0)
    assert (bench.target.sent, bench.target.dropped, bench.target.failures) == (3, 0, 1)
    assert bench.target.reason == ""


def test_while_a_target_fails_one_request_at_a_time_tries_it(make: Any) -> None:
    bench = make(http_parallel=3)
    bench.put(*range(6))
    for _ in range(3):
        bench.client.fail()
    bench.clock.advance(1.5)
    assert bench.waiting() == bodies(0), "and after a connection error events keep their places"
    bench.client.answer(200)
    assert bench.waiting() == bodies(1, 2, 3)


def test_connection_errors_keep_the_order_however_they_come(make: Any) -> None:
    bench = make(http_parallel=3)
    bench.put(*range(5))
    bench.client.fail(1)
    bench.client.fail(1)
    bench.client.fail(0)
    bench.clock.advance(1.5)
    order = []
    while bench.client.asked:
        order.append(bench.client.answer(200))
    assert order == bodies(*range(5))


def test_the_delay_between_attempts_grows_and_is_forgotten_after_a_success(make: Any) -> None:
    bench = make(target_patience=1000)
    bench.put(0)
    times = []
    for _ in range(400):
        if bench.client.asked:
            times.append(bench.clock.seconds())
            bench.client.fail()
        bench.clock.advance(0.5)
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert waits[0] <= 2
    assert 10 < max(waits) <= 45.5
    while not bench.client.asked:
        bench.clock.advance(0.5)
    bench.client.answer(200)
    bench.put(1)
    bench.client.fail()
    bench.clock.advance(1.5)
    assert bench.waiting() == bodies(1)


def test_a_target_that_does_not_answer_is_given_up_after_the_timeout_and_tried_again(make: Any) -> None:
    bench = make(http_timeout=10)
    bench.put(0)
    bench.clock.advance(10)
    assert bench.client.cancelled == 1
    assert bench.target.reason == "no answer within 10 s"
    bench.clock.advance(1.5)
    assert bench.client.answer(200) == body(0)


def test_an_event_waits_no_longer_than_the_patience(make: Any) -> None:
    bench = make(target_patience=20, http_parallel=1)
    bench.put(0, 1)
    for _ in range(60):
        if bench.client.asked:
            bench.client.answer(503)
        bench.clock.advance(0.5)
        bench.target.expire(bench.clock.seconds())
    assert bench.target.dropped == 2
    assert not bench.target.holds
    assert bench.target.waiting == 0
    assert any("were dropped: the target was away for too long" in line for line in bench.lines)
    assert len(bench.lines) < 10, "however often it fails"


def test_one_event_that_always_fails_holds_up_no_other(make: Any) -> None:
    bench = make(http_parallel=2, target_patience=60)
    taken = 0
    bench.put(0)
    for number in range(1, 120):
        bench.put(number)
        while bench.client.asked:
            poison = bench.client.asked[0][0] == body(0)
            bench.client.answer(500 if poison else 200)
            taken += not poison
        bench.clock.advance(0.5)
        bench.target.expire(bench.clock.seconds())
    bench.clock.advance(1)
    while bench.client.asked:
        bench.client.answer(500)
    bench.target.expire(bench.clock.seconds())
    assert taken == bench.target.sent >= 110
    assert bench.target.dropped == 1, "the one that always failed"


def test_what_does_not_fit_pushes_out_the_oldest(make: Any) -> None:
    bench = make(target_buffer=5 * RECORD_BYTES, http_parallel=1)
    bench.put(0)
    bench.put(*range(1, 9))
    assert bench.target.dropped == 4
    assert bench.target.waiting == 5 * RECORD_BYTES
    while bench.client.asked:
        bench.client.answer(200)
    assert bench.client.bodies == bodies(0, 5, 6, 7, 8), "what is under way is not taken back"


@pytest.mark.parametrize("size", [2, 50, 1000])
def test_events_that_wait_take_at_most_three_times_the_memory_they_count_for(make: Any, size: int) -> None:
    bench = make(target_buffer=2**20)
    bench.put(0, 1, 2, 3)  # these are under way
    gc.collect()
    tracemalloc.start()
    for number in range(min(10_000, 2**21 // size)):
        event = b'{"n":"%0*d"}' % (size - 8, number) if size > 8 else b"{}"
        bench.target.put(Run(bytes(bytearray(b"A")), [b"A\n%b\n" % event]))
        if bench.undelivered.records:
            bench.undelivered.remove()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.9 * 2**20 < bench.target.waiting <= 2**20
    assert used < 3 * 2**20


def test_what_waits_counts_as_its_record_does_whatever_becomes_of_it(make: Any) -> None:
    bench = make(http_parallel=1, target_patience=20)
    large = Run(b"A", [b'A\n{"n":"%b"}\n' % (500 * b"x")])
    bench.put(0, 1, 2)
    bench.target.put(large)
    assert bench.target.waiting == 3 * RECORD_BYTES + large.weight
    bench.client.answer(200)
    bench.client.answer(404)
    assert bench.target.waiting == RECORD_BYTES + large.weight
    bench.client.answer(503)
    assert bench.target.waiting == RECORD_BYTES + large.weight
    bench.clock.advance(20)
    bench.target.expire(20)
    while bench.client.asked:
        bench.client.answer(503)
    assert bench.target.waiting == 0


def test_to_stop_cancels_requests_and_counts_what_was_not_answered(make: Any) -> None:
    bench = make(http_parallel=2)
    bench.put(*range(5))
    bench.client.answer(200)
    bench.target.stop()
    assert bench.client.cancelled == 2
    assert bench.target.dropped == 4
    assert bench.clock.getDelayedCalls() == []


def test_a_body_that_does_not_end_is_cut_and_its_event_is_not_sent_again() -> None:
    for answer in (Answered(200, open_ended=True), Answered(200, bytes(ANSWER_BYTES + 1), open_ended=True)):
        clock = Clock()
        done = Deferred.fromCoroutine(read_to_end(cast(Any, answer), 10, clock))
        clock.advance(10)
        assert answer.closed
        assert done.called
        assert clock.getDelayedCalls() == []


def test_a_request_body_is_written_whole() -> None:
    class Consumer:
        written = b""

        def write(self, data: bytes) -> None:
            self.written += data

    producer, consumer = Body(b"{}"), Consumer()
    assert verifyObject(IBodyProducer, producer)
    done: list[None] = []
    producer.startProducing(cast(Any, consumer)).addCallback(done.append)
    assert (consumer.written, producer.length, done) == (b"{}", 2, [None])
