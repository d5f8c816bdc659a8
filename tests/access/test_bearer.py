"""The token that a process shows where it dials: given, or from a file that is read again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ces.access.bearer import NO_BEARER, Bearer, TokenError
from ces.access.token import new_token


def no_report(fault: str) -> None:
    raise AssertionError(fault)


def test_there_need_be_none() -> None:
    assert NO_BEARER.read(no_report) == ""


def test_a_file_is_read_again_and_the_last_good_token_stays(tmp_path: Path) -> None:
    one, two, faults = new_token(), new_token(), list[str]()
    file = tmp_path / "token"
    file.write_text(f"{one}\n")
    bearer = Bearer(file=file)
    assert bearer.read(no_report) == one
    file.write_text(two)
    assert bearer.read(no_report) == two
    for bad in ("", "two words", "x" * 5000, "\xff"):
        file.write_text(bad)
        assert bearer.read(faults.append) == two
    file.unlink()
    assert bearer.read(faults.append) == two
    assert len(faults) == 5
    assert faults[-1] == f"token file {file}: No such file or directory"


def test_an_error_says_where_and_repeats_nothing(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("very secret")
    for make in (lambda: Bearer(file=file), lambda: Bearer("very secret")):
        with pytest.raises(TokenError, match="expected one token") as caught:
            make()
        assert "secret" not in str(caught.value)
    with pytest.raises(TokenError, match="leave one of them out"):
        Bearer(new_token(), file)


@given(st.text())
def test_a_token_that_is_taken_fits_into_a_header(text: str) -> None:
    try:
        token = Bearer(text).read(no_report)
    except TokenError:
        return
    assert token == text
    assert token == "" or (token.isascii() and token.isprintable() and " " not in token)
