"""Who gets in where, on real sockets: each credential at each entry, beside what the access file says.

The kinds of links and requests stand down, and the credentials stand across: none, wrong, expired, forged,
revoked, of another kind, right, and right with too few rooms.
"""

from __future__ import annotations

import base64
import http.client
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import jwt
import pytest

from ces.access.principal import ADMIN, HUB, KINDS, MESSENGER, METRICS, OUTSIDE, REPEATER, STATUS
from ces.access.token import new_token
from tests.support.access import AccessFile
from tests.support.fleet import Role, event, free_port, until
from tests.support.flow import running

SECRET = b"a secret of the test, thirty-two bytes."
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}
FEW = event(1, "BNSN-1")
"""An event for a room that nobody here may send to."""


class Entry(NamedTuple):
    """A way in: `status` is the answer to those who may, None for an upgrade."""

    role: str
    method: str
    path: str
    kind: str
    status: int = 200
    body: bytes | None = None


COMMON = [
    Entry(role, *rest)
    for role in ("ces-hub", "ces-repeater")
    for rest in (
        ("GET", "/status", STATUS),
        ("GET", "/metrics", METRICS),
        ("GET", "/log-level", STATUS),
        ("PUT", "/log-level/info", ADMIN),
    )
]
ENTRIES = [
    *COMMON,
    Entry("ces-hub", "GET", "/connect/messenger", MESSENGER, 101),
    Entry("ces-hub", "GET", "/connect/repeater", REPEATER, 101),
    Entry("ces-hub", "GET", "/connect/hub", HUB, 101),
    Entry("ces-hub", "POST", "/event", MESSENGER, 200, event(1, "ITB-1")),
    Entry("ces-hub", "GET", "/interconnect", STATUS),
    Entry("ces-hub", "GET", "/links", STATUS),
    Entry("ces-hub", "GET", "/rooms", STATUS),
    Entry("ces-hub", "POST", "/interconnect/127.0.0.1:1", ADMIN, 502),
    Entry("ces-hub", "DELETE", "/interconnect/address/127.0.0.1:1", ADMIN, 404),
    Entry("ces-hub", "DELETE", "/interconnect/node/nobody", ADMIN, 404),
    Entry("ces-repeater", "GET", "/connect/ITB-1/x", OUTSIDE, 101),
    Entry("ces-repeater", "POST", "/send", OUTSIDE, 200, event(1, "ITB-1")),
    Entry("ces-repeater", "GET", "/undelivered", ADMIN),
    Entry("ces-repeater", "DELETE", "/undelivered", ADMIN),
    Entry("ces-repeater", "POST", "/undelivered/retry", ADMIN),
]


class House(NamedTuple):
    roles: dict[str, Role]
    bearers: dict[str, str]
    """Bearer tokens by what they are: a kind, ``everything``, ``wrong``, ..."""


def signed(key: bytes, seconds: float, **claims: str) -> str:
    return jwt.encode({"exp": time.time() + seconds, **claims}, key, "HS256")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("matrix")
    file = AccessFile(folder / "access.toml")
    for kind in KINDS:
        file.add(kind, [kind], ["ITB-*"], ["ITB-*"])
    file.text += f'[keys.login]\nalgorithm = "HS256"\nsecret = "{base64.b64encode(SECRET).decode()}"\n'
    file.text += f'[principals.everything]\nkinds = {list(KINDS)}\npublish = ["ITB-*"]\njwt = ["login"]\n'
    kept = file.text
    file.add("revoked", KINDS, ["ITB-*"])
    with ExitStack() as stack:
        roles = {
            name: stack.enter_context(running(Role(folder, name, free_port(), f"--access={file.path}")))
            for name in ("ces-hub", "ces-repeater")
        }
        bearers = dict(file.tokens)
        for entry in COMMON[:1]:
            assert ask(roles[entry.role], entry, bearers["revoked"])[0] == 200
        file.path.write_text(kept)
        for role in roles.values():
            assert role.process is not None
            role.process.send_signal(signal.SIGHUP)
            until(lambda role=role: "was read again" in role.logged(), "the file was read again")
        bearers["everything"] = signed(SECRET, 600, sub="everything")
        bearers["expired"] = signed(SECRET, -1, sub="everything")
        bearers["forged"] = signed(SECRET[::-1], 600, sub="everything")
        bearers["of nobody"] = signed(SECRET, 600, sub="root")
        bearers["for another"] = signed(SECRET, 600, sub="admin")
        bearers["wrong"] = new_token()
        yield House(roles, bearers)


def ask(role: Role, entry: Entry, bearer: str | None) -> tuple[int, str]:
    """The status and the body of the answer; an upgrade has no body."""
    headers = dict(UPGRADE) if entry.status == 101 else {}
    if bearer is not None:
        headers["Authorization"] = f"Bearer {bearer}"
    connection = http.client.HTTPConnection("127.0.0.1", role.port, timeout=15)
    try:
        connection.request(entry.method, entry.path, entry.body, headers)
        answer = connection.getresponse()
        return answer.status, "" if answer.status == 101 else answer.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.role} {entry.method} {entry.path}")
def test_what_gets_in_is_exactly_what_the_file_says(house: House, entry: Entry) -> None:
    role = house.roles[entry.role]
    unknown = {
        who: ask(role, entry, house.bearers.get(who))
        for who in ("none", "wrong", "expired", "forged", "of nobody", "for another", "revoked")
    }
    assert {answer[0] for answer in unknown.values()} == {401}
    assert len(set(unknown.values())) == 1, "the answers are one"
    for kind in KINDS:
        expected = entry.status if kind == entry.kind else 403
        assert ask(role, entry, house.bearers[kind])[0] == expected, kind
    assert ask(role, entry, house.bearers["everything"])[0] == entry.status
    if entry.body is not None:
        assert ask(role, entry._replace(body=FEW), house.bearers[entry.kind])[0] == 403


def test_what_is_not_there_says_nothing_of_what_is(house: House) -> None:
    for role in house.roles.values():
        for path in ("/", "/nothing", "/connect/nothing", "/status/x"):
            code, body = ask(role, Entry(role.role, "GET", path, ""), None)
            assert code in (400, 404)
            assert role.name not in body
