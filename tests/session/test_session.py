"""Sessions: the simulation holds for thousands of runs and finds each planted fault; every edge is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ces.model.wire import Run
from ces.session import session as module
from ces.session.outbox import Outbox
from ces.session.session import OutOfStep, Session
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


class DoesNotTrim(Session):
    def resume(self, received: int) -> None:
        super().resume(self.acknowledged)


class ResetsItsCounter(Session):
    def resume(self, received: int) -> None:
        super().resume(received)
        self.received = 0


class OverflowsInSilence(Outbox):
    def shed(self, excess: int) -> int:
        lost = super().shed(excess)
        self.gap = 0
        return lost


class DoesNotCountWhatItDrops(Outbox):
    def shed(self, excess: int) -> int:
        lost = super().shed(excess)
        self.dropped -= lost
        return lost


class ForgetsGapsThatMayNotHaveArrived(Session):
    def _rewind(self) -> None:
        self.again = [(records, size, 0, runs) for records, size, _, runs in self.again]
        super()._rewind()
        self.again = [(records, size, 0, runs) for records, size, _, runs in self.again]


class SendsAgainInTheWrongOrder(Session):
    def _rewind(self) -> None:
        super()._rewind()
        self.again.reverse()


class SendsAgainOnALiveLink(Session):
    def acknowledge(self, number: int) -> None:
        super().acknowledge(number)
        if self._kept and not self.again:
            self.again.append(self._kept[0][1])


class KeepsForEver(Session):
    def acknowledge(self, number: int) -> None:
        kept = self._kept.copy()
        super().acknowledge(number)
        self.outbox.reserve(sum(batch[1] for end, batch in kept if end <= number))


class LosesWhatACutTook(Session):
    def resume(self, received: int) -> None:
        super().resume(received)
        self.again.clear()


class DropsWhatANewSessionShouldSendAgain(Session):
    def restart(self, id: str) -> None:
        super().restart(id)
        if self.again:
            self.again.pop()


PLANTED: list[dict[str, Any]] = [
    {"end": AcknowledgesTooEarly},
    {"session": DoesNotTrim},
    {"session": ResetsItsCounter},
    {"outbox": OverflowsInSilence},
    {"outbox": DoesNotCountWhatItDrops},
    {"session": ForgetsGapsThatMayNotHaveArrived},
    {"session": SendsAgainInTheWrongOrder},
    {"session": SendsAgainOnALiveLink},
    {"session": KeepsForEver},
    {"session": LosesWhatACutTook},
    {"session": DropsWhatANewSessionShouldSendAgain},
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


# -- edges -----------------------------------------------------------------------------------------------


def run(*numbers: int, room: bytes = b"A") -> Run:
    return Run(room, [b'%b\n{"n":%d}\n' % (room, n) for n in numbers])


def sent(*runs: Run, limit: int = 10_000) -> Session:
    """A session that has sent these runs, each as a batch of its own."""
    session = Session(Outbox(limit))
    session.restart("s1")
    for one in runs:
        session.outbox.pending.append(one)
        assert session.take(1)[1] == [one]
    return session


def texts(runs: list[Run]) -> list[bytes]:
    return [event for one in runs for event in one.events]


def drained(session: Session) -> list[bytes]:
    found = []
    while session.waits:
        gap, runs = session.take(10**6)
        found += [b"gap %d" % gap] if gap else []
        found += texts(runs)
        if not runs:
            break
    return found


@pytest.mark.parametrize("call", [Session.acknowledge, Session.resume])
@pytest.mark.parametrize("number", [1, 5, 10**15])
def test_a_number_outside_what_was_sent_is_out_of_step(
    call: Callable[[Session, int], None], number: int
) -> None:
    session = sent(run(1, 2), run(3, 4))
    session.acknowledge(2)
    with pytest.raises(OutOfStep, match=f"{number} is not between 2 acknowledged and 4 sent records"):
        call(session, number)
    assert (session.acknowledged, session.sent, session.unacknowledged) == (2, 4, 2)


@pytest.mark.parametrize("received", range(7))
def test_it_resumes_in_the_middle_of_anything(received: int) -> None:
    session = sent(run(1, 2, 3), run(4), run(5, 6))
    session.outbox.pending.append(run(7))
    session.resume(received)
    assert drained(session) == [b'{"n":%d}' % n for n in range(received + 1, 8)]
    assert session.sent == 7
    session.acknowledge(7)
    assert (session.kept, session.size, session.outbox.tally.bytes) == (0, 0, 0)


def test_it_resumes_twice_before_anything_was_sent_again() -> None:
    session = sent(run(1), run(2, 3), run(4))
    session.resume(1)
    session.take(1)
    session.resume(2)
    session.resume(2)
    assert drained(session) == [b'{"n":3}', b'{"n":4}']


@pytest.mark.usefixtures("bare_records")
def test_a_gap_goes_where_it_belongs_and_goes_again_with_what_follows_it() -> None:
    session = sent(run(1), limit=100)
    session.outbox.pending += [run(*range(10, 16)), run(20)]
    assert session.outbox.shed(1) == 0, "nothing is settled yet"
    session.outbox.limit = 50
    assert session.outbox.settle() == 6
    session.outbox.limit = 1000
    assert drained(session) == [b"gap 6", b'{"n":20}']
    session.resume(1)
    assert drained(session) == [b"gap 6", b'{"n":20}']
    session.resume(2)
    assert drained(session) == []


@pytest.mark.usefixtures("bare_records")
def test_a_gap_with_nothing_behind_it_is_announced_and_after_a_cut_announced_again() -> None:
    session = sent(run(1), limit=40)
    session.outbox.pending.append(run(*range(10, 20)))
    session.outbox.settle()
    assert session.take(1000) == (10, [])
    session.resume(1)
    assert session.take(1000) == (10, [])
    session.outbox.pending.append(run(2))
    assert texts(session.take(1000)[1]) == [b'{"n":2}']


@pytest.mark.usefixtures("bare_records")
def test_gaps_with_nothing_behind_them_are_kept_as_one() -> None:
    session = sent(run(1), limit=40)
    for _ in range(100):
        session.outbox.pending.append(run(*range(10, 20)))
        session.outbox.settle()
        assert session.take(1000) == (10, [])
    assert len(session._kept) == 2
    session.resume(1)
    assert session.take(1000) == (1000, [])
    session.acknowledge(1)
    assert not session._kept


def test_without_an_id_nothing_is_kept() -> None:
    session = Session(Outbox(1000))
    session.outbox.pending.append(run(1, 2))
    session.take(1000)
    assert (session.sent, session.acknowledged, session.unacknowledged, session.kept) == (2, 2, 0, 0)


def test_what_a_session_left_goes_over_a_link_without_one() -> None:
    session = sent(run(1), run(2))
    session.restart("")
    assert drained(session) == [b'{"n":1}', b'{"n":2}']
    assert session.size == 0


def test_for_another_session_all_is_taken_in_order() -> None:
    session = sent(run(1), run(2))
    session.resume(0)
    session.take(1)
    session.outbox.pending.append(run(3))
    assert texts(session.take_all()) == [b'{"n":1}', b'{"n":2}', b'{"n":3}']
    assert (session.size, session.waits, session.unacknowledged, session.outbox.tally.bytes) == (
        0,
        False,
        0,
        0,
    )


def test_what_was_sent_and_what_waits_can_be_taken_apart() -> None:
    session = sent(run(1), run(2))
    session.outbox.pending.append(run(3))
    assert texts(session.take_sent()) == [b'{"n":1}', b'{"n":2}']
    assert texts(session.take_waiting()) == [b'{"n":3}']


@pytest.mark.parametrize(("records", "size", "due"), [(255, 1000, False), (256, 1, True), (1, 2**18, True)])
def test_an_acknowledgement_is_due_after_so_much(records: int, size: int, due: bool) -> None:
    session = Session(Outbox(1000))
    assert session.took(records, size) is due
    assert (session.unreported, session.report(), session.unreported) == (True, records, False)


@pytest.mark.usefixtures("bare_records")
def test_so_much_is_kept_and_no_more() -> None:
    session = sent(*[run(n) for n in range(5)], limit=100)
    assert session.shut
    session.outbox.pending.append(run(6))
    assert session.take(1000) == (0, [])
    session.acknowledge(1)
    assert not session.shut


def test_messages_of_the_simulation_are_of_three_kinds() -> None:
    heard: list[Message] = []
    end = End("one", Session, Outbox)
    end.session.restart("s")
    end.put([[1, 2]])
    end.flush(heard.append)
    end.take(("records", [b'A\n{"n":9}\n']), heard.append)
    end.acknowledge(heard.append)
    assert [kind for kind, _ in heard] == ["records", "ack"]
    assert end.arrived == [9]


# -- what is shared ----------------------------------------------------------------------------------------


def state(session: Session) -> tuple[object, ...]:
    outbox = session.outbox
    waits = (outbox.pending, outbox.bytes, outbox.reserved, outbox.taken, outbox.tally.bytes, outbox.gap)
    return (session.sent, session.received, list(session._kept), session.again, *waits)


@given(st.lists(st.lists(st.sampled_from([run(1), run(2, 3), run(4, room=b"B")])), max_size=5))
def test_to_take_as_another_session_is_to_take(turns: list[list[Run]]) -> None:
    first, second, other = (sent(limit=10**6) for _ in range(3))
    for runs in turns:
        for session in (first, second, other):
            session.outbox.pending.extend(runs)
        first.take(10**6)
        if runs:
            assert first.latest is not None
            assert second.take_as(first.latest)
            assert second.latest is first.latest
            other.take(10**6)
        assert state(second) == state(other) == state(first)
    for session in (first, second):
        session.acknowledge(session.sent)
        assert (session.kept, session.unacknowledged) == (0, 0)


def _with_a_gap(session: Session) -> None:
    session.outbox.gap = 1


def _with_more(session: Session) -> None:
    session.outbox.pending.append(run(2))


def _with_less(session: Session) -> None:
    session.outbox.pending.clear()


def _with_what_waited_before(session: Session) -> None:
    session.outbox.settle()
    session.outbox.pending.append(run(1))


def _with_what_is_sent_again(session: Session) -> None:
    session.outbox.pending[:], pending = [run(0)], session.outbox.pending[:]
    session.take(100)
    session.resume(0)
    session.outbox.pending.extend(pending)


def _without_a_session(session: Session) -> None:
    session.restart("")


def _with_too_much_unacknowledged(session: Session) -> None:
    session.outbox.limit = 2 * 128 - 1


@pytest.mark.parametrize(
    "other",
    [
        _with_a_gap,
        _with_more,
        _with_less,
        _with_what_waited_before,
        _with_what_is_sent_again,
        _without_a_session,
        _with_too_much_unacknowledged,
    ],
)
def test_what_is_not_the_same_is_not_taken_as_another_session_took_it(
    other: Callable[[Session], None],
) -> None:
    one = run(1)
    first, session = sent(one), sent()
    session.outbox.pending.append(one)
    other(session)
    before = state(session)
    assert first.latest is not None
    assert not session.take_as(first.latest)
    assert state(session) == before
