"""The examples of the documents run, as they are written, at a hub of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet import PATIENCE, Peer, Role, event, free_port, twistd_script

ROOT = Path(__file__).parents[2]


def examples(page: str) -> dict[str, str]:
    """The Python programs on a page, each under the heading that is above it."""
    text = (ROOT / page).read_text()
    found = {}
    for block in re.finditer(r"```python\n(.*?)```", text, re.DOTALL):
        found[re.findall(r"^#+ (.+)$", text[: block.start()], re.MULTILINE)[-1]] = block[1]
    return found


INTEGRATION = examples("docs/integration.md")
RECEIVING = {
    "Receive events": "ITB-1108: ITB-1108-D1 volume is 7",
    "In a coroutine": "ITB-1108: volume is 7",
    "React to gaps": "{'ITB-1108-D1': 'on'}",
    "Run under twistd": "ITB-1108 volume 7",
}
SENDING = ["Send events", "One event", "Keep events over a restart"]
ALONE = ["Read and write events"]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Role]:
    role = Role(tmp_path_factory.mktemp("hub"), "ces-hub", free_port()).start()
    yield role
    role.stop()


class Program:
    """An example as a process; `said` is what it has written."""

    def __init__(self, folder: Path, text: str, hub: Role | None = None) -> None:
        if hub is not None:
            assert "localhost:7100" in text
            text = text.replace("localhost:7100", f"localhost:{hub.port}")
        named = re.match(r"# ([\w.-]+):", text)
        file = folder / (named[1] if named else "example.py")
        file.write_text(text)
        command = [twistd_script(), "-ny"] if file.suffix == ".tac" else [sys.executable]
        self._process = subprocess.Popen(
            [*command, str(file)],
            cwd=folder,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said += line

    def end(self) -> int:
        """Wait for its end; its exit status."""
        code = self._process.wait(PATIENCE)
        self._reader.join()
        self._process.stdout.close()
        return code

    def stop(self) -> None:
        """End it as Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)
        self.end()


def test_every_example_of_the_page_is_run() -> None:
    assert set(INTEGRATION) == {*RECEIVING, *SENDING, *ALONE}


@pytest.mark.parametrize("heading", RECEIVING)
def test_an_example_shows_what_others_send(heading: str, hub: Role, tmp_path: Path) -> None:
    program = Program(tmp_path, INTEGRATION[heading], hub)
    power = event(7).replace(b'"volume"', b'"power"').replace(b'"7"', b'"on"')
    end = time.monotonic() + PATIENCE
    while RECEIVING[heading] not in program.said and time.monotonic() < end:
        hub.request("POST", "/event", b"[%b, %b]" % (event(7), power))
        time.sleep(0.1)
    program.stop()
    assert RECEIVING[heading] in program.said
    assert "Traceback" not in program.said


@pytest.mark.parametrize("heading", SENDING)
def test_an_example_sends_one_event_and_ends(heading: str, hub: Role, tmp_path: Path) -> None:
    reader = Peer(hub.port, "/connect/messenger")
    reader.subscribe("ITB-1108")
    program = Program(tmp_path, INTEGRATION[heading], hub)
    room, text = next(reader.records(PATIENCE))
    found = json.loads(text)
    assert (room, found["key"], found["value"]) == ("ITB-1108", "power", "on")
    assert found["timestamp"].endswith("Z"), "it was stamped"
    assert program.end() == 0
    assert program.said == ("the hub has it\n" if "restart" in heading else "")
    reader.close()


def test_an_example_reads_and_writes_events(tmp_path: Path) -> None:
    program = Program(tmp_path, INTEGRATION["Read and write events"])
    assert program.end() == 0
    lines = program.said.splitlines()
    assert lines[:4] == ["ITB-1108 volume 30", "dim", "None", "2026-11-23T08:00:00Z"]
    assert lines[4].startswith("b'{") and lines[5] == "`$.value`: expected `str`, got `int`"


def test_the_example_of_the_front_page_sends_and_receives(hub: Role, tmp_path: Path) -> None:
    reader = Peer(hub.port, "/connect/messenger")
    reader.subscribe("ITB-1108")
    program = Program(tmp_path, examples("README.md")["Write a service"], hub)
    room, text = next(reader.records(PATIENCE))
    found = json.loads(text)
    assert (room, found["key"], found["value"]) == ("ITB-1108", "power", "on")
    end = time.monotonic() + PATIENCE
    while "ITB-1108 volume 7" not in program.said and time.monotonic() < end:
        hub.request("POST", "/event", event(7))
        time.sleep(0.1)
    program.stop()
    assert "ITB-1108 volume 7" in program.said
    reader.close()
