"""The short form of ``make soak``: faults for half a minute, while other processes run other tests."""

from __future__ import annotations

import subprocess
import sys

import pytest

HOURS = "0.008"


def test_trouble_as_usual_loses_nothing_and_leaves_nothing_behind(pytestconfig: pytest.Config) -> None:
    soak = [sys.executable, "-m", "tests.stress.soak", HOURS, "1"]
    done = subprocess.run(soak, cwd=pytestconfig.rootpath, capture_output=True, text=True, timeout=300)
    said = done.stdout + done.stderr
    assert (done.returncode, "nothing was wrong" in said) == (0, True), said
    assert "none lost, twice or out of order" in said
