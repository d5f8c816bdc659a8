"""Divides a bounded number of things among links, so that nobody can take all of it.

Pure. Two rules, which hold together::

    small     each link may always have its first few: for all links that there may be, they are set aside
    common    of the rest a link may hold at most as much as is still free, and all links of one address
              together at most `ADDRESS` times as much

The second is the rule of dynamic thresholds, by which switches share their memory among queues (Choudhury and
Hahne, IEEE/ACM Transactions on Networking 6(2), 1998). Who comes alone may have half, or what one address may
have; ten that take all they can get leave an eleventh; nobody is told in advance how many will come. Nothing
is taken away from a link: one that holds more than it may hold now gets no more until others have gone.

Cost: a dict lookup or two for each question.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Generic, TypeVar

SMALL = 10
"""How many each link may always have, where the limit allows it: a touch panel wants its room, or a few."""

ADDRESS = 4
"""All links of one address may hold this many times what is free: a proxy is one address."""

SET_ASIDE = 3
"""At most one part of so many of the limit is set aside for the small shares."""

L = TypeVar("L", bound=Hashable)


class Allotment(Generic[L]):
    """Who holds how much.

    :param limit: what all together may hold.
    :param links: the most links that there can be.

    small: what each link may always have.
    """

    def __init__(self, limit: int, links: int) -> None:
        self.small = min(SMALL, limit // (SET_ASIDE * links))
        self._common = limit - self.small * links
        self._used = 0
        self._held: dict[L, tuple[int, str]] = {}
        """What each link holds, and the address that it counts for."""
        self._by_address: Counter[str] = Counter()

    @property
    def free(self) -> int:
        """What is left of the common part."""
        return self._common - self._used

    def room(self, link: L, address: str) -> int:
        """How much more `link` may hold now.

        :param address: where it comes from; "" for none, which sets no limit to an address.
        """
        count, _ = self._held.get(link, (0, ""))
        free = self.free
        more = (free - max(0, count - self.small)) // 2
        if address:
            more = min(more, (ADDRESS * free - self._by_address[address]) // (1 + ADDRESS))
        return max(0, self.small - count) + max(0, more)

    def held(self, link: L) -> int:
        """How much `link` holds."""
        return self._held.get(link, (0, ""))[0]

    def hold(self, link: L, address: str, count: int) -> None:
        """The link holds `count` from now on, whatever it held before."""
        before, earlier = self._held.pop(link, (0, ""))
        self._add(earlier, -max(0, before - self.small))
        self._add(address, max(0, count - self.small))
        if count:
            self._held[link] = count, address

    def _add(self, address: str, more: int) -> None:
        self._used += more
        if address and more:
            self._by_address[address] += more
            if not self._by_address[address]:
                del self._by_address[address]
