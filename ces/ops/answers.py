"""Plain answers to HTTP requests: one sentence, or JSON."""

from __future__ import annotations

import msgspec
from twisted.web.iweb import IRequest


def text(request: IRequest, code: int, sentence: str) -> bytes:
    """Answer with one sentence. A Klein route returns the result."""
    return answer(request, code, "text/plain; charset=utf-8", sentence.encode("utf-8", "backslashreplace"))


def json_answer(request: IRequest, obj: object, code: int = 200, indent: bool = True) -> bytes:
    """Answer with JSON. A Klein route returns the result.

    :param indent: whether to indent for readers. Pass False for data from others: indentation multiplies the
        size of deeply nested JSON.
    """
    body = msgspec.json.encode(obj)
    if indent:
        body = msgspec.json.format(body, indent=2)
    return answer(request, code, "application/json", body + b"\n")


def answer(request: IRequest, code: int, content_type: str, body: bytes) -> bytes:
    """Answer with a body of any type. A Klein route returns the result."""
    request.setResponseCode(code)
    request.setHeader("Content-Type", content_type)
    request.setHeader("Content-Length", str(len(body)))
    return body
