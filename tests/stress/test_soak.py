"""The short form of ``make soak``: a minute of it, while the other tests run (``conftest.py`` starts it)."""

from __future__ import annotations

import subprocess


def test_trouble_as_usual_loses_nothing_and_leaves_nothing_behind(soak: subprocess.Popen[str]) -> None:
    said, _ = soak.communicate(timeout=200)
    assert (soak.returncode, "nothing was wrong" in said) == (0, True), said
    assert "none lost, twice or out of order" in said
