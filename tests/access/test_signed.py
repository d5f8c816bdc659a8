"""JSON Web Tokens: only those that a key of the file has signed, with the algorithm of that key."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from ces.access.principal import Unknown
from ces.access.signed import EDDSA, HS256, Key, public_key, secret_key, verify

NOW = 1_800_000_000.0
SECRET = b"s" * 32
PRIVATE = Ed25519PrivateKey.generate()
PEM = (
    PRIVATE.public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    .decode()
)
KEYS = {
    "hs": Key("hs", HS256, None, SECRET),
    "ed": Key("ed", EDDSA, None, public_key(PEM)),
    "aud": Key("aud", HS256, "ces", b"a" * 32),
}
GOOD = {"sub": "panels", "exp": NOW + 60}


def signed(claims: dict[str, Any] | None = None, kid: str | None = "hs", **headers: Any) -> str:
    key: Any = {"ed": PRIVATE, "aud": b"a" * 32}.get(kid or "", SECRET)
    algorithm = EDDSA if kid == "ed" else HS256
    named = {} if kid is None else {"kid": kid}
    return jwt.encode(GOOD if claims is None else claims, key, algorithm, headers={**named, **headers})


def by_hand(header: bytes, claims: bytes, signature: bytes = b"") -> str:
    """A token of any header and claims."""
    parts = [base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (header, claims, signature)]
    return ".".join(parts)


def refused(text: str, keys: dict[str, Key] = KEYS, now: float = NOW) -> str:
    with pytest.raises(Unknown) as caught:
        verify(text, keys, now)
    assert text not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kid", ["hs", "ed"])
def test_a_good_token_says_who_by_which_key_and_until_when(kid: str) -> None:
    assert verify(signed(kid=kid), KEYS, NOW) == ("panels", kid, NOW + 60)


def test_it_ends_with_its_exp_which_is_required() -> None:
    assert verify(signed(), KEYS, NOW + 59.9).until == NOW + 60
    assert refused(signed(), now=NOW + 60) == "the JWT has expired"
    refused(signed({"sub": "panels"}))
    refused(signed({"exp": NOW + 60}))


def test_it_does_not_begin_before_its_nbf() -> None:
    assert verify(signed(GOOD | {"nbf": NOW + 29}), KEYS, NOW).subject == "panels"
    assert refused(signed(GOOD | {"nbf": NOW + 31})) == "the JWT is not valid yet"


@pytest.mark.parametrize("when", ["soon", True, [], {}, float("inf"), float("nan"), 2**53, -(2**53), 1e300])
@pytest.mark.parametrize("claim", ["exp", "nbf"])
def test_a_time_is_a_number(claim: str, when: Any) -> None:
    refused(signed(GOOD | {claim: when}))


def test_a_key_with_an_audience_takes_tokens_for_it_alone() -> None:
    assert verify(signed(GOOD | {"aud": "ces"}, "aud"), KEYS, NOW).key == "aud"
    refused(signed(GOOD | {"aud": "mail"}, "aud"))
    refused(signed(GOOD, "aud"))
    refused(signed(GOOD | {"aud": "ces"}, "hs"))


def test_the_algorithm_is_that_of_the_key_whatever_the_token_says() -> None:
    """RFC 8725 section 2.1: no signature at all, and a public key taken for a secret."""
    claims = json.dumps(GOOD).encode()
    refused(by_hand(b'{"alg":"none","kid":"hs"}', claims))
    refused(by_hand(b'{"alg":"HS256","kid":"ed"}', claims, b"x" * 32))
    refused(by_hand(b'{"alg":"EdDSA","kid":"hs"}', claims, b"x" * 64))
    head = by_hand(b'{"alg":"HS512","kid":"hs"}', claims).rstrip(".")
    signature = base64.urlsafe_b64encode(hmac.digest(SECRET, head.encode(), "sha512"))
    refused(f"{head}.{signature.rstrip(b'=').decode()}")


def test_a_key_comes_from_the_file_alone() -> None:
    """CVE-2026-32301: a URL or a key in the token itself is not looked at."""
    mine = Ed25519PrivateKey.generate()
    token = jwt.encode(GOOD, mine, EDDSA, headers={"kid": "ed", "jku": "http://127.0.0.1:9/", "jwk": {}})
    refused(token)
    assert verify(signed(jku="http://127.0.0.1:9/"), KEYS, NOW).key == "hs"
    for kid in ("other", "../hs", "http://127.0.0.1:9/"):
        assert "kid" in refused(signed(kid=kid))


def test_without_a_kid_the_key_must_be_the_only_one() -> None:
    refused(signed(kid=None))
    assert verify(signed(kid=None), {"hs": KEYS["hs"]}, NOW).key == "hs"
    refused(signed(kid=None), {})


def test_a_token_that_needs_an_extension_is_refused() -> None:
    refused(by_hand(b'{"alg":"HS256","kid":"hs","crit":["exp"]}', b"{}"))
    refused(by_hand(b'{"alg":"HS256","kid":"hs","b64":false,"crit":["b64"]}', b""))


def test_another_signature_is_refused() -> None:
    refused(jwt.encode(GOOD, b"t" * 32, HS256, headers={"kid": "hs"}))
    head, body, signature = signed().split(".")
    other = json.dumps(GOOD | {"sub": "admin"}).encode()
    refused(f"{head}.{base64.urlsafe_b64encode(other).rstrip(b'=').decode()}.{signature}")
    refused(f"{head}.{body}.")


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 3000,
        b'{"alg":' * 400,
        b"9" * 2900,
        b"\xff",
        b"",
        b"null",
        b'{"kid":[]}',
        b'{"alg":5,"kid":"hs"}',
    ],
)
def test_a_header_that_cannot_be_read_is_refused(header: bytes) -> None:
    refused(by_hand(header, b"{}"))


@pytest.mark.parametrize(
    "claims", [b"[" * 3000, b"9" * 2900, b'{"sub":' + b"9" * 5000 + b"}", b"null", b"\xff"]
)
def test_claims_that_cannot_be_read_are_refused_even_if_signed(claims: bytes) -> None:
    refused(jwt.api_jws.encode(claims, SECRET, HS256, headers={"kid": "hs"}))


@given(st.text() | st.text(alphabet="abcdefghijklmnopqrstuvwxyzAB019-_.=").map(lambda text: f"ey{text}"))
def test_no_text_gives_anything_but_claims_or_a_refusal(text: str) -> None:
    refused(text + "\0")


@given(
    st.dictionaries(
        st.sampled_from(["sub", "exp", "nbf", "iat", "aud", "jti", "iss"]),
        st.none() | st.integers() | st.floats() | st.text() | st.lists(st.text()),
    )
)
def test_no_claims_give_anything_but_claims_or_a_refusal(claims: dict[str, Any]) -> None:
    token = jwt.api_jws.encode(json.dumps(claims).encode(), SECRET, HS256, headers={"kid": "hs"})
    try:
        said = verify(token, KEYS, NOW)
    except Unknown:
        return
    assert isinstance(said.subject, str)
    assert said.until > NOW


def test_a_key_does_not_show_its_material() -> None:
    assert repr(SECRET)[2:-1] not in repr(KEYS["hs"])


def test_what_is_no_key() -> None:
    with pytest.raises(ValueError, match="at least 32 random bytes, got 31"):
        secret_key(b"x" * 31)
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = other.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    for text in ("", "x", PEM[:-30], pem.decode(), PEM.replace("PUBLIC", "PRIVATE"), "\ud800"):
        with pytest.raises(ValueError, match="expected an Ed25519 public key"):
            public_key(text)
