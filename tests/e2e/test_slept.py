"""A consumer that sleeps until its hub closes it as too slow resumes: it gets the rest, and an exact gap."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.fleet import PATIENCE, Role, free_port, until
from tests.support.raw import RawLink

AFTERWARDS = 7_680
"""Events that are sent when the link has been closed: 3 MB, of which the kernel holds nothing."""

MESSENGER = """
import json, sys
from twisted.internet import reactor
from ces.messenger import Messenger

messenger = Messenger(sys.argv[1], rooms=["ITB-1108"], reactor=reactor)
messenger.on_record(lambda event, room: print(json.loads(event)["value"], flush=True))
messenger.on_gap(lambda lost: print("gap", lost, flush=True))
messenger.connect()
reactor.run()
"""


@pytest.mark.parametrize("buffer", ["64MiB", "1MiB"], ids=["all fits", "some is lost"])
def test_a_consumer_that_slept_gets_what_waited_and_is_told_exactly_what_did_not(
    tmp_path: Path, buffer: str
) -> None:
    hub = Role(
        tmp_path,
        "ces-hub",
        free_port(),
        "--slow-timeout=0.5s",
        "--handshake-timeout=0.5s",
        "--message-limit=64KiB",
        f"--link-buffer={buffer}",
    ).start()
    consumer = subprocess.Popen(
        [sys.executable, "-c", MESSENGER, f"localhost:{hub.port}"], stdout=subprocess.PIPE, text=True
    )
    read = Lines(consumer)
    try:
        until(lambda: hub.info()["nexus"]["messenger-mapping"], "it has subscribed")
        writer = RawLink.dial(hub.port, "/connect/messenger", "writer")
        writer.send(0, 100, "ITB-1108")
        writer.settle()
        until(lambda: len(read.lines) == 100, "the first events arrive")
        consumer.send_signal(signal.SIGSTOP)
        sent = 100
        while "closed with 4408" not in hub.logged():
            writer.send(sent, 640, "ITB-1108")
            sent += 640
            writer.settle()
        writer.send(sent, AFTERWARDS, "ITB-1108")
        sent += AFTERWARDS
        writer.settle()
        consumer.send_signal(signal.SIGCONT)
        until(lambda: read.last == str(sent - 1), "the last event arrives")
    finally:
        consumer.kill()
        consumer.wait(PATIENCE)
        hub.stop()
    numbers = [int(line) for line in read.lines if not line.startswith("gap")]
    gaps = [line.partition(" ")[2] for line in read.lines if line.startswith("gap")]
    assert numbers == sorted(set(numbers))
    lost = sent - len(numbers)
    assert sum(map(int, gaps)) == lost
    assert (lost > 0) == (buffer == "1MiB")


class Lines:
    """Reads the lines of a process in a thread."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.lines: list[str] = []
        self._process = process
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def last(self) -> str:
        return self.lines[-1] if self.lines else ""

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.strip())
