"""A spool on disk: order, turns, crashes, a full disk, and files that cannot be used."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from twisted.internet.task import Clock
from twisted.logger import Logger

from ces.model.wire import Run
from ces.ops.logging import Limited
from ces.uplink.spool import Spool
from ces.uplink.spool_file import APPLICATION, RETRY, SpoolError, SpoolFile
from tests.support.links import Lines, make_side, record, run

HELD = 50
"""So many runs the process that is killed keeps in its file."""


class Small(sqlite3.Connection):
    """A disk on which no transaction fits."""

    def execute(self, statement: str, *args: Any) -> sqlite3.Cursor:
        if statement.startswith("BEGIN"):
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return super().execute(statement, *args)


class Disk:
    """A directory with one spool, the clock of its owner and what that has logged.

    statements: what SQLite was asked since the spool was opened.
    full: whether there is no space for a new file.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = folder
        self.clock = Clock()
        self.lines = Lines()
        self.statements: list[str] = []
        self.full = False

    def open(self) -> SpoolFile:
        limited = Limited(Logger(namespace="ces.test", observer=self.lines), self.clock)
        spool = SpoolFile(self.folder, "repeater", self.clock, limited, connect=self._connect)
        self.statements.clear()
        return spool

    def _connect(self, *args: Any, **kwargs: Any) -> sqlite3.Connection:
        self.base = sqlite3.connect(*args, **kwargs, factory=Small if self.full else sqlite3.Connection)
        self.base.set_trace_callback(self.statements.append)
        return self.base

    def turn(self) -> None:
        self.clock.advance(0)

    def fill(self) -> None:
        """No page more can be written."""
        (pages,) = self.base.execute("PRAGMA page_count").fetchone()
        self.base.execute(f"PRAGMA max_page_count = {pages}")

    def empty(self) -> None:
        self.base.execute("PRAGMA max_page_count = 1000000")

    def found(self) -> list[bytes]:
        """The records that the file holds, once it is closed."""
        spool = self.open()
        records = records_of(spool.load(Run))
        assert spool.close() == []
        return records


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "made" / "if need be")


def records_of(runs: list[Run]) -> list[bytes]:
    return [one for some in runs for one in some.records]


def runs(*numbers: int, size: int = 0) -> list[Run]:
    """Runs of one record each."""
    return [run("A", f"{number}{'x' * size}") for number in numbers]


# -- what is in it -------------------------------------------------------------------------------------------


def test_what_was_added_and_not_removed_is_found_in_order(disk: Disk) -> None:
    spool = disk.open()
    assert spool.load(Run) == []
    first, second = runs(1, 2), [run("B", "3", "4"), run("", "5")]
    spool.add(first)
    disk.turn()
    spool.add(second)
    spool.remove([first[0]])
    disk.turn()
    assert (spool.records, spool.bytes) == (4, sum(one.size for one in [first[1], *second]))
    assert spool.close() == []
    expected = [record("A", "2"), record("B", "3"), record("B", "4"), record("", "5")]
    assert disk.found() == disk.found() == expected


def test_what_comes_after_a_restart_stands_behind_what_was_found(disk: Disk) -> None:
    for number in range(3):
        spool = disk.open()
        found = spool.load(Run)
        spool.add(runs(number))
        if number == 2:
            spool.remove(found[:1])
        spool.close()
    assert disk.found() == [record("A", "1"), record("A", "2")]


def test_what_comes_and_goes_within_a_turn_never_touches_the_disk(disk: Disk) -> None:
    spool = disk.open()
    some = runs(1, 2, 3)
    spool.add(some)
    spool.remove(some)
    disk.turn()
    assert disk.statements == []
    spool.close()


def test_a_turn_is_one_transaction_and_what_goes_together_is_deleted_together(disk: Disk) -> None:
    spool = disk.open()
    some = runs(*range(100))
    spool.add(some)
    disk.turn()
    disk.statements.clear()
    spool.remove(some[:10])
    spool.remove(some[10:60])
    spool.add(runs(100))
    disk.turn()
    verbs = [statement.split()[0] for statement in disk.statements]
    assert verbs == ["BEGIN", "DELETE", "INSERT", "COMMIT"]
    spool.close()


def test_a_run_of_which_less_is_left_keeps_its_place(disk: Disk) -> None:
    spool = disk.open()
    some = [run("A", "1", "2"), run("A", "3", "4"), run("A", "5")]
    spool.add(some)
    disk.turn()
    rest = some[0].without_first(1)
    spool.replace(some[0], rest)
    disk.turn()
    spool.replace(some[1], some[1].without_first(1))
    spool.replace(some[2], run("A", "6"))
    spool.remove([rest])
    spool.close()
    assert disk.found() == [record("A", "4"), record("A", "6")]


def test_a_batch_that_is_larger_than_a_message_may_be_is_found_as_single_records(disk: Disk) -> None:
    large = Run(b"A", [b"".join(record("A", f"{n}" + "x" * 5000) for n in range(10)) for _ in range(2)], 20)
    spool = disk.open()
    spool.add([large])
    spool.close()
    spool = disk.open()
    (found,) = spool.load(Run)
    assert found.parts == large.records and found.count == 20
    spool.close()


def test_what_it_is_told_of_runs_that_it_does_not_hold_does_not_matter(disk: Disk) -> None:
    spool = disk.open()
    spool.remove(runs(1))
    spool.replace(*runs(1, 2))
    disk.turn()
    assert disk.statements == []
    spool.close()


class SpooledQueue(RuleBasedStateMachine):
    """A queue on disk, whatever becomes of its connections: after a restart the file holds what it held."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.disk = Disk(self.folder.name)
        self.number = 0
        self.full = False
        self.begin()

    def begin(self) -> None:
        self.file = self.disk.open()
        spool = Spool(make_side(self.disk.clock), 1000, "repeater", self.folder.name)
        self.queue = spool.queue
        self.queue.priority = even
        self.queue.restart(numbered=True)
        self.queue.pending += self.file.load(Run)
        spool.file = self.file

    @rule(counts=st.lists(st.integers(1, 4), min_size=1, max_size=3), size=st.integers(0, 60))
    def put(self, counts: list[int], size: int) -> None:
        for count in counts:
            numbers = range(self.number, self.number + count)
            self.number += count
            new = run("A", *[f"{number:04}{'x' * size}" for number in numbers])
            self.queue.pending.append(new)
            self.file.add([new])

    @rule(budget=st.integers(0, 400))
    def send(self, budget: int) -> None:
        self.queue.take(budget)

    def received(self, part: float) -> int:
        """As many as the other side may have received."""
        queue = self.queue
        return queue.acknowledged + int(part * (queue.sent - queue.acknowledged))

    @rule(part=st.floats(0, 1))
    def acknowledge(self, part: float) -> None:
        self.queue.acknowledge(self.received(part))

    @rule(part=st.floats(0, 1))
    def resume(self, part: float) -> None:
        self.queue.resume(self.received(part))

    @rule(numbered=st.booleans())
    def another_session(self, numbered: bool) -> None:
        self.queue.restart(numbered)

    @rule()
    def close_in_order(self) -> None:
        self.queue.delivered()

    @rule()
    def turn(self) -> None:
        self.queue.settle()
        self.disk.turn()

    @rule()
    def fill_the_disk(self) -> None:
        self.full = True
        self.disk.fill()

    @precondition(lambda self: self.full)
    @rule()
    def empty_the_disk(self) -> None:
        self.full = False
        self.disk.empty()
        self.disk.clock.advance(RETRY)
        assert self.file.unwritten == 0

    @precondition(lambda self: not self.full)
    @rule()
    def restart(self) -> None:
        held = records_of(self.queue.take_all())
        assert self.file.close() == []
        self.begin()
        assert records_of(self.queue.pending) == held

    def teardown(self) -> None:
        self.file.close()
        self.folder.cleanup()
        assert self.disk.clock.getDelayedCalls() == []


def even(some: Run) -> Run | None:
    """Records with an even number have priority."""
    kept = [one for one in some.records if int(one.split(b'"')[3][:4]) % 2 == 0]
    return Run(some.room, kept) if kept else None


TestSpooledQueue = SpooledQueue.TestCase
TestSpooledQueue.settings = settings(max_examples=60, stateful_step_count=40)


# -- crashes -------------------------------------------------------------------------------------------------

WRITER = """
import sys
from collections import deque
from twisted.internet.task import Clock
from twisted.logger import Logger
from ces.model.wire import Run
from ces.ops.logging import Limited
from ces.uplink.spool_file import SpoolFile

clock = Clock()
spool = SpoolFile(sys.argv[1], "repeater", clock, Limited(Logger(), clock))
held = deque(spool.load(Run))
number = int(held[-1].events[0][8:-1]) + 1 if held else 0
while True:
    new = [Run(b"A", [b'A\\n{"key": %d}\\n' % n]) for n in range(number, number + 10)]
    number += 10
    spool.add(new)
    held += new
    spool.remove([held.popleft() for _ in range(len(held) - HELD)])
    clock.advance(0)
    print(number, flush=True)
"""


def test_killed_at_any_moment_it_holds_what_its_last_turn_left(disk: Disk) -> None:
    program = f"HELD = {HELD}\n{WRITER}"
    for turns in (30, 1, 77, 400, 13):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(disk.folder)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(turns):
            said = int(process.stdout.readline())
        process.kill()
        process.wait()
        said = max([said, *[int(line) for line in process.stdout if line.endswith("\n")]])
        process.stdout.close()
        numbers = [int(one.split(b": ")[1][:-2]) for one in disk.found()]
        # It was killed between a turn and what it says of it, at most.
        last = numbers[-1] + 1
        assert last in (said, said + 10)
        assert numbers == list(range(max(0, last - HELD), last))


# -- a full disk ---------------------------------------------------------------------------------------------


def test_on_a_full_disk_all_goes_on_in_memory_until_there_is_space(disk: Disk) -> None:
    spool = disk.open()
    before, during, after = runs(1), runs(2, 3, size=5000), runs(4)
    spool.add(before)
    disk.turn()
    disk.fill()
    for one in during:
        spool.add([one])
        disk.turn()
    assert disk.lines == [
        f"the spool {spool.path} cannot be written: database or disk is full; 1 records are in memory only;"
        " free space or check the disk; the write is repeated every 5 s"
    ]
    disk.clock.advance(RETRY)
    disk.clock.advance(RETRY)
    assert spool.status() == {
        "path": spool.path,
        "records": 1,
        "bytes": before[0].size,
        "unwritten": 2,
        "failures": 3,
        "fault": "database or disk is full",
        "damaged": 0,
    }
    assert "2 records are in memory only" in disk.lines[-1] and len(disk.lines) == 2, "at a limited rate"
    disk.empty()
    spool.add(after)
    disk.turn()
    assert spool.unwritten == 3, "it is not tried at every turn"
    disk.clock.advance(RETRY)
    assert disk.lines[-1] == f"the spool {spool.path} can be written again"
    assert (spool.records, spool.unwritten, spool.fault) == (4, 0, "")
    spool.close()
    assert disk.found() == records_of(before + during + after)


def test_what_a_full_disk_does_not_hold_in_the_end_is_named(disk: Disk) -> None:
    spool = disk.open()
    held, lost = run("A", "1", "2"), runs(3, size=5000)
    spool.add([held])
    disk.turn()
    disk.fill()
    spool.replace(held, held.without_first(1))
    spool.add(lost)
    assert spool.close() == lost
    assert disk.clock.getDelayedCalls() == []
    assert disk.found() == held.records, "more than is wanted, but no less"


FILLER = """
import os, resource, signal, sys
from twisted.internet.task import Clock
from twisted.logger import Logger
from ces.model.wire import Run
from ces.ops.logging import Limited
from ces.uplink.spool_file import SpoolFile

resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
clock = Clock()
spool = SpoolFile(sys.argv[1], "repeater", clock, Limited(Logger(observer=lambda event: None), clock))
number = helped = 0
while not spool.fault:
    spool.add([Run(b"A", [b'A\\n{"key": %d, "%s": 0}\\n' % (number, b"x" * 300)])])
    number += 1
    clock.advance(0)
    if spool.fault:
        clock.advance(5)
        helped += not spool.fault
print(helped, spool.fault, spool.records, spool.unwritten, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_file_that_may_not_grow_stays_whole_even_if_the_process_is_killed_then(disk: Disk) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FILLER, str(disk.folder)], stdout=subprocess.PIPE, text=True, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    helped, fault = done.stdout.split(" ", 1)
    fault, held, unwritten = fault.strip().rsplit(" ", 2)
    assert (fault, unwritten) == ("disk I/O error", "1")
    assert int(helped) > 1, "it makes space as long as the log holds what is not needed"
    numbers = [int(one.split(b": ")[1].split(b",")[0]) for one in disk.found()]
    assert numbers == list(range(int(held))) and len(numbers) > 10


# -- files that cannot be used -------------------------------------------------------------------------------


def broken(disk: Disk, break_it: Any) -> str:
    """What is said of a file in which something was written; that it is left as it is."""
    spool = disk.open()
    spool.add(runs(*range(100), size=300))
    spool.close()
    path = Path(spool.path)
    break_it(path)
    before = path.read_bytes()
    with pytest.raises(SpoolError) as caught:
        disk.open().load(Run)
    assert path.read_bytes() == before
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        disk.base.execute("SELECT 1")
    start = f"the spool {path} cannot be used: "
    assert str(caught.value).startswith(start)
    return str(caught.value).removeprefix(start)


def garbled(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)


def shortened(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def sql(statement: str) -> Any:
    def execute(path: Path) -> None:
        base = sqlite3.connect(path, isolation_level=None)
        base.execute(statement)
        base.close()

    return execute


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (
            lambda path: path.write_bytes(b"no database" * 100),
            "it is damaged (file is not a database); move it",
        ),
        (garbled, "it is damaged ("),
        (shortened, "it is damaged ("),
        (
            sql("ALTER TABLE runs RENAME TO ruins"),
            "it is damaged (its table is not that of a spool); move it",
        ),
        (sql("PRAGMA user_version = 1"), "it is damaged (its table is not that of a spool); move it"),
        (sql("PRAGMA user_version = 0"), "it is damaged (its table is not that of a spool); move it"),
        (
            sql("PRAGMA user_version = 3"),
            "a later version of CES has written it; use that version or another",
        ),
        (sql("PRAGMA application_id = 0"), "it is not a spool of CES; choose another directory"),
    ],
)
def test_a_file_that_is_damaged_or_not_ours_is_left_alone(disk: Disk, break_it: Any, sentence: str) -> None:
    assert broken(disk, break_it).startswith(sentence)


@pytest.mark.parametrize(
    ("damage", "row", "how", "lost"),
    [
        ("records = substr(records, 1, 20)", 7, "does not hold whole records of one room", 3),
        ("records = replace(CAST(records AS TEXT), 'x1', 'y1')", 7, "is not what was written there", 3),
        ("records = CAST(records || 'B' || char(10, 123, 125, 10) AS BLOB)", 7, "does not hold", 4),
        ("records = ''", 7, "does not hold whole records of one room", 1),
        ("records = 17", 7, "does not hold whole records of one room", 3),
        ("checksum = NULL", 7, "is not what was written there", 3),
        ("checksum = checksum + 1", 7, "is not what was written there", 3),
        ("checksum = x'ff'", 7, "is not what was written there", 3),
        ("id = 70", 70, "is not what was written there", 3),
    ],
)
def test_a_row_that_is_not_what_was_written_is_lost_alone(
    disk: Disk, damage: str, row: int, how: str, lost: int
) -> None:
    some = [run("A", f"{n} x1", f"{n} x2", f"{n} x3") for n in range(1, 11)]
    spool = disk.open()
    spool.add(some)
    spool.close()
    sql(f"UPDATE runs SET {damage} WHERE id = 7")(Path(spool.path))
    spool = disk.open()
    assert records_of(spool.load(Run)) == records_of(some[:6] + some[7:])
    assert 0 < spool.damaged <= lost
    (said,) = disk.lines
    assert said.startswith(f"the spool {spool.path} is damaged: row {row} {how}")
    assert said.endswith(f"; {spool.damaged} records are lost; check the disk")
    disk.turn()
    spool.add(runs(11))
    assert spool.close() == []
    assert disk.found() == records_of(some[:6] + some[7:] + runs(11)), "what is new has an id of its own"
    assert len(disk.lines) == 1, "it is said and counted once"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[Run]]:
    """A file with rows of all kinds, free space and free pages; what it holds."""
    disk = Disk(tmp_path_factory.mktemp("written"))
    spool = disk.open()
    gone, kept = runs(*range(100, 140), size=500), [run("A", f"{n}", f"{n}b") for n in range(60)]
    kept += [run("B", "large" + "x" * 9000), run("", "none"), *runs(*range(60, 80), size=200)]
    spool.add(gone[:20] + kept[:30] + gone[20:] + kept[30:])
    disk.turn()
    spool.remove(gone)
    assert spool.close() == []
    return Path(spool.path).read_bytes(), kept


@given(data=st.data(), change=st.integers(1, 255))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_byte_that_changes_is_found_or_does_no_harm(
    tmp_path: Path, written: tuple[bytes, list[Run]], data: st.DataObject, change: int
) -> None:
    whole, kept = written
    schema = whole.index(b"tableruns")
    places = [(0, 100), (schema - 20, schema + 120), (100, len(whole) - 1)]
    place = data.draw(st.one_of(*[st.integers(first, last) for first, last in places]))
    assert_found_or_harmless(tmp_path, whole, kept, place, change)


def assert_found_or_harmless(folder: Path, whole: bytes, kept: list[Run], place: int, change: int) -> None:
    path = folder / "repeater.sqlite3"
    for rest in folder.glob("repeater.sqlite3*"):
        rest.unlink()
    path.write_bytes(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])
    disk = Disk(folder)
    try:
        spool = disk.open()
        found = spool.load(Run)
    except SpoolError as error:
        assert re.search(r"is damaged|not a spool|a later version|readonly database", str(error)), str(error)
        assert disk.lines == []
        return
    spool.close()
    texts = [b"".join(run.parts) for run in found]
    # A run may be lost, but only as a whole, and no more than one by one byte. None is changed or moved.
    lost = [run for run in kept if b"".join(run.parts) not in texts]
    assert texts == [b"".join(run.parts) for run in kept if run not in lost]
    # How many records the run had is known from what is left of it.
    assert len(lost) <= spool.damaged <= sum(run.count + 1 for run in lost)
    assert len(lost) == len(disk.lines) <= 1


def old_file(disk: Disk, some: list[Run]) -> str:
    """A file as version 1 has written it."""
    Path(disk.folder).mkdir(parents=True)
    path = os.path.join(disk.folder, "repeater.sqlite3")
    base = sqlite3.connect(path, isolation_level=None)
    base.execute("PRAGMA journal_mode = WAL")
    base.execute("CREATE TABLE runs (id INTEGER PRIMARY KEY, records BLOB NOT NULL)")
    base.executemany("INSERT INTO runs VALUES (?, ?)", enumerate([b"".join(run.parts) for run in some], 1))
    base.execute(f"PRAGMA application_id = {APPLICATION}")
    base.execute("PRAGMA user_version = 1")
    base.close()
    return path


def test_a_file_of_version_1_is_read_and_gets_its_checksums_with_the_first_write(disk: Disk) -> None:
    some = [*runs(*range(20)), run("B", "20", "21")]
    path = old_file(disk, some)
    assert disk.found() == records_of(some), "it is read, and not changed"
    spool = disk.open()
    found = spool.load(Run)
    spool.remove(found[:1])
    spool.replace(found[-1], rest := found[-1].without_first(1))
    spool.add(runs(22))
    assert spool.close() == []
    now = [*some[1:-1], rest, *runs(22)]
    assert disk.found() == records_of(now)
    sql("UPDATE runs SET records = replace(CAST(records AS TEXT), '9', '8') WHERE id = 10")(Path(path))
    assert disk.found() == records_of(
        [run for run in now if b"9" not in run.parts[0] or b"1" in run.parts[0]]
    )


def test_what_a_file_of_version_1_holds_is_sent_on_a_full_disk_as_well(disk: Disk) -> None:
    some = runs(*range(100), size=300)
    old_file(disk, some)
    spool = disk.open()
    disk.fill()
    assert records_of(spool.load(Run)) == records_of(some)
    spool.add(runs(100, size=5000))
    disk.turn()
    assert spool.fault == "database or disk is full"
    disk.empty()
    disk.clock.advance(RETRY)
    assert (spool.fault, spool.unwritten) == ("", 0)
    assert spool.close() == []
    assert disk.found() == records_of(some + runs(100, size=5000))


@pytest.mark.parametrize("removed", ["repeater.sqlite3", "repeater.sqlite3-wal", "*"])
def test_a_file_that_is_removed_while_it_is_in_use_is_made_anew_with_what_waits(
    disk: Disk, removed: str
) -> None:
    spool = disk.open()
    spool.load(Run)
    runs = [run("A", str(number)) for number in range(10)]
    spool.add(runs[:8])
    disk.turn()
    spool.remove(runs[:2])
    disk.turn()
    for path in Path(disk.folder).glob(removed):
        path.unlink()
    if removed == "*":
        Path(disk.folder).rmdir()
    spool.add(runs[8:])
    spool.remove(runs[2:3])
    disk.turn()
    assert (spool.fault, spool.failures, spool.unwritten) == ("", 1, 0)
    assert "was removed while it was in use; it is made anew with the 7 records" in disk.lines[-1]
    # As if the process was killed now.
    left = Disk(Path(disk.folder).with_name("left"))
    shutil.copytree(disk.folder, left.folder)
    assert left.found() == records_of(runs[3:])
    spool.add([run("A", "last")])
    disk.turn()
    assert spool.failures == 1
    assert spool.close() == []


def test_a_file_that_another_one_has_replaced_is_said_until_that_is_moved_away(disk: Disk) -> None:
    spool = disk.open()
    spool.load(Run)
    spool.add([run("A", "1")])
    disk.turn()
    path = Path(spool.path)
    path.unlink()
    path.write_bytes(b"another file")
    spool.add([run("A", "2")])
    disk.turn()
    assert "another file has taken its place; move that away" in spool.fault
    assert (spool.unwritten, path.read_bytes()) == (2, b"another file")
    path.unlink()
    disk.clock.advance(RETRY)
    assert (spool.fault, spool.unwritten) == ("", 0)
    assert spool.close() == []
    assert disk.found() == [record("A", "1"), record("A", "2")]


def test_the_file_that_is_made_on_a_full_disk_after_a_removal_is_its_own(disk: Disk) -> None:
    spool = disk.open()
    spool.add(runs(1))
    disk.turn()
    shutil.rmtree(disk.folder)
    disk.full = True
    spool.add(runs(2))
    disk.turn()
    disk.clock.advance(RETRY)
    assert (spool.fault, spool.unwritten, Path(spool.path).exists()) == ("database or disk is full", 2, True)
    disk.full = False
    disk.clock.advance(RETRY)
    assert (spool.fault, spool.unwritten) == ("", 0)
    assert spool.close() == []
    assert disk.found() == records_of(runs(1, 2))


def test_what_another_process_has_left_meanwhile_is_neither_lost_nor_mixed(disk: Disk) -> None:
    disk.full = True
    spool = disk.open()
    disk.full = False
    assert spool.load(Run) == []
    os.rename(disk.folder, f"{disk.folder}+")
    other = Disk(disk.folder)
    left = other.open()
    left.add(runs(1))
    left.close()
    spool.add(runs(2))
    disk.clock.advance(RETRY)
    assert "it holds records of another process; restart this process to send them" in spool.fault
    lost = spool.close()
    assert records_of(lost) == records_of(runs(2))
    assert other.found() == records_of(runs(1))


def test_two_cannot_use_one_file_at_a_time(disk: Disk) -> None:
    spool = disk.open()
    with pytest.raises(SpoolError, match="another process uses it; give each process its own directory"):
        Disk(disk.folder).open()
    program = f"import sqlite3; sqlite3.connect({spool.path!r}, timeout=0).execute('SELECT * FROM runs')"
    other = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    assert "database is locked" in other.stderr
    spool.close()
    assert disk.found() == []


def test_a_directory_that_cannot_be_made_or_written_is_said(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for folder, sentence in (
        (file, "File exists; choose a directory that can be created and written"),
        (file / "below", "Not a directory; choose a directory that can be created and written"),
        ("/proc/nowhere", "No such file or directory; choose a directory that can be created and written"),
        (
            "/proc",
            "No such file or directory; choose a directory that can be created and written",
        ),
    ):
        with pytest.raises(SpoolError) as caught:
            Disk(folder).open()
        assert str(caught.value) == f"the spool {folder}/repeater.sqlite3 cannot be used: {sentence}"
