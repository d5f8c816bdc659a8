"""An allotment of a bounded number: never too much in all, something for everybody, more when others go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ces.model.allotment import SMALL, Allotment

addresses = st.sampled_from(["", "a", "b", "c"])
asks = st.lists(st.tuples(st.integers(0, 19), addresses, st.integers(0, 500)), max_size=60)


@given(asks, st.integers(0, 2000))
def test_all_together_never_hold_more_than_the_limit_and_each_can_have_its_small_share(
    asked: list[tuple[int, str, int]], limit: int
) -> None:
    shares: Allotment[int] = Allotment(limit, links=20)
    counts = dict.fromkeys(range(20), 0)
    for link, address, count in asked:
        if count >= counts[link]:
            count = min(count, counts[link] + shares.room(link, address))
        shares.hold(link, address, count)
        counts[link] = count
        assert shares.held(link) == count
        assert sum(counts.values()) <= limit
        assert all(counts[other] + shares.room(other, "") >= shares.small for other in counts)
        assert shares.free >= 0
    for link in counts:
        shares.hold(link, "", 0)
    assert shares.room(0, "") == shares.small + (limit - 20 * shares.small) // 2


def test_one_link_may_hold_half_and_greedy_ones_leave_something_for_the_next() -> None:
    shares: Allotment[int] = Allotment(1_000_000, links=20_000)
    assert shares.small == SMALL
    first = shares.room(0, "a")
    assert first == SMALL + 400_000
    for link in range(10):  # each from a place of its own, as much as one link may have
        shares.hold(link, f"host {link}", min(100_000, shares.room(link, f"host {link}")))
    assert shares.room(10, "host 10") > 1000


def test_the_links_of_one_address_leave_a_fifth_however_many_they_are() -> None:
    shares: Allotment[int] = Allotment(1_000_000, links=20_000)
    for link in range(1000):
        shares.hold(link, "host", min(100_000, shares.room(link, "host")))
    assert shares.free >= 800_000 // 5
    assert shares.room(1000, "host") <= SMALL
    assert shares.room(1000, "other") > 70_000


def test_a_link_that_holds_more_than_it_could_have_now_keeps_it_and_gets_no_more() -> None:
    shares: Allotment[int] = Allotment(1000, links=1)
    shares.hold(0, "", shares.room(0, ""))
    shares.hold(1, "", shares.room(1, ""))
    assert shares.room(0, "") == 0
    shares.hold(1, "", 0)
    assert shares.room(0, "") == 0, "it holds half already"
