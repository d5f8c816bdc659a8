"""Who a request is from, and what it is refused for. Routes without a gate are found."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Any

import jwt
import pytest
from klein import Klein
from treq.testing import StubTreq
from twisted.internet.defer import Deferred

from ces.access.principal import ADMIN, KINDS, STATUS, Principal
from ces.access.signed import HS256, Key
from ces.access.table import Access, Open, Shown, Ways
from ces.access.token import digest_of, new_token, read_token
from ces.hub.api import HubApi
from ces.hub.interconnect import Interconnections
from ces.model.patterns import EVERY, Rooms
from ces.ops.answers import text
from ces.ops.gate import OF_ANYONE, Gate, Guarded, login_of
from ces.ops.logging import LogLevels
from tests.support.hubs import Floor
from tests.support.network import Network
from tests.support.repeaters import Bench

TOKEN = new_token()
_read = read_token(TOKEN)
assert _read is not None
WATCHER = Principal("watcher", frozenset({STATUS}))
ACCESS = Access([(WATCHER, Ways(tokens=(digest_of(_read),)))])


class Asked:
    """One route for everybody who has the kind status, and one for anyone."""

    def __init__(self, access: Access = ACCESS) -> None:
        self.refused: list[tuple[str, str]] = []
        app = Klein()
        self.gate = Gate(access, lambda what, why: self.refused.append((what, why)), now=lambda: 1000.0)
        guarded = Guarded(app, self.gate)
        # All three have one name, "<lambda>".
        route = guarded.route
        route("/status", "GET", STATUS, lambda asked: text(asked, 200, login_of(asked).principal.name))
        route("/admin", "GET", ADMIN, lambda asked: text(asked, 200, "done"))
        route("/health", "GET", OF_ANYONE, lambda asked: text(asked, 200, "ok"))
        self.treq = StubTreq(app.resource())

    def get(self, path: str, *authorization: str) -> tuple[int, str, Any]:
        return ask(self.treq, "GET", path, *authorization)


def ask(
    treq: StubTreq,
    method: str,
    path: str,
    *authorization: str,
    data: bytes = b"",
    more: dict[str, str] | None = None,
) -> tuple[int, str, Any]:
    """Status, body, and the challenge of the answer."""
    found: list[Any] = []

    async def answer() -> None:
        headers: dict[str, Any] = {"Authorization": list(authorization)} if authorization else {}
        headers.update(more or {})
        response = await treq.request(method, f"http://hub:7100{path}", headers=headers, data=data)
        challenge = response.headers.getRawHeaders("www-authenticate")
        found.append((response.code, await treq.text_content(response), challenge))

    Deferred.fromCoroutine(answer()).addErrback(lambda failure: failure.raiseException())
    treq.flush()
    return found[0]  # type: ignore[no-any-return]


def test_a_known_token_gets_in_and_the_route_knows_whose_it_is() -> None:
    asked = Asked()
    assert asked.get("/status", f"Bearer {TOKEN}")[:2] == (200, "watcher")
    assert asked.get("/status", f"bearer   {TOKEN}")[:2] == (200, "watcher")
    assert asked.refused == []


@pytest.mark.parametrize(
    "shown",
    [
        (),
        ("",),
        ("Bearer",),
        ("Bearer ",),
        (f"Bearer {new_token()}",),
        (f"Basic {TOKEN}",),
        (TOKEN,),
        (f"Bearer {TOKEN} x",),
        (f"Bearer {TOKEN},Bearer {TOKEN}",),
        (f"Bearer {TOKEN}", f"Bearer {TOKEN}"),
        (f"Bearer {new_token()}", f"Bearer {TOKEN}"),
        ("Bearer " + "x" * 5000,),
        ("Bearer \xff",),
    ],
)
def test_anything_else_is_refused_with_one_answer_and_shown_nowhere(shown: tuple[str, ...]) -> None:
    asked = Asked()
    answer = asked.get("/status", *shown)
    assert answer == Asked().get("/admin") and answer[0] == 401
    assert answer[2] == ["Bearer"]
    ((what, why),) = asked.refused
    assert what == "login"
    assert TOKEN not in why and "xxxx" not in why


def test_a_token_in_the_path_or_the_query_is_no_token() -> None:
    asked = Asked()
    assert asked.get(f"/status?token={TOKEN}")[0] == 401
    assert asked.get(f"/status?access_token={TOKEN}")[0] == 401
    assert TOKEN not in str(asked.refused)


@pytest.mark.parametrize("header", ["Forwarded", "X-Forwarded-For", "X-Real-IP", "Via"])
def test_without_an_access_file_nobody_administers_through_a_proxy(header: str) -> None:
    asked = Asked(Open())
    assert asked.get("/admin")[:2] == (200, "done")
    code, sentence, _ = ask(asked.treq, "GET", "/admin", more={header: "for=10.0.0.1"})
    assert code == 403
    assert sentence.startswith("Without an access file, this may be done from the machine itself alone: ")
    assert ask(asked.treq, "GET", "/status", more={header: "for=10.0.0.1"})[0] == 200
    assert [what for what, _ in asked.refused] == ["rights"]


@pytest.mark.parametrize(
    ("host", "here"), [("127.0.0.1", True), ("::1", True), ("", True), ("10.0.0.1", False), ("?", False)]
)
def test_without_an_access_file_nobody_administers_from_another_machine(host: str, here: bool) -> None:
    kinds = Open().login(Shown(host=host), 0).principal.kinds
    assert (ADMIN in kinds, kinds >= set(KINDS) - {ADMIN}) == (here, True)


def test_who_is_known_and_may_not_is_told_so() -> None:
    asked = Asked()
    code, sentence, challenge = asked.get("/admin", f"Bearer {TOKEN}")
    assert (code, challenge) == (403, None)
    assert sentence == "You may not do this: it is for principals of kind admin."
    assert asked.refused == [("rights", "watcher at 127.0.0.1 may not be of kind admin")]


def test_health_is_for_anyone() -> None:
    assert Asked().get("/health", "Bearer wrong")[:2] == (200, "ok")


def test_a_network_is_that_of_the_connection_whatever_a_header_says() -> None:
    lab = Principal("lab", frozenset({STATUS}))
    here = Access([(lab, Ways(networks=(ip_network("127.0.0.0/24"),)))])
    assert Asked(here).get("/status")[:2] == (200, "lab")
    assert Asked(here).get("/status", f"Bearer {TOKEN}")[0] == 401
    other = Access([(lab, Ways(networks=(ip_network("10.0.0.0/8"),)))])
    assert Asked(other).get("/status")[0] == 401


def test_a_jwt_is_good_until_its_exp() -> None:
    key = Key("k", HS256, None, b"s" * 32)
    asked = Asked(Access([(WATCHER, Ways(keys=("k",)))], {"k": key}))
    good = jwt.encode({"sub": "watcher", "exp": 1010}, b"s" * 32)
    assert asked.get("/status", f"Bearer {good}")[0] == 200
    late = jwt.encode({"sub": "watcher", "exp": 1000}, b"s" * 32)
    assert asked.get("/status", f"Bearer {late}")[0] == 401
    assert "expired" in asked.refused[0][1]


# -- every route of both roles -------------------------------------------------------------------------------

OPEN_ROUTES = {"/health", "/livez"}
DIALS = "POST /interconnect/x"


def routes(app: Klein) -> list[tuple[str, str]]:
    """Method and path of each route of an application, with something for each of its parameters."""
    found = []
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<[^>]*>", "x", rule.rule)
        found += [(method, path) for method in (rule.methods or {"GET"}) - {"HEAD"} if "__branch" not in path]
    return found


def hub_app(gate: Gate) -> Klein:
    floor = Floor()
    return HubApi(floor.hub, Interconnections(floor.hub, Network()), floor.clock, LogLevels(), gate).app


def repeater_app(gate: Gate) -> Klein:
    from ces.repeater.api import RepeaterApi

    bench = Bench()
    return RepeaterApi(bench.repeater, bench.network, LogLevels(), gate).app


@pytest.mark.parametrize("make", [hub_app, repeater_app])
def test_no_route_answers_somebody_who_is_not_known_or_may_nothing(make: Any) -> None:
    nobody = Principal("nobody", frozenset())
    for access, token, code in (
        (ACCESS, "", 401),
        (Access([(nobody, Ways(tokens=(digest_of(_read),)))]), TOKEN, 403),
    ):
        app = make(Gate(access, lambda what, why: None))
        asked = [route for route in routes(app) if route[1] not in OPEN_ROUTES]
        assert len(asked) >= 8
        for method, path in asked:
            if path.startswith("/connect"):
                path = "/connect/messenger" if make is hub_app else "/connect/x/y"
            shown = [f"Bearer {token}"] if token else []
            got, sentence, _ = ask(StubTreq(app.resource()), method, path, *shown)
            assert (got, "You may not" in sentence or "not known" in sentence) == (code, True), (method, path)


@pytest.mark.parametrize("make", [hub_app, repeater_app])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_opens_its_own_routes_and_no_other(make: Any, kind: str) -> None:
    access = Access([(Principal("p", frozenset({kind}), EVERY, EVERY), Ways(tokens=(digest_of(_read),)))])
    app = make(Gate(access, lambda what, why: None))
    opened = set()
    for method, path in routes(app):
        if path.startswith("/connect") or path in OPEN_ROUTES or f"{method} {path}" == DIALS:
            continue
        if ask(StubTreq(app.resource()), method, path, f"Bearer {TOKEN}")[0] != 403:
            opened.add(f"{method} {path}")
    status = {"GET /status", "GET /log-level"}
    admin = {"PUT /log-level/x"}
    expected: dict[str, set[str]] = {"metrics": {"GET /metrics"}}
    if make is hub_app:
        deletes = {"DELETE /interconnect/x", "DELETE /interconnect/address/x", "DELETE /interconnect/node/x"}
        expected |= {
            "status": status | {"GET /interconnect", "GET /links", "GET /rooms"},
            "admin": admin | deletes,
            "messenger": {"POST /event"},
        }
    else:
        letters = {"GET /undelivered", "DELETE /undelivered", "POST /undelivered/retry"}
        expected |= {"status": status, "admin": admin | letters, "outside": {"POST /send"}}
    assert opened == expected.get(kind, set())


def test_one_event_for_a_room_that_may_not_be_sent_to_is_enough_to_take_none() -> None:
    floor = Floor()
    reader = floor.link("messenger", "*")
    principal = Principal("p", frozenset({"messenger"}), Rooms(["ITB-*"]))
    gate = Gate(Access([(principal, Ways(tokens=(digest_of(_read),)))]), floor.hub.side.refuse)
    app = HubApi(floor.hub, Interconnections(floor.hub, floor.clock), floor.clock, LogLevels(), gate).app
    treq = StubTreq(app.resource())

    def post(*rooms: str) -> tuple[int, str]:
        events = ",".join(f'{{"affected-room":{{"roomID":"{room}"}}}}' for room in rooms)
        answer = ask(treq, "POST", "/event", f"Bearer {TOKEN}", data=f"[{events}]".encode())
        floor.clock.advance(0)
        return answer[:2]

    assert post("ITB-1", "BNSN-1") == (403, "You may not send events for all of these rooms: none was taken.")
    assert floor.sent(reader) == []
    assert post("ITB-1", "ITB-2")[0] == 200
    assert len(floor.sent(reader)) == 2
    assert floor.hub.side.refused["rights"] == 1


def test_a_web_page_shows_its_token_as_a_subprotocol() -> None:
    def offer(offered: str, *authorization: str) -> int:
        more = {"Sec-WebSocket-Protocol": offered}
        return ask(Asked().treq, "GET", "/status", *authorization, more=more)[0]

    assert offer(f"ces.2, ces.token.{TOKEN}") == 200
    assert offer(f"ces.token.{TOKEN},ces.2") == 200
    assert offer("ces.token.") == 401
    assert offer(f"ces.token.{TOKEN}x") == 401
    assert offer(f"ces.token.{TOKEN}, ces.token.{TOKEN}") == 401
    assert offer(f"ces.token.{TOKEN}", f"Bearer {TOKEN}") == 401
    assert offer("ces.2", f"Bearer {TOKEN}") == 200
