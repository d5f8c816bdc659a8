"""The life of a connection: its table, and two ends that open and close in every order that there is.

The ends are as small as a connection can be: they take steps in `TRANSITIONS`, count records, and ask `fate`
at the end. Between them run two ordered streams, which may break off at any point. Every reachable state is
visited,
and every rule that a connection keeps for its close is shown to be needed: without it, a promise is broken.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from ces.session.life import (
    GOING_AWAY,
    HEARD,
    NORMAL,
    NOT_ALLOWED,
    PROTOCOL_ERROR,
    REPLACED,
    TOO_FAST,
    TOO_LARGE,
    TOO_SLOW,
    TRANSITIONS,
    Fate,
    State,
    Step,
    fate,
)
from tests.support.links import serving

TABLE = {
    #                CES1    CES2     ADMITTED  CLOSE_SENT  CLOSE_RECEIVED  LOST
    State.HANDSHAKE: ("OPEN", "HELLO", "", "", "", "CLOSED"),
    State.HELLO: ("", "", "OPEN", "CLOSING", "FINISHING", "CLOSED"),
    State.OPEN: ("", "", "OPEN", "CLOSING", "FINISHING", "CLOSED"),
    State.CLOSING: ("", "", "", "", "FINISHING", "CLOSED"),
    State.FINISHING: ("", "", "", "", "", "CLOSED"),
    State.CLOSED: ("", "", "", "", "", "CLOSED"),
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("step", Step)
def test_each_step_leads_where_the_table_says_or_may_not_happen(state: State, step: Step) -> None:
    connection = serving().connection
    connection.life = state
    leads = TABLE[state][list(Step).index(step)]
    if leads:
        connection.advance(step)
        assert connection.life is State[leads]
    else:
        with pytest.raises(KeyError):
            connection.advance(step)
        assert connection.life is state


@pytest.mark.parametrize(
    ("code", "finished", "not_finished"),
    [
        (None, Fate.KEPT, Fate.KEPT),
        (GOING_AWAY, Fate.KEPT, Fate.KEPT),
        (REPLACED, Fate.KEPT, Fate.KEPT),
        (NORMAL, Fate.DELIVERED, Fate.UNKNOWN),
        (TOO_LARGE, Fate.DELIVERED, Fate.UNKNOWN),
        (PROTOCOL_ERROR, Fate.DELIVERED, Fate.UNKNOWN),
        (NOT_ALLOWED, Fate.DELIVERED, Fate.UNKNOWN),
        (TOO_SLOW, Fate.KEPT, Fate.KEPT),
        (TOO_FAST, Fate.DELIVERED, Fate.UNKNOWN),
        (3000, Fate.DELIVERED, Fate.UNKNOWN),
    ],
)
def test_what_becomes_of_the_session(code: int | None, finished: Fate, not_finished: Fate) -> None:
    assert (fate(code, True), fate(code, False)) == (finished, not_finished)


# -- two ends ------------------------------------------------------------------------------------------------

Message = tuple[str, int]
UPGRADE, ANSWER, HELLO, RECORD, ACK, CLOSE, FIN = (
    "upgrade",
    "answer",
    "hello",
    "record",
    "ack",
    "close",
    "fin",
)
CODES = (NORMAL, GOING_AWAY, REPLACED, PROTOCOL_ERROR)
RECORDS = 2
"""Each end sends at most so many."""


class End(NamedTuple):
    """One end. taken: records of the other end. said: the code in the other end's close frame."""

    serving: bool
    life: State = State.HANDSHAKE
    sent: int = 0
    acknowledged: int = 0
    taken: int = 0
    deaf: bool = False
    code: int | None = None
    said: int | None = None
    finished: bool = False

    def after(self, step: Step) -> End:
        return self._replace(life=TRANSITIONS[self.life, step])

    @property
    def opens(self) -> bool:
        return self.life in (State.HANDSHAKE, State.HELLO)


class World(NamedTuple):
    """Both ends, what is on its way to each, and whether the connection was cut."""

    ends: tuple[End, End] = (End(False), End(True))
    towards: tuple[tuple[Message, ...], tuple[Message, ...]] = ((), ((UPGRADE, 0),))
    broken: bool = False

    def with_end(self, side: int, end: End, *says: Message) -> World:
        """End `side` has become `end`, and says something to the other."""
        ends, towards = list(self.ends), list(self.towards)
        ends[side] = end
        if not self.broken:
            towards[1 - side] += says
        return World((ends[0], ends[1]), (towards[0], towards[1]), self.broken)

    def without_first(self, side: int) -> World:
        towards = list(self.towards)
        towards[side] = towards[side][1:]
        return self._replace(towards=(towards[0], towards[1]))


class Rules:
    """What a connection does when it opens and closes (`ces.link.connection`).

    :param dialect: 1 or 2; only in ces.2 there are hellos and acknowledgements.
    :param cuts: whether the connection may be cut.
    """

    def __init__(self, dialect: int, cuts: bool = True) -> None:
        self.dialect = dialect
        self.cuts = cuts

    def deaf_after(self, code: int) -> bool:
        """Whether an end that closes with this code takes nothing more."""
        return code not in HEARD

    def acknowledgement(self, end: End) -> tuple[Message, ...]:
        """What is said before a close frame."""
        return ((ACK, end.taken),) if self.dialect == 2 else ()

    def all_taken(self, end: End) -> bool:
        """Whether the other end has taken all that this one sent."""
        return end.finished and end.said in HEARD

    def fate(self, end: End) -> Fate:
        return fate(end.code, self.all_taken(end))

    # -- steps -----------------------------------------------------------------------------------------------

    def close(self, world: World, side: int, code: int) -> World:
        end = world.ends[side]
        said = (*self.acknowledgement(end), (CLOSE, code))
        end = end.after(Step.CLOSE_SENT)._replace(code=code, deaf=self.deaf_after(code))
        return world.with_end(side, end, *said)

    def closed(self, world: World, side: int, code: int) -> World:
        """The other end's close frame has come."""
        end = world.ends[side]._replace(said=code)
        if end.life is State.CLOSING:
            return world.with_end(side, end.after(Step.CLOSE_RECEIVED), (FIN, 0))
        said = (*self.acknowledgement(end), (CLOSE, NORMAL), (FIN, 0))
        return world.with_end(side, end.after(Step.CLOSE_RECEIVED)._replace(code=code), *said)

    def read(self, world: World, side: int) -> Iterator[World]:
        """What may come of the first message on its way to an end."""
        (what, number), world = world.towards[side][0], world.without_first(side)
        end = world.ends[side]
        opened = Step.CES1 if self.dialect == 1 else Step.CES2
        if what == UPGRADE:
            yield world.with_end(side, end.after(opened), (ANSWER, 0))
        elif what == ANSWER:
            yield world.with_end(side, end.after(opened), *[(HELLO, 0)] * (self.dialect == 2))
        elif what == HELLO:
            answer = [(HELLO, 0)] * end.serving
            if end.life is State.CLOSING:  # no hello came in time, and then it did
                yield world
                return
            yield world.with_end(side, end.after(Step.ADMITTED), *answer)
            yield self.close(world.with_end(side, end, *answer), side, REPLACED)  # refused
        elif what == RECORD:
            assert end.life in (State.OPEN, State.CLOSING), f"a record came in {end.life}"
            yield world.with_end(side, end if end.deaf else end._replace(taken=end.taken + 1))
        elif what == ACK:
            assert number <= end.sent
            yield world.with_end(side, end._replace(acknowledged=max(end.acknowledged, number)))
        elif what == CLOSE:
            yield self.closed(world, side, number)
        else:
            assert end.life is State.FINISHING, f"the stream ended in {end.life}"
            yield world.with_end(side, end.after(Step.LOST)._replace(finished=True))

    def next(self, world: World) -> Iterator[World]:
        """Everything that may happen next."""
        for side, end in enumerate(world.ends):
            if end.life is State.CLOSED:
                continue
            if world.towards[side]:
                yield from self.read(world, side)
            if world.broken:
                yield world.with_end(side, end.after(Step.LOST))
                continue
            if end.life is State.OPEN:
                if end.sent < RECORDS:
                    yield world.with_end(side, end._replace(sent=end.sent + 1), (RECORD, 0))
                for code in CODES:
                    yield self.close(world, side, code)
            elif end.life is State.HELLO and end.serving:
                yield self.close(world, side, PROTOCOL_ERROR)
        if self.cuts and not world.broken and any(end.life is not State.CLOSED for end in world.ends):
            for one in range(len(world.towards[0]) + 1):
                for two in range(len(world.towards[1]) + 1):
                    yield World(world.ends, (world.towards[0][:one], world.towards[1][:two]), True)

    def check(self, world: World) -> None:
        """What holds whenever an end is closed, and in the end.

        :raises AssertionError: when it does not.
        """
        for end, other in (world.ends, world.ends[::-1]):
            if end.life is not State.CLOSED:
                continue
            becomes = self.fate(end)
            if becomes is Fate.DELIVERED:
                assert other.taken == end.sent, "it counts as delivered, and the other end has not taken it"
            if self.dialect == 1:
                continue
            # What is kept is resumed. What is unknown is said to be lost, or sent in a new session: all but
            # what was acknowledged.
            assert end.acknowledged <= other.taken, "it was acknowledged, and the other end has not taken it"
            if end.finished and end.code == other.code == REPLACED:
                assert end.acknowledged == other.taken, "a replacement: something would be sent twice"

    def visit(self) -> int:
        """Go wherever one can get; how many worlds there are."""
        seen = {World()}
        waiting = [World()]
        while waiting:
            world = waiting.pop()
            ends_here = True
            for after in self.next(world):
                ends_here = False
                if after not in seen:
                    seen.add(after)
                    waiting.append(after)
            self.check(world)
            if ends_here:
                assert {end.life for end in world.ends} == {State.CLOSED}, f"it hangs: {world}"
        return len(seen)


@pytest.mark.parametrize("cuts", [False, True])
@pytest.mark.parametrize("dialect", [1, 2])
def test_both_ends_close_and_nothing_counts_as_delivered_that_is_not(dialect: int, cuts: bool) -> None:
    assert Rules(dialect, cuts).visit() > 1000


class CountsWhatADeafEndDidNotTake(Rules):
    def all_taken(self, end: End) -> bool:
        return end.finished


class DoesNotReadToTheEnd(Rules):
    def all_taken(self, end: End) -> bool:
        return end.said in HEARD


class HearsAfterEveryCode(Rules):
    """Then what a replaced connection still brings is taken, but no acknowledgement can be sent any more."""

    def deaf_after(self, code: int) -> bool:
        return False


class DoesNotAcknowledgeBeforeItCloses(Rules):
    def acknowledgement(self, end: End) -> tuple[Message, ...]:
        return ()


class DoesNotAnswer(Rules):
    def closed(self, world: World, side: int, code: int) -> World:
        end = world.ends[side]._replace(said=code, code=code)
        return world.with_end(side, end.after(Step.CLOSE_RECEIVED))


@pytest.mark.parametrize(
    "rules",
    [
        CountsWhatADeafEndDidNotTake,
        DoesNotReadToTheEnd,
        HearsAfterEveryCode,
        DoesNotAcknowledgeBeforeItCloses,
        DoesNotAnswer,
    ],
)
def test_without_one_of_these_rules_a_promise_is_broken(rules: type[Rules]) -> None:
    with pytest.raises(AssertionError):
        for cuts in (False, True):
            rules(2, cuts).visit()
