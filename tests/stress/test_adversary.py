"""The short form of ``make adversary``: some attacks, and what holds on a machine that is busy as well."""

from __future__ import annotations

from pathlib import Path

import pytest_twisted

from tests.stress.adversary import Latencies, LostTime, adversary
from tests.stress.attacks import KINDS

SHORT = ("tiny records", "tiny frames", "ping flood", "slow acknowledger")
"""Those that once froze a hub."""


@pytest_twisted.ensureDeferred
async def test_who_misbehaves_costs_others_no_event_no_second_and_no_more_memory_than_stated(
    tmp_path: Path,
) -> None:
    from twisted.internet import reactor

    phases = await adversary(0, 1, reactor, tmp_path, SHORT, phase=1.5, gross=True)
    assert {phase.kind for phase in phases} == {"none", *SHORT}
    assert [fault for phase in phases for fault in phase.faults] == []


def test_each_kind_of_attack_states_what_it_may_cost() -> None:
    for kind, attack in KINDS.items():
        assert attack.kind == kind
        assert attack.__doc__
        assert attack.stated or attack.links or attack.waits


def test_what_the_machine_took_is_no_latency() -> None:
    lost = LostTime()
    for now, here, there in ((1.0, 0.0, 0.0), (2.0, 0.25, 0.75), (3.0, 0.0, 0.0), (4.0, 9.0, 0.0)):
        lost.tick(now, here, there)
    seen = Latencies()
    seen.all = [(1.0, 2.0), (2.0, 2.5), (3.0, 4.0)]
    assert (seen.longest(), seen.longest(lost)) == (1.0, 0.5)
    seen.all = [(1.0, 2.0)] * 98 + [(2.0, 3.0)] * 2
    assert seen.p99(lost) == 1.0
    lost.forget()
    assert lost.total == 1.75
