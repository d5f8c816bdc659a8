"""What a dialler says of a server whose certificate is no good."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_twisted
from OpenSSL.SSL import Error
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from ces.link.tls import why_lost
from ces.model.address import Address
from ces.uplink.uplink import Uplink
from tests.support.certificates import endpoint, make_certificate
from tests.support.links import Recorder, make_side

OPENING = "the connection ended during the opening handshake: "


@pytest.mark.parametrize(
    ("host", "days", "trusted", "reason"),
    [
        ("localhost", -1, True, "the other side's certificate is not trusted: certificate has expired"),
        ("localhost", 60, True, "the other side's certificate is not trusted: certificate is not yet valid"),
        ("localhost", 1, False, "the other side's certificate is not trusted: self-signed certificate"),
        ("elsewhere", 1, True, "the other side's certificate is for another name"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_the_reason_says_what_is_wrong_with_the_certificate(
    host: str, days: int, trusted: bool, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = make_certificate(tmp_path, host, days)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", certificate)
    assert (await why_not(endpoint(certificate, key))).startswith(OPENING + reason)


@pytest_twisted.ensureDeferred
async def test_what_is_not_about_a_certificate_is_said_as_it_is() -> None:
    reason = await why_not("tcp:0:interface=127.0.0.1")
    assert reason.startswith(OPENING)
    assert "certificate" not in reason


def test_an_error_of_tls_on_any_other_transport_is_said_as_it_is() -> None:
    lost = Failure(Error([("SSL routines", "", "certificate verify failed")]))
    assert why_lost(StringTransport(), lost) == "[('SSL routines', '', 'certificate verify failed')]"


class Talker(Protocol):
    """Says what is neither TLS nor HTTP."""

    def connectionMade(self) -> None:
        self.transport.write(b"hello, who is there?\n")


async def why_not(description: str) -> str:
    """Why a dial over TLS to a server at this endpoint failed."""
    from twisted.internet import reactor

    port = await serverFromString(reactor, description).listen(Factory.forProtocol(Talker))
    failed: Deferred[str] = Deferred()
    side = make_side(reactor)
    uplink = Uplink(
        Recorder(),
        side,
        Address("wss", "localhost", port.getHost().port),
        "/connect/messenger",
        "messenger",
        reactor,
        queue=side.new_queue(),
        failed=failed.callback,
    )
    uplink.dial()
    reason = await failed
    await uplink.stop()
    await port.stopListening()
    return reason
