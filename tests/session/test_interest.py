"""Interest: whatever is wanted, cut or begun anew, the other side ends up with exactly what is wanted."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ces.model.control import SubscriptionChange
from ces.session.interest import PIECE_BYTES, PIECE_ROOMS, WINDOW, Interest
from ces.session.queue import OutOfStep

ROOMS = [f"R{number}".encode() for number in range(12)]


class Told:
    """The other side: it takes changes in order, and counts them."""

    def __init__(self) -> None:
        self.rooms: set[str] = set()
        self.taken = 0

    def take(self, change: SubscriptionChange) -> None:
        self.taken += 1
        if change.create:
            self.rooms |= set(change.rooms)
        else:
            self.rooms -= set(change.rooms or self.rooms)


class Announcing(RuleBasedStateMachine):
    """One side wants rooms, the other is told; connections are cut, and sessions begin anew."""

    numbered: bool

    @initialize(wanted=st.sets(st.sampled_from(ROOMS)), reset=st.booleans(), numbered=st.booleans())
    def begin(self, wanted: set[bytes], reset: bool, numbered: bool) -> None:
        self.wanted = dict.fromkeys(sorted(wanted))
        self.numbered = numbered
        self.told = Told()
        if reset:
            self.told.rooms = {"remembered", "R1"}
        self.interest = Interest(self.wanted.__contains__, lambda: list(self.wanted), 2**20, reset)
        self.interest.restart(numbered)
        self.wire: deque[SubscriptionChange] = deque()

    @rule(rooms=st.sets(st.sampled_from(ROOMS), min_size=1))
    def flip(self, rooms: set[bytes]) -> None:
        for room in sorted(rooms):
            if room in self.wanted:
                del self.wanted[room]
            else:
                self.wanted[room] = None
        self.interest.changed(sorted(rooms))

    @rule()
    def send(self) -> None:
        due = self.interest.due
        change = self.interest.take()
        assert due == (change is not None)
        if change is not None:
            self.wire.append(change)

    @precondition(lambda self: self.wire)
    @rule()
    def arrive(self) -> None:
        self.told.take(self.wire.popleft())

    @precondition(lambda self: self.numbered)
    @rule()
    def acknowledge(self) -> None:
        self.interest.acknowledge(self.told.taken)

    @precondition(lambda self: self.numbered)
    @rule()
    def cut_and_resume(self) -> None:
        self.wire.clear()
        self.interest.resume(self.told.taken)

    @precondition(lambda self: not self.numbered)
    @rule()
    def cut_and_resume_with_an_older_peer(self) -> None:
        if len(self.wire) <= WINDOW:
            self.wire.clear()
            self.interest.resume(None)
            self.told.taken = 0

    @rule(forgets=st.booleans(), numbered=st.booleans())
    def begin_anew(self, forgets: bool, numbered: bool) -> None:
        if len(self.wire) > WINDOW:
            return
        self.wire.clear()
        self.numbered = numbered
        self.interest.restart(numbered)
        self.told.taken = 0
        if forgets:
            self.told.rooms.clear()

    @invariant()
    def only_so_many_are_in_flight(self) -> None:
        if self.numbered:
            assert self.interest.sent - self.interest.acknowledged <= WINDOW

    def teardown(self) -> None:
        for _ in range(200):
            while (change := self.interest.take()) is not None:
                self.wire.append(change)
            while self.wire:
                self.told.take(self.wire.popleft())
            if self.numbered:
                self.interest.acknowledge(self.told.taken)
        assert self.interest.settled
        assert self.told.rooms == {room.decode() for room in self.wanted}


TestAnnouncing = Announcing.TestCase


def interest(*rooms: str, numbered: bool = True) -> tuple[Interest, dict[bytes, None]]:
    wanted = dict.fromkeys(room.encode() for room in rooms)
    result = Interest(wanted.__contains__, lambda: list(wanted), 2**20)
    result.restart(numbered)
    return result, wanted


def test_a_room_that_comes_and_goes_before_the_other_side_is_told_is_not_mentioned() -> None:
    told, wanted = interest()
    for _ in range(1000):
        wanted[b"A"] = None
        told.changed([b"A"])
        del wanted[b"A"]
        told.changed([b"A"])
    assert not told.due
    assert told.take() is None


def test_rooms_are_announced_in_pieces_of_bounded_number_and_size() -> None:
    told, _ = interest(*[f"R{number}" for number in range(2 * PIECE_ROOMS + 1)])
    assert [len(change.rooms) for _ in range(3) if (change := told.take())] == [PIECE_ROOMS, PIECE_ROOMS, 1]
    told, _ = interest(*[f"{number:03}" + "x" * 247 for number in range(PIECE_ROOMS)])
    change = told.take()
    assert change is not None
    assert PIECE_BYTES < sum(map(len, change.rooms)) <= PIECE_BYTES + 250


def test_a_full_window_waits_for_an_acknowledgement_and_an_older_peer_has_none() -> None:
    rooms = [f"R{number}" for number in range((WINDOW + 3) * PIECE_ROOMS)]
    told, _ = interest(*rooms)
    assert sum(told.take() is not None for _ in range(WINDOW + 3)) == WINDOW
    assert not told.due
    told.acknowledge(2)
    assert sum(told.take() is not None for _ in range(WINDOW)) == 2
    told, _ = interest(*rooms, numbered=False)
    assert sum(told.take() is not None for _ in range(WINDOW + 5)) == WINDOW + 3


@pytest.mark.parametrize("number", [0, 3])
def test_a_number_that_goes_back_or_beyond_what_was_sent_is_out_of_step(number: int) -> None:
    told, wanted = interest("A")
    told.take()
    wanted[b"B"] = None
    told.changed([b"B"])
    told.take()
    told.acknowledge(1)
    with pytest.raises(OutOfStep, match="changes of rooms"):
        told.acknowledge(number)
    with pytest.raises(OutOfStep):
        told.resume(number)
