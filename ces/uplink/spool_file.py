"""A spool on disk: the runs that wait to be sent, in a file that outlives the process.

Owns one SQLite file, the order of what is in it, and what has to change in it; does not know links, bounds or
why a run comes or goes. Its owner says what does (`add`, `remove`, `replace`); all that was said in a reactor
turn is one transaction after that turn. So what comes and goes within a turn never touches the disk, and an
answer that is written in that turn leaves after the transaction, for Twisted writes to a socket in a later
turn (but for one that was blocked and can be written again in this one).

The table is ``runs(id, records)``: ids in the order of sending, and the records of a run as the wire has
them (`ces.model.wire`). A process that is killed leaves a whole file with all transactions, one whose machine
loses power a whole file that may lack the last of them (WAL, ``synchronous=NORMAL``). The file is locked
while it is open.

A file that cannot be written, for want of space or else, costs nothing but the safety: what could not be
written stays in memory, where its owner bounds it, and is tried again every `RETRY` seconds.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar, cast

from twisted.internet.interfaces import IDelayedCall, IReactorTime

import ces
from ces.model.wire import KnownRooms, Run, read_ces2
from ces.ops.logging import Limited

R = TypeVar("R", bound=Run)

RETRY = 5.0
"""Seconds after which a file that could not be written is tried again."""

APPLICATION = int.from_bytes(b"CESq")
"""SQLite's ``application_id`` of a file of ours."""

VERSION = 1
"""SQLite's ``user_version``: of the table's form."""

TABLE = "CREATE TABLE runs (id INTEGER PRIMARY KEY, records BLOB NOT NULL)"


class SpoolError(ces.Error):
    """A spool on disk that cannot be used; the text is one sentence: where, what is wrong, what to do."""


class SpoolFile:
    """An open spool file, made with its directory when there is none.

    :param folder: the directory that holds it.
    :param owner: of the spool, ``repeater`` or ``messenger``, which names the file.
    :param clock: calls back when a turn has ended.
    :param limited: told when the file cannot be written, and when it can again.
    :param connect: opens an SQLite file.
    :raises SpoolError: when it cannot be opened, is damaged, in use, or none of ours; then it is unchanged.

    failures: how often it could not be written.
    fault: why it could not be the last time; empty when it could.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        owner: str,
        clock: IReactorTime,
        limited: Limited,
        connect: Callable[..., sqlite3.Connection] = sqlite3.connect,
    ) -> None:
        self.path = os.path.join(os.path.abspath(folder), f"{owner}.sqlite3")
        self.failures = 0
        self.fault = ""
        self._clock = clock
        self._limited = limited
        self._ids: dict[Run, int] = {}
        self._next = 1
        self._unwritten: dict[int, Run] = {}
        self._gone: list[int] = []  # what is in the file, or an earlier form of it
        self._call: IDelayedCall | None = None
        self._base = self._open(connect)

    # -- what comes and goes ---------------------------------------------------------------------------------

    def load(self, kind: Callable[[bytes, list[bytes], int], R]) -> list[R]:
        """What the file held when it was opened, in order; to be asked for once, before anything is added.

        :param kind: makes a run, as `Run` does.
        :raises SpoolError: when it cannot be read; then it is closed.
        """
        known = KnownRooms()
        try:
            for id, records in self._base.execute("SELECT id, records FROM runs ORDER BY id"):
                faults: list[str] = []
                found = read_ces2([records], known, faults) if isinstance(records, bytes) else []
                if faults or len(found) != 1:
                    raise self._damaged(f"row {id} does not hold whole records of one room")
                self._ids[kind(found[0].room, found[0].parts, found[0].count)] = id
                self._next = id + 1
        except (sqlite3.Error, SpoolError) as error:
            self._base.close()
            raise (error if isinstance(error, SpoolError) else self._unusable(error)) from None
        return cast(list[R], list(self._ids))

    def add(self, runs: Sequence[Run]) -> None:
        """These runs, none of which is in the file, have come behind all others."""
        id = self._next
        for run in runs:
            self._ids[run] = id
            self._unwritten[id] = run
            id += 1
        self._next = id
        self._wake()

    def remove(self, runs: Sequence[Run]) -> None:
        """These runs have gone; those that are not in the file do not matter."""
        for run in runs:
            id = self._ids.pop(run, None)
            if id is not None and self._unwritten.pop(id, None) is None:
                self._gone.append(id)
        if self._gone:
            self._wake()

    def replace(self, run: Run, rest: Run) -> None:
        """Of a run only the rest is left, in its place."""
        id = self._ids.pop(run, None)
        if id is not None:
            if id not in self._unwritten:
                self._gone.append(id)
            self._ids[rest] = id
            self._unwritten[id] = rest
            self._wake()

    def write(self) -> None:
        """Bring the file up to date, now."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None
        if not self._unwritten and not self._gone:
            return
        try:
            self._write()
        except sqlite3.Error as error:
            self._failed(error)
        else:
            self._unwritten.clear()
            self._gone.clear()
            if self.fault:
                self.fault = ""
                self._limited.info("spool written", "the spool {path} is written again", path=self.path)

    def close(self) -> list[Run]:
        """Bring the file up to date and close it; the runs that it does not hold, which nobody keeps now."""
        self.write()
        if self._call is not None:
            self._call.cancel()
        self._base.close()
        held = set(self._gone)
        return [run for id, run in self._unwritten.items() if id not in held]

    # -- what it shows ---------------------------------------------------------------------------------------

    @property
    def unwritten(self) -> int:
        """Records that wait and are in memory only."""
        return sum(run.count for run in self._unwritten.values())

    @property
    def records(self) -> int:
        """Records in the file."""
        return sum(run.count for run in self._ids) - self.unwritten

    @property
    def bytes(self) -> int:
        """Bytes of the records in the file."""
        return sum(run.size for run in self._ids) - sum(run.size for run in self._unwritten.values())

    def status(self) -> dict[str, Any]:
        """What ``/status`` says of it."""
        return {
            "path": self.path,
            "records": self.records,
            "bytes": self.bytes,
            "unwritten": self.unwritten,
            "failures": self.failures,
            "fault": self.fault,
        }

    # -- the file --------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        # After a failure the call that waits is the next try.
        if self._call is None:
            self._call = self._clock.callLater(0, self.write)

    def _write(self) -> None:
        execute = self._base.execute
        if self.fault:
            # SQLite's log may take up more space than the file would with all that is in the log.
            with suppress(sqlite3.Error):
                execute("PRAGMA wal_checkpoint(TRUNCATE)")
        execute("BEGIN")
        self._base.executemany("DELETE FROM runs WHERE id BETWEEN ? AND ?", _stretches(self._gone))
        self._base.executemany(
            "INSERT INTO runs VALUES (?, ?)",
            [(id, b"".join(run.parts)) for id, run in self._unwritten.items()],
        )
        execute("COMMIT")

    def _failed(self, error: sqlite3.Error) -> None:
        if self._base.in_transaction:
            with suppress(sqlite3.Error):  # SQLite has rolled back already where it must
                self._base.execute("ROLLBACK")
        self.failures += 1
        self.fault = str(error)
        self._call = self._clock.callLater(RETRY, self.write)
        self._limited.warn(
            "spool unwritten",
            "the spool {path} cannot be written: {why}; {records} records are in memory only; make space, or"
            " see what ails the disk: it is tried again every {retry:g} s",
            path=self.path,
            why=self.fault,
            records=self.unwritten,
            retry=RETRY,
        )

    def _open(self, connect: Callable[..., sqlite3.Connection]) -> sqlite3.Connection:
        try:
            os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        except OSError as error:
            raise self._cannot(f"{error.strerror}; name a directory that can be made and written") from None
        try:
            base = connect(self.path, timeout=0, isolation_level=None)
        except sqlite3.Error as error:
            raise self._unusable(error) from None
        try:
            self._prepare(base)
        except sqlite3.Error as error:
            base.close()
            raise self._unusable(error) from None
        except SpoolError:
            base.close()
            raise
        return base

    def _prepare(self, base: sqlite3.Connection) -> None:
        def ask(question: str) -> Any:
            return base.execute(question).fetchone()[0]

        base.execute("PRAGMA locking_mode = EXCLUSIVE")
        fresh = ask("SELECT count(*) FROM sqlite_master") == 0
        if not fresh and ask("PRAGMA application_id") != APPLICATION:
            raise self._cannot("it is no spool of CES; name another directory")
        if ask("PRAGMA user_version") > VERSION:
            raise self._cannot("a later version of CES has written it; use that one, or another directory")
        found = ask("PRAGMA quick_check(1)")
        if found != "ok":
            raise self._damaged(" ".join(found.split()))
        base.execute("PRAGMA journal_mode = WAL")
        base.execute("PRAGMA synchronous = NORMAL")
        base.execute("BEGIN IMMEDIATE")  # which says now, and not at the first event, that it is read-only
        if fresh:
            base.execute(TABLE)
            base.execute(f"PRAGMA application_id = {APPLICATION}")
            base.execute(f"PRAGMA user_version = {VERSION}")
        base.execute("COMMIT")

    def _unusable(self, error: sqlite3.Error) -> SpoolError:
        match getattr(error, "sqlite_errorcode", 0) & 0xFF:  # without what SQLite's extended codes add
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return self._cannot("another process uses it; give each a directory of its own")
            case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
                return self._damaged(str(error))
        return self._cannot(f"{error}; the directory must be writable and the disk must have space")

    def _damaged(self, how: str) -> SpoolError:
        return self._cannot(f"it is damaged ({how}); move it away, or name another directory")

    def _cannot(self, why: str) -> SpoolError:
        return SpoolError(f"the spool {self.path} cannot be used: {why}")


def _stretches(ids: list[int]) -> list[tuple[int, int]]:
    """The first and the last of each stretch of successive numbers."""
    stretches: list[tuple[int, int]] = []
    for id in sorted(ids):
        if stretches and stretches[-1][1] == id - 1:
            stretches[-1] = (stretches[-1][0], id)
        else:
            stretches.append((id, id))
    return stretches
