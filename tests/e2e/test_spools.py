"""Spools on disk in their places: what a repeater and a messenger keep over restarts, crashes, full disks.

A process that is killed is played by a copy of its directory, made while it runs.
"""

from __future__ import annotations

import contextlib
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.testing import MemoryReactorClock

from ces.link.listen import CannotServe
from ces.messenger import Dropped, Kept, NotSent, SpoolError
from ces.model.wire import CES1, CES2
from ces.ops.logging import LogLevels
from ces.repeater.service import make_repeater_service
from ces.repeater.settings import RepeaterSettings
from ces.uplink.spool_file import RETRY
from tests.support.fleet import Peer, Role, event, free_port, until
from tests.support.links import Lines, run
from tests.support.links import record as line
from tests.support.messengers import Told, connected, make_messenger
from tests.support.messengers import event as typed
from tests.support.messengers import record as sent
from tests.support.network import Network
from tests.support.repeaters import Api, Bench

pytestmark = pytest.mark.usefixtures("bare_records")

KEYS = ["one", "two", "three"]


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "spool")


def killed(folder: str) -> str:
    """The directory as it would be found if the process were killed now."""
    return shutil.copytree(folder, folder + "+")


@contextlib.contextmanager
def no_space() -> Iterator[None]:
    """No file of this process can grow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# -- the repeater --------------------------------------------------------------------------------------------


def disk(bench: Bench) -> dict[str, object]:
    return bench.repeater.hub.status()["spool-disk"]


def taken(bench: Bench, dialect: str = CES2) -> list[bytes]:
    """What the hub gets once it is there; all of it is acknowledged."""
    hub = bench.hub_up(dialect)
    bench.network.pass_time(1, 0.1)
    return hub.owner.records


def test_what_a_killed_repeater_had_for_its_hub_is_sent_first_by_the_next(folder: str) -> None:
    bench = Bench(spool=folder)
    bench.repeater.start()
    bench.repeater.insert([run("R", "1", "2"), run("S", "3")])
    bench.network.settle()
    after = Bench(spool=killed(folder))
    after.repeater.insert([run("R", "4")])
    after.repeater.start()
    after.repeater.insert([run("R", "5")])
    assert f"3 records for the hub were found in {folder}+/repeater.sqlite3" in after.lines
    expected = [line("R", "1"), line("R", "2"), line("S", "3"), line("R", "4"), line("R", "5")]
    assert taken(after) == expected
    assert disk(after) == {
        "path": f"{folder}+/repeater.sqlite3",
        "records": 0,
        "bytes": 0,
        "unwritten": 0,
        "failures": 0,
        "fault": "",
        "damaged": 0,
    }
    after.stop()
    bench.stop()


def test_what_was_sent_and_is_not_acknowledged_is_on_disk_until_it_is(folder: str) -> None:
    bench = Bench(spool=folder)
    hub = bench.hub_up()
    bench.repeater.insert([run("R", "1"), run("R", "2")])
    bench.network.advance(0)
    hub.deliver(served=True)
    assert hub.owner.records == [line("R", "1"), line("R", "2")]
    bench.network.advance(0)
    assert disk(bench)["records"] == 2
    after = Bench(spool=killed(folder))
    assert taken(after) == hub.owner.records, "it may arrive twice"
    bench.network.pass_time(1, 0.1)
    assert disk(bench)["records"] == 0
    bench.stop()
    after.stop()


def test_what_is_written_to_a_ces_1_hub_at_once_never_comes_to_the_disk(folder: str) -> None:
    bench = Bench(spool=folder)
    hub = bench.hub_up(CES1)
    log = Path(folder, "repeater.sqlite3-wal")
    before = log.read_bytes()
    bench.repeater.insert([run("R", "1")])
    bench.network.settle()
    assert hub.owner.records == [line("R", "1")]
    assert log.read_bytes() == before
    bench.stop()


def test_a_repeater_that_stops_while_its_hub_is_away_keeps_what_waits(folder: str) -> None:
    bench = Bench(spool=folder)
    bench.repeater.start()
    bench.repeater.insert([run("R", "1"), run("R", "2", "3")])
    bench.stop()
    assert f"3 records for the hub are kept in {folder}/repeater.sqlite3" in bench.lines
    assert bench.repeater.side.dropped == 0
    assert bench.network.getDelayedCalls() == []
    after = Bench(spool=folder)
    after.repeater.start()
    assert taken(after) == [line("R", "1"), line("R", "2"), line("R", "3")]
    after.stop()
    assert not [said for said in after.lines if "are kept in" in said]


def test_the_bound_holds_for_the_disk_as_well(folder: str) -> None:
    size = len(line("R", "0"))
    bench = Bench(spool=folder, spool_bytes=4 * size)
    bench.repeater.start()
    for number in range(6):
        bench.repeater.insert([run("R", str(number))])
        bench.network.settle()
    assert (disk(bench)["records"], disk(bench)["bytes"]) == (4, 4 * size)
    bench.stop()
    after = Bench(spool=folder, spool_bytes=2 * size)
    after.repeater.start()
    after.network.advance(0)
    assert after.repeater.side.dropped == 2
    assert "2 records for hub ws://hub:7100 were dropped: too much waits for it (2 so far)" in after.lines, (
        after.lines
    )
    assert taken(after) == [line("R", "4"), line("R", "5")]
    after.stop()


def test_a_full_disk_is_told_counted_and_shown_and_costs_no_event(folder: str) -> None:
    bench = Bench(spool=folder)
    api = Api(bench)
    bench.repeater.start()
    with no_space():
        bench.repeater.insert([run("R", "1"), run("R", "2")])
        bench.network.settle()
    assert disk(bench) | {"path": ""} == {
        "path": "",
        "records": 0,
        "bytes": 0,
        "unwritten": 2,
        "failures": 1,
        "fault": "disk I/O error",
        "damaged": 0,
    }
    (said,) = [said for said in bench.lines if "cannot be written" in said]
    assert said.startswith(
        f"the spool {folder}/repeater.sqlite3 cannot be written: disk I/O error; 2 records are in memory only"
    )
    metrics = api.ask("GET", "/metrics")[1].splitlines()
    assert "ces_repeater_spool_failures_total 1.0" in metrics
    assert "ces_repeater_spool_unwritten_records 2.0" in metrics
    bench.network.pass_time(RETRY)
    assert (disk(bench)["records"], disk(bench)["unwritten"]) == (2, 0)
    metrics = api.ask("GET", "/metrics")[1].splitlines()
    assert "ces_repeater_spool_disk_records 2.0" in metrics
    assert f"ces_repeater_spool_disk_bytes {float(2 * len(line('R', '1')))}" in metrics
    assert taken(bench) == [line("R", "1"), line("R", "2")]
    bench.stop()


def test_what_a_full_disk_could_not_take_is_dropped_and_counted_at_the_end(folder: str) -> None:
    bench = Bench(spool=folder)
    bench.repeater.start()
    bench.repeater.insert([run("R", "1")])
    bench.network.settle()
    bench.repeater.insert([run("R", "2", "3")])
    with no_space():
        bench.stop()
    assert bench.repeater.side.dropped == 2
    dropped = "2 records for the hub at ws://hub:7100 were dropped: the repeater stops"
    assert any(dropped in said for said in bench.lines)
    assert f"1 records for the hub are kept in {folder}/repeater.sqlite3" in bench.lines
    assert bench.network.getDelayedCalls() == []


def test_without_a_directory_there_is_nothing_on_disk_and_nothing_of_it_in_the_metrics() -> None:
    bench = Bench()
    assert disk(bench) is None
    assert "spool_disk" not in Api(bench).ask("GET", "/metrics")[1]


def test_a_disk_that_is_full_at_the_start_is_told_and_the_repeater_works_in_memory(folder: str) -> None:
    bench = Bench(spool=folder)
    with no_space():
        bench.repeater.start()
        assert [said for said in bench.lines if "cannot be written: disk I/O error" in said]
        bench.repeater.insert([run("R", "1"), run("R", "2")])
        bench.network.pass_time(RETRY)
    assert (disk(bench)["records"], disk(bench)["unwritten"], disk(bench)["failures"]) == (0, 2, 2)
    assert disk(bench)["fault"] == "disk I/O error"
    assert "ces_repeater_spool_unwritten_records 2.0" in Api(bench).ask("GET", "/metrics")[1]
    bench.network.pass_time(RETRY)
    assert (disk(bench)["records"], disk(bench)["unwritten"], disk(bench)["fault"]) == (2, 0, "")
    after = Bench(spool=killed(folder))
    assert taken(after) == taken(bench) == [line("R", "1"), line("R", "2")]
    bench.stop()
    after.stop()


def test_an_event_that_the_disk_has_changed_is_dropped_counted_and_named_and_the_others_go(
    folder: str,
) -> None:
    bench = Bench(spool=folder)
    bench.repeater.start()
    bench.repeater.insert([run("R", "1"), run("R", "damage me", "2"), run("R", "3")])
    bench.stop()
    path = Path(folder, "repeater.sqlite3")
    path.write_bytes(path.read_bytes().replace(b"damage me", b"damaged !"))
    after = Bench(spool=folder)
    assert taken(after) == [line("R", "1"), line("R", "3")]
    said = f"the spool {path} is damaged: row 2 is not what was written there; 2 records are lost"
    assert [text for text in after.lines if text.startswith(said)]
    lost = "2 records for the hub at ws://hub:7100 were dropped: they were damaged on disk (2 so far)"
    assert lost in after.lines
    assert (after.repeater.side.dropped, after.repeater.hub.status()["dropped"], disk(after)["damaged"]) == (
        2,
        2,
        2,
    )
    assert "ces_repeater_spool_damaged_records_total 2.0" in Api(after).ask("GET", "/metrics")[1]
    after.stop()
    again = Bench(spool=folder)
    again.repeater.start()
    assert disk(again)["damaged"] == 0, "it is counted once"
    again.stop()


def test_a_spool_that_cannot_be_used_ends_a_repeater_with_a_sentence(folder: str) -> None:
    first = Bench(spool=folder)
    first.repeater.start()
    service = make_repeater_service(RepeaterSettings(spool=folder), MemoryReactorClock(), LogLevels())
    with pytest.raises(CannotServe) as caught:
        service.startService()
    assert str(caught.value) == (
        f"ces-repeater: the spool {folder}/repeater.sqlite3 cannot be used: another process uses it;"
        " give each process its own directory"
    )
    first.stop()


# -- the messenger -------------------------------------------------------------------------------------------


def test_what_a_killed_messenger_had_not_sent_is_sent_first_by_the_next(folder: str) -> None:
    messenger = make_messenger(network := Network(), spool_dir=Path(folder))
    for key in KEYS:
        messenger.send(typed(key))
    network.settle()
    assert messenger.status()["spool-disk"]["records"] == 3
    lines = Lines()
    after, wire, network = connected(spool_dir=killed(folder), lines=lines)
    assert lines[0] == f"3 records for the hub were found in {folder}+/messenger.sqlite3"
    after.send(typed("new"))
    network.settle()
    assert b"".join(wire.messages()) == b"".join(sent(key) for key in [*KEYS, "new"])
    assert after.status()["spool-disk"]["records"] == 0
    assert after.counters["sent"] == 4
    Told(after.close())
    Told(messenger.close())


def test_what_the_hub_has_not_acknowledged_is_on_disk_until_it_has(folder: str) -> None:
    messenger = make_messenger(network := Network(), spool_dir=folder)
    messenger.connect()
    wire = network.dial.connected()
    wire.upgrade()
    wire.say({"hello": {"node": "hub", "session": "s1", "received": 0, "resumed": False, "window": 120}})
    told = [Told(messenger.send(typed(key))) for key in KEYS]
    network.settle()
    assert wire.messages() == [b"".join(sent(key) for key in KEYS)]
    assert messenger.status()["spool-disk"]["records"] == 3
    wire.say({"ack": 3})
    network.settle()
    assert messenger.status()["spool-disk"]["records"] == 0
    assert all(one.fired and one.error is None for one in told)
    closed = Told(messenger.close())
    network.settle()
    assert closed.fired


def test_a_closed_messenger_keeps_what_waits_and_says_so(folder: str) -> None:
    lines = Lines()
    messenger = make_messenger(Network(), spool_dir=folder, lines=lines)
    told = [Told(messenger.send(typed(key))) for key in KEYS]
    flushed = Told(messenger.flush())
    assert Told(messenger.close()).fired
    assert [type(one.error) for one in told] == [Kept] * 3
    assert str(told[0].error) == "the messenger was closed; the event is kept on disk"
    assert isinstance(told[0].error, NotSent), "caught by who knows nothing of disks"
    assert flushed.fired and flushed.error is None
    assert lines == [f"3 records for the hub are kept in {folder}/messenger.sqlite3"]
    assert messenger.counters["dropped"] == 0
    assert messenger.status()["spool-disk"] is None
    late = Told(messenger.send(typed("late")))
    assert type(late.error) is Dropped and messenger.counters["dropped"] == 1
    after, wire, _ = connected(spool_dir=folder)
    assert wire.messages() == [sent(key) for key in KEYS]
    Told(after.close())


def test_a_messenger_that_is_connected_again_sends_what_it_kept(folder: str) -> None:
    messenger = make_messenger(network := Network(), spool_dir=folder)
    Told(messenger.send(typed("one")))
    Told(messenger.close())
    messenger.connect()
    wire = network.dial.accept()
    assert wire.messages() == [sent("one")]
    assert messenger.status()["spool-utilization"] == 0
    Told(messenger.close())


def test_what_is_pushed_out_of_a_messenger_s_spool_is_gone_from_disk_too(folder: str) -> None:
    size = len(sent("1"))
    messenger = make_messenger(network := Network(), spool_dir=folder, spool=2 * size)
    for key in "12345":
        messenger.send(typed(key))
        network.settle()
    assert messenger.counters["dropped"] == 3
    assert messenger.status()["spool-disk"]["records"] == 2
    Told(messenger.close())
    after, wire, network = connected(spool_dir=folder, spool=size)
    assert wire.messages() == [sent("5")]
    assert after.counters["dropped"] == 1
    Told(after.close())


def test_what_a_full_disk_could_not_take_is_dropped_when_the_messenger_is_closed(folder: str) -> None:
    lines = Lines()
    messenger = make_messenger(network := Network(), spool_dir=folder, lines=lines)
    kept = Told(messenger.send(typed("one")))
    network.settle()
    lost = Told(messenger.send(typed("two")))
    with no_space():
        Told(messenger.close())
    assert (type(kept.error), type(lost.error)) == (Kept, Dropped)
    assert messenger.counters["dropped"] == 1
    assert "events for ws://hub:7100 dropped unsent: 1 (1 so far)" in lines
    assert f"1 records for the hub are kept in {folder}/messenger.sqlite3" in lines
    network.settle()
    assert network.getDelayedCalls() == []


def test_a_messenger_sends_what_the_disk_has_not_changed_and_counts_the_rest(folder: str) -> None:
    messenger = make_messenger(Network(), spool_dir=folder)
    for key in KEYS:
        messenger.send(typed(key))
    Told(messenger.close())
    path = Path(folder, "messenger.sqlite3")
    path.write_bytes(path.read_bytes().replace(b'"two"', b'"tow"'))
    lines = Lines()
    after, wire, _ = connected(spool_dir=folder, lines=lines)
    assert b"".join(wire.messages()) == sent("one") + sent("three")
    assert after.counters["dropped"] == 1 == after.status()["spool-disk"]["damaged"]
    assert f"the spool {path} is damaged: row 2 is not what was written there" in lines[0]
    Told(after.close())


def test_two_messengers_cannot_share_a_directory(folder: str) -> None:
    messenger = make_messenger(Network(), spool_dir=folder)
    with pytest.raises(SpoolError, match="another process uses it; give each process its own directory"):
        make_messenger(Network(), spool_dir=folder)
    Told(messenger.close())
    Told(make_messenger(Network(), spool_dir=folder).close())


# -- real processes ------------------------------------------------------------------------------------------


def test_a_repeater_killed_while_its_hub_is_away_loses_no_event_and_keeps_the_order(tmp_path: Path) -> None:
    hub = Role(tmp_path, "ces-hub", free_port())
    repeater = Role(
        tmp_path, "ces-repeater", free_port(), "--hub", f"localhost:{hub.port}", "--spool", "spool"
    ).start()
    for start in range(0, 300, 10):
        body = b"[" + b",".join(event(number) for number in range(start, start + 10)) + b"]"
        assert repeater.request("POST", "/send", body) == (200, "ok")
        if start in (100, 200):
            # At once: what was answered is on disk.
            repeater.stop(signal.SIGKILL)
            repeater.start()
    repeater.stop(signal.SIGKILL)
    hub.start()
    reader = Peer(hub.port, "/connect/messenger")
    reader.subscribe("*")
    until(lambda: "*" in hub.info()["nexus"]["messenger-mapping"], "the subscription arrives")
    repeater.start()
    assert reader.numbers(300) == list(range(300))
    until(lambda: repeater.info()["repeater"]["hub"]["spool-disk"]["records"] == 0, "all is acknowledged")
    reader.close()
    assert repeater.stop() == -signal.SIGTERM
    hub.stop()
    assert "Traceback" not in repeater.logged() + hub.logged()
    assert "records for the hub were found in" in repeater.logged()


class OnSmallDisk(Role):
    """A role whose spool directory is a small disk of its own, and full; it needs user namespaces.

    disk: the directory as the process sees it, from outside.
    """

    FILL = 'mount -t tmpfs -o "$1" none "$0" && mkdir "$0/fill" && cd "$0/fill" && touch 1 2 3'
    FILL += " && { head -c 1M /dev/zero > 1 || true; }; cd ../.."

    def __init__(self, folder: Path, size: str, *options: str) -> None:
        (folder / "disk").mkdir()
        self._size = size
        super().__init__(folder, "ces-repeater", free_port(), "--spool", "disk", *options)

    def command(self, *twistd: str) -> list[str]:
        shell = f'{self.FILL}; shift; exec "$@"'
        inside = ["unshare", "-rm", "sh", "-c", shell, str(self.folder / "disk"), self._size]
        return [*inside, *super().command(*twistd)]

    @property
    def disk(self) -> Path:
        assert self.process is not None
        return Path(f"/proc/{self.process.pid}/root{self.folder / 'disk'}")


@pytest.mark.skipif(
    subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], check=False).returncode != 0,
    reason="needs user namespaces",
)
@pytest.mark.parametrize(
    ("size", "fault"),
    [("size=200k", "database or disk is full"), ("size=4m,nr_inodes=5", "No space left on device")],
    ids=["no space", "no inodes"],
)
def test_a_repeater_on_a_full_disk_starts_and_writes_when_there_is_space(
    tmp_path: Path, size: str, fault: str
) -> None:
    role = OnSmallDisk(tmp_path, size, f"--hub=localhost:{free_port()}").start()

    def state() -> dict[str, object]:
        return role.info()["repeater"]["hub"]["spool-disk"]

    assert role.request("POST", "/send", b"[" + event(0) + b"]") == (200, "ok")
    assert (state()["fault"], state()["unwritten"], state()["records"]) == (fault, 1, 0)
    assert f"repeater.sqlite3 cannot be written: {fault}; 0 records are in memory only" in role.logged()
    shutil.rmtree(role.disk / "fill")
    until(lambda: state()["records"] == 1, "it is written", RETRY + 10)
    assert (state()["fault"], state()["unwritten"]) == ("", 0)
    assert role.stop() == -signal.SIGTERM
    assert "Traceback" not in role.logged()
    assert "1 records for the hub are kept in" in role.logged()


def test_a_repeater_whose_spool_is_damaged_says_so_in_a_sentence_and_ends(tmp_path: Path) -> None:
    spool = tmp_path / "repeater.sqlite3"
    spool.write_text("no database" * 100)
    role = Role(tmp_path, "ces-repeater", free_port(), "--spool", str(tmp_path))
    sentence = (
        f"ces-repeater: the spool {spool} cannot be used: it is damaged (file is not a database);"
        " move it away, or choose another directory\n"
    )
    done = role.run("-n", "--pidfile=")
    assert done.returncode == 1
    assert done.stdout.endswith(sentence)
    assert "Traceback" not in done.stdout + done.stderr
    assert "ces-repeater: the spool " in role.fail_as_daemon(sentence)
    assert spool.read_text() == "no database" * 100
