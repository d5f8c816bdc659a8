"""Parses the query of a request: each parameter at most once, none that the route does not have.

A mistyped parameter is an error: ``?traget=X`` would otherwise mean all targets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from twisted.web.iweb import IRequest

import ces
from ces.config.values import did_you_mean


class QueryError(ces.Error, ValueError):
    """The query is wrong; the text is a sentence."""


def read_query(request: IRequest, parameters: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """The parameters of a request's query, each parsed. Those that it does not have are left out.

    :param parameters: how each is parsed; raises ValueError, whose text says what is wrong.
    :raises QueryError: when the query is wrong.
    """
    found: dict[str, Any] = {}
    # Not request.args, which omits a name without "=".
    query = request.uri.partition(b"?")[2].decode("ascii", "replace")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise QueryError("The query is not UTF-8.") from None
    for name, value in pairs:
        try:
            if name not in parameters:
                raise ValueError(f"there is no such parameter{did_you_mean(name, parameters)}")
            if name in found:
                raise ValueError("it is given more than once")
            found[name] = parameters[name](value)
        except ValueError as fault:
            end = "" if str(fault).endswith("?") else "."
            raise QueryError(f"Parameter {name[:80]!r}: {fault}{end}") from None
    return found
