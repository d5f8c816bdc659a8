"""Tunes Python's cycle collector for a process with many short-lived objects and few reference cycles.

Queued records and records in flight are such objects. With Python's defaults the collector scans all of them
repeatedly, which costs a hub a tenth of its throughput.
"""

from __future__ import annotations

import gc

YOUNG, MIDDLE, OLD = 50_000, 20, 50
"""Thresholds for `gc.set_threshold`. 50,000 more objects created than freed start a collection of the
youngest generation. Every 20th collection includes the middle generation, and every 50th of those the oldest.
"""


def calm() -> None:
    """Make collections rarer, and exclude everything that has been imported so far.

    Call it once, after the imports.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
