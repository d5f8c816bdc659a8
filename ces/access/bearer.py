"""The token that a process shows where it dials.

It comes from a file rather than from an argument: command lines and environments are read by others. The file
is read again for each dial, so that a new token is in use without a restart.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import ces
from ces.access.table import BEARER_LENGTH

BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)
"""RFC 6750 section 2.1."""


class TokenError(ces.Error, ValueError):
    """There is no token that can be shown. One sentence, which never repeats what was found."""


class Bearer:
    """A token, or a file that has one.

    :param token: the token; "" for none.
    :param file: the file; "" for none.
    :raises TokenError: when both are given, or there is no token in what is given.
    """

    def __init__(self, token: str = "", file: str | os.PathLike[str] = "") -> None:
        self._file = os.fspath(file)
        if token and self._file:
            raise TokenError("a token and a file with one are given: leave one of them out")
        self._token = _checked(token, "the token") if token else ""
        if self._file:
            self._token = _read(self._file)

    def read(self, report: Callable[[str], None]) -> str:
        """The token to show now; "" for none.

        :param report: called with a sentence when the file has none any more: the one before stays in use.
        """
        if self._file:
            try:
                self._token = _read(self._file)
            except TokenError as error:
                report(str(error))
        return self._token


NO_BEARER = Bearer()


def _read(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            content = file.read(BEARER_LENGTH + 16)
    except OSError as error:
        raise TokenError(f"token file {path}: {error.strerror}") from None
    return _checked(content.decode("ascii", "replace").strip(), f"token file {path}")


def _checked(token: str, what: str) -> str:
    if len(token) > BEARER_LENGTH or not BEARER.fullmatch(token):
        raise TokenError(f"{what}: expected one token, such as `ces token new` prints, and nothing else")
    return token
