"""`ces token new`: makes a token, and what the access file has of it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence

import ces
from ces.access.file import AccessError, parse
from ces.access.token import digest_of, new_token, read_token

__all__ = ["CannotMake", "make"]


class CannotMake(ces.Error):
    """There is no token: one sentence says why."""


def make(
    name: str, kinds: Sequence[str], publish: Sequence[str], subscribe: Sequence[str], file: str = ""
) -> str:
    """Make a token for a principal. It is kept nowhere.

    :param file: where to write the token; "" shows it in the text.
    :return: what to show: the token, and the table for the access file.
    :raises CannotMake: when the principal cannot be, or the file exists or cannot be written.
    """
    token = new_token()
    read = read_token(token)
    assert read is not None
    lists = {"kinds": kinds, "publish": publish, "subscribe": subscribe, "tokens": [str(digest_of(read))]}
    lines = [f"{key} = {json.dumps(list(values), ensure_ascii=False)}" for key, values in lists.items()]
    key = name if re.fullmatch("[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)
    table = "\n".join([f"[principals.{key}]", *lines, ""])
    try:
        parse(table, "the principal")
    except AccessError as error:
        raise CannotMake(str(error)) from None
    if not file:
        told = f"# The token, shown only now. Keep it in a file that only its service can read:\n#   {token}"
    else:
        _write(file, token)
        told = f"# The token is in {file}."
    return f"{told}\n# For the access file:\n{table}"


def _write(file: str, token: str) -> None:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise CannotMake(f"{file}: {error.strerror}") from None
    with os.fdopen(descriptor, "w") as written:
        written.write(f"{token}\n")
