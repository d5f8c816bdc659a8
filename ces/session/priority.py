"""Priority of records: a full queue evicts records with certain event tags last.

Cost: none until a queue must evict. The event is not parsed: a regular expression searches its text for the
tags. An event with a matching ``event-tags`` list inside another object therefore has priority too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from ces.model.wire import Run
from ces.session.queue import Priority


def priority_tags(tags: Iterable[str]) -> Priority | None:
    """Make the priority function for a queue: records with one of `tags` in their ``event-tags`` stay
    longest.

    :return: a function that returns the part of a run that has priority, or None. None when `tags` is empty.
    """
    names = b"|".join(re.escape(json.dumps(tag, ensure_ascii=False).encode()) for tag in tags)
    if not names:
        return None
    has_tag = re.compile(rb'"event-tags"\s*:\s*\[[^\]]*(?:' + names + rb")").search

    def priority(run: Run) -> Run | None:
        kept = [record for record in run.records if has_tag(record)]
        if len(kept) == run.count:
            return run
        return run.with_only(kept) if kept else None

    return priority
