"""The repeater: what comes in, the spool for the hub, and its HTTP side, in memory."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.logger import Logger
from twisted.python.failure import Failure

from ces.link.serving import ServingFactory
from ces.model.wire import CES1, CES2
from ces.ops.logging import LogLevels
from ces.ops.signals import Hangup
from ces.repeater.inbound import OUTSIDE, NoPlace, place_of, read_outside
from ces.repeater.routes_file import Routes, RoutesError
from ces.repeater.service import RoutesFile, make_repeater_service, read_routes
from ces.repeater.settings import RepeaterSettings
from tests.support.links import Lines, frame, read_frames, record, run
from tests.support.network import Network
from tests.support.repeaters import Api, Bench

pytestmark = pytest.mark.usefixtures("bare_records")

UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: rep:7101\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
)


class Visitor:
    """An outside service that has dialled, played byte by byte."""

    def __init__(self, bench: Bench, path: str = "/connect/ITB-1/visitor", dialect: str = CES1) -> None:
        self.bench = bench
        factory = ServingFactory(bench.repeater, bench.repeater.side, OUTSIDE, bench.network, read_outside())
        self.connection: Any = factory.buildProtocol(None)
        self.transport = StringTransport()
        self.connection.makeConnection(self.transport)
        more = "Sec-WebSocket-Protocol: ces.2\r\n" if dialect == CES2 else ""
        self.connection.dataReceived(UPGRADE.format(path=path, more=more).encode())
        assert b"101 Switching Protocols" in self.transport.value()
        self.transport.clear()
        if dialect == CES2:
            self.connection.dataReceived(frame(1, b'{"hello":{"node":"visitor"}}'))
            self.transport.clear()

    def send(self, *messages: bytes, opcode: int = 2) -> None:
        self.connection.dataReceived(b"".join(frame(opcode, message) for message in messages))
        self.bench.network.settle()

    def frames(self) -> list[tuple[int, bytes]]:
        return read_frames(self.transport.value())

    def gone(self) -> None:
        self.connection.connectionLost(Failure(ConnectionDone()))


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A repeater whose hub is up."""
    made = Bench({"A": ("ws://cp1:7101",)})
    made.hub_up()
    yield made
    made.stop()
    assert made.network.getDelayedCalls() == []


def event(**places: str) -> bytes:
    return json.dumps({name.replace("_", "-"): {"roomID": room} for name, room in places.items()}).encode()


# -- inbound links ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [1, 2])
@pytest.mark.parametrize(
    ("message", "room"),
    [
        (b"ITB-7\n\n\n{}", "ITB-7"),
        (b"\n{}", ""),
        (event(affected_room="ITB-8", target_device="ITB-9"), "ITB-8"),
        (event(target_device="ITB-9"), "ITB-1"),
        (event(affected_room=""), "ITB-1"),
        (b"{}", "ITB-1"),
        (b'{"affected-room": null}', "ITB-1"),
    ],
)
def test_records_and_bare_events_are_inserted_with_their_room(
    bench: Bench, message: bytes, room: str, opcode: int
) -> None:
    visitor = Visitor(bench)
    visitor.send(message, opcode=opcode)
    (inserted,) = bench.hub.owner.records
    tag, _, rest = inserted.partition(b"\n")
    assert tag == room.encode()
    assert json.loads(rest) == json.loads(message[message.index(b"{") :])
    visitor.gone()


def test_records_and_bare_events_keep_their_order(bench: Bench) -> None:
    visitor = Visitor(bench)
    visitor.send(b'{"n":1}', record("R", "2"), record("R", "3"), b'{"n":4}', b'{"n":5}', record("S", "6"))
    expected = [
        b'ITB-1\n{"n":1}\n',
        record("R", "2"),
        record("R", "3"),
        b'ITB-1\n{"n":4}\n',
        b'ITB-1\n{"n":5}\n',
    ]
    assert bench.hub.owner.records == [*expected, record("S", "6")]
    visitor.gone()


def test_batches_of_ces2_are_inserted(bench: Bench) -> None:
    visitor = Visitor(bench, dialect=CES2)
    visitor.send(record("R", "1") + record("S", "2"), b'{"n":3}')
    assert bench.hub.owner.records == [record("R", "1"), record("S", "2"), b'ITB-1\n{"n":3}\n']
    visitor.gone()


def test_a_link_for_the_blank_or_an_encoded_room(bench: Bench) -> None:
    for path, room in (("/connect//x", ""), ("/connect/a%2Fb%20%C3%BC/x", "a/b ü")):
        visitor = Visitor(bench, path)
        visitor.send(b"{}")
        assert bench.hub.owner.records[-1] == f"{room}\n{{}}\n".encode()
        visitor.gone()


@pytest.mark.parametrize(
    "message", [b"{", b'{"affected-room": 3}', b'{"affected-room": {"roomID": "*"}}', b"no event", b"*\n{}"]
)
def test_what_is_malformed_is_counted_and_told_and_the_link_stays(bench: Bench, message: bytes) -> None:
    visitor = Visitor(bench, dialect=CES2)
    visitor.send(message, b"R\n{}\n")
    assert bench.hub.owner.records == [b"R\n{}\n"]
    assert bench.repeater.side.malformed >= 1
    told = json.loads(visitor.frames()[0][1])
    assert told["error"]["code"] == 4400
    assert bench.repeater.inbound == 1
    visitor.gone()


def test_an_unused_link_is_closed_with_1000_and_a_used_one_is_not(bench: Bench) -> None:
    used, unused = Visitor(bench), Visitor(bench, "/connect/ITB-2/other")
    for _ in range(3):
        bench.network.pass_time(3)
        used.send(record("R"))
    assert unused.frames()[-1] == (8, (1000).to_bytes(2, "big") + b"idle")
    assert used.frames() == []
    assert [place_of(link.path).id for link in bench.repeater.visitors()] == ["visitor"]
    used.gone()
    unused.gone()


def test_pings_are_no_use(bench: Bench) -> None:
    visitor = Visitor(bench)
    for _ in range(3):
        bench.network.pass_time(2)
        visitor.send(b"", opcode=9)
    assert visitor.frames()[-1][0] == 8
    visitor.gone()


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/connect/", "Connect to /connect/{room}/{id}"),
        ("/connect/ITB-1", "Connect to /connect/{room}/{id}"),
        ("/connect/ITB-1/", "Connect to /connect/{room}/{id}"),
        ("/connect/ITB-1/a/b", "Connect to /connect/{room}/{id}"),
        ("/connect/*/a", "A link cannot be for that room: the room is '*', which is for subscriptions only."),
        ("/connect/%0A/a", "A link cannot be for that room: the room holds a control character."),
        ("/connect/%FF/a", "A link cannot be for that room: the room is not UTF-8."),
        ("/connect/R/%00", "A link cannot have that id: the id holds a control character."),
    ],
)
def test_a_path_that_is_no_links_gets_a_sentence(path: str, sentence: str) -> None:
    with pytest.raises(NoPlace) as caught:
        place_of(path)
    assert str(caught.value).startswith(sentence)


@given(st.text())
def test_no_path_gives_anything_but_a_place_or_a_sentence(text: str) -> None:
    try:
        assert place_of(f"/connect/{text}").id
    except NoPlace as fault:
        assert str(fault).endswith(".")


# -- the spool -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", [CES1, CES2])
def test_what_comes_while_the_hub_is_away_follows_in_order(dialect: str) -> None:
    bench = Bench()
    bench.repeater.insert([run("R", "1", "2")])
    bench.repeater.start()
    bench.network.dials[0].refuse()
    bench.repeater.insert([run("S", "3")])
    bench.network.settle()
    assert bench.repeater.hub.status()["buffer-utilization"] == 3 * len(record("R", "1"))
    bench.network.pass_time(2)
    assert bench.hub_up(dialect).owner.records == [record("R", "1"), record("R", "2"), record("S", "3")]
    bench.network.pass_time(1)
    assert bench.repeater.hub.status()["buffer-utilization"] == 0
    bench.stop()


def test_the_spool_outlives_the_link() -> None:
    bench = Bench()
    bench.hub_up().dialled.pauseProducing()
    bench.repeater.insert([run("R", "1")])
    bench.network.settle()
    bench.hub.cut()
    bench.repeater.insert([run("R", "2")])
    bench.network.pass_time(2)
    assert bench.hub_up().owner.records == [record("R", "1"), record("R", "2")]
    bench.stop()


def test_a_full_spool_drops_the_oldest_counts_and_tells() -> None:
    size = len(record("R", "0"))
    bench = Bench(spool_bytes=3 * size)
    for number in range(5):
        bench.repeater.insert([run("R", str(number))])
    bench.network.settle()
    assert bench.repeater.hub.status()["dropped"] == 2
    assert bench.repeater.side.dropped == 2
    assert any("2 records for hub ws://hub:7100 were dropped" in line for line in bench.lines)
    answer = bench.hub_up()
    bench.network.pass_time(1, 0.1)
    assert answer.owner.records == [record("R", str(number)) for number in (2, 3, 4)]
    bench.stop()


def test_what_the_hub_never_got_is_counted_at_the_end() -> None:
    bench = Bench()
    bench.repeater.insert([run("R", "1")])
    bench.stop()
    assert bench.repeater.hub.status()["dropped"] == 1
    assert any("were dropped: the repeater stops" in line for line in bench.lines)
    assert bench.network.getDelayedCalls() == []


def test_what_comes_while_the_repeater_stops_is_counted() -> None:
    bench = Bench({"A": ("ws://cp1:7101",)})
    bench.hub_up()
    done = Deferred.fromCoroutine(bench.repeater.stop())
    bench.repeater.insert([run("R", "1")])
    bench.repeater.received(bench.hub.link, [run("A", "2")])
    bench.network.pass_time(5)
    assert done.called
    assert bench.repeater.side.dropped == 2
    assert bench.network.dials == []
    assert bench.network.getDelayedCalls() == []


def test_what_waits_in_this_turn_is_sent_before_the_link_to_the_hub_is_closed() -> None:
    bench = Bench()
    bench.hub_up()
    bench.repeater.insert([run("R", "1")])
    bench.stop()
    assert bench.hub.owner.records == [record("R", "1")]
    assert bench.hub.peer.close_code == 1000


# -- HTTP ------------------------------------------------------------------------------------------------


@pytest.fixture
def api(bench: Bench) -> Api:
    return Api(bench)


def test_events_that_are_posted_are_inserted_in_the_room_that_they_name(bench: Bench, api: Api) -> None:
    assert api.ask("POST", "/send", event(affected_room="A", target_device="B")) == (200, "ok")
    assert api.ask("POST", "/send", b"[" + event(target_device="B") + b", {}]") == (200, "ok")
    bench.network.settle()
    assert [one.split(b"\n")[0] for one in bench.hub.owner.records] == [b"A", b"B", b""]


def test_events_that_are_posted_without_a_time_stamp_get_the_present_time(bench: Bench, api: Api) -> None:
    assert api.ask("POST", "/send", b'[{}, {"timestamp": "noon"}]') == (200, "ok")
    bench.network.settle()
    assert bench.hub.owner.records == [
        b'\n{"timestamp":"2026-11-23T08:00:00Z"}\n',
        b'\n{"timestamp": "noon"}\n',
    ]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "The body is not JSON: "),
        (b"{", "The body is not JSON: "),
        (b"3", "The body is not an event: "),
        (b"[{}, 3]", "Item 2 of the array is not an event: "),
        (b'[{"affected-room": {"roomID": "*"}}]', "Item 1 of the array is not an event: "),
    ],
)
def test_what_is_posted_and_is_no_event_gets_a_sentence_and_inserts_nothing(
    bench: Bench, api: Api, body: bytes, sentence: str
) -> None:
    code, said = api.ask("POST", "/send", body)
    assert code == 400
    assert said.startswith(sentence)
    bench.network.settle()
    assert bench.hub.owner.records == []


def test_a_plain_get_of_a_link_gets_426_and_a_bad_path_400(api: Api) -> None:
    code, said = api.ask("GET", "/connect/ITB-1/me")
    assert (code, said[:27]) == (426, "This path speaks WebSocket:")
    assert api.ask("GET", "/connect//me")[0] == 426
    code, said = api.ask("GET", "/connect/ITB-1")
    assert (code, said[:34]) == (400, "Connect to /connect/{room}/{id}: t")


def test_status_shows_hub_spool_routes_targets_and_links(bench: Bench, api: Api) -> None:
    visitor = Visitor(bench)
    visitor.send(record("R"))
    bench.from_hub(run("A", "1"))
    bench.network.pass_time(0.2, 0.1)
    code, said = api.ask("GET", "/status")
    status = json.loads(said)
    assert (code, status["bin"], status["statuscode"]) == (200, "ces-repeater", "healthy")
    shown = status["info"]["repeater"]
    assert shown["hub"]["state"] == "up"
    assert (shown["hub"]["address"], shown["hub"]["node"]) == ("ws://hub:7100", "hub-node")
    assert (shown["hub"]["buffer-utilization"], shown["hub"]["buffer-capacity"]) == (0, 8 * 2**20)
    assert shown["routes"] == {"A": ["ws://cp1:7101"]}
    (target,) = shown["targets"]
    assert (target["state"], target["buffer-utilization"]) == ("dialling", len(record("A", "1")))
    (inbound,) = shown["inbound"]
    assert (inbound["id"], inbound["room"], inbound["received"]) == ("visitor", "ITB-1", 1)
    assert shown["received"] == {"hub": 1, "outside": 1, "target": 0}
    visitor.gone()


def test_a_repeater_without_its_hub_is_sick_and_says_why() -> None:
    bench = Bench()
    bench.repeater.start()
    bench.network.dials[0].refuse()
    bench.network.pass_time(0.5)
    status = json.loads(Api(bench).ask("GET", "/status")[1])
    assert status["statuscode"] == "sick"
    assert status["info"]["reason"].startswith(
        "there is no link to the hub at ws://hub:7100: Connection was refused"
    )
    assert Api(bench).ask("GET", "/health") == (200, "ok")
    bench.stop()


def test_metrics_count_what_was_received_inserted_and_dropped(bench: Bench, api: Api) -> None:
    bench.repeater.insert([run("R", "1", "2")])
    bench.network.settle()
    code, said = api.ask("GET", "/metrics")
    assert code == 200
    assert 'ces_repeater_received_records_total{kind="outside"} 2.0' in said
    assert "ces_repeater_inserted_records_total 2.0" in said
    assert "ces_repeater_hub_up 1.0" in said
    assert "ces_repeater_waiting_bytes" in said


def test_the_log_level_changes_while_running(api: Api) -> None:
    assert api.ask("PUT", "/log-level/debug") == (200, "debug")
    assert api.ask("GET", "/log-level") == (200, "debug")
    assert api.ask("PUT", "/log-level/loud")[0] == 400


# -- routes that are read again --------------------------------------------------------------------------


def test_central_repeaters_are_added_for_every_room(tmp_path: Path) -> None:
    file = tmp_path / "routes.toml"
    file.write_text('[routes]\nA = ["x"]\n"*" = ["y"]\n')
    settings = RepeaterSettings(routes=str(file), central_repeater_addresses=("z", "ws://y:7101"))
    assert read_routes(settings) == {"A": ("ws://x:7101",), "*": ("ws://y:7101", "ws://z:7101")}
    assert read_routes(RepeaterSettings(central_repeater_addresses=("z",))) == {"*": ("ws://z:7101",)}
    assert read_routes(RepeaterSettings()) == {}


class Rereading:
    """A routes service on a network in memory; `routes` is what it reads next, or the error that it gets."""

    def __init__(self) -> None:
        self.routes: Routes | RoutesError = {}
        self.used: list[Routes] = []
        self.lines = Lines()
        self.later: list[Any] = []
        log = Logger(namespace="ces.test", observer=self.lines)
        self.service = RoutesFile(self.read, self.used.append, log)
        self.hangup = Hangup([self.service.reload], self)

    def callFromThread(self, what: Any) -> None:
        self.later.append(what)

    def read(self) -> Routes:
        if isinstance(self.routes, RoutesError):
            raise self.routes
        return self.routes


def test_sighup_reads_the_routes_again_in_the_reactors_next_turn() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, frame: seen.append(number))
    try:
        rereading = Rereading()
        rereading.hangup.startService()
        rereading.routes = {"A": ("ws://x:7101",)}
        os.kill(os.getpid(), signal.SIGHUP)
        assert rereading.used == []
        rereading.later.pop()()
        assert rereading.used == [{"A": ("ws://x:7101",)}]
        rereading.hangup.stopService()
        os.kill(os.getpid(), signal.SIGHUP)
        assert seen == [signal.SIGHUP], "the one who had the signal has it again"
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_bad_file_leaves_the_old_routes_and_says_which_line() -> None:
    rereading = Rereading()
    rereading.routes = RoutesError("routes.toml, line 3: 'A': an address is empty")
    rereading.service.reload()
    assert rereading.used == []
    assert rereading.lines == ["the routes stay as they were: routes.toml, line 3: 'A': an address is empty"]


def test_a_bad_file_at_start_ends_the_program_with_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "routes.toml"
    file.write_text("[routes]\nA = 3\n")
    with pytest.raises(SystemExit) as caught:
        make_repeater_service(RepeaterSettings(routes=str(file)), Network(), LogLevels())
    assert str(caught.value).startswith(f"ces-repeater: {file}, line 2: 'A': expected a list of targets")


def test_what_waits_for_a_target_and_for_the_hub_have_bounds_of_their_own() -> None:
    bench = Bench({"A": ("ws://target",)}, target_buffer=2**20, link_buffer=2**17, spool_bytes=2**21)
    assert bench.target("ws://target:7101")["buffer-capacity"] == 2**20
    assert bench.repeater.hub.status()["buffer-capacity"] == 2**21
