"""The short forms of ``make crashes``, with checks that hold on a busy machine too."""

from __future__ import annotations

from pathlib import Path

import pytest_twisted

from tests.stress.crashes import (
    HERD_BACK,
    backoff,
    backoff_is_right,
    burst,
    burst_is_right,
    herd,
    hub,
    hub_is_right,
    slow,
    slow_is_right,
)


@pytest_twisted.ensureDeferred
async def test_who_loses_a_hub_is_told_of_a_gap_and_sends_again_what_was_not_acknowledged(
    tmp_path: Path,
) -> None:
    from twisted.internet import reactor

    seen = await hub(2, 1, reactor, tmp_path, width=3)
    assert hub_is_right(seen), seen


@pytest_twisted.ensureDeferred
async def test_a_consumer_that_stands_still_costs_its_own_events_and_no_others(tmp_path: Path) -> None:
    from twisted.internet import reactor

    seen = await slow(1.5, 1, reactor, tmp_path, width=10)
    assert slow_is_right(seen), seen


@pytest_twisted.ensureDeferred
async def test_a_burst_for_a_slow_consumer_arrives_or_is_announced_as_lost(tmp_path: Path) -> None:
    from twisted.internet import reactor

    seen = await burst(15_000, 1, reactor, tmp_path)
    assert burst_is_right(seen), seen


@pytest_twisted.ensureDeferred
async def test_all_clients_come_back_after_a_kill_and_after_a_restart(tmp_path: Path) -> None:
    from twisted.internet import reactor

    seen = await herd(100, 1, reactor, tmp_path)
    assert max(seen["back after kill -9"], seen["back after SIGTERM"]) < HERD_BACK, seen
    assert seen["unexpected"] == []


@pytest_twisted.ensureDeferred
async def test_a_hub_that_cannot_be_reached_is_dialled_ever_more_rarely(tmp_path: Path) -> None:
    from twisted.internet import reactor

    seen = await backoff(1.0, 1, reactor, tmp_path)
    assert backoff_is_right(seen), seen
