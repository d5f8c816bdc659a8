"""The spool on disk: runs that wait to be sent, in a file that outlives the process.

Owns one SQLite file, the order of its runs, and the pending changes. Does not know links or limits. Its owner
reports changes (`add`, `remove`, `replace`). The changes of a reactor turn are one transaction after that
turn. Runs that come and go within a turn therefore never touch the disk. An answer written in that turn
leaves after the transaction, because Twisted writes to sockets in a later turn. The exception is a blocked
socket that becomes writable in the same turn.

The table is ``runs(id, records)``: ids in the order of sending, and the records of a run as on the wire
(`ces.model.wire`). After a killed process the file is intact and has all transactions. After a power failure
it is intact but may lack the last transactions (WAL, ``synchronous=NORMAL``). The file is locked while it is
open.

If the file cannot be written (for example, the disk is full), runs stay in memory, where the owner limits
them. The write is repeated every `RETRY` seconds. Until it succeeds, those runs do not survive a crash.

If the file is removed or replaced while it is open, what is written to it is lost with the process. Each
write looks for that first, and makes the file anew with all runs that wait.
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
"""Interval between attempts after a failed write, in seconds."""

APPLICATION = int.from_bytes(b"CESq")
"""SQLite's ``application_id`` of our files."""

VERSION = 1
"""SQLite's ``user_version``: the version of the table's schema."""

TABLE = "CREATE TABLE runs (id INTEGER PRIMARY KEY, records BLOB NOT NULL)"


class SpoolError(ces.Error):
    """The spool on disk cannot be used. The text is one sentence: which file, what is wrong, what to do."""


class SpoolFile:
    """An open spool file. The file and its directory are created if they do not exist.

    The owner calls `load` once, before any other method, and `close` at the end.

    :param folder: the directory of the file.
    :param owner: ``repeater`` or ``messenger``; the file is named after it.
    :param clock: the reactor, or a test's Clock.
    :param limited: the log for failed writes.
    :param connect: opens an SQLite file.
    :raises SpoolError: when the file cannot be opened, is damaged, in use, or not a spool. It is then
        unchanged.

    failures: number of failed writes.
    fault: why the last write failed; empty when it succeeded.
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
        self._removed: list[int] = []  # ids to delete from the file, replaced runs included
        self._call: IDelayedCall | None = None
        self._connect = connect
        self._base = self._open(connect)
        self._files = self._identity()

    # -- what comes and goes ---------------------------------------------------------------------------------

    def load(self, kind: Callable[[bytes, list[bytes], int], R]) -> list[R]:
        """The runs that the file contained when it was opened, in order. Call it once, before `add`.

        :param kind: the constructor of a run, with the arguments of `Run`.
        :raises SpoolError: when the file cannot be read. It is then closed.
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
        """Append runs that are not in the file."""
        id = self._next
        for run in runs:
            self._ids[run] = id
            self._unwritten[id] = run
            id += 1
        self._next = id
        self._wake()

    def remove(self, runs: Sequence[Run]) -> None:
        """Remove runs. Runs that are not in the file are ignored."""
        for run in runs:
            id = self._ids.pop(run, None)
            if id is not None and self._unwritten.pop(id, None) is None:
                self._removed.append(id)
        if self._removed:
            self._wake()

    def replace(self, run: Run, rest: Run) -> None:
        """Replace a run by its remaining part, in the same place."""
        id = self._ids.pop(run, None)
        if id is not None:
            if id not in self._unwritten:
                self._removed.append(id)
            self._ids[rest] = id
            self._unwritten[id] = rest
            self._wake()

    def write(self) -> None:
        """Write all pending changes now. A failure is logged, and the write is repeated later."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None
        if not self._unwritten and not self._removed:
            return
        try:
            if self._identity() != self._files:
                self._renew()
            self._write()
        except (sqlite3.Error, SpoolError) as error:
            self._failed(error)
        else:
            self._unwritten.clear()
            self._removed.clear()
            self._files = self._identity()
            if self.fault:
                self.fault = ""
                self._limited.info("spool written", "the spool {path} can be written again", path=self.path)

    def close(self) -> list[Run]:
        """Write all pending changes and close the file. Returns the runs that could not be written."""
        self.write()
        if self._call is not None:
            self._call.cancel()
        self._base.close()
        # A replaced run that could not be deleted is still in the file, as a whole.
        in_file = set(self._removed)
        return [run for id, run in self._unwritten.items() if id not in in_file]

    # -- what it shows ---------------------------------------------------------------------------------------

    @property
    def unwritten(self) -> int:
        """Number of records in memory only."""
        return sum(run.count for run in self._unwritten.values())

    @property
    def records(self) -> int:
        """Number of records in the file."""
        return sum(run.count for run in self._ids) - self.unwritten

    @property
    def bytes(self) -> int:
        """Bytes of the records in the file."""
        return sum(run.size for run in self._ids) - sum(run.size for run in self._unwritten.values())

    def status(self) -> dict[str, Any]:
        """The state as ``/status`` shows it."""
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
        # After a failure, the pending call is the next attempt.
        if self._call is None:
            self._call = self._clock.callLater(0, self.write)

    def _write(self) -> None:
        execute = self._base.execute
        if self.fault:
            # SQLite's log may be larger than the data in it. The checkpoint frees that space.
            with suppress(sqlite3.Error):
                execute("PRAGMA wal_checkpoint(TRUNCATE)")
        execute("BEGIN")
        self._base.executemany("DELETE FROM runs WHERE id BETWEEN ? AND ?", _ranges(self._removed))
        self._base.executemany(
            "INSERT INTO runs VALUES (?, ?)",
            [(id, b"".join(run.parts)) for id, run in self._unwritten.items()],
        )
        execute("COMMIT")

    def _identity(self) -> tuple[int, int]:
        """The inodes of the file and of SQLite's log beside it; 0 for one that is not there."""
        return _inode(self.path), _inode(f"{self.path}-wal")

    def _renew(self) -> None:
        """Somebody has removed or replaced the file: write all that waits into a new one."""
        replaced = _inode(self.path) not in (0, self._files[0])
        self._base.close()
        self._removed = []
        self._unwritten = {id: run for run, id in self._ids.items()}
        if replaced:
            raise self._cannot("another file has taken its place; move that away")
        self._base = self._open(self._connect)
        self._base.execute("DELETE FROM runs")
        self._files = self._identity()
        self.failures += 1
        self._limited.warn(
            "spool renewed",
            "the spool {path} was removed while it was in use; it is made anew with the {records} records"
            " that wait; leave the files alone while the process runs",
            path=self.path,
            records=self.unwritten,
        )

    def _failed(self, error: sqlite3.Error | SpoolError) -> None:
        with suppress(sqlite3.Error):  # after some errors SQLite has rolled back already, or it is closed
            if self._base.in_transaction:
                self._base.execute("ROLLBACK")
        self.failures += 1
        self.fault = str(error)
        self._call = self._clock.callLater(RETRY, self.write)
        self._limited.warn(
            "spool unwritten",
            "the spool {path} cannot be written: {why}; {records} records are in memory only; free space or"
            " check the disk; the write is repeated every {retry:g} s",
            path=self.path,
            why=self.fault,
            records=self.unwritten,
            retry=RETRY,
        )

    def _open(self, connect: Callable[..., sqlite3.Connection]) -> sqlite3.Connection:
        try:
            os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        except OSError as error:
            raise self._cannot(
                f"{error.strerror}; choose a directory that can be created and written"
            ) from None
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
            raise self._cannot("it is not a spool of CES; choose another directory")
        if ask("PRAGMA user_version") > VERSION:
            raise self._cannot("a later version of CES has written it; use that version or another directory")
        found = ask("PRAGMA quick_check(1)")
        if found != "ok":
            raise self._damaged(" ".join(found.split()))
        base.execute("PRAGMA journal_mode = WAL")
        base.execute("PRAGMA synchronous = NORMAL")
        base.execute("BEGIN IMMEDIATE")  # fails for a read-only file now, and not at the first event
        if fresh:
            base.execute(TABLE)
            base.execute(f"PRAGMA application_id = {APPLICATION}")
            base.execute(f"PRAGMA user_version = {VERSION}")
        base.execute("COMMIT")

    def _unusable(self, error: sqlite3.Error) -> SpoolError:
        match getattr(error, "sqlite_errorcode", 0) & 0xFF:  # the primary code, without SQLite's extension
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return self._cannot("another process uses it; give each process its own directory")
            case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
                return self._damaged(str(error))
        return self._cannot(f"{error}; the directory must be writable and the disk must have space")

    def _damaged(self, how: str) -> SpoolError:
        return self._cannot(f"it is damaged ({how}); move it away, or choose another directory")

    def _cannot(self, why: str) -> SpoolError:
        return SpoolError(f"the spool {self.path} cannot be used: {why}")


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


def _ranges(ids: list[int]) -> list[tuple[int, int]]:
    """The ranges of consecutive ids, each as its first and last id."""
    ranges: list[tuple[int, int]] = []
    for id in sorted(ids):
        if ranges and ranges[-1][1] == id - 1:
            ranges[-1] = (ranges[-1][0], id)
        else:
            ranges.append((id, id))
    return ranges
