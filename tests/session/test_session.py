"""Sessions: the simulation holds and finds each planted fault; what a session acknowledges."""

from __future__ import annotations

from typing import Any

import pytest

from ces.session import queue as module
from ces.session.queue import SendQueue
from ces.session.session import ACK_BYTES, ACK_RECORDS, Session
from tests.stress.simulation import End, Message, Simulation, Wrong

RUNS = 3000
ENOUGH = 300
"""So many runs find every planted fault."""


def test_thousands_of_runs_lose_nothing_repeat_nothing_and_keep_the_order() -> None:
    for seed in range(RUNS):
        Simulation(seed).run()


class AcknowledgesTooEarly(End):
    """What was read sits in no onward queue yet, and is gone when the process is."""

    def responsible(self) -> None:
        if len(self.onward) > 20:
            self.arrived += [self.onward.popleft() for _ in range(10)]


class ResetsItsCounter(End):
    def resume(self, received: int) -> None:
        super().resume(received)
        self.session = Session(self.session.id)


class DoesNotTrim(SendQueue):
    def resume(self, received: int) -> None:
        super().resume(self.acknowledged)


class OverflowsInSilence(SendQueue):
    def evict(self, excess: int) -> int:
        lost = super().evict(excess)
        self.gap = 0
        return lost


class DoesNotCountWhatItDrops(SendQueue):
    def evict(self, excess: int) -> int:
        lost = super().evict(excess)
        self.dropped -= lost
        return lost


class ForgetsGapsThatMayNotHaveArrived(SendQueue):
    def resume(self, received: int) -> None:
        super().resume(received)
        self.retransmit = [(records, size, 0, runs) for records, size, _, runs in self.retransmit]


class RetransmitsInTheWrongOrder(SendQueue):
    def resume(self, received: int) -> None:
        super().resume(received)
        self.retransmit.reverse()


class RetransmitsOnALiveConnection(SendQueue):
    def acknowledge(self, number: int) -> None:
        super().acknowledge(number)
        if self.latest is not None and not self.retransmit:
            self.retransmit.append(self.latest)


class KeepsForEver(SendQueue):
    def acknowledge(self, number: int) -> None:
        before = self.in_flight_bytes
        super().acknowledge(number)
        freed = before - self.in_flight_bytes
        self.in_flight_bytes += freed
        self.tally.bytes += freed


class LosesWhatACutTook(SendQueue):
    def resume(self, received: int) -> None:
        super().resume(received)
        self.retransmit.clear()


class DropsWhatANewSessionShouldRetransmit(SendQueue):
    def restart(self, numbered: bool) -> None:
        super().restart(numbered)
        if self.retransmit:
            self.retransmit.pop()


PLANTED: list[dict[str, Any]] = [
    {"end": AcknowledgesTooEarly},
    {"end": ResetsItsCounter},
    {"queue": DoesNotTrim},
    {"queue": OverflowsInSilence},
    {"queue": DoesNotCountWhatItDrops},
    {"queue": ForgetsGapsThatMayNotHaveArrived},
    {"queue": RetransmitsInTheWrongOrder},
    {"queue": RetransmitsOnALiveConnection},
    {"queue": KeepsForEver},
    {"queue": LosesWhatACutTook},
    {"queue": DropsWhatANewSessionShouldRetransmit},
]


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: next(iter(planted.values())).__name__)
def test_a_planted_fault_is_found(planted: dict[str, Any]) -> None:
    with pytest.raises(Wrong):
        for seed in range(ENOUGH):
            Simulation(seed, **planted).run()


def test_a_batch_that_is_split_at_the_wrong_record_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    split = module._split
    monkeypatch.setattr(module, "_split", lambda runs, records: split(runs, max(0, records - 1)))
    with pytest.raises(Wrong):
        for seed in range(ENOUGH):
            Simulation(seed).run()


def test_an_end_of_the_simulation_writes_and_reads_as_a_link_does() -> None:
    heard: list[Message] = []
    end = End("one", SendQueue)
    end.begin("s")
    end.put([[1, 2]])
    end.flush(heard.append)
    end.take(("records", [b'A\n{"n":9}\n']), heard.append)
    end.acknowledge(heard.append)
    assert [kind for kind, _ in heard] == ["records", "ack"]
    assert end.arrived == [9]


# -- the receiving half ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("records", "size", "due"),
    [(ACK_RECORDS - 1, 1000, False), (ACK_RECORDS, 1, True), (1, ACK_BYTES - 1, False), (1, ACK_BYTES, True)],
)
def test_an_acknowledgement_is_due_after_so_much(records: int, size: int, due: bool) -> None:
    session = Session("s")
    assert session.took(records, size) is due
    assert (session.unreported, session.report(), session.unreported) == (True, records, False)


def test_what_is_due_is_counted_from_the_last_acknowledgement() -> None:
    session = Session("s")
    session.took(ACK_RECORDS - 1, ACK_BYTES - 1)
    assert session.report() == ACK_RECORDS - 1
    assert not session.took(ACK_RECORDS - 1, ACK_BYTES - 1)
    assert session.took(1, 1)
    assert (session.received, session.reported) == (2 * ACK_RECORDS - 1, ACK_RECORDS - 1)
