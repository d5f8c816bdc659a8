"""`ces token new`."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from ces.access.file import parse
from ces.access.table import Shown
from ces.cli.main import main


def test_what_it_prints_lets_the_token_in(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["token", "new", "--kinds", "messenger", "status", "--publish", "ITB-*", "--subscribe", "*", "--"]
    assert main([*args, "panel"]) == 0
    printed = capsys.readouterr().out
    (token,) = [line[1:].strip() for line in printed.splitlines() if "ces_" in line]
    principal = parse(printed, "access.toml").login(Shown(token), 0).principal
    assert (principal.name, principal.kinds) == ("panel", {"messenger", "status"})
    assert b"ITB-1" in principal.publish and principal.subscribe.everything
    assert printed.count(token[20:]) == 1
    assert main(["token", "new", "panel"]) == 0
    assert token not in capsys.readouterr().out


def test_a_file_gets_the_token_that_is_then_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "panel.token"
    assert main(["token", "new", "panel", "--to", str(file)]) == 0
    token = file.read_text().strip()
    printed = capsys.readouterr().out
    assert token not in printed
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert parse(printed, "access.toml").login(Shown(token), 0).principal.name == "panel"
    assert main(["token", "new", "panel", "--to", str(file)]) == 1
    assert capsys.readouterr().err == f"ces: {file}: File exists\n"
    assert file.read_text().strip() == token


@pytest.mark.parametrize("args", [["a b"], ["x", "--kinds", "king"], ["x", "--publish", "*-1"], ['"]']])
def test_what_cannot_be_is_one_sentence(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "new", *args]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ces: the principal, line ") and err.count("\n") == 1
