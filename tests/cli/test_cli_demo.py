"""`ces demo` as a user runs it: real processes, real sockets, nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Timer
from time import monotonic

import pytest

READY = "Ctrl-C stops everything."
PATIENCE = 60.0  # seconds; whatever takes longer is killed, and its test fails on what it did not say


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`ces` with its temporary files in `folder`; killed at the end when it still runs."""
    command = [sys.executable, "-m", "ces.cli.main", *arguments]
    environ = {**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1", "CES_HUB_LISTEN": "tcp:1"}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
        start_new_session=True,
    ) as process:
        watchdog = Timer(PATIENCE, process.kill)
        watchdog.start()
        try:
            yield process
        finally:
            watchdog.cancel()
            process.kill()


def read_until(process: subprocess.Popen[str], end: str) -> str:
    """What the process says up to the line that begins with `end`."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith(end):
            return said
    assert process.stderr is not None
    raise AssertionError(f"{end!r} was never said, but:\n{said}\n{process.stderr.read()}")


def ports(said: str) -> list[int]:
    """The ports of hub 1, hub 2 and the repeater."""
    found = re.findall(r"^  (?:hub 1|hub 2|repeater) +localhost:(\d+)", said, re.MULTILINE)
    assert len(found) == 3
    return [int(port) for port in found]


def listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def process_id(folder: Path, role: str) -> int:
    (file,) = folder.glob(f"ces-demo-*/{role}.pid")
    return int(file.read_text())


def test_every_event_arrives_through_both_hubs_and_nothing_is_left_behind(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # then another process has taken it, which serves as well
            taken.bind(("127.0.0.1", 7100))
            taken.listen()
        with running(tmp_path, "demo", "--seconds", "5") as process:
            said, errors = process.communicate()
    assert errors == ""
    assert process.returncode == 0
    assert "Port 7100 is taken: hub 1 listens on " in said
    last = said.splitlines()[-1]
    counts = re.fullmatch(
        r"(\d+) events sent \((\d+) to hub 1, (\d+) to hub 2\), (\d+) seen on hub 2, 0 missing\.", last
    )
    assert counts is not None, last
    sent, at_hub_1, at_hub_2, seen = map(int, counts.groups())
    assert sent == seen == at_hub_1 + at_hub_2
    assert at_hub_1 > 0  # some 20 events by chance; in 3 seconds one hub once had none
    assert at_hub_2 > 0
    shown = re.findall(r"^\d\d:\d\d:\d\d\.\d{3}  \S+ +\S+ +\S+ ", said, re.MULTILINE)
    assert len(shown) == seen
    assert not any(map(listens, ports(said)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_with_status_0(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path, "demo") as process:
        said = read_until(process, READY)
        assert all(map(listens, ports(said)))
        process.send_signal(number)
        rest, errors = process.communicate()
    assert errors == ""
    assert process.returncode == 0
    assert rest.splitlines()[-1].endswith(" 0 missing.")
    assert not any(map(listens, ports(said)))
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_it_starts_ends_everything_with_status_0(tmp_path: Path) -> None:
    with running(tmp_path, "demo") as process:
        read_until(process, "Starting two hubs and a repeater...")
        os.killpg(process.pid, signal.SIGINT)  # a terminal's Ctrl-C reaches the whole group
        rest, errors = process.communicate()
    assert (rest, errors) == ("", "")
    assert process.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_dies_ends_the_rest_with_one_sentence(tmp_path: Path) -> None:
    with running(tmp_path, "demo") as process:
        said = read_until(process, READY)
        os.kill(process_id(tmp_path, "hub-1"), signal.SIGKILL)
        _, errors = process.communicate()
    assert process.returncode == 1
    last = errors.splitlines()[-1]
    assert last.startswith("ces: hub 1 ended by itself (killed by signal 9); its log ends with: ")
    assert last.endswith(")")
    assert "Traceback" not in errors
    assert not any(map(listens, ports(said)))
    assert list(tmp_path.glob("ces-demo-*/hub-1.log"))


def test_no_process_outlives_a_parent_that_was_killed(tmp_path: Path) -> None:
    with running(tmp_path, "demo") as process:
        said = read_until(process, READY)
        process.kill()
        process.communicate()
    end = monotonic() + PATIENCE
    while any(map(listens, ports(said))):
        assert monotonic() < end
    for log in tmp_path.glob("ces-demo-*/*.log"):
        assert "Received SIGTERM, shutting down." in log.read_text()
