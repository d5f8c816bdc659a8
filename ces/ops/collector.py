"""Python's cycle collector, set for a process that holds much and makes little garbage in cycles.

What waits and what is not acknowledged are many objects that live for a moment; with Python's defaults the
collector looks at all of them again and again, which costs a hub a tenth of its throughput.
"""

from __future__ import annotations

import gc

YOUNG, MIDDLE, OLD = 50_000, 20, 50
"""So many more objects made than freed start a collection of the youngest; every 20th of those takes the
middle generation too, every 50th of these all."""


def calm() -> None:
    """Collect more rarely, and never what has been imported."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
