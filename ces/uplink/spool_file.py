"""The spool on disk: runs that wait to be sent, in a file that outlives the process.

Owns one SQLite file, the order of its runs, and the pending changes. Does not know links or limits. Its owner
reports changes (`add`, `remove`, `replace`). The changes of a reactor turn are one transaction after that
turn. Runs that come and go within a turn therefore never touch the disk. An answer written in that turn
leaves after the transaction, because Twisted writes to sockets in a later turn. The exception is a blocked
socket that becomes writable in the same turn.

The table is ``runs(id, records, checksum)``: ids in the order of sending, the records of a run as on the wire
(`ces.model.wire`), and a CRC-32 of id and records. After a killed process the file is intact and has all
transactions. After a power failure it is intact but may lack the last transactions (WAL,
``synchronous=NORMAL``). The file is locked while it is open.

A row that is not what was written, because the disk has changed it, is lost: it is counted, logged and
deleted, and the other rows are sent. Damage to the structure of the file is found by SQLite; such a file is
not used, nor changed.

If the file cannot be written (for example, the disk is full), runs stay in memory, where the owner limits
them. The write is repeated every `RETRY` seconds. Until it succeeds, those runs do not survive a crash. That
holds from the start: a full disk does not keep an owner from its work. What an earlier process has left is
read on a full disk as well.

If the file is removed or replaced while it is open, what is written to it is lost with the process. Each
write looks for that first, and makes the file anew with all runs that wait.

Version 1 of the file had no checksums. The first write adds them.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar, cast
from zlib import crc32

from twisted.internet.interfaces import IDelayedCall, IReactorTime

import ces
from ces.model.wire import KnownRooms, Run, read_ces2
from ces.ops.logging import Limited

R = TypeVar("R", bound=Run)

RETRY = 5.0
"""Interval between attempts after a failed write, in seconds."""

APPLICATION = int.from_bytes(b"CESq")
"""SQLite's ``application_id`` of our files."""

VERSION = 2
"""SQLite's ``user_version``: the version of the table's schema."""

TABLES = (
    "CREATE TABLE runs (id INTEGER PRIMARY KEY, records BLOB NOT NULL)",
    "CREATE TABLE runs (id INTEGER PRIMARY KEY, records BLOB NOT NULL, checksum INTEGER)",
)
"""The schema of each version. The second is, to the letter, what SQLite makes of the first by `GROW`."""

GROW = "ALTER TABLE runs ADD COLUMN checksum INTEGER"
"""Makes a file of version 1 one of version 2."""

READ = (
    "SELECT id, CAST(records AS BLOB), NULL FROM runs ORDER BY id",
    # Cast, because a damaged row may hold another type, such as a text that is none.
    "SELECT id, CAST(records AS BLOB), CAST(checksum AS INTEGER) FROM runs ORDER BY id",
)

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Why a disk takes nothing now, but may later."""


class SpoolError(ces.Error):
    """The spool on disk cannot be used. The text is one sentence: which file, what is wrong, what to do.

    why: the sentence without the file.
    """

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"the spool {path} cannot be used: {why}")
        self.why = why


class DiskFull(SpoolError):
    """There is no space for the file now. It is tried again."""


class SpoolFile:
    """An open spool file. The file and its directory are created if they do not exist.

    The owner calls `load` once, before any other method, and `close` at the end.

    :param folder: the directory of the file.
    :param owner: ``repeater`` or ``messenger``; the file is named after it.
    :param clock: the reactor, or a test's Clock.
    :param limited: the log for failed writes.
    :param connect: opens an SQLite file.
    :raises SpoolError: when the file cannot be opened, is damaged, in use, or not a spool. It is then
        unchanged. A full disk is no error: see `fault`.

    failures: number of failed writes.
    fault: why the last write failed; empty when it succeeded.
    damaged: number of records that were lost because the disk has changed them, as far as what is left of
        them tells.
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
        self.damaged = 0
        self._clock = clock
        self._limited = limited
        self._ids: dict[Run, int] = {}
        self._next = 1
        self._unwritten: dict[int, Run] = {}
        self._removed: list[int] = []  # ids to delete from the file, replaced runs included
        self._call: IDelayedCall | None = None
        self._connect = connect
        self._version = VERSION
        self._files = (0, 0)
        self._base: sqlite3.Connection | None = None
        """None while there is no file: the disk was full, or the file was removed."""
        try:
            self._base = self._open()
            self._files = self._identity()
        except DiskFull as full:
            self._failed(full)

    # -- what comes and goes ---------------------------------------------------------------------------------

    def load(self, kind: Callable[[bytes, list[bytes], int], R]) -> list[R]:
        """The runs that the file contained when it was opened, in order. Call it once, before `add`.

        Damaged runs are left out and counted (`damaged`).

        :param kind: the constructor of a run, with the arguments of `Run`.
        :raises SpoolError: when the file cannot be read. It is then closed.
        """
        if self._base is None:
            return []
        known = KnownRooms()
        try:
            for id, records, checksum in self._base.execute(READ[self._version - 1]):
                self._next = id + 1
                faults: list[str] = []
                found = read_ces2([records], known, faults) if records else []
                if faults or len(found) != 1:
                    self._lose(id, records or b"", "does not hold whole records of one room")
                elif self._version > 1 and checksum != crc32(records, id & 0xFFFFFFFF):
                    self._lose(id, records, "is not what was written there")
                else:
                    self._ids[kind(found[0].room, found[0].parts, found[0].count)] = id
        except sqlite3.Error as error:
            self._base.close()
            raise self._unusable(error) from None
        if self._removed:
            self._wake()
        return cast(list[R], list(self._ids))

    def _lose(self, id: int, records: bytes, how: str) -> None:
        """A row is damaged: count its records, and delete it with the next write."""
        lost = max(
            1, (records.count(b"\n") + 1) // 2
        )  # two for each record, unless it is one that has changed
        self.damaged += lost
        self._removed.append(id)
        self._limited.error(
            "spool damaged",
            "the spool {path} is damaged: row {row} {how}; {records} records are lost; check the disk",
            path=self.path,
            row=id,
            how=how,
            records=lost,
        )

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
            if self._base is not None and self._identity() != self._files:
                self._forget(self._base)
            self._write(self._base or self._anew())
        except (sqlite3.Error, SpoolError) as error:
            self._failed(error)
        else:
            self._unwritten.clear()
            self._removed.clear()
            if self.fault:
                self.fault = ""
                self._limited.info("spool written", "the spool {path} can be written again", path=self.path)

    def close(self) -> list[Run]:
        """Write all pending changes and close the file. Returns the runs that could not be written."""
        self.write()
        if self._call is not None:
            self._call.cancel()
        if self._base is not None:
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
            "damaged": self.damaged,
        }

    # -- the file --------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        # After a failure, the pending call is the next attempt.
        if self._call is None:
            self._call = self._clock.callLater(0, self.write)

    def _write(self, base: sqlite3.Connection) -> None:
        if self.fault:
            # SQLite's log may be larger than the data in it. The checkpoint frees that space.
            with suppress(sqlite3.Error):
                base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        base.execute("BEGIN")
        if self._removed:
            base.executemany("DELETE FROM runs WHERE id BETWEEN ? AND ?", _ranges(self._removed))
        if self._version < VERSION:
            self._grow(base)
        base.executemany("INSERT INTO runs VALUES (?, ?, ?)", _rows(self._unwritten))
        base.execute("COMMIT")
        self._version = VERSION

    def _grow(self, base: sqlite3.Connection) -> None:
        """Add to a file of version 1 what is missing."""
        base.execute(GROW)
        base.execute(f"PRAGMA user_version = {VERSION}")
        rows = _rows({id: run for run, id in self._ids.items() if id not in self._unwritten})
        changes = [(checksum, id) for id, _, checksum in rows]
        base.executemany("UPDATE runs SET checksum = ? WHERE id = ?", changes)

    def _identity(self) -> tuple[int, int]:
        """The inodes of the file and of SQLite's log beside it; 0 for one that is not there."""
        return _inode(self.path), _inode(f"{self.path}-wal")

    def _forget(self, base: sqlite3.Connection) -> None:
        """Somebody has removed or replaced the file: all that waits is to be written into a new one."""
        base.close()
        self._base = None
        self._removed = []
        self._unwritten = {id: run for run, id in self._ids.items()}
        self.failures += 1
        self._limited.warn(
            "spool renewed",
            "the spool {path} was removed while it was in use; it is made anew with the {records} records"
            " that wait; leave the files alone while the process runs",
            path=self.path,
            records=self.unwritten,
        )

    def _anew(self) -> sqlite3.Connection:
        """Open the file while the owner is at work: a new one, or the one that was open before."""
        before, inode = self._files[0], _inode(self.path)
        if before and inode not in (0, before):
            # Not even opened: SQLite's log of the old one may still be there, and would be written into it.
            raise self._cannot("another file has taken its place; move that away")
        try:
            base = self._open()
        except DiskFull:
            if before:
                self._files = self._identity()  # that of the empty file which this has made
            raise
        try:
            if before:
                base.execute("DELETE FROM runs")
            elif base.execute("SELECT count(*) FROM runs").fetchone()[0]:
                raise self._cannot(
                    "it holds records of another process; restart this process to send them, or move it away"
                )
        except (sqlite3.Error, SpoolError):
            base.close()
            raise
        self._base = base
        self._files = self._identity()
        return base

    def _failed(self, error: sqlite3.Error | SpoolError) -> None:
        if self._base is not None:
            with suppress(sqlite3.Error):  # after some errors SQLite has rolled back already
                if self._base.in_transaction:
                    self._base.execute("ROLLBACK")
        self.failures += 1
        self.fault = error.why if isinstance(error, SpoolError) else str(error)
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

    def _open(self) -> sqlite3.Connection:
        try:
            os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        except OSError as error:
            raise self._unreachable(error) from None
        try:
            # SQLite does not say why it cannot make a file. One that exists is not opened here: to close it
            # would end SQLite's locks (POSIX), those of another spool in this process.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644))
        except FileExistsError:
            pass
        except OSError as error:
            raise self._unreachable(error) from None
        base: sqlite3.Connection | None = None
        try:
            base = self._connect(self.path, timeout=0, isolation_level=None)
            self._prepare(base)
        except UnicodeError:
            # Python's sqlite3 has no text for an error that quotes a damaged schema.
            if base is not None:
                base.close()
            raise self._damaged("its table is not that of a spool") from None
        except (sqlite3.Error, SpoolError) as error:
            if base is not None:
                base.close()
            raise (error if isinstance(error, SpoolError) else self._unusable(error)) from None
        return base

    def _prepare(self, base: sqlite3.Connection) -> None:
        def ask(question: str) -> Any:
            return base.execute(question).fetchone()[0]

        base.execute("PRAGMA locking_mode = EXCLUSIVE")
        fresh = ask("SELECT count(*) FROM sqlite_master") == 0
        if not fresh and ask("PRAGMA application_id") != APPLICATION:
            raise self._cannot("it is not a spool of CES; choose another directory")
        version = VERSION if fresh else ask("PRAGMA user_version")
        if version > VERSION:
            raise self._cannot("a later version of CES has written it; use that version or another directory")
        found = ask("PRAGMA quick_check(1)")
        if found != "ok":
            raise self._damaged(" ".join(found.split()))
        if not fresh:
            tables = base.execute("SELECT CAST(sql AS BLOB) FROM sqlite_master").fetchall()
            if version < 1 or tables != [(TABLES[version - 1].encode(),)]:
                raise self._damaged("its table is not that of a spool")
        base.execute("PRAGMA journal_mode = WAL")
        base.execute("PRAGMA synchronous = NORMAL")
        base.execute("BEGIN IMMEDIATE")  # fails for a read-only file now, and not at the first event
        if fresh:
            base.execute(TABLES[VERSION - 1])
            base.execute(f"PRAGMA application_id = {APPLICATION}")
            base.execute(f"PRAGMA user_version = {VERSION}")
        base.execute("COMMIT")
        self._version = version

    def _unusable(self, error: sqlite3.Error) -> SpoolError:
        code = getattr(error, "sqlite_errorcode", 0)
        match code & 0xFF:  # the primary code, without SQLite's extension
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return self._cannot("another process uses it; give each process its own directory")
            case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_ERROR:
                return self._damaged(str(error))
            case sqlite3.SQLITE_FULL:
                return DiskFull(self.path, str(error))
        if code == sqlite3.SQLITE_IOERR_WRITE:  # a quota, or a limit for the size of files
            return DiskFull(self.path, str(error))
        try:
            os.close(os.open(f"{self.path}-wal", os.O_RDWR | os.O_CREAT, 0o644))
        except OSError as reason:
            return self._unreachable(reason)
        return self._cannot(f"{error}; the directory must be writable and the disk must have space")

    def _unreachable(self, error: OSError) -> SpoolError:
        if error.errno in FULL:
            return DiskFull(self.path, str(error.strerror))
        return self._cannot(f"{error.strerror}; choose a directory that can be created and written")

    def _damaged(self, how: str) -> SpoolError:
        return self._cannot(f"it is damaged ({how}); move it away, or choose another directory")

    def _cannot(self, why: str) -> SpoolError:
        return SpoolError(self.path, why)


def _rows(runs: dict[int, Run]) -> list[tuple[int, bytes, int]]:
    """What the table holds of runs. The checksum begins with the id: a row in another place is found, too."""
    return [(id, records := b"".join(run.parts), crc32(records, id & 0xFFFFFFFF)) for id, run in runs.items()]


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


def _ranges(ids: list[int]) -> list[tuple[int, int]]:
    """The ranges of consecutive ids, each as its first and last id."""
    first, last = min(ids), max(ids)
    if last - first + 1 == len(ids):  # nearly always, since what was sent first is acknowledged first
        return [(first, last)]
    ranges: list[tuple[int, int]] = []
    for id in sorted(ids):
        if ranges and ranges[-1][1] == id - 1:
            ranges[-1] = (ranges[-1][0], id)
        else:
            ranges.append((id, id))
    return ranges
