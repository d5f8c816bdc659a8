"""What goes out over links: dialling, holding, idling, failing, one target without the other."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from ces.link.turn import Memo
from ces.model.wire import CES1, CES2, Run
from tests.support.http import Client
from tests.support.links import record, run
from tests.support.repeaters import Bench

pytestmark = pytest.mark.usefixtures("bare_records")

CP1, CP2 = "ws://cp1:7101", "ws://cp2:7101"
ROUTES = {"A": (CP1,), "B": (CP2,), "C": (CP1, CP2)}


@pytest.fixture
def make() -> Iterator[Any]:
    """Makes a bench whose hub is up; all of them are stopped in the end, and leave nothing behind."""
    benches: list[Bench] = []

    def bench(*, hub: str = CES2, **options: Any) -> Bench:
        made = Bench(**{"routes": ROUTES, **options})
        made.hub_up(hub)
        benches.append(made)
        return made

    yield bench
    for made in benches:
        made.stop()
        assert made.network.getDelayedCalls() == []


@pytest.mark.parametrize("dialect", [CES1, CES2])
@pytest.mark.parametrize("hub", [CES1, CES2])
def test_what_comes_while_a_target_is_dialled_waits_and_follows_in_order(
    make: Any, hub: str, dialect: str
) -> None:
    bench = make(hub=hub)
    bench.from_hub(run("A", "1", "2"), run("C", "3"))
    bench.from_hub(run("A", "4"))
    dial = bench.network.dials[0]
    assert (dial.name, dial.port, dial.path) == ("cp1", 7101, "/connect/A/rep-1")
    assert bench.target(CP1)["state"] == "dialling"
    answer = dial.answer(dialect=dialect)
    assert answer.owner.records == [record("A", "1"), record("A", "2"), record("C", "3"), record("A", "4")]
    assert bench.target(CP1)["state"] == "up"
    assert bench.target(CP1)["sent"] == 4
    bench.network.pass_time(0.2, 0.1)
    assert bench.target(CP1)["buffer-utilization"] == 0


def test_the_room_and_the_id_are_encoded_in_the_path(make: Any) -> None:
    bench = make(routes={"*": (CP1,)})
    bench.from_hub(run("a/b ü"))
    assert bench.dial.path == "/connect/a%2Fb%20%C3%BC/rep-1"
    bench.dial.refuse()


def test_one_link_serves_every_room_of_a_target_while_it_is_used(make: Any) -> None:
    bench = make()
    bench.from_hub(run("A", "1"))
    answer = bench.dial.answer()
    for number in range(4):
        bench.network.pass_time(4)
        bench.from_hub(run("A", str(number)))
    assert bench.network.dials == []
    assert len(answer.owner.records) == 5
    assert answer.owner.calls.count("left") == 0


def test_an_unused_link_is_closed_with_1000_and_the_next_record_dials_anew(make: Any) -> None:
    bench = make()
    bench.from_hub(run("A", "1"))
    answer = bench.dial.answer()
    bench.network.pass_time(5)
    assert answer.peer.close_code == 1000
    assert bench.target(CP1)["state"] == "idle"
    assert bench.target(CP1)["failures"] == 0
    bench.network.pass_time(60)
    assert bench.network.dials == []
    bench.from_hub(run("C", "2"))
    dial = next(dial for dial in bench.network.dials if dial.name == "cp1")
    assert dial.path == "/connect/C/rep-1"
    assert dial.answer().owner.records == [record("C", "2")]


def test_what_comes_back_is_inserted_and_counts_as_use(make: Any) -> None:
    bench = make()
    bench.from_hub(run("A", "1"))
    answer = bench.dial.answer()
    for _ in range(3):
        bench.network.pass_time(4)
        answer.peer.put(run("X", "back"))
        answer.peer.flush(Memo())
        bench.network.settle()
    assert bench.hub.owner.records == [record("X", "back")] * 3
    assert answer.owner.calls.count("left") == 0
    assert bench.repeater.received_records["target"] == 3


def test_a_dead_target_delays_no_other(make: Any) -> None:
    bench = make()
    bench.from_hub(run("C", "1"))
    dead, alive = bench.network.dials
    answer = alive.answer()
    assert answer.owner.records == [record("C", "1")]
    dead.refuse()
    bench.network.pass_time(0.5)
    bench.from_hub(run("C", "2"))
    assert answer.owner.records == [record("C", "1"), record("C", "2")]
    assert bench.target(CP1)["state"] == "waiting"
    assert bench.target(CP1)["reason"] == "Connection was refused by other side: Connection refused"


def test_a_dead_target_is_dialled_with_a_growing_delay_and_gets_all_when_it_is_back(make: Any) -> None:
    bench = make(target_patience=600)
    bench.from_hub(run("A", "1"))
    times = []
    while bench.network.seconds() < 200:
        if bench.network.dials:
            times.append(bench.network.seconds())
            bench.dial.refuse()
            bench.from_hub(run("A", "more"))
        bench.network.pass_time(0.5)
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert waits[0] <= 2
    assert max(waits) > 10
    assert max(waits) <= 46
    while not bench.network.dials:
        bench.network.pass_time(0.5)
    answer = bench.dial.answer()
    assert answer.owner.records == [record("A", "1")] + [record("A", "more")] * len(times)
    assert bench.target(CP1)["failures"] == len(times)


def test_what_waits_longer_than_the_patience_is_dropped_counted_and_told(make: Any) -> None:
    bench = make(target_patience=10)
    bench.from_hub(run("A", "old", "old"))
    bench.dial.refuse()
    for _ in range(20):
        bench.network.pass_time(0.5)
        for dial in list(bench.network.dials):
            dial.refuse()
    bench.network.pass_time(1)
    assert bench.target(CP1)["dropped"] == 2
    assert bench.repeater.side.dropped == 2
    assert any(
        f"2 records for {CP1} were dropped: the target was away for too long" in line for line in bench.lines
    )
    bench.network.pass_time(60)
    for dial in list(bench.network.dials):
        dial.refuse()
    bench.network.pass_time(60)
    assert bench.network.dials == [], "nothing waits, so nobody dials"
    assert bench.target(CP1)["state"] == "idle"
    bench.from_hub(run("A", "new"))
    assert bench.dial.answer().owner.records == [record("A", "new")]


def test_what_does_not_fit_pushes_out_the_oldest(make: Any) -> None:
    size = len(record("A", "0"))
    bench = make(target_buffer=3 * size)
    bench.from_hub(*[Run(b"A", [record("A", str(number))]) for number in range(5)])
    bench.from_hub(run("A", "5"))
    assert bench.target(CP1)["buffer-utilization"] <= bench.target(CP1)["buffer-capacity"] == 3 * size
    dropped = bench.target(CP1)["dropped"]
    answer = bench.dial.answer()
    assert len(answer.owner.records) + dropped == 6
    assert answer.owner.records[-1] == record("A", "5")
    assert any("too much waits for the target" in line for line in bench.lines)


def test_a_link_that_is_stuck_is_not_closed_as_unused_and_its_records_go_to_the_next(make: Any) -> None:
    bench = make()
    bench.from_hub(run("A", "1"))
    answer = bench.dial.answer()
    answer.dialled.pauseProducing()
    bench.from_hub(run("A", "2"), run("A", "3"))
    bench.network.pass_time(20)
    assert answer.peer.close_code is None
    assert bench.target(CP1)["buffer-utilization"] == len(record("A", "2")) * 2
    answer.cut()
    answer.peer.end(1000, "the target forgets the session")
    bench.network.pass_time(2)
    assert bench.dial.answer().owner.records == [record("A", "2"), record("A", "3")]


def test_a_target_that_closes_a_link_that_served_is_no_failure_and_is_dialled_at_once(make: Any) -> None:
    bench = make()
    bench.from_hub(run("A", "1"))
    answer = bench.dial.answer()
    bench.network.pass_time(2)
    answer.end(1000)
    assert bench.target(CP1)["state"] == "idle"
    assert bench.target(CP1)["failures"] == 0
    bench.from_hub(run("A", "2"))
    assert bench.dial.answer().owner.records == [record("A", "2")]


def test_a_target_that_ends_links_at_once_is_dialled_once_a_second(make: Any) -> None:
    bench = make()
    dials = 0
    for _ in range(100):
        bench.from_hub(run("A", "x"))
        for dial in list(bench.network.dials):
            dials += 1
            dial.answer().end(1000)
        bench.network.pass_time(0.1, 0.1)
    assert 5 <= dials <= 11
    assert bench.target(CP1)["failures"] == dials


def test_a_target_that_is_this_repeater_itself_is_refused(make: Any) -> None:
    bench = make()
    bench.from_hub(run("A", "1"))
    answer = bench.dial.answer(node="rep-node")
    assert "it would talk to itself" in bench.target(CP1)["reason"]
    answer.peer.end(1000, "the other one would have refused as well")
    assert bench.hub.owner.records == []


def test_new_routes_drop_no_link_and_forget_targets_when_they_are_idle(make: Any) -> None:
    bench = make()
    bench.from_hub(run("A", "1"))
    answer = bench.dial.answer()
    bench.repeater.route({"A": (CP2,)})
    bench.from_hub(run("A", "2"))
    assert answer.owner.calls.count("left") == 0
    assert answer.owner.records == [record("A", "1")]
    assert bench.dial.answer().owner.records == [record("A", "2")]
    bench.network.pass_time(10)
    assert [target["address"] for target in bench.repeater.pool.status()] == [CP2]
    assert bench.repeater.pool.total("sent") == 2


def test_records_without_a_route_are_counted(make: Any) -> None:
    bench = make()
    bench.from_hub(run("elsewhere", "1", "2"))
    assert bench.repeater.unrouted == 2
    assert bench.network.dials == []


def test_to_stop_ends_links_dials_and_counts_what_waits() -> None:
    bench = Bench(ROUTES)
    bench.hub_up()
    bench.from_hub(run("A", "1"))
    bench.dial.answer()
    bench.from_hub(run("B", "1", "2"))
    bench.stop()
    assert bench.network.getDelayedCalls() == []
    assert bench.target(CP2)["dropped"] == 2
    assert any("2 records for ws://cp2:7101 were dropped: the repeater stops" in line for line in bench.lines)


def test_events_for_an_http_target_that_is_gone_expire_though_nothing_else_comes() -> None:
    client = Client()
    bench = Bench({"A": ("http://collector:80/event",)}, target_patience=5.0, client=client)
    bench.hub_up()
    bench.network.pass_time(3)
    bench.from_hub(run("A", "1", "2", "3", "4"))
    for _ in range(8):
        while client.asked:
            client.fail()
        bench.network.pass_time(1)
    assert (bench.undelivered.records, bench.repeater.pool.waiting) == (4, 0)
    bench.stop()
