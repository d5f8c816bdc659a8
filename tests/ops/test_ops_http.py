"""What the HTTP sides of hub and repeater share, byte for byte, without sockets."""

from __future__ import annotations

import json

import pytest
from klein import Klein
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

import ces
from ces.config.link import LinkSettings
from ces.ops.answers import text
from ces.ops.http import make_site
from tests.support.asking import Connection, Narrow


@pytest.fixture
def connection() -> Connection:
    return Connection()


def test_status_is_the_envelope_with_the_uptime_since_the_routes_were_added(connection):
    connection.clock.advance(3723)
    connection.connect()
    got = connection.ask("GET", "/status")
    assert (got.code, got.headers["content-type"]) == (200, "application/json")
    assert json.loads(got.body) == {
        "bin": "ces-test",
        "statuscode": "healthy",
        "version": ces.__version__,
        "uptime": "1h2m3s",
        "info": {"nexus": 1},
    }
    connection.sick = "no port could be opened"
    assert json.loads(connection.ask("GET", "/status").body)["statuscode"] == "sick"


def test_health_is_a_plain_ok(connection):
    got = connection.ask("GET", "/health")
    assert (got.code, got.body, got.headers["content-type"]) == (200, b"ok", "text/plain; charset=utf-8")


def test_livez_is_answered_when_too_many_requests_are_being_answered():
    busy = Connection(http_connections=2)
    crowd = []
    for _ in range(2):
        assert busy.feed(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n") == b""
        crowd.append(busy.channel)
        busy.connect()
    got = busy.ask("GET", "/health")
    assert (got.code, got.headers["retry-after"]) == (503, "1")
    assert got.sentence == "There are 2 HTTP requests that are being answered, which is the limit."
    assert busy.refused == ["2 HTTP requests are answered already, which is the limit"]
    assert busy.feed(b"HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n").endswith(b"\r\n\r\n")
    assert busy.ask("GET", "/livez")[::2] == (200, b"ok")
    assert busy.ask("POST", "/livez").code == 405
    crowd[0].connectionLost(Failure(ConnectionDone()))
    assert busy.ask("GET", "/health").code == 200
    assert busy.ask("POST", "/livez").code == 405


def test_who_does_not_read_an_answer_may_be_evicted_and_who_reads_on_is_answered(narrow):
    narrow.site.body_limit = 100_000
    narrow.site.entrance.limit = 1
    narrow.channel.dataReceived(2 * BIG)
    slow = narrow.transport
    assert not narrow.site.entrance.busy
    narrow.connect()
    assert narrow.feed(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n") == b""
    assert narrow.site.entrance.make_room(9, "it is full") == 2, "and one that has asked nothing"
    assert slow.disconnecting and not narrow.transport.disconnecting
    narrow.slow.callback(b"read")
    assert narrow.site.entrance.make_room(9, "it is full") == 1


def test_the_log_level_is_read_and_changed_while_running(connection):
    assert connection.ask("GET", "/log-level").sentence == "info"
    assert connection.ask("PUT", "/log-level/debug").code == 200
    assert connection.ask("GET", "/log-level").sentence == connection.levels.level == "debug"
    assert connection.ask("PUT", "/log-level/WARN").sentence == "warn"


def test_an_unknown_log_level_is_refused_with_a_sentence(connection):
    got = connection.ask("PUT", "/log-level/loud")
    assert got.code == 400
    assert got.sentence == "there is no log level 'loud'; expected one of debug, info, warn, error, critical."
    assert connection.levels.level == "info"


def test_metrics_are_what_prometheus_reads(connection):
    got = connection.ask("GET", "/metrics")
    assert got.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert b"\nces_test_total 3.0\n" in got.body


def test_an_unknown_path_is_one_sentence(connection):
    got = connection.ask("GET", "/nowhere?x=1")
    assert (got.code, got.sentence) == (404, "There is nothing at /nowhere.")
    assert got.headers["content-type"] == "text/plain; charset=utf-8"


def test_a_method_that_a_path_does_not_take_is_one_sentence(connection):
    got = connection.ask("DELETE", "/status")
    assert (got.code, got.sentence) == (405, "/status does not take DELETE; it takes GET, HEAD.")
    assert got.headers["allow"] == "get, head"


@pytest.mark.parametrize("method", ["pUT", "put", "Put", "hEAD", "FOO"])
def test_a_method_is_written_exactly(connection, method):
    """A proxy that lets no PUT through lets `pUT` through."""
    got = connection.ask(method, "/log-level/debug")
    assert (got.code, got.sentence) == (501, f"There is no method {method!r}.")
    assert connection.levels.level == "info"


def test_an_exception_is_logged_and_answered_with_one_sentence(connection, logged_failures):
    got = connection.ask("GET", "/fails")
    assert (got.code, got.sentence) == (
        500,
        "Internal error: the log has the details.",
    )
    assert len(logged_failures.flush(ZeroDivisionError)) == 1


def test_a_client_that_leaves_while_it_waits_is_no_failure(connection):
    assert connection.feed(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n") == b""
    connection.channel.connectionLost(Failure(ConnectionDone()))
    assert connection.slow.called


def test_answers_name_the_server_and_their_length_and_head_has_no_body(connection):
    got = connection.ask("GET", "/json")
    assert (got.code, got.body) == (202, b'{\n  "a": 1\n}\n')
    assert (got.headers["server"], got.headers["content-length"]) == ("ces", "13")
    assert connection.ask("HEAD", "/health").body == b""


def test_a_sentence_with_a_lone_surrogate_is_still_an_answer():
    connection = Connection()
    app = Klein()
    app.route("/")(lambda request: text(request, 200, "\ud800"))
    connection.site.resource = app.resource()
    assert connection.ask("GET", "/").sentence == r"\ud800"


def test_a_posted_form_is_left_as_it_is(connection):
    form = "Content-Type: application/x-www-form-urlencoded\r\n"
    assert connection.ask("POST", "/echo", b'{"a":"b&c=d"}', form).body == b'{"a":"b&c=d"}'
    assert connection.ask("POST", "/form", b"a=1&b=2", form).body == b"0\n"


def test_a_body_as_large_as_the_limit_is_taken(connection):
    assert connection.ask("POST", "/echo", b"x" * 1000).body == b"x" * 1000
    chunked = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n%b\r\n0\r\n\r\n"
    assert connection.send(chunked % (b"y" * 1000)).body == b"y" * 1000


TOO_LARGE = "The body is larger than 1000 bytes, which is the limit."


def test_a_content_length_above_the_limit_is_answered_before_the_body_comes(connection):
    got = connection.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n")
    assert (got.code, got.sentence, got.headers["connection"]) == (413, TOO_LARGE, "close")
    assert not connection.transport.disconnecting, "a close now would take the answer with it"
    assert connection.feed(b"x" * 1001) == b""
    assert connection.transport.disconnecting


def test_a_client_that_asks_whether_to_continue_is_told_no_alone(connection):
    got = connection.send(
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n"
    )
    assert got.code == 413
    assert b"100 Continue" not in connection.transport.value()


def test_a_chunked_body_that_grows_above_the_limit_is_answered_at_that_point(connection):
    assert connection.feed(b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n") == b""
    got = connection.send(b"3e9\r\n" + b"x" * 1001 + b"\r\n")
    assert (got.code, got.sentence) == (413, TOO_LARGE)
    connection.feed(b"0\r\n\r\n")
    assert connection.transport.disconnecting


def test_a_body_without_an_end_is_cut_off(connection):
    connection.feed(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
    connection.feed(b"x" * 2000)
    assert not connection.transport.disconnecting
    connection.feed(b"x")
    assert connection.transport.disconnecting


@pytest.mark.parametrize("digits", [19, 30, 5000])
def test_a_content_length_of_any_number_of_digits_is_only_too_large(connection, digits):
    got = connection.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %b\r\n\r\n" % (b"9" * digits))
    assert (got.code, got.sentence) == (413, TOO_LARGE)


def test_nothing_after_a_body_that_was_refused_is_answered(connection):
    connection.feed(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n")
    assert connection.feed(b"x" * 1001 + b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n") == b""


@pytest.mark.parametrize("host", [b"hub", b"10.0.0.5:7100", b"[::1]:7100", b"a..b", b"x" * 300, b""])
def test_whichever_host_is_asked_the_answer_is_the_same(connection, host):
    assert connection.send(b"GET /health HTTP/1.1\r\nHost: %b\r\n\r\n" % host).body == b"ok"


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (b"", "The request has no Host header."),
        (b"Host: x\r\nHost: x\r\n", "The request has more than one Host header."),
        (b"Host: x\r\nhost: y\r\n", "The request has more than one Host header."),
        (b"Host: \xff\r\n", "The Host header 'ÿ' is not valid."),
        (b"Host: [\r\n", "The Host header '[' is not valid."),
        (b"Host: a b\r\n", "The Host header 'a b' is not valid."),
        (b"Host: hub:x\r\n", "The Host header 'hub:x' is not valid."),
        (b"Host: user@hub\r\n", "The Host header 'user@hub' is not valid."),
    ],
)
@pytest.mark.parametrize("target", [b"/health", b"/nowhere", b"http://hub/health"])
def test_a_request_names_one_valid_host(connection, target, lines, sentence):
    """RFC 9112 section 3.2."""
    got = connection.send(b"GET %b HTTP/1.1\r\n%b\r\n" % (target, lines))
    assert (got.code, got.sentence) == (400, sentence)


def test_a_request_of_http_1_0_needs_no_host(connection):
    assert connection.send(b"GET /health HTTP/1.0\r\n\r\n").body == b"ok"


@pytest.mark.parametrize(
    "target", ["http://hub:7100/log-level", "HTTPS://Hub/log-level?x=1", "http://[::1]/log-level"]
)
def test_a_target_may_be_absolute(connection, target):
    """RFC 9112 section 3.2.2."""
    assert connection.ask("GET", target).sentence == "info"
    assert connection.ask("PUT", target.partition("?")[0] + "/debug").sentence == "debug"


@pytest.mark.parametrize("rest", ["", "?x=1"])
def test_an_absolute_target_without_a_path_is_the_root(connection, rest):
    assert connection.ask("GET", "http://hub" + rest).sentence == "There is nothing at /."


@pytest.mark.parametrize("host", ["", "user@hub", "hub:x", "["])
def test_an_absolute_target_names_a_valid_host(connection, host):
    got = connection.ask("GET", f"http://{host}/health")
    assert (got.code, got.sentence) == (400, "The target of the request names no valid host.")


def test_the_host_of_an_absolute_target_counts_and_not_the_header(connection):
    got = connection.ask("POST", "http://hub:7100/echo", b"", "Origin: http://test\r\n")
    assert got.code == 403
    got = connection.ask("POST", "http://localhost:7100/echo", b"", "Origin: http://localhost:7100\r\n")
    assert got.code == 200


def test_a_head_that_is_too_large_is_answered_with_431(connection):
    for more in (f"X: {'y' * 16_384}\r\n", f"X: {'y' * 200}\r\n" * 100, f"X: {'y' * 100_000}\r\n"):
        connection.connect()
        got = connection.ask("GET", "/health", headers=more)
        assert (got.code, got.headers["connection"]) == (431, "close")
        assert got.sentence == "The head of the request is larger than 16384 bytes, which is the limit."


def test_too_many_headers_are_answered_with_431(connection):
    got = connection.ask("GET", "/health", headers="X: y\r\n" * 500)
    assert (got.code, got.sentence) == (431, "The head of the request has more than 500 headers.")
    connection.connect()
    assert connection.ask("GET", "/health", headers="X: y\r\n" * 499).code == 200
    assert connection.ask("GET", "/health", headers="X: y\r\n" * 499).code == 200


@pytest.mark.parametrize("size", [16_384, 20_000, 100_000])
@pytest.mark.parametrize("end", [b" HTTP/1.1\r\nHost: x\r\n\r\n", b""])
def test_a_target_that_is_too_long_is_answered_with_414(connection, size, end):
    got = connection.send(b"GET /" + b"x" * size + end)
    assert (got.code, got.headers["connection"]) == (414, "close")
    assert got.sentence == "The target of the request is longer than a head may be, 16384 bytes."


@pytest.mark.parametrize("limit", [2**14, 2**16])
def test_one_line_may_fill_the_head(limit):
    connection = Connection(header_limit=limit)
    assert connection.ask("GET", "/health", headers=f"X: {'y' * (limit - 100)}\r\n").code == 200
    got = connection.ask("GET", "/health", headers=f"X: {'y' * limit}\r\n")
    assert (got.code, str(limit) in got.sentence) == (431, True)


@pytest.mark.parametrize(
    "data",
    [
        b"x" * 20_000,
        b"\x16\x03\x01" + bytes(200) + b"\r\n",
        b"GET / HTTP/9.9\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_request_is_told_so_with_one_sentence_and_nothing_behind_it_is_read(connection, data):
    got = connection.send(data)
    assert (got.code, got.sentence) == (400, "This is no request of HTTP/1.1 (RFC 9112).")
    assert (got.headers["content-type"], got.headers["connection"]) == ("text/plain; charset=utf-8", "close")
    assert connection.feed(b"\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n") == b""


def test_an_answer_that_ends_a_connection_can_be_read_before_it_closes(connection):
    """To close a connection with unread data destroys the answer."""
    connection.feed(b"x" * 20_000)
    connection.feed(b"x" * 20_000)
    connection.clock.advance(0.9)
    assert not connection.transport.disconnecting
    connection.clock.advance(0.2)
    assert connection.transport.disconnecting
    connection.channel.connectionLost(Failure(ConnectionDone()))
    assert connection.clock.getDelayedCalls() == []


def test_who_goes_on_sending_after_such_an_answer_is_cut(connection):
    connection.feed(b"x" * 20_000)
    for _ in range(17):
        connection.feed(b"x" * 2**16)
    assert connection.transport.disconnecting


def test_a_client_that_leaves_after_such_an_answer_leaves_no_timer(connection):
    connection.feed(b"x" * 20_000)
    connection.channel.connectionLost(Failure(ConnectionDone()))
    assert connection.clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"HEAD /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"HEAD /echo HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"HEAD /health HTTP/1.1\r\n\r\n", 400),
        (b"HEAD /health HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"HEAD /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n", 413),
        (b"HEAD /" + b"x" * 20_000, 414),
        (b"HEAD /health HTTP/1.1\r\nX: " + b"y" * 20_000, 431),
    ],
)
def test_an_answer_to_head_has_no_body_whatever_it_is(connection, request_, code):
    head, end, body = connection.feed(request_).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % code)
    assert (end, body) == (b"\r\n\r\n", b"")


def test_a_body_that_was_refused_is_answered_once_even_if_it_breaks_off(connection):
    connection.feed(b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert connection.send(b"3e9\r\n" + b"x" * 1001 + b"\r\n").code == 413
    assert connection.feed(b"zz\r\n") == b""


@pytest.mark.parametrize("line", [b"GET /%ff", b"GET /\xff", b"G\xffT /status", b"GET /log-level/%c3%28"])
def test_a_path_that_is_not_utf_8_or_a_method_that_is_not_ascii_is_refused(connection, line):
    got = connection.send(line + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert got.code == 400


@pytest.fixture
def narrow(connection):
    connection.channel = connection.site.buildProtocol(None)
    connection.transport = Narrow()
    connection.transport.abortConnection = connection.transport.loseConnection
    connection.channel.makeConnection(connection.transport)
    return connection


BIG = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + 100_000 * b"x"


def test_who_does_not_read_answers_is_read_no_further_until_it_does(narrow):
    narrow.site.body_limit = 100_000
    for _ in range(3):
        narrow.channel.dataReceived(BIG)
        assert narrow.transport.producerState == "paused"
        assert narrow.transport.value().startswith(b"HTTP/1.1 200 ")
        assert 100_000 < narrow.transport.read_all() < 101_000
        assert narrow.transport.producerState == "producing"
    assert not narrow.transport.disconnecting


@pytest.mark.parametrize("at_once", [True, False])
def test_requests_behind_an_answer_wait_until_it_is_read(narrow, at_once):
    narrow.site.body_limit = 100_000
    if at_once:
        narrow.channel.dataReceived(4 * BIG)
    else:  # they come while the answer is made
        narrow.channel.dataReceived(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        narrow.channel.dataReceived(3 * BIG)
        narrow.slow.callback(100_000 * b"x")
    for _ in range(4):
        assert narrow.transport.value().count(b"HTTP/1.1 200 ") == 1
        assert narrow.transport.producerState == "paused"
        narrow.clock.advance(59)
        narrow.transport.read_all()
    assert narrow.transport.value() == b""
    assert narrow.transport.producerState == "producing"
    assert not narrow.transport.disconnecting
    assert narrow.ask("GET", "/health").body == b"ok"


def test_who_reads_no_answer_is_cut(narrow):
    narrow.site.body_limit = 100_000
    narrow.channel.dataReceived(2 * BIG)
    narrow.clock.advance(59.9)
    assert not narrow.transport.disconnecting
    narrow.clock.advance(0.2)
    assert narrow.transport.disconnecting
    assert narrow.transport.value().count(b"HTTP/1.1 200 ") == 1


def test_requests_that_come_together_and_whose_answers_are_read_get_them_all(narrow):
    narrow.channel.dataReceived(100 * b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert narrow.transport.value().count(b"HTTP/1.1 200 ") == 100
    assert not narrow.transport.disconnecting


def test_a_connection_that_is_silent_is_closed_after_the_timeout(connection):
    connection.feed(b"GET /status HTTP/1.1\r\nHo")
    connection.clock.advance(9.9)
    assert not connection.transport.disconnecting
    connection.clock.advance(0.2)
    assert connection.transport.disconnecting


def test_the_site_keeps_no_timer_while_nobody_is_connected():
    clock = Clock()
    site = make_site(Klein().resource(), clock, LinkSettings(), refused=lambda what, why: None)
    site.doStart()
    assert clock.getDelayedCalls() == []
    site.doStop()


@pytest.mark.parametrize("path", ["/status", "/nothing", "/log-level", "/%FF"])
def test_a_browser_keeps_no_answer_and_runs_nothing_of_it(connection, path):
    """CVE-2021-32718: markup in a name that a peer has chosen is shown as text at most."""
    headers = connection.ask("GET", path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
