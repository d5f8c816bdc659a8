"""Who makes room: the oldest member of the largest group, as a slow model finds it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ces.model.shares import Shares, network_of


def test_the_oldest_of_the_largest_group_goes_first() -> None:
    shares: Shares[int] = Shares()
    assert shares.first() is None
    for member, group in enumerate("ABBA"):
        shares.add(member, group)
    shares.add(4, "B")
    assert (shares.first(), shares.size("B"), len(shares)) == (1, 3, 5)
    shares.discard(1)
    assert shares.first() == 0, "A has had two for longer than B"
    shares.discard(0)
    assert shares.first() == 2


def test_where_each_group_has_one_member_the_oldest_of_all_goes_first() -> None:
    shares: Shares[int] = Shares()
    for member in range(5):
        shares.add(member, str(member))
    for member in range(5):
        assert shares.first() == member
        shares.discard(member)
    assert shares.first() is None


def test_to_discard_what_is_not_there_changes_nothing() -> None:
    shares: Shares[int] = Shares()
    shares.add(1, "A")
    shares.discard(2)
    assert 1 in shares and 2 not in shares and shares.size("B") == 0


@given(st.lists(st.one_of(st.sampled_from("ABCD"), st.integers(0, 10), st.none()), max_size=60))
def test_it_agrees_with_a_slow_model(steps: list[str | int | None]) -> None:
    """A letter adds a member to a group, a number removes one, and None evicts."""
    shares: Shares[int] = Shares()
    members: dict[int, str] = {}
    for number, step in enumerate(steps):
        if isinstance(step, str):
            shares.add(number, step)
            members[number] = step
        elif members:
            first = shares.first()
            assert first is not None
            sizes = [list(members.values()).count(group) for group in "ABCD"]
            group = members[first]
            assert shares.size(group) == max(sizes)
            assert first == min(member for member, other in members.items() if other == group)
            gone = first if step is None else list(members)[step % len(members)]
            shares.discard(gone)
            del members[gone]
        assert len(shares) == len(members)
        assert (shares.first() is None) == (not members)


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("", ""),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("not:an:address", "not:an:address"),
    ],
)
def test_an_address_of_ipv6_counts_with_its_network(host: str, network: str) -> None:
    assert network_of(host) == network
