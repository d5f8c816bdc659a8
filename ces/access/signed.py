"""JSON Web Tokens (RFC 7519, RFC 8725): who somebody is, signed by another service.

A token says who (``sub``) and until when (``exp``, which is required). What that principal may do stands in
the access file alone, as do the keys: none is fetched, and a header's ``kid`` only chooses among them. Each
key has one algorithm, whatever a token says of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from ces.access.principal import Unknown

HS256, EDDSA = ALGORITHMS = ("HS256", "EdDSA")

SECRET_BYTES = 32
"""Fewest bytes of the secret of an HS256 key: as many as its hash has (RFC 7518 section 3.2)."""

EARLY = 30.0
"""A token may be used so many seconds before its ``nbf``: clocks differ."""

_OPTIONS: Any = {
    "require": ["exp", "sub"],
    # With the time that the caller gives, below.
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
}


@dataclass(frozen=True)
class Key:
    """A key that signs tokens.

    algorithm: one of `ALGORITHMS`.
    audience: which a token must name (``aud``); None for tokens that name none.
    """

    name: str
    algorithm: str
    audience: str | None
    material: bytes | Ed25519PublicKey = field(repr=False, hash=False)


class Claims(NamedTuple):
    """What a good token says.

    key: the name of the key that signed it.
    until: when it ends, in seconds since the epoch.
    """

    subject: str
    key: str
    until: float


def secret_key(secret: bytes) -> bytes:
    """The material of an HS256 key.

    :raises ValueError: when it is too short.
    """
    if len(secret) < SECRET_BYTES:
        raise ValueError(f"expected at least {SECRET_BYTES} random bytes, got {len(secret)}")
    return secret


def public_key(pem: str) -> Ed25519PublicKey:
    """The material of an EdDSA key.

    :raises ValueError: when it is no Ed25519 public key in PEM.
    """
    key: object = None
    with suppress(Exception):  # of many kinds, some of which are no ValueError
        key = load_pem_public_key(pem.encode())
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("expected an Ed25519 public key that begins with -----BEGIN PUBLIC KEY-----")
    return key


def verify(text: str, keys: Mapping[str, Key], now: float) -> Claims:
    """What a token says.

    :param now: in seconds since the epoch.
    :raises Unknown: when it is not good, whatever is wrong with it.
    """
    try:
        header = jwt.get_unverified_header(text)
        key = _key_for(header, keys)
        if "crit" in header or "b64" in header:
            raise Unknown("the JWT needs an extension, which there is none of here")
        claims = jwt.decode(
            text, key.material, algorithms=[key.algorithm], audience=key.audience, options=_OPTIONS
        )
    except jwt.PyJWTError as error:
        raise Unknown(f"the JWT is not good: {type(error).__name__}") from None
    except (ValueError, TypeError, RecursionError):  # of the JSON in it
        raise Unknown("the JWT cannot be read") from None
    until, begins = _time(claims, "exp"), _time(claims, "nbf")
    subject = claims["sub"]
    if until is None or not isinstance(subject, str):
        raise Unknown("the JWT has no good exp and sub")
    if now >= until:
        raise Unknown("the JWT has expired")
    if begins is not None and now < begins - EARLY:
        raise Unknown("the JWT is not valid yet")
    return Claims(subject, key.name, until)


def _key_for(header: Mapping[str, Any], keys: Mapping[str, Key]) -> Key:
    """The key that a header names; the only one there is when it names none."""
    name = header.get("kid")
    if name is None and len(keys) == 1:
        return next(iter(keys.values()))
    key = keys.get(name) if isinstance(name, str) else None
    if key is None:
        raise Unknown("no key of the access file is the one that the JWT names with kid")
    return key


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    """A time in the claims; None when there is none.

    :raises Unknown: when it is no number.
    """
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**53:
        raise Unknown(f"the {name} of the JWT is no time")
    return math.floor(value)
