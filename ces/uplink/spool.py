"""The spool of an uplink: what waits for a hub, in memory, and on disk as well where a directory is named.

A spool is a send queue that outlives connections and sessions. With a file (`ces.uplink.spool_file`) it
outlives the process: what the next process finds there is sent before everything else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from ces.link.link import Link
from ces.link.side import Side
from ces.model.wire import Run
from ces.session.queue import Watcher
from ces.uplink.spool_file import SpoolFile


class Spool:
    """A queue and, while it is open, the file behind it (`ces.session.queue.Watcher` of the queue).

    :param limit: bytes of records.
    :param name: of the file: who owns the spool.
    :param folder: the directory of the file; empty for none.
    :param kind: makes the runs that the file holds.
    :param watcher: is told what becomes of each run as well.
    """

    def __init__(
        self,
        side: Side[Link],
        limit: int,
        name: str,
        folder: str | os.PathLike[str] = "",
        kind: Callable[[bytes, list[bytes], int], Run] = Run,
        watcher: Watcher | None = None,
    ) -> None:
        self.folder = os.path.abspath(folder) if folder else ""
        self.file: SpoolFile | None = None
        self.queue = side.new_queue(self if folder or watcher is not None else None, limit)
        self._side = side
        self._name = name
        self._kind = kind
        self._watcher = watcher

    def open(self) -> list[Run]:
        """Use the file from now on, if there is to be one; what it held, which now waits before all else.

        What was damaged on disk counts as dropped (``file.damaged``). On a full disk all goes on in memory.

        :raises ces.uplink.spool_file.SpoolError: when it cannot be used.
        """
        if not self.folder or self.file is not None:
            return []
        file = SpoolFile(self.folder, self._name, self._side.clock, self._side.limited)
        found: list[Run] = file.load(self._kind)
        came = self.queue.take_all()
        file.add(came)
        self.file = file
        self.queue.pending += found + came
        self.queue.dropped += file.damaged
        if found:
            self._side.log.info(
                "{records} records for the hub were found in {path}", records=file.records, path=file.path
            )
        return found

    def add(self, runs: Sequence[Run]) -> None:
        """These runs are about to be put into the queue: keep them on disk as well."""
        if self.file is not None:
            self.file.add(runs)

    def close(self, left: list[Run]) -> list[Run]:
        """Close the file.

        :param left: what the hub did not get. :return: what nobody keeps now.
        """
        file, self.file = self.file, None
        if file is None:
            return left
        lost = file.close()
        if file.records:
            self._side.log.info(
                "{records} records for the hub are kept in {path}", records=file.records, path=file.path
            )
        return lost

    def status(self) -> dict[str, Any] | None:
        """What ``/status`` says of the file; None without one."""
        return None if self.file is None else self.file.status()

    # -- what the queue tells --------------------------------------------------------------------------------

    def done(self, runs: list[Run]) -> None:
        if self.file is not None:
            self.file.remove(runs)
        if self._watcher is not None:
            self._watcher.done(runs)

    def evicted(self, run: Run) -> None:
        if self.file is not None:
            self.file.remove([run])
        if self._watcher is not None:
            self._watcher.evicted(run)

    def cut(self, run: Run, rest: Run) -> None:
        if self.file is not None:
            self.file.replace(run, rest)
        if self._watcher is not None:
            self._watcher.cut(run, rest)
