"""Sets of rooms: what a pattern has, and that an index finds what asking each set finds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ces.model.patterns import EVERY, NONE, KnownAnswers, PatternIndex, Rooms, pattern_fault
from ces.model.wire import EVERY_ROOM

rooms = st.text(alphabet="AB-1é*", max_size=4)
patterns = rooms.map(lambda text: text.replace("*", "")).flatmap(
    lambda room: st.sampled_from([room, f"{room}*"])
)


def has(pattern: str, room: str) -> bool:
    """What a pattern means, said plainly."""
    return room.startswith(pattern[:-1]) if pattern.endswith("*") else room == pattern


@pytest.mark.parametrize(
    ("pattern", "room", "has_it"),
    [
        ("ITB-1108", "ITB-1108", True),
        ("ITB-1108", "ITB-1108A", False),
        ("ITB-1108", "itb-1108", False),
        ("ITB-*", "ITB-", True),
        ("ITB-*", "ITB-1108", True),
        ("ITB-*", "ITB", False),
        ("ITB-*", "XITB-1108", False),
        ("ITB-*", "*", False),
        ("*", "", True),
        ("*", "*", True),
        ("", "", True),
        ("", "ITB-1108", False),
        ("ITB-*", "ITB-\n", True),  # no room: the grammar of records refuses it before
    ],
)
def test_what_a_pattern_has(pattern: str, room: str, has_it: bool) -> None:
    assert (room.encode() in Rooms([pattern])) is has_it


@pytest.mark.parametrize("pattern", ["A*B", "**", "*A", "{", "A\n", "A\0", "\ud800", "A" * 256])
def test_what_is_no_pattern(pattern: str) -> None:
    assert pattern_fault(pattern) is not None


@given(st.lists(patterns), rooms)
def test_a_set_has_what_any_of_its_patterns_has(written: list[str], room: str) -> None:
    """Overlapping patterns take nothing from each other, in whatever order (CVE-2017-7650)."""
    expected = any(has(pattern, room) for pattern in written)
    one, other = Rooms(written), Rooms(reversed(written))
    assert (room.encode() in one) is expected
    assert one == other == Rooms(one.patterns)
    assert (one.everything, bool(one)) == ("*" in written, bool(written))
    answers = KnownAnswers(one, bound=2)
    assert [answers[room.encode()] for _ in range(2)] == [expected] * 2


def test_every_room_and_none() -> None:
    assert (EVERY.everything, b"" in EVERY, EVERY_ROOM in EVERY) == (True, True, True)
    assert (bool(NONE), b"" in NONE, EVERY_ROOM in NONE) == (False, False, False)


def test_what_is_remembered_of_answers_is_bounded() -> None:
    answers = KnownAnswers(Rooms(["A*"]), bound=3)
    for number in range(10):
        assert answers[b"A%d" % number]
        assert len(answers) <= 3


@given(st.lists(st.tuples(st.integers(0, 3), st.none() | st.lists(patterns, max_size=3))), rooms)
def test_an_index_finds_what_asking_each_set_finds(
    steps: list[tuple[int, list[str] | None]], room: str
) -> None:
    index: PatternIndex[int] = PatternIndex()
    sets: dict[int, Rooms] = {}
    for owner, written in steps:
        if written is None:
            index.remove(owner)
            sets.pop(owner, None)
        else:
            sets[owner] = Rooms(written)
            index.add(owner, sets[owner])
    found = list(index.having(room.encode()))
    assert sorted(found) == sorted(owner for owner, each in sets.items() if room.encode() in each)
    assert len(index) == len(sets)
