"""The short form of ``make soak``."""

from __future__ import annotations

from pathlib import Path

import pytest_twisted

from tests.soak import soak

SECONDS = 40.0


@pytest_twisted.ensureDeferred
async def test_trouble_as_usual_loses_nothing_and_leaves_nothing_behind(tmp_path: Path) -> None:
    from twisted.internet import reactor

    summary, wrong = await soak(SECONDS, 1, reactor, tmp_path)
    assert wrong == [], summary
