"""One flush per link and reactor turn."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.task import Clock
from twisted.logger import Logger

from ces.link.turn import FLUSH_BYTES, Memo, Turn


class Flushed:
    """A link, and a group of one."""

    def __init__(self) -> None:
        self.memos: list[Memo] = []

    @property
    def links(self) -> Sequence[Flushed]:
        return (self,)

    def flush(self, memo: Memo) -> None:
        self.memos.append(memo)


class Group:
    """Several links."""

    def __init__(self, *links: Flushed) -> None:
        self.links = links


def test_links_are_flushed_once_the_turn_has_ended_with_one_memo_for_all() -> None:
    clock, one, other = Clock(), Flushed(), Flushed()
    turn = Turn(clock, Logger())
    for _ in range(3):
        turn.add(one)
        turn.add(other)
    assert (one.memos, len(clock.getDelayedCalls())) == ([], 1)
    clock.advance(0)
    assert len(one.memos) == len(other.memos) == 1
    assert one.memos[0] is other.memos[0]
    assert clock.getDelayedCalls() == []


def test_every_link_of_a_group_is_flushed() -> None:
    clock, one, other = Clock(), Flushed(), Flushed()
    turn = Turn(clock, Logger())
    turn.add(Group(one, other))
    clock.advance(0)
    assert (len(one.memos), len(other.memos)) == (1, 1)


def test_a_turn_that_brings_much_is_flushed_on_the_way() -> None:
    clock, link = Clock(), Flushed()
    turn = Turn(clock, Logger())
    turn.add(link)
    turn.took(FLUSH_BYTES - 1)
    assert link.memos == []
    turn.took(1)
    assert len(link.memos) == 1
    turn.add(link)
    turn.took(1)
    assert len(link.memos) == 1
    clock.advance(0)
    assert len(link.memos) == 2


def test_what_is_added_while_flushing_is_flushed_next() -> None:
    clock, late = Clock(), Flushed()
    turn = Turn(clock, Logger())

    class Adding(Flushed):
        def flush(self, memo: Memo) -> None:
            turn.add(late)

    turn.add(Adding())
    turn.flush()
    assert late.memos == []
    clock.advance(0)
    assert len(late.memos) == 1
