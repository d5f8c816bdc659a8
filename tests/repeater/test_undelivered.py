"""What targets did not get: the list by itself, what comes into it and goes out again, and the HTTP side."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from ces.model import wire
from ces.model.wire import Run
from ces.repeater.api import SHOWN, counters
from ces.repeater.undelivered import ENTRY_BYTES, WHY, Undelivered
from tests.support.http import Client
from tests.support.links import record, run
from tests.support.repeaters import Api, Bench

pytestmark = pytest.mark.usefixtures("bare_records")

CP1, COLLECTOR = "ws://cp1:7101", "http://collector:80/event"
ROUTES = {"A": (CP1,), "B": (COLLECTOR,)}


def batch(room: str, *values: str) -> Run:
    """Records as a ces.2 link brings them: back to back."""
    return Run(room.encode(), [b"".join(record(room, value) for value in values)], len(values))


def size(*runs: Run, why: str = "why") -> int:
    """What runs of one part each take up in a list."""
    return sum(len(one.room) + one.size + ENTRY_BYTES + len(why) for one in runs)


def values(undelivered: Undelivered, target: str | None = None) -> list[str]:
    """The values of what is kept, the newest first."""
    return [json.loads(event)["key"] for _, event in undelivered.newest(target)]


# -- the list --------------------------------------------------------------------------------------------


def test_what_is_put_is_kept_with_its_target_room_time_and_reason() -> None:
    undelivered = Undelivered(10_000)
    assert undelivered.put(CP1, run("A", "1", "2"), "it was away", 1.5) == 0
    found = [(one.target, one.room, one.when, one.why, event) for one, event in undelivered.newest()]
    events = run("A", "2", "1").events
    assert found == [(CP1, b"A", 1.5, "it was away", event) for event in events]
    assert undelivered.by_target() == {CP1: 2}


def test_a_batch_is_one_entry_and_goes_out_as_it_came_in() -> None:
    undelivered = Undelivered(10_000)
    undelivered.put(CP1, batch("A", "1", "2", "3"), "why", 0)
    assert (undelivered.records, undelivered.bytes) == (3, size(batch("A", "1", "2", "3")))
    assert values(undelivered) == ["3", "2", "1"]
    (entry,) = undelivered.take(lambda entry: True)
    assert (entry.run.room, entry.run.parts, entry.run.count) == (b"A", batch("A", "1", "2", "3").parts, 3)


def test_the_oldest_is_pushed_out_at_the_limit_and_not_before() -> None:
    one = run("A", "1")
    for limit, kept, lost in ((3 * size(one), 3, 0), (3 * size(one) - 1, 2, 1)):
        undelivered = Undelivered(limit)
        told = [undelivered.put(CP1, run("A", value), "why", 0) for value in "123"]
        assert told == [0, 0, lost]
        assert (undelivered.records, undelivered.lost) == (kept, lost)
        assert values(undelivered) == ["3", "2", "1"][:kept]


def test_what_is_larger_than_the_limit_is_lost_alone() -> None:
    undelivered = Undelivered(size(run("A", "1")))
    undelivered.put(CP1, run("A", "1"), "why", 0)
    assert undelivered.put(CP1, batch("A", "2", "3"), "why", 0) == 2
    assert values(undelivered) == ["1"]


def test_a_list_of_0_bytes_keeps_nothing_and_counts_it() -> None:
    undelivered = Undelivered(0)
    assert undelivered.put(CP1, run("A", "1", "2"), "why", 0) == 2
    assert (undelivered.records, undelivered.bytes, undelivered.lost) == (0, 0, 2)


def test_a_reason_is_cut_to_its_bound() -> None:
    undelivered = Undelivered(10_000)
    undelivered.put(CP1, run("A", "1"), "x" * 100_000, 0)
    ((entry, _),) = undelivered.newest()
    assert entry.why == "x" * WHY


def test_what_is_for_one_target_is_taken_or_removed_without_the_others() -> None:
    undelivered = Undelivered(100_000)
    for value in range(6):
        undelivered.put((CP1, COLLECTOR)[value % 2], run("A", str(value)), "why", value)
    assert undelivered.remove(CP1) == 3
    assert values(undelivered) == ["5", "3", "1"]
    assert values(undelivered, CP1) == []
    taken = undelivered.take(lambda entry: entry.when < 5)
    assert [entry.when for entry in taken] == [1, 3]
    assert undelivered.remove() == 1
    assert (undelivered.records, undelivered.bytes) == (0, 0)
    assert (undelivered.retried, undelivered.removed, undelivered.lost) == (2, 4, 0)


steps = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "put", "take", "remove"]),
        st.sampled_from([CP1, COLLECTOR]),
        st.integers(1, 5),
        st.booleans(),
    ),
    max_size=30,
)


@given(steps)
def test_each_record_is_kept_or_retried_or_removed_or_lost_and_the_bound_holds(steps: list[Any]) -> None:
    undelivered, put, model = Undelivered(4 * size(run("A", "1"))), 0, list[str]()
    for what, target, count, packed in steps:
        if what == "put":
            names = [str(put + number) for number in range(count)]
            put += count
            undelivered.put(target, (batch if packed else run)("A", *names), "why", 0)
            model += names
            held = list(reversed(values(undelivered)))
            assert held == model[len(model) - len(held) :] or count > 1, "what is left is the youngest"
            model = held
        elif what == "take":
            undelivered.take(lambda entry, target=target: entry.target == target)
        else:
            undelivered.remove(target)
        model = list(reversed(values(undelivered)))
        assert undelivered.bytes <= undelivered.limit
        assert undelivered.records == len(model) == sum(undelivered.by_target().values())
        gone = undelivered.retried + undelivered.removed + undelivered.lost
        assert undelivered.records + gone == put
    undelivered.give_up()
    assert (undelivered.records, undelivered.bytes, undelivered.put(CP1, run("A", "1"), "why", 0)) == (
        0,
        0,
        0,
    )


# -- what comes in and goes out again --------------------------------------------------------------------


class Collector(Client):
    """An HTTP client whose target answers at once with `code`, or not at all."""

    code: int | None = 200

    def post(self, url: str, *, data: bytes, **more: Any) -> Deferred[Any]:
        request = super().post(url, data=data, **more)
        if self.code is not None:
            self.answer(self.code)
        return request


@pytest.fixture
def make() -> Iterator[Any]:
    """Makes a bench whose hub is up and whose collector is `client`; all are stopped in the end."""
    benches: list[Bench] = []

    def bench(**options: Any) -> Bench:
        made = Bench(**{"routes": ROUTES, "client": Collector(), **options})
        made.hub_up()
        benches.append(made)
        return made

    yield bench
    for made in benches:
        made.stop()
        assert made.network.getDelayedCalls() == []


def sent(bench: Bench) -> list[str]:
    """The values of what the collector was asked to take."""
    return [json.loads(body)["key"] for body in bench.client.bodies]


def refuse(bench: Bench, seconds: float) -> None:
    """Time passes, in which nobody can be dialled."""
    end = bench.network.seconds() + seconds
    while bench.network.seconds() < end:
        for dial in list(bench.network.dials):
            dial.refuse()
        bench.network.pass_time(0.5)
    while bench.target(CP1)["state"] == "dialling":  # what begins is random, and to be refused takes 0.3 s
        for dial in list(bench.network.dials):
            dial.refuse()
        bench.network.pass_time(0.1, 0.1)


def reasons(bench: Bench) -> set[str]:
    return {entry.why for entry, _ in bench.undelivered.newest()}


def test_what_an_http_target_refuses_for_good_is_kept_and_taken_when_sent_again(make: Any) -> None:
    bench = make()
    bench.client.code = 400
    bench.from_hub(run("B", "1", "2"))
    assert values(bench.undelivered) == ["2", "1"]
    assert reasons(bench) == {"it answered 400, which is final"}
    assert {entry.room for entry, _ in bench.undelivered.newest()} == {b"B"}
    bench.client.code = 200
    assert bench.repeater.pool.retry() == 2
    assert sent(bench) == ["1", "2", "1", "2"]
    assert bench.undelivered.records == 0
    assert bench.target(COLLECTOR)["sent"] == 2


def test_what_an_http_target_did_not_take_in_time_is_kept_in_order_with_the_last_failure(make: Any) -> None:
    bench = make(target_patience=0.4, http_parallel=1)
    bench.client.code = 503
    bench.from_hub(run("B", "1", "2", "3"))
    assert sent(bench) == ["1"], "which steps behind the others"
    bench.network.pass_time(1)
    assert values(bench.undelivered) == ["3", "2", "1"]
    assert reasons(bench) == {"the target was away for too long: it answered 503"}
    assert bench.target(COLLECTOR)["buffer-utilization"] == 0


def test_what_an_http_target_has_no_place_for_is_kept(make: Any) -> None:
    bench = make(target_buffer=3 * run("B", "1").size, http_parallel=1)
    bench.client.code = None
    bench.from_hub(run("B", *"12345"))
    assert values(bench.undelivered) == ["2", "1"]
    assert reasons(bench) == {"too much waits for the target"}


def test_what_a_link_target_did_not_get_in_time_is_kept_and_sent_again_in_order(make: Any) -> None:
    bench = make(target_patience=10)
    bench.from_hub(run("A", "1", "2"))
    bench.from_hub(run("A", "3"))
    refuse(bench, 60)
    assert values(bench.undelivered) == ["3", "2", "1"]
    (why,) = reasons(bench)
    assert why.startswith("the target was away for too long: ")
    assert bench.repeater.pool.retry(CP1) == 3
    answer = bench.dial.answer()
    assert answer.owner.records == [record("A", "1"), record("A", "2"), record("A", "3")]
    assert bench.undelivered.records == 0


def test_what_a_link_target_has_no_place_for_is_kept_before_its_link_is_up_and_after(make: Any) -> None:
    one = record("A", "1")
    bench = make(target_buffer=3 * len(one))
    bench.from_hub(*[run("A", value) for value in "12345"])
    dropped = bench.target(CP1)["dropped"]
    assert dropped == bench.undelivered.records > 0
    answer = bench.dial.answer()
    answer.move = lambda: False
    for value in range(40):
        bench.from_hub(run("A", str(value)))
    assert bench.target(CP1)["dropped"] == bench.undelivered.records > dropped
    assert reasons(bench) == {"too much waits for the target"}
    del answer.move


def test_what_does_not_fit_beside_what_waits_stays_and_keeps_its_order(make: Any) -> None:
    one = run("A", "1")
    bench = make(target_buffer=2 * one.size, target_patience=10)
    for value in "12345":
        bench.undelivered.put(CP1, run("A", value), "why", 0)
    bench.undelivered.put(COLLECTOR, run("B", "6"), "why", 0)
    bench.from_hub(run("A", "0"))
    assert bench.repeater.pool.retry() == 2, "one of five for the link, and the collector's"
    assert values(bench.undelivered) == ["5", "4", "3", "2"]
    assert sent(bench) == ["6"]
    answer = bench.dial.answer()
    bench.network.pass_time(1)
    assert answer.owner.records == [record("A", "0"), record("A", "1")]


def test_what_is_sent_again_counts_as_what_waits_does(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "RECORD_BYTES", 128)
    bench = make(target_buffer=3 * 128, http_parallel=1)
    bench.client.code = None
    for value in "12345":
        bench.undelivered.put(COLLECTOR, run("B", value), "why", 0)
    assert bench.repeater.pool.retry() == 3
    assert values(bench.undelivered) == ["5", "4"]
    assert bench.target(COLLECTOR)["buffer-utilization"] == 3 * 128


def test_a_large_one_that_does_not_fit_is_not_overtaken(make: Any) -> None:
    bench = make(target_buffer=100)
    for value in ("x" * 40, "y" * 40, "3"):
        bench.undelivered.put(CP1, run("A", value), "why", 0)
    assert bench.repeater.pool.retry() == 1
    assert values(bench.undelivered) == ["3", "y" * 40]
    bench.dial.refuse()


def test_a_retry_forgets_the_delay_of_a_target_that_fails_again(make: Any) -> None:
    bench = make()
    bench.client.code = 503
    bench.from_hub(run("B", "1"))
    bench.network.pass_time(40)
    bench.undelivered.put(COLLECTOR, run("B", "2"), "why", 0)
    bench.repeater.pool.retry()
    tries = len(bench.client.bodies)
    bench.network.pass_time(1.5)
    assert len(bench.client.bodies) == tries + 1


def test_a_target_is_tried_at_once_however_long_its_delay_has_become(make: Any) -> None:
    bench = make(target_patience=10)
    bench.client.code = 503
    bench.from_hub(run("A", "1"), run("B", "2"))
    refuse(bench, 60)
    bench.from_hub(run("A", "3"), run("B", "4"))
    refuse(bench, 8)
    bench.client.code = 200
    assert {bench.target(url)["state"] for url in (CP1, COLLECTOR)} == {"waiting"}
    assert bench.repeater.pool.retry() == 2
    assert sent(bench)[-2:] == ["2", "4"]
    assert bench.dial.answer().owner.records == [record("A", "3"), record("A", "1")]


def test_what_fails_again_is_undelivered_again(make: Any) -> None:
    bench = make()
    bench.client.code = 400
    bench.from_hub(run("B", "1"))
    bench.network.pass_time(5)
    bench.repeater.pool.retry()
    assert values(bench.undelivered) == ["1"]
    ((entry, _),) = bench.undelivered.newest()
    assert abs(entry.when - time.time()) < 60  # for people: by the system clock


@pytest.mark.parametrize("url", [CP1, COLLECTOR])
def test_a_target_that_the_routes_no_longer_name_is_retried_and_then_forgotten(make: Any, url: str) -> None:
    bench = make(target_patience=5)
    bench.repeater.route({})
    bench.network.pass_time(2)
    assert bench.repeater.pool.status() == []
    bench.undelivered.put(url, run("A", "1"), "why", 0)
    assert bench.repeater.pool.retry() == 1
    if url == CP1:
        assert bench.dial.answer().owner.records == [record("A", "1")]
    else:
        assert sent(bench) == ["1"]
    bench.network.pass_time(20)
    assert bench.repeater.pool.status() == []
    assert bench.repeater.pool.total("sent") == 1


def test_what_is_pushed_out_is_counted_and_told(make: Any) -> None:
    bench = make(undelivered_bytes=2 * size(run("B", "1"), why="it answered 400, which is final"))
    bench.client.code = 400
    bench.from_hub(run("B", *"12345"))
    assert values(bench.undelivered) == ["5", "4"]
    assert bench.undelivered.lost == 3
    assert any("1 undelivered records are lost: more than" in line for line in bench.lines)


def test_a_list_of_0_bytes_leaves_the_telling_to_the_target(make: Any) -> None:
    bench = make(undelivered_bytes=0)
    bench.client.code = 400
    bench.from_hub(run("B", "1"))
    assert bench.undelivered.lost == bench.target(COLLECTOR)["dropped"] == 1
    assert not any("undelivered" in line for line in bench.lines)


def test_what_is_left_when_the_repeater_stops_is_counted_and_told() -> None:
    bench = Bench(ROUTES, client=Collector())
    bench.hub_up()
    bench.client.code = 400
    bench.from_hub(run("B", "1", "2"))
    bench.stop()
    assert (bench.undelivered.lost, bench.undelivered.records) == (2, 0)
    assert any("2 undelivered records are lost: the repeater stops" in line for line in bench.lines)
    assert bench.repeater.pool.retry() == 0, "nobody would send them"


def test_what_was_too_old_when_the_repeater_stops_is_counted_like_the_rest() -> None:
    bench = Bench(ROUTES, target_patience=1.5)
    bench.hub_up()
    bench.from_hub(run("A", "1"))
    bench.network.advance(1)
    bench.network.advance(0.6)
    assert bench.repeater.side.dropped == 0, "nobody has looked since"
    bench.repeater.pool.stop()
    assert bench.repeater.side.dropped == 1
    bench.stop()


# -- HTTP ------------------------------------------------------------------------------------------------


@pytest.fixture
def bench(make: Any) -> Bench:
    """Of four events that the collector refused."""
    made: Bench = make()
    made.client.code = 404
    made.network.advance(1)
    made.from_hub(run("B", "1", "2", "3"))
    made.undelivered.put(CP1, run("A", "4"), "why", 2.5)
    return made


@pytest.fixture
def api(bench: Bench) -> Api:
    return Api(bench)


def test_what_is_undelivered_is_shown_newest_first_with_totals(bench: Bench, api: Api) -> None:
    code, said = api.ask("GET", "/undelivered?limit=2")
    answer = json.loads(said)
    assert code == 200
    newest = answer.pop("newest")
    assert newest[0] == {
        "target": CP1,
        "room": "A",
        "when": "1970-01-01T00:00:02.500000Z",
        "why": "why",
        "event": json.loads(run("A", "4").events[0]),
    }
    assert [one["event"]["key"] for one in newest] == ["4", "3"]
    assert answer == {**bench.repeater.pool.undelivered.status(), "targets": {COLLECTOR: 3, CP1: 1}}
    assert answer["records"] == 4


def test_what_is_undelivered_to_one_target_is_shown_without_the_rest(bench: Bench, api: Api) -> None:
    for written in (quote(COLLECTOR, safe=""), "http://collector/event"):
        newest = json.loads(api.ask("GET", f"/undelivered?target={written}")[1])["newest"]
        assert [one["event"]["key"] for one in newest] == ["3", "2", "1"]


def test_an_answer_is_bounded(bench: Bench, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in range(2 * SHOWN):
        bench.undelivered.put(CP1, run("A", str(value)), "why", 0)
    assert len(json.loads(api.ask("GET", "/undelivered")[1])["newest"]) == SHOWN
    assert json.loads(api.ask("GET", "/undelivered?limit=0")[1])["newest"] == []
    assert len(json.loads(api.ask("GET", "/undelivered?limit=10000")[1])["newest"]) == 2 * SHOWN + 4
    monkeypatch.setattr("ces.repeater.shown.LETTERS_BYTES", 10)
    assert len(json.loads(api.ask("GET", "/undelivered")[1])["newest"]) == 1


@pytest.mark.parametrize(
    "event", [b'{"a":}', b'{"\xff":1}', b"{" * 5000, b'{"a":' * 3000 + b"1" + b"}" * 3000, b'{"a":NaN}']
)
def test_an_event_that_is_no_json_is_shown_as_text(bench: Bench, api: Api, event: bytes) -> None:
    bench.undelivered.put(CP1, Run(b"A", [b"A\n%b\n" % event]), "why", 0)
    code, said = api.ask("GET", "/undelivered?limit=1")
    assert code == 200
    assert json.loads(said)["newest"][0]["event"] == event.decode("utf-8", "replace")


def test_an_event_that_is_nested_deeply_is_shown_in_about_its_own_size(bench: Bench, api: Api) -> None:
    event = b'{"a":' * 800 + b"1" + b"}" * 800
    bench.undelivered.put(CP1, Run(b"A", [b"A\n%b\n" % event]), "why", 0)
    assert len(api.ask("GET", "/undelivered?limit=1")[1]) < len(event) + 1000


def test_a_retry_says_how_many_were_given_back_and_how_many_are_left(bench: Bench, api: Api) -> None:
    bench.client.code = 200
    code, said = api.ask("POST", f"/undelivered/retry?target={quote(COLLECTOR)}")
    assert (code, json.loads(said)) == (200, {"retried": 3, "undelivered": 1})
    assert sent(bench) == ["1", "2", "3"] * 2
    assert json.loads(api.ask("POST", "/undelivered/retry")[1]) == {"retried": 1, "undelivered": 0}
    assert bench.dial.answer().owner.records == [record("A", "4")]
    assert json.loads(api.ask("POST", "/undelivered/retry")[1]) == {"retried": 0, "undelivered": 0}


def test_what_is_undelivered_can_be_removed(bench: Bench, api: Api) -> None:
    assert json.loads(api.ask("DELETE", f"/undelivered?target={CP1}")[1]) == {"removed": 1, "undelivered": 3}
    assert json.loads(api.ask("DELETE", "/undelivered")[1]) == {"removed": 3, "undelivered": 0}
    assert bench.undelivered.status()["removed"] == 4
    assert bench.network.dials == []


@pytest.mark.parametrize(
    ("method", "path", "sentence"),
    [
        ("GET", "?limit=-1", "Parameter 'limit': expected a whole number from 0 to 10000, got '-1'."),
        ("GET", "?limit=10001", "Parameter 'limit': expected a whole number from 0 to 10000, got '10001'."),
        ("GET", "?limt=1", "Parameter 'limt': there is no such parameter; did you mean limit?"),
        ("POST", "/retry?limit=1", "Parameter 'limit': there is no such parameter."),
        ("POST", "/retry?target=", "Parameter 'target': an address is empty;"),
        ("DELETE", "?traget=x", "Parameter 'traget': there is no such parameter; did you mean target?"),
        ("DELETE", "?target=ftp://x", "Parameter 'target': address 'ftp://x' has the scheme 'ftp';"),
        ("DELETE", "?target", "Parameter 'target': an address is empty;"),
    ],
)
def test_a_query_that_is_not_understood_is_one_sentence_and_changes_nothing(
    bench: Bench, api: Api, method: str, path: str, sentence: str
) -> None:
    code, said = api.ask(method, f"/undelivered{path}")
    assert (code, said[: len(sentence)]) == (400, sentence)
    assert said.endswith((".", "?"))
    assert not said.endswith("?.")
    assert bench.undelivered.records == 4


def test_status_and_metrics_count_what_is_undelivered(bench: Bench, api: Api) -> None:
    bench.client.code = 200
    bench.repeater.pool.retry(COLLECTOR)
    status = json.loads(api.ask("GET", "/status")[1])["info"]["repeater"]["undelivered"]
    kept = bench.undelivered
    assert status == {
        "records": 1,
        "buffer-utilization": kept.bytes,
        "buffer-capacity": kept.limit,
        "retried": 3,
        "removed": 0,
        "lost": 0,
    }
    metrics = api.ask("GET", "/metrics")[1].splitlines()
    assert "ces_repeater_undelivered_records 1.0" in metrics
    assert f"ces_repeater_undelivered_bytes {float(kept.bytes)}" in metrics
    assert "ces_repeater_undelivered_retried_records_total 3.0" in metrics
    assert "ces_repeater_undelivered_removed_records_total 0.0" in metrics
    assert "ces_repeater_undelivered_lost_records_total 0.0" in metrics
    assert "ces_repeater_undelivered_records" in counters(bench.repeater)
