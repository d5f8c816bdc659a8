"""Which requests of web pages are refused, and that nobody else is judged."""

from __future__ import annotations

from typing import Any

import pytest
from klein import Klein
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from ces.config.link import LinkSettings
from ces.config.settings import resolve
from ces.config.values import SettingError
from ces.hub.settings import HubSettings
from ces.ops.answers import text
from ces.ops.http import make_site

HOSTS = ("10.0.0.5:7100", "[fd00::5]:7100", "localhost:7100", "Machine:7100", "127.0.0.1:7100")
NAMED = "hub.example.edu:7100"
"""A name that the machine does not know of itself."""
BROWSER = {"Sec-Fetch-Mode": "cors"}


class Site:
    """A site on the machine "machine"."""

    def __init__(self, **settings: Any) -> None:
        app = Klein()
        app.route("/", methods=["GET", "HEAD", "POST", "PUT", "DELETE"])(
            lambda request: text(request, 200, "ok")
        )
        self.refused: list[tuple[str, str]] = []
        self.site = make_site(
            app.resource(),
            Clock(),
            LinkSettings(**settings),
            refused=lambda what, why: self.refused.append((what, why)),
            machine="machine",
        )

    def ask(self, method: str = "POST", host: str = HOSTS[0], **headers: str) -> tuple[int, str]:
        """The status and the body of the answer. The names of headers have an underscore for each hyphen."""
        channel, transport = self.site.buildProtocol(None), StringTransport()
        channel.makeConnection(transport)
        lines = [f"{method} / HTTP/1.1", f"Host: {host}"]
        lines += [
            f"{name.replace('_', '-')}: {line}"
            for name, value in headers.items()
            for line in value.split("|")
        ]
        channel.dataReceived("\r\n".join([*lines, "\r\n"]).encode())
        head, _, body = transport.value().decode().partition("\r\n\r\n")
        return int(head.split()[1]), body


UPGRADES = {"Upgrade": "websocket", "Connection": "Upgrade"}


@pytest.mark.parametrize("host", [*HOSTS, NAMED, "balancer"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("more", [{}, UPGRADES])
def test_who_is_no_browser_is_not_judged(host: str, method: str, more: dict[str, str]) -> None:
    assert Site().ask(method, host, **more)[0] == 200


FOREIGN: list[dict[str, str]] = [
    {"Origin": "http://evil.example"},
    {"Origin": "http://evil.example:7100"},
    {"Origin": "null"},
    {"Origin": "http://["},
    {"Origin": ""},
    {"Origin": "http://10.0.0.5"},
    {"Origin": "http://10.0.0.5:7101"},
    {"Origin": "http://10.0.0.5:7100.evil.example"},
    {"Origin": "http://10.0.0.5:7100|http://evil.example"},
    {"Origin": "http://evil.example|http://10.0.0.5:7100"},
    {"Sec_Fetch_Site": "cross-site"},
    {"Sec_Fetch_Site": "same-site"},
    {"Sec_Fetch_Site": "Cross-Site", "Origin": "http://10.0.0.5:7100"},
]


@pytest.mark.parametrize("headers", FOREIGN)
@pytest.mark.parametrize(
    ("method", "more"), [("POST", {}), ("PUT", {}), ("DELETE", {}), ("PATCH", {}), ("GET", UPGRADES)]
)
def test_a_web_page_of_another_site_is_refused(
    method: str, more: dict[str, str], headers: dict[str, str]
) -> None:
    site = Site()
    code, said = site.ask(method, **headers, **more)
    assert code == 403
    assert "--allow-origin" in said and said.endswith(".") and "\n" not in said
    assert site.refused == [("browsers", said.removesuffix("."))]


@pytest.mark.parametrize("headers", FOREIGN)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_request_that_only_reads_is_not_judged(method: str, headers: dict[str, str]) -> None:
    assert Site().ask(method, **headers)[0] == 200
    assert Site().ask(method, NAMED, **headers)[0] == 200


@pytest.mark.parametrize("more", [{}, {"Sec_Fetch_Site": "same-origin"}, {"Sec_Fetch_Site": "none"}])
@pytest.mark.parametrize("host", HOSTS)
def test_a_web_page_of_the_listener_itself_passes(host: str, more: dict[str, str]) -> None:
    assert Site().ask(host=host, Origin=f"http://{host}", **more)[0] == 200
    assert Site().ask("GET", host, Origin=f"http://{host}", **more, **UPGRADES)[0] == 200


@pytest.mark.parametrize(
    "headers", [{"Origin": f"http://{NAMED}"}, {"Sec_Fetch_Site": "same-origin"}, BROWSER]
)
def test_a_web_page_that_reaches_the_listener_under_another_name_is_refused(headers: dict[str, str]) -> None:
    """DNS rebinding: the page and the request have one origin, and the name leads here."""
    for method, more in (("POST", {}), ("GET", UPGRADES)):
        headers = {name.replace("-", "_"): value for name, value in headers.items()}
        code, said = Site().ask(method, NAMED, **headers, **more)
        assert (code, said) == (
            403,
            f"Web pages may not use this under the name '{NAMED}': --allow-host allows it.",
        )
        assert Site(allow_host=("hub.example.edu",)).ask(method, NAMED, **headers, **more)[0] == 200
        assert Site(allow_host=("*",)).ask(method, NAMED, **headers, **more)[0] == 200


def test_an_allowed_origin_passes_and_no_other() -> None:
    site = Site(allow_origin=("https://panel.example.edu", "null"))
    assert site.ask(Origin="https://panel.example.edu", Sec_Fetch_Site="cross-site")[0] == 200
    assert site.ask(Origin="https://PANEL.example.edu:443", host=NAMED)[0] == 200
    assert site.ask(Origin="null")[0] == 200
    for origin in ("http://panel.example.edu", "https://panel.example.edu:8443", "https://example.edu"):
        assert site.ask(Origin=origin)[0] == 403
    assert site.ask(Origin="https://panel.example.edu|http://evil.example")[0] == 403


def test_a_star_allows_every_origin() -> None:
    site = Site(allow_origin=("*",))
    assert site.ask(Origin="http://evil.example", Sec_Fetch_Site="cross-site", host=NAMED)[0] == 200
    assert site.ask(Sec_Fetch_Site="cross-site")[0] == 200


def test_an_allowed_host_allows_no_other_origin() -> None:
    assert Site(allow_host=("*",)).ask(Origin="http://evil.example")[0] == 403


def test_a_proxy_that_ends_tls_and_forwards_the_host_needs_no_port() -> None:
    site = Site(allow_host=("hub.example.edu",))
    assert site.ask(host="hub.example.edu", Origin="https://hub.example.edu")[0] == 200


def test_the_settings_are_written_as_in_the_headers() -> None:
    given = {
        "allow-origin": ["https://Panel.example.edu:443/", "null", "*"],
        "allow-host": ["Hub.example.EDU."],
    }
    settings = resolve(HubSettings, given, {})
    assert settings.allow_origin == ("https://panel.example.edu", "null", "*")
    assert settings.allow_host == ("hub.example.edu",)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("allow-origin", "panel.example.edu"),
        ("allow-origin", "https://panel.example.edu/path"),
        ("allow-host", "hub:7100"),
        ("allow-host", "http://hub"),
        ("allow-host", "a b"),
        ("allow-host", ""),
    ],
)
def test_a_setting_that_names_nothing_is_refused(option: str, value: str) -> None:
    with pytest.raises(SettingError, match=f"^option --{option}: expected "):
        resolve(HubSettings, {option: [value]}, {})
