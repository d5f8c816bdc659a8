"""Scenarios of `tests.stress.topologies`: who is there and what happens, drawn from a seed.

A `Scenario` is data: a topology and steps in rounds. `Draft` draws one; `shortest` leaves out steps as long
as it still fails.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from ces.session.life import GOING_AWAY, TOO_SLOW

ROOMS = ("A", "B", "C")
EVERY = "*"
PLENTY = 2**28
"""A limit of all send queues together that is never reached."""

Step = tuple[Any, ...]
"""(seconds since the round began, what, and of whom or how)"""


@dataclass(frozen=True)
class Scenario:
    """A topology, and what happens in it.

    hubs: their names; those in `fixed` keep their node id when they restart.
    links: which hub dials which address, of another hub.
    messengers: each with its hub and its rooms.
    repeaters: each with its hub. They send what comes from there to the sink of that hub.
    outsides: outside services, each with its repeater.
    buffer: the limit of a send queue, in bytes. total: the limit of all send queues of a process.
    idle: seconds after which a repeater closes what is not used.
    """

    seed: int
    hubs: tuple[str, ...]
    fixed: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    messengers: tuple[tuple[str, str, tuple[str, ...]], ...]
    repeaters: tuple[tuple[str, str], ...]
    outsides: tuple[tuple[str, str], ...]
    buffer: int
    total: int
    idle: float
    rounds: tuple[tuple[Step, ...], ...] = ()

    @property
    def linked(self) -> set[frozenset[str]]:
        """The pairs of hubs that are linked."""
        return {frozenset((hub, hub_of(address))) for hub, address in self.links}

    @property
    def steps(self) -> list[tuple[int, Step]]:
        """All steps, each with its round."""
        return [(number, step) for number, steps in enumerate(self.rounds) for step in steps]

    def with_steps(self, steps: Iterable[tuple[int, Step]]) -> Scenario:
        """The same with only these steps."""
        rounds: list[list[Step]] = [[] for _ in self.rounds]
        for number, step in steps:
            rounds[number].append(step)
        return replace(self, rounds=tuple(map(tuple, rounds)))

    def names(self, name: str) -> bool:
        """Whether a step or an outside service is about this one."""
        return any(name in step for _, step in self.steps) or any(
            name in outside for outside in self.outsides
        )

    def __str__(self) -> str:
        lines = [
            f"  {field}: {getattr(self, field)}"
            for field in (
                "hubs",
                "fixed",
                "links",
                "messengers",
                "repeaters",
                "outsides",
                "buffer",
                "total",
                "idle",
            )
            if getattr(self, field)
        ]
        for number, steps in enumerate(self.rounds):
            lines += [f"  round {number}: {step}" for step in steps]
        return "\n".join(lines)


def hub_of(address: str) -> str:
    """The hub that an address belongs to: it may have several."""
    return address.partition(".")[0]


# -- a scenario from a seed ----------------------------------------------------------------------------------


class Draft:
    """Draws a scenario.

    :param faults: the kinds of steps that may happen beside sends; by default all.
    """

    def __init__(self, seed: int, faults: Iterable[str] | None = None) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self._faults = [
            name for name in FAULTS for _ in range(FAULTS[name]) if faults is None or name in faults
        ]

    def scenario(self) -> Scenario:
        """Draw it."""
        chance = self.chance
        hubs = tuple(f"h{n}" for n in range(chance.choice((1, 1, 2, 2, 3))))
        links = []
        for one, hub in enumerate(hubs):
            for other in hubs[one + 1 :]:
                way = chance.randrange(6)
                if way in (0, 1, 4, 5):
                    links.append((hub, other))
                if way in (2, 3, 4):
                    links.append((other, hub))
                if way == 5:
                    links.append((hub, f"{other}.b"))
        messengers = []
        for n in range(chance.randrange(2, 5)):
            rooms = (EVERY,) if chance.random() < 0.3 else tuple(r for r in ROOMS if chance.random() < 0.6)
            messengers.append((f"m{n}", chance.choice(hubs), rooms))
        repeaters = [(f"r{n}", chance.choice(hubs)) for n in range(chance.choice((0, 0, 1, 2)))]
        outsides = [(f"o{n}", r) for n, (r, _) in enumerate(repeaters) if chance.random() < 0.5]
        scenario = Scenario(
            self.seed,
            hubs,
            tuple(hub for hub in hubs if chance.random() < 0.5),
            tuple(links),
            tuple(messengers),
            tuple(repeaters),
            tuple(outsides),
            chance.choice((2**23, 2**23, 2**23, 20_000, 6_000)),
            chance.choice((PLENTY, PLENTY, PLENTY, 12_000)),
            chance.choice((5.0, 1000.0)),
        )
        rounds = tuple(tuple(self._round(scenario)) for _ in range(chance.choice((1, 1, 1, 2))))
        return replace(scenario, rounds=rounds)

    def _round(self, scenario: Scenario) -> list[Step]:
        chance = self.chance
        length = chance.choice((0.2, 3.0, 20.0, 60.0))
        steps: list[Step] = []
        publishers = [name for name, *_ in scenario.messengers] + [name for name, _ in scenario.outsides]
        pads = chance.choice(((0,), (0, 0, 200), (0, 2000)))
        for _ in range(chance.randrange(3, 12)):
            many = chance.choice((1, 1, 2, 3, 8))
            steps.append(
                (
                    self._time(length),
                    "send",
                    chance.choice(publishers),
                    chance.choice(ROOMS),
                    many,
                    chance.choice(pads),
                )
            )
        for _ in range(chance.choice((1, 2, 3, 5))):
            if self._faults:
                name = chance.choice(self._faults)
                at = self._time(length)
                steps += getattr(self, f"_{name}")(scenario, at)
        steps.sort(key=lambda step: step[0])
        return steps

    def _time(self, length: float) -> float:
        return round(self.chance.uniform(0, length), 4)

    def _pairs(self, scenario: Scenario) -> list[tuple[str, str]]:
        """Who dials which address."""
        pairs = list(scenario.links)
        pairs += [(name, hub) for name, hub, _ in scenario.messengers]
        pairs += list(scenario.repeaters) + list(scenario.outsides)
        pairs += [(name, f"s{hub}") for name, hub in scenario.repeaters]
        return pairs

    def _pair(self, scenario: Scenario) -> tuple[str, str]:
        return self.chance.choice(self._pairs(scenario))

    def _cut(self, scenario: Scenario, at: float) -> list[Step]:
        chance = self.chance
        how = chance.choice(("reset", "reset", "end", "late", "half", "up", "down"))
        kept = chance.choice((0.0, 0.3, 1.0)), chance.choice((0.0, 0.3, 1.0))
        steps: list[Step] = [(at, "cut", *self._pair(scenario), how, *kept)]
        if chance.random() < 0.3:  # and again, soon
            steps.append((at + round(chance.uniform(0, 3), 4), "cut", *steps[0][2:]))
        return steps

    def _stall(self, scenario: Scenario, at: float) -> list[Step]:
        seconds = self.chance.choice((0.05, 0.5, 3, 12, 40))
        return [(at, "stall", *self._pair(scenario), self.chance.choice(("up", "down", "both")), seconds)]

    def _delay(self, scenario: Scenario, at: float) -> list[Step]:
        chance = self.chance
        direction = chance.choice(("up", "down", "both"))
        return [
            (at, "delay", *self._pair(scenario), direction, chance.choice((0.1, 1, 5)), chance.choice((1, 9)))
        ]

    def _away(self, scenario: Scenario, at: float) -> list[Step]:
        """A proxy cuts the connection, and answers with a status for a time."""
        chance = self.chance
        client, address = self._pair(scenario)
        status = chance.choice((503, 503, 502, 429, 403, 404, 400, 200, 0, -1))
        seconds = chance.choice((0.5, 2, 10, 30))
        return [
            (at, "answer", address, status, seconds),
            (at, "cut", client, address, chance.choice(("reset", "end")), 1.0, 1.0),
        ]

    def _long(self, scenario: Scenario, at: float) -> list[Step]:
        """Longer than the session window."""
        client, address = self._pair(scenario)
        return [(at, "answer", address, -2, 150), (at, "cut", client, address, "reset", 1.0, 1.0)]

    def _close(self, scenario: Scenario, at: float) -> list[Step]:
        """One end closes, or both at once."""
        chance = self.chance
        client, address = self._pair(scenario)
        codes = chance.choice(((GOING_AWAY, 0), (0, GOING_AWAY), (GOING_AWAY, GOING_AWAY)))
        return [(at, "close", client, address, *codes)]

    def _slow(self, scenario: Scenario, at: float) -> list[Step]:
        """A server closes with 4408, perhaps while the other end closes, too."""
        client, address = self._pair(scenario)
        return [(at, "close", client, address, self.chance.choice((0, GOING_AWAY)), TOO_SLOW)]

    def _sleep(self, scenario: Scenario, at: float) -> list[Step]:
        return [(at, "sleep", self._process(scenario), self.chance.choice((0.5, 5, 50)))]

    def _process(self, scenario: Scenario) -> str:
        names = [*scenario.hubs, *(name for name, *_ in scenario.messengers)]
        names += [name for name, _ in scenario.repeaters] + [f"s{hub}" for _, hub in scenario.repeaters]
        return self.chance.choice(names)

    def _restart(self, scenario: Scenario, at: float) -> list[Step]:
        chance = self.chance
        how = chance.choice(("stop", "kill", "reset"))
        return [(at, "restart", self._process(scenario), how, chance.choice((0.0, 0.5, 4)))]

    def _wall(self, scenario: Scenario, at: float) -> list[Step]:
        return [(at, "wall", self._process(scenario), self.chance.choice((-3600, 3600, -2, 90)))]

    def _dial(self, scenario: Scenario, at: float) -> list[Step]:
        """An interconnection under another name, or from the other end."""
        chance = self.chance
        pairs = sorted(tuple(sorted(pair)) for pair in scenario.linked)
        if not pairs:
            return []
        one, other = chance.sample(chance.choice(pairs), 2)
        return [(at, "dial", one, other + chance.choice(("", ".b", ".c")))]

    def _change(self, scenario: Scenario, at: float) -> list[Step]:
        chance = self.chance
        name = chance.choice(scenario.messengers)[0]
        rooms = chance.choice((("A",), ("B",), ("A", "B", "C"), (EVERY,)))
        steps: list[Step] = []
        for _ in range(chance.randrange(1, 4)):
            steps.append((at, "rooms", name, chance.random() < 0.6, rooms))
            at = round(at + chance.choice((0.0, 0.01, 2)), 4)
        return steps

    def _flap(self, scenario: Scenario, at: float) -> list[Step]:
        """Many rooms, again and again."""
        chance = self.chance
        name = chance.choice(scenario.messengers)[0]
        return [
            (at, "flap", name, chance.choice((20, 200)), chance.randrange(1, 5), chance.choice((0.0, 0.3)))
        ]

    def _many(self, scenario: Scenario, at: float) -> list[Step]:
        """Many rooms with long names."""
        return [(at, "many", self.chance.choice(scenario.messengers)[0], 300, 60)]

    def _burst(self, scenario: Scenario, at: float) -> list[Step]:
        """More than a small queue holds."""
        chance = self.chance
        publisher = chance.choice(scenario.messengers)[0]
        return [(at, "send", publisher, chance.choice(ROOMS), 30, chance.choice((0, 800)))]

    def _twin(self, scenario: Scenario, at: float) -> list[Step]:
        """Another hub with the node id of one, which dials a third."""
        pairs = sorted(tuple(sorted(pair)) for pair in scenario.linked)
        if not pairs:
            return []
        one, other = self.chance.sample(self.chance.choice(pairs), 2)
        return [(at, "twin", one, other, self.chance.choice((2, 40)))]


FAULTS = {
    "cut": 6,
    "stall": 3,
    "delay": 2,
    "away": 3,
    "long": 1,
    "close": 1,
    "slow": 1,
    "sleep": 3,
    "restart": 3,
    "wall": 1,
    "dial": 3,
    "change": 3,
    "flap": 1,
    "many": 1,
    "burst": 2,
    "twin": 1,
}
"""The kinds of faults, and how often each is drawn."""


def shortest(scenario: Scenario, fails: Callable[[Scenario], bool], tries: int = 1000) -> Scenario:
    """Leave out what a scenario does not need to fail, first many steps at a time, then one by one."""
    steps = scenario.steps
    size = max(1, len(steps) // 2)
    while size and tries > 0:
        start = 0
        shorter = False
        while start < len(steps) and tries > 0:
            tries -= 1
            fewer = steps[:start] + steps[start + size :]
            if fails(scenario.with_steps(fewer)):
                steps, shorter = fewer, True
            else:
                start += size
        if not shorter or size > 1:
            size = size // 2 if size > 1 else 0
    scenario = scenario.with_steps(steps)
    for what_member in ("outsides", "repeaters", "messengers"):
        for member in getattr(scenario, what_member):
            left = tuple(one for one in getattr(scenario, what_member) if one != member)
            candidate = replace(scenario, **{what_member: left})
            if not candidate.names(member[0]) and fails(candidate):
                scenario = candidate
    return scenario
