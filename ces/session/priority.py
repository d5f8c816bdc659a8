"""What is kept longest when there is too much: records whose event bears one of certain tags.

Looked at only when something must be dropped. The tags are searched for in the event's text, which is not
parsed: an event that holds such a list elsewhere than at its top is spared too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from ces.model.wire import Run
from ces.session.outbox import Spare


def spare_tags(tags: Iterable[str]) -> Spare | None:
    """What spares records whose ``event-tags`` name one of `tags`; None when there are none."""
    names = b"|".join(re.escape(json.dumps(tag, ensure_ascii=False).encode()) for tag in tags)
    if not names:
        return None
    bears = re.compile(rb'"event-tags"\s*:\s*\[[^\]]*(?:' + names + rb")").search

    def spare(run: Run) -> Run | None:
        kept = [record for record in run.records if bears(record)]
        if len(kept) == run.count:
            return run
        return Run(run.room, kept) if kept else None

    return spare
