"""Tokens: what services show to say who they are.

Grammar::

    token  = "ces_" id secret        id: 16, secret: 43 characters of base64url
    digest = "blake2b:" id ":" hash  what the access file has of it; hash: 64 hexadecimal digits

The id is no secret. It finds the digest in one dict look-up, however many there are, and salts the hash.

A hash that is slow on purpose (scrypt, Argon2) protects secrets that people choose, which can be guessed. The
secret of a token is 256 random bits: nobody can try them all, at any speed. So one BLAKE2b is enough, which
takes a microsecond; a slow hash would cost each of ten thousand clients that come back at once a tenth of a
second, and would let anyone keep the processor busy by showing wrong tokens.
"""

from __future__ import annotations

import hmac
import re
import secrets
from hashlib import blake2b
from typing import NamedTuple

PREFIX = "ces_"
"""Every token begins with this. Scanners that look for leaked secrets find it."""

_TOKEN = re.compile(r"ces_([A-Za-z0-9_-]{16})([A-Za-z0-9_-]{43})", re.ASCII)
_DIGEST = re.compile(r"blake2b:([A-Za-z0-9_-]{16}):([0-9a-f]{64})", re.ASCII)


class Token(NamedTuple):
    """A token that was read."""

    id: str
    secret: str


class Digest(NamedTuple):
    """What the access file has of a token."""

    id: str
    hash: bytes

    def __str__(self) -> str:
        return f"blake2b:{self.id}:{self.hash.hex()}"


NO_DIGEST = Digest("", bytes(32))
"""Compared where no token has the id, so that it takes as long to be unknown as to be wrong."""


def new_token() -> str:
    """A token that nobody has had before."""
    return f"{PREFIX}{secrets.token_urlsafe(12)}{secrets.token_urlsafe(32)}"


def read_token(text: str) -> Token | None:
    """Parse a token; None when it is none."""
    match = _TOKEN.fullmatch(text)
    return Token(match[1], match[2]) if match else None


def digest_of(token: Token) -> Digest:
    """What the access file has of a token."""
    hashed = blake2b(token.secret.encode(), digest_size=32, salt=token.id.encode(), person=b"ces token")
    return Digest(token.id, hashed.digest())


def read_digest(text: str) -> Digest | None:
    """Parse a digest; None when it is none."""
    match = _DIGEST.fullmatch(text)
    return Digest(match[1], bytes.fromhex(match[2])) if match else None


def matches(token: Token, digest: Digest) -> bool:
    """Whether the digest is of this token. Takes the same time wherever they differ."""
    return hmac.compare_digest(digest_of(token).hash, digest.hash)
