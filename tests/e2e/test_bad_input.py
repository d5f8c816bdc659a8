"""Bad input on a real hub and a real repeater: one clear sentence each, and it costs nobody else anything.

The processes live as long as this module. After each test a bystander sends itself an event, and at the end
neither log may hold a traceback.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from tests.support.fleet import PATIENCE, Peer, Role, event, free_port, until
from tests.support.links import UPGRADE, frame, record

NODE = "the-hub"
LIMIT = 1024 * 1024


class Fleet:
    """A hub, a repeater, and a messenger that minds its own business."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.routes = folder / "routes.toml"
        self.routes.write_text("[routes]\n")
        self.hub = Role(folder, "ces-hub", free_port(), "--node-id", NODE).start()
        options = ("--hub", f"localhost:{self.hub.port}", "--routes", str(self.routes))
        self.repeater = Role(folder, "ces-repeater", free_port(), *options).start()
        self.roles = {"hub": self.hub, "repeater": self.repeater}
        self.reader, self.writer = (Peer(self.hub.port, "/connect/messenger") for _ in range(2))
        self.reader.subscribe("BYSTANDER")
        until(lambda: "BYSTANDER" in self.nexus()["messenger-mapping"], "the bystander is there")
        until(lambda: self.linked(), "the repeater is there")
        self.number = 0

    def nexus(self) -> dict:
        return self.hub.info()["nexus"]

    def linked(self) -> bool:
        return len(self.nexus()["repeaters"]) == 1

    def undisturbed(self) -> None:
        """The bystander's event arrives, the repeater has its link, and both answer."""
        self.number += 1
        self.writer.send("BYSTANDER", event(self.number))
        assert next(self.reader.records(PATIENCE)) == ("BYSTANDER", event(self.number))
        assert self.linked()
        assert json.loads(self.repeater.get("/status")[1])["statuscode"] == "healthy"

    def end(self) -> None:
        self.reader.close()
        self.writer.close()
        for role in (self.repeater, self.hub):
            role.stop()
            assert "Traceback" not in role.logged(), role.logged()
            assert "Unhandled" not in role.logged(), role.logged()


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("fleet"))
    yield fleet
    fleet.end()


@pytest.fixture
def fleet(running: Fleet) -> Iterator[Fleet]:
    yield running
    running.undisturbed()


class Raw:
    """A TCP connection on which a test says exactly what it wants."""

    def __init__(self, port: int, data: bytes = b"") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._unread = b""
        if data:
            self.socket.sendall(data)

    def upgrade(self, path: str, dialect: str = "ces.1") -> Raw:
        """Become a WebSocket link, in ces.2 without a hello."""
        offer = b"Sec-WebSocket-Protocol: ces.2\r\n" if dialect == "ces.2" else b""
        self.socket.sendall((UPGRADE % offer).replace(b"/connect/messenger", path.encode(), 1))
        head = self._until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head
        return self

    def answer(self) -> tuple[int, dict[str, str], str]:
        """Status, headers and body of an HTTP answer."""
        status, *lines = self._until(b"\r\n\r\n").decode().removesuffix("\r\n\r\n").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return int(status.split()[1]), headers, self._exactly(int(headers["content-length"])).decode()

    def closed_with(self) -> tuple[int, str]:
        """Code and reason of the close frame, past whatever comes before it."""
        while True:
            first, length = self._exactly(2)
            if length > 125:
                length = int.from_bytes(self._exactly(2 if length == 126 else 8), "big")
            payload = self._exactly(length)
            if first == 0x88:
                return int.from_bytes(payload[:2], "big"), payload[2:].decode()

    def _until(self, end: bytes) -> bytes:
        while end not in self._unread:
            self._more()
        at = self._unread.index(end) + len(end)
        return self._exactly(at)

    def _exactly(self, size: int) -> bytes:
        while len(self._unread) < size:
            self._more()
        taken, self._unread = self._unread[:size], self._unread[size:]
        return taken

    def _more(self) -> None:
        data = self.socket.recv(65536)
        assert data, f"the connection was closed after {self._unread!r}"
        self._unread += data


@pytest.fixture
def raw() -> Iterator:
    """Makes connections that end with the test: ``raw(port, data)``."""
    with contextlib.ExitStack() as stack:

        def connect(port: int, data: bytes = b"") -> Raw:
            made = Raw(port, data)
            stack.enter_context(made.socket)
            return made

        yield connect


# -- HTTP ----------------------------------------------------------------------------------------------------


def upgrade(path: str = "/connect/messenger", old: bytes = b"", new: bytes = b"") -> bytes:
    """An upgrade request in which `old` stands as `new`."""
    request = (UPGRADE % b"").replace(b"/connect/messenger", path.encode(), 1)
    assert old in request
    return request.replace(old, new, 1)


def get(path: str, method: str = "GET", body: bytes = b"") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def chunked(path: str, *chunks: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


@pytest.mark.parametrize(
    ("role", "request_", "code", "sentence"),
    [
        ("hub", get("/connect/hub"), 426, "This path speaks WebSocket: connect with a WebSocket client"),
        ("repeater", get("/connect/ITB-1108/x"), 426, "This path speaks WebSocket"),
        ("hub", get("/connect"), 400, "There is no link of kind ''"),
        ("hub", upgrade("/connect/toaster"), 400, "There is no link of kind 'toaster': connect to /connect/"),
        ("hub", upgrade("/connect/hub/x"), 400, "There is no link of kind 'hub/x'"),
        ("hub", upgrade("/connect/hub;x"), 400, "There is no link of kind 'hub;x'"),
        ("hub", get("/connect/hub", "POST"), 405, "/connect/hub does not take POST; it takes GET, HEAD."),
        ("repeater", get("/connect"), 400, "Connect to /connect/{room}/{id}"),
        ("repeater", upgrade("/connect/hub"), 400, "Connect to /connect/{room}/{id}"),
        ("repeater", upgrade("/connect/*/x"), 400, "the room is '*', which is for subscriptions only."),
        ("repeater", upgrade("/connect/%7B/x"), 400, "the room begins with '{'"),
        ("repeater", upgrade("/connect/%00/x"), 400, "the room holds a control character."),
        ("repeater", upgrade(f"/connect/{'R' * 256}/x"), 400, "256 bytes long; 255 are allowed."),
        ("repeater", upgrade("/connect/%FF/x"), 400, "path is not UTF-8."),
        ("hub", upgrade(old=b"Sec-WebSocket-Key", new=b"Key"), 400, "Sec-WebSocket-Key header missing."),
        ("hub", upgrade(old=b"==", new=b""), 400, "bad Sec-WebSocket-Key"),
        ("hub", upgrade(old=b"Version: 13", new=b"Version: 12"), 426, "speaks version 13 of WebSocket"),
        ("hub", upgrade(old=b"Version: 13", new=b"Version: " + b"9" * 5000), 426, "speaks version 13"),
        ("hub", upgrade(old=b"HTTP/1.1", new=b"HTTP/1.0"), 426, "HTTP/1.0 has no WebSocket"),
        ("hub", upgrade(old=b"\r\n\r\n", new=b"\r\nContent-Length: 1\r\n\r\nx"), 400, "has no body."),
        (
            "repeater",
            upgrade("/connect/R/x", old=b"Host: ", new=b"Host: a\r\nHost: "),
            400,
            "more than one Host",
        ),
        ("repeater", get("http://x/connect/R/x"), 426, "This path speaks WebSocket"),
        ("hub", upgrade(old=b"Connection: Upgrade\r\n"), 400, "HTTP Connection header missing."),
        ("hub", upgrade(old=b"Host: hub:7100", new=b"Host: hub:x"), 400, "Host header 'hub:x' is not valid."),
        (
            "hub",
            upgrade(old=b"\r\n\r\n", new=b"\r\nOrigin: http://[\r\n\r\n"),
            403,
            "Web pages from 'http://['",
        ),
        ("hub", upgrade("/connect/hub#x"), 400, "no link of kind 'hub#x'"),
        ("hub", get("/nowhere"), 404, "There is nothing at /nowhere."),
        ("hub", get("/event"), 405, "/event does not take GET; it takes POST."),
        ("hub", get("/log-level/loud", "PUT"), 400, "there is no log level 'loud'; expected one of debug,"),
        ("repeater", get("/log-level/%00", "PUT"), 400, r"there is no log level '\x00'"),
        ("hub", get("/interconnect/x", "dElEtE"), 501, "There is no method 'dElEtE'."),
        ("repeater", get("/send", "POsT"), 501, "There is no method 'POsT'."),
        ("hub", get("/interconnect/node/x", "DELETE"), 404, "There is no link to a hub with the node 'x'."),
        ("hub", get("/interconnect/address/x", "DELETE"), 404, "There is no link to the address 'x'."),
        ("repeater", get("/send", "PUT"), 405, "/send does not take PUT; it takes POST."),
    ],
)
def test_a_bad_request_is_answered_with_one_sentence(fleet, raw, role, request_, code, sentence):
    status, headers, said = raw(fleet.roles[role].port, request_).answer()
    assert (status, headers["content-type"]) == (code, "text/plain; charset=utf-8")
    assert sentence in said
    assert "\n" not in said and len(said) < 300
    if code == 426:
        assert (headers["upgrade"], headers["connection"].split(", ")[-1]) == ("websocket", "upgrade")


@pytest.mark.parametrize(("role", "path"), [("hub", "/event"), ("repeater", "/send")])
@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "The body is not JSON: "),
        (b"{", "The body is not JSON: "),
        (b"\xff", "The body is not JSON: "),
        (b"[" * LIMIT, "The body is not JSON: "),
        (b'{"a":' * 100_000, "The body is not JSON: "),
        (b'"an event"', "The body is not an event: Expected `object`, got `str`."),
        (b'[{"a":1},{},3]', "Item 3 of the array is not an event: Expected `object`, got `int`."),
        (b'[{},{"affected-room":{"roomID":"*"}}]', "Item 2 of the array is not an event: the room is '*'"),
        (b"[%b]" % b",".join([b"{}"] * 2_000_000), "The array holds more than 10000 events"),
        (b'{"a":"%b"}' % (b"x" * LIMIT), f"at most {LIMIT} may be sent."),
    ],
    ids=range(10),
)
def test_a_body_that_holds_no_events_is_refused_whole(fleet, raw, role, path, body, sentence):
    port = fleet.roles[role].port
    before = fleet.nexus()["messengers"], fleet.repeater.info()["repeater"]["hub"]["sent"]
    code, said = fleet.roles[role].request("POST", path, body)
    assert (code, said.endswith("."), "\n" in said) == (400, True, False)
    assert sentence in said
    assert raw(port, chunked(path, body[:1000], body[1000:] or b" ")).answer()[::2] == (code, said)
    assert (fleet.nexus()["messengers"], fleet.repeater.info()["repeater"]["hub"]["sent"]) == before


@pytest.mark.parametrize(("role", "path"), [("hub", "/event"), ("repeater", "/send")])
def test_a_body_that_is_too_large_is_refused_before_it_has_come(fleet, raw, role, path):
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n".encode()
    code, _, said = raw(fleet.roles[role].port, head).answer()
    assert (code, said) == (413, "The body is larger than 8388608 bytes, which is the limit.")


@pytest.mark.parametrize(
    ("address", "code", "sentence"),
    [
        ("%20", 400, "an address is empty; expected host, host:port or a URL"),
        ("ftp%3A%2F%2Fhub", 400, "has the scheme 'ftp'; expected ws or wss."),
        ("hub:99999", 400, "cannot be read: Port out of range 0-65535."),
        ("hub:0", 400, "has the port 0; expected 1 to 65535."),
        ("-hub", 400, "names no host"),
        ("hub..example", 400, "names no host"),
        ("x" * 64, 400, "names no host"),
        ("a%00b", 400, "names no host"),
        ("[fe80::1%25eth9]", 400, "names no host"),
        ("wss://event_hub", 400, "names a host that no certificate can"),
        ("user:secret@hub", 400, "may hold a scheme, a host, a port and a path, nothing else."),
        ("127.0.0.1:REPEATER", 502, "WebSocket connection upgrade failed [400]: Bad Request."),
        ("127.0.0.1:HUB", 409, "is this hub itself."),
    ],
)
def test_an_address_where_no_hub_can_be_is_refused_and_not_kept(fleet, address, code, sentence):
    address = address.replace("REPEATER", str(fleet.repeater.port)).replace("HUB", str(fleet.hub.port))
    status, said = fleet.hub.request("POST", f"/interconnect/{address}")
    assert (status, said.endswith(".")) == (code, True)
    assert sentence in said
    assert fleet.hub.get("/interconnect") == (200, "[]\n")


def test_a_client_that_does_not_wait_for_its_interconnection_leaves_none_behind(fleet, raw):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        asking = raw(fleet.hub.port, get(f"/interconnect/127.0.0.1:{silent.getsockname()[1]}", "POST"))
        silent.settimeout(PATIENCE)
        dialled, _ = silent.accept()
        with dialled:
            assert "dialling" in fleet.hub.get("/interconnect")[1]
            asking.socket.close()
            until(lambda: fleet.hub.get("/interconnect")[1] == "[]\n", "it is forgotten")


# -- WebSocket -----------------------------------------------------------------------------------------------

PATHS = {
    "messenger": ("hub", "/connect/messenger"),
    "repeater": ("hub", "/connect/repeater"),
    "hub": ("hub", "/connect/hub"),
    "outside": ("repeater", "/connect/ITB-1108/x"),
}
KINDS = pytest.mark.parametrize("kind", PATHS)


@pytest.fixture
def link(fleet, raw):
    """Opens links: ``link(kind, dialect)``."""

    def open_(kind: str, dialect: str = "ces.1") -> Raw:
        role, path = PATHS[kind]
        return raw(fleet.roles[role].port).upgrade(path, dialect)

    return open_


@KINDS
@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        (frame(2, b"R\n{}", masked=False), 1002, "unmasked client-to-server frame"),
        (frame(3, b""), 1002, "reserved opcode 3"),
        (frame(11, b""), 1002, "reserved opcode 11"),
        (frame(2, b"R\n{}", rsv=4), 1002, "RSV = 4"),
        (frame(0, b"R\n{}"), 1002, "outside fragmented message"),
        (frame(2, b"R", fin=False) + frame(2, b"\n{}"), 1002, "while inside fragmented message"),
        (frame(9, b"", fin=False), 1002, "fragmented control frame"),
        (frame(9, b"x" * 126), 1002, "payload length > 125"),
        (b"\x82\xfe\x00\x01" + bytes(5), 1002, "minimal length"),
        (b"\x82\xff" + b"\xff" * 8 + bytes(4), 1002, "invalid data frame length"),
        (b"\x82\xff" + (LIMIT + 1).to_bytes(8, "big") + bytes(4), 1009, f"limit of {LIMIT}"),
        (frame(2, b"x" * LIMIT, fin=False) + frame(0, b"x"), 1009, f"limit of {LIMIT}"),
        (frame(1, b"\xff"), 1007, "UTF-8"),
    ],
    ids=range(13),
)
def test_a_frame_that_breaks_the_rules_closes_its_link_and_says_why(link, kind, data, code, reason):
    hostile = link(kind)
    hostile.socket.sendall(data)
    closed, said = hostile.closed_with()
    assert closed == code
    assert reason in said


@KINDS
@pytest.mark.parametrize("payload", [b"x", b"\x00\x00", b"\x03\xed", b"\xff\xffbye", b"\x03\xe8\xff"])
def test_a_close_that_breaks_the_rules_is_a_close(fleet, link, kind, payload):
    hostile = link(kind)
    peer = "{}:{}".format(*hostile.socket.getsockname())
    hostile.socket.sendall(frame(8, payload))
    hostile.closed_with()
    assert hostile.socket.recv(1) == b"", "it ends the stream"
    hostile.socket.close()
    role, _ = PATHS[kind]
    until(lambda: peer not in fleet.roles[role].get("/status")[1], "the link has gone")


def hello(node: str = "peer", **more: object) -> str:
    return json.dumps({"hello": {"node": node, "session": None, "received": 0} | more})


@KINDS
@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([b"R\n{}\n"], "a record came before the hello"),
        (['{"rooms":["R"],"create":true}'], "the first message was not a hello"),
        (["{"], "the first message was not a hello: the text message cannot be read"),
        (['{"hello":' * 10_000], "the first message was not a hello: the text message cannot be read"),
        ([hello("")], "the node of a hello is 1 to 128 printable ASCII characters without spaces"),
        ([hello("x" * 129)], "the node of a hello is 1 to 128 printable"),
        ([hello("two words")], "the node of a hello is 1 to 128 printable"),
        ([hello(received=-1)], "Expected `int` >= 0 - at `$.hello.received`"),
        ([hello(session=5)], "Expected `str | null`, got `int` - at `$.hello.session`"),
        ([hello(), hello()], "a second hello"),
    ],
    ids=range(10),
)
def test_a_bad_hello_closes_its_link_with_4400_and_says_why(link, kind, messages, reason):
    hostile = link(kind, "ces.2")
    for message in messages:
        hostile.socket.sendall(frame(1, message.encode()) if isinstance(message, str) else frame(2, message))
    code, said = hostile.closed_with()
    assert code == 4400
    assert reason in said


def test_a_hub_that_bears_this_hubs_name_is_refused_with_4409(link):
    imposter = link("hub", "ces.2")
    imposter.socket.sendall(frame(1, hello(NODE).encode()))
    code, said = imposter.closed_with()
    assert (code, "it would talk to itself" in said) == (4409, True)


@pytest.mark.parametrize("kind", ["messenger", "outside"])
@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "the message ends in the middle of a record"),
        (b"no line feed", "the message ends in the middle of a record"),
        (b"R\n{}", "the message ends in the middle of a record"),
        (b"R\n[]\n", "the event does not begin with '{'"),
        (b"*\n{}\n", "the room is '*', which is for subscriptions only"),
        (b"R" * 256 + b"\n{}\n", "the room is 256 bytes long; 255 are allowed"),
        (b"R\x00\n{}\n", "the room holds a control character"),
        (b"R\x7f\n{}\n", "the room holds a control character"),
        (b"\xff\n{}\n", "the room is not UTF-8"),
        ("{", "the text message cannot be read: "),
        ("[]", "the text message cannot be read: Expected `object`, got `array`"),
        ('{"rooms":"R"}', "the text message cannot be read: Expected `array | null`, got `str`"),
        (
            '{"rooms":["\\u0000"],"create":true}',
            "cannot be subscribed to: the room holds a control character",
        ),
        ('{"rooms":["\\ud800"],"create":true}', "the text message cannot be read: "),
        ('{"ack":-1}', "the text message cannot be read: Expected `int` >= 0"),
        ('{"gap":{}}', "the text message cannot be read: Object missing required field `lost`"),
    ],
    ids=range(16),
)
def test_the_sender_of_a_bad_message_is_told_why_and_stays(fleet, kind, message, reason):
    role, path = PATHS[kind]
    peer = Peer(fleet.roles[role].port, path, "ces.2")
    peer.socket.send(message)
    told = json.loads(peer.socket.recv(PATIENCE))["error"]
    assert told["code"] == 4400
    assert reason in told["reason"]
    peer.socket.send(record("BYSTANDER", "good"))
    assert next(fleet.reader.records(PATIENCE)) == ("BYSTANDER", b'{"key":"good"}')
    peer.close()


@pytest.mark.parametrize("kind", PATHS)
def test_who_acknowledges_what_was_never_sent_is_closed_with_4400(fleet, kind):
    role, path = PATHS[kind]
    peer = Peer(fleet.roles[role].port, path, "ces.2")
    peer.socket.send('{"ack":1}')
    with pytest.raises(ConnectionClosed):
        while True:  # a hub is told what is wanted first
            peer.socket.recv(PATIENCE)
    assert (peer.socket.close_code, "out of step" in peer.socket.close_reason) == (4400, True)


def test_a_bare_event_whose_room_cannot_be_is_told_to_its_sender(fleet):
    peer = Peer(fleet.repeater.port, "/connect/ITB-1108/x", "ces.2")
    peer.socket.send(b'{"affected-room":{"roomID":"*"}}')
    told = json.loads(peer.socket.recv(PATIENCE))["error"]["reason"]
    assert told.startswith("the event cannot be tagged with its room: the room is '*'")
    peer.close()


@pytest.mark.parametrize(
    ("name", "shown"),
    [("x;y=1", "x;y=1"), (";", ";"), ("a%2Fb", "a/b"), ("%25", "%"), ("%C3%A9", "é"), ("x?y=1", "x")],
)
def test_a_link_may_bear_an_odd_name(fleet, raw, name, shown):
    odd = raw(fleet.repeater.port).upgrade(f"/connect/ITB-1108/{name}")
    odd.socket.sendall(frame(2, b'{"affected-room":{"roomID":"BYSTANDER"}}'))
    assert next(fleet.reader.records(PATIENCE))[0] == "BYSTANDER"
    assert [one["id"] for one in fleet.repeater.info()["repeater"]["inbound"]] == [shown]
    odd.socket.close()
    until(lambda: not fleet.repeater.info()["repeater"]["inbound"], "it has left")


@pytest.mark.parametrize("kind", ["messenger", "outside"])
def test_a_record_that_would_grow_above_the_limit_closes_no_link(fleet, link, kind):
    """It fits as it came; with the LF or the room that it lacks it would be too large for everyone else."""
    bare = b'{"affected-room":{"roomID":"BYSTANDER"},"x":"%b"}'
    form = bare if kind == "outside" else b'BYSTANDER\n{"x":"%b"}'
    message = form % (b"x" * (LIMIT - len(form) + 2))
    assert len(message) == LIMIT
    hostile = link(kind)
    hostile.socket.sendall(frame(2, message) + frame(2, b"BYSTANDER\n{}"))
    assert next(fleet.reader.records(PATIENCE)) == ("BYSTANDER", b"{}")


# -- what a command line, a file or a signal may bring -------------------------------------------------------


def fault(*command: str, env: dict[str, str] | None = None) -> str:
    """What ``twistd`` says before it exits with status 1."""
    role = Role(Path(), command[0], 0, *command[1:], env=env)
    ran = subprocess.run(
        role.command("-n", "--pidfile=", "--logfile=/dev/null"), env=role.env, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    return ran.stderr


@pytest.mark.parametrize(
    ("command", "env", "sentence"),
    [
        (("ces-hub", "--node-id", "two words"), {}, "option --node-id: expected 1 to 128 printable ASCII"),
        (("ces-hub",), {"CES_HUB_PING_INTERVAL": "soon"}, "environment variable CES_HUB_PING_INTERVAL: "),
        (
            ("ces-repeater",),
            {"HUB_ADDRESS": "ftp://x"},
            "environment variable HUB_ADDRESS: address 'ftp://x'",
        ),
        (("ces-repeater", "--config", "TOML"), {}, "bad.toml, line 2: hub: address 'wss://a_b' names a host"),
        (("ces-repeater", "--routes", "TOML"), {}, "bad.toml, line 2: 'hub': there is no such table"),
    ],
)
def test_a_role_that_cannot_start_says_why_in_one_line(fleet, command, env, sentence):
    file = fleet.folder / "bad.toml"
    file.write_text('# what is here is for one file alone\nhub = "wss://a_b"\n')
    said = fault(*[one.replace("TOML", str(file)) for one in command], env=env)
    assert said.startswith(f"{command[0]}: ")
    assert sentence in said
    assert said.count("\n") == 1


def test_routes_that_are_bad_when_they_are_read_again_are_named_and_not_used(fleet):
    fleet.routes.write_text('[routes]\n"ITB-*" = ["gopher://x"]\n')
    fleet.repeater.process.send_signal(signal.SIGHUP)
    until(lambda: "the routes stay as they were" in fleet.repeater.logged(), "it says so")
    [line] = [one for one in fleet.repeater.logged().splitlines() if "the routes stay" in one]
    assert "routes.toml, line 2: 'ITB-*': address 'gopher://x' has the scheme 'gopher'" in line
    assert fleet.repeater.info()["repeater"]["routes"] == {}


# -- what a hub that is dialled may answer -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "the connection ended during the opening handshake"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "WebSocket connection upgrade failed [200]: OK."),
        (b"HTTP/1.1 abc\r\n\r\n", 'Bad HTTP status code "abc".'),
        (b"\xff\xfe\r\n\r\n", "the answer to the handshake is not UTF-8."),
        (b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n", "HTTP Connection header missing."),
        (b"HTTP/1.1 101 x\r\n" + b"X: y\r\n" * 10_000, "an opening handshake of more than 16384 bytes."),
    ],
    ids=range(6),
)
def test_what_answers_but_is_no_hub_is_said_to_be_none(fleet, answer, reason):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.recv(4096)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        code, said = fleet.hub.request("POST", f"/interconnect/{address}")
        server.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE)
    assert code == 502
    assert said.startswith(f"No hub could be reached at ws://{address}: ")
    assert reason in said
    assert fleet.hub.get("/interconnect") == (200, "[]\n")
