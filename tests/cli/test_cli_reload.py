"""`ces reload`: only hubs and repeaters are told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ces.cli.main import main


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file or directory"),
        ("", "expected a process id, as twistd --pidfile writes it"),
        ("-1", "process -1 is neither a hub nor a repeater"),
        ("0", "process 0 is neither a hub nor a repeater"),
        ("99999999", "process 99999999 cannot be told: No such process"),
        ("this one", " is neither a hub nor a repeater"),
    ],
)
def test_others_are_left_alone(
    content: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "hub.pid"
    if content is not None:
        file.write_text(str(os.getpid()) if content == "this one" else content)
    assert main(["reload", str(file)]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("ces: ") and err.count("\n") == 1
    assert said in err
