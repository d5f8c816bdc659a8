"""Every fault that is put back is found by the simulation of topologies, within a bounded number of seeds."""

from __future__ import annotations

import pytest

from tests.stress.planted import PLANTED, Fault, first_found

SEEDS = 600


@pytest.mark.parametrize("fault", PLANTED, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found(fault: Fault) -> None:
    assert first_found(fault, range(SEEDS)) is not None
