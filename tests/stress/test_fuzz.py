"""The short form of ``make fuzz``, regression tests for its findings, and tests that it finds faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted

from tests.stress.fuzz import LURED, OPTIONS, Fuzz, play
from tests.stress.hostile import ANSWERS, EITHER, ENDS, STAYS, Plan
from tests.support.fleet import Role, free_port
from tests.support.links import UPGRADE, frame, record
from tests.support.process import unexpected

CES1 = UPGRADE % b""
CES2 = UPGRADE % b"Sec-WebSocket-Protocol: ces.2\r\n"
HELLO = frame(1, b'{"hello":{"node":"hostile","session":null,"received":0}}')
GOOD = frame(2, record("HOSTILE-1", "good"))
LINES = b'{"error":{"code":0,"reason":"one\\r\\ntwo\\u2028three\\u0085\\u001b[31mfour"}}'


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Role]:
    role = Role(tmp_path_factory.mktemp("hub"), "ces-hub", free_port(), *OPTIONS)
    yield role.start()
    role.stop()
    assert unexpected(role.logged()) == []


async def verdict(hub: Role, plan: Plan) -> str:
    """The fault in how a connection to the hub ended."""
    from twisted.internet import reactor

    return (await play(plan, hub.port, reactor))[1]


@pytest.mark.parametrize(
    "plan",
    [
        # Twisted's HTTP channel had stopped reading for ever: the link was open for a minute and got nothing.
        Plan("hub", STAYS, CES1, GOOD * 2000, 2000, eager=True),
        Plan("hub", STAYS, CES2, HELLO + GOOD * 2000, 2001, eager=True, pieces=7),
        Plan("hub", EITHER, b"", CES1.replace(b": 13", b": 12") + GOOD * 2000, 1),
        # A peer's text had injected line breaks into the log.
        Plan("hub", STAYS, CES2, HELLO + frame(1, LINES), 2),
    ],
    ids=lambda plan: f"{plan.fate}-{len(plan.data)}",
)
@pytest_twisted.ensureDeferred
async def test_what_was_found_stays_mended(hub: Role, plan: Plan) -> None:
    assert await verdict(hub, plan) == ""


@pytest.mark.parametrize(
    ("plan", "wrong"),
    [
        (Plan("hub", STAYS, CES1, GOOD + frame(3, b""), 2), "it was closed with 1002"),
        (Plan("hub", STAYS, CES2, GOOD, 1), "it was closed with 4400"),
        (
            Plan("hub", ENDS, CES1, frame(3, b"") + GOOD * 9, 10, last=20, pieces=90),
            "closed with 1002 too early",
        ),
        (Plan("hub", ENDS, CES1, GOOD, 1), "nothing came of it within 1 s"),
        (Plan("hub", STAYS, CES1[:-2], b"", 0), "nothing came of it within 1 s"),
        (Plan("hub", STAYS, CES1.replace(b": 13", b": 12"), b"", 0), "the handshake was answered with"),
        (
            Plan("hub", ANSWERS, b"", b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n" * 2, 2),
            "2 requests had 1 answers",
        ),
    ],
    ids=range(7),
)
@pytest_twisted.ensureDeferred
async def test_a_connection_that_ends_otherwise_than_it_should_is_found(
    hub: Role, plan: Plan, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.stress.fuzz.PATIENCE", 1.0)
    assert wrong in await verdict(hub, plan)


def test_a_line_that_is_not_ours_is_found() -> None:
    at = "2026-11-24T02:00:00+0000 [ces.hub#warn] "
    lines = [
        "Traceback (most recent call last):",
        at + "unexpected error on link x",
        "\tfolded",
        at + "POST failed",
    ]
    assert unexpected("\n".join([at + "hub joined", *lines, at + "hub left: connection failed: x"])) == lines


@pytest_twisted.ensureDeferred
async def test_thousands_of_hostile_inputs_cost_only_who_sends_them(tmp_path: Path) -> None:
    from twisted.internet import reactor

    site = Fuzz(tmp_path, reactor, "make test")
    await site.settle()
    try:
        await site.play(5000)
        assert site.inputs >= 5000
        assert set(site.fates) == {STAYS, ENDS, EITHER, ANSWERS, LURED}
        assert await site.check() == []
    finally:
        await site.stop()
