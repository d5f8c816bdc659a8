"""Who has to make room when there is none: the oldest member of the largest group.

So each group gets a fair share without a number for it: a crowd from one address crowds out itself. Where
each address has one member, the oldest of all goes.

Cost: a few dictionary lookups for each call, whatever the number of members and groups.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address
from typing import Generic, TypeVar

M = TypeVar("M")


class Shares(Generic[M]):
    """Members in groups. A group exists while it has members."""

    def __init__(self) -> None:
        self._group_of: dict[M, str] = {}
        self._groups: dict[str, dict[M, None]] = {}
        """The members of each group, oldest first."""
        self._sized: dict[int, dict[str, None]] = {}
        """The groups of each size; first the one that has had this size for the longest time."""
        self._largest = 0

    def __len__(self) -> int:
        return len(self._group_of)

    def __contains__(self, member: M) -> bool:
        return member in self._group_of

    def size(self, group: str) -> int:
        """The number of members of a group."""
        return len(self._groups.get(group, ()))

    def add(self, member: M, group: str) -> None:
        """Add a member, which is not in any group, as the youngest of `group`."""
        self._group_of[member] = group
        members = self._groups.setdefault(group, {})
        members[member] = None
        self._resized(group, len(members) - 1, len(members))

    def discard(self, member: M) -> None:
        """Remove a member, if it is one."""
        group = self._group_of.pop(member, None)
        if group is None:
            return
        members = self._groups[group]
        del members[member]
        if not members:
            del self._groups[group]
        self._resized(group, len(members) + 1, len(members))

    def first(self) -> M | None:
        """Who has to go first; None when there are no members."""
        if not self._group_of:
            return None
        group = next(iter(self._sized[self._largest]))
        return next(iter(self._groups[group]))

    def _resized(self, group: str, before: int, after: int) -> None:
        if before:
            same = self._sized[before]
            del same[group]
            if not same:
                del self._sized[before]
        if after:
            self._sized.setdefault(after, {})[group] = None
        if after > self._largest or self._largest not in self._sized:
            self._largest = after


@lru_cache(maxsize=1024)
def network_of(host: str) -> str:
    """The group of an IP address: itself; of IPv6 the network of 64 bits, all of which one client may use.

    :param host: the address; any other text is a group of its own.
    """
    if ":" not in host:
        return host
    try:
        address = IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"
