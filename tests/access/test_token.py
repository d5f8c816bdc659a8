"""Tokens and their digests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ces.access.token import NO_DIGEST, digest_of, matches, new_token, read_digest, read_token


def test_a_token_matches_its_digest_and_no_other() -> None:
    token, other = read_token(new_token()), read_token(new_token())
    assert token is not None and other is not None
    digest = digest_of(token)
    assert matches(token, digest)
    assert not matches(other, digest)
    assert not matches(token._replace(secret=other.secret), digest)
    assert not matches(token, NO_DIGEST)


def test_a_digest_is_salted_and_says_nothing_of_the_secret() -> None:
    token, other = read_token(new_token()), read_token(new_token())
    assert token is not None and other is not None
    digest, same_secret = digest_of(token), digest_of(other._replace(secret=token.secret))
    assert digest.hash != same_secret.hash
    assert token.secret not in str(digest)


def test_a_digest_survives_the_file() -> None:
    token = read_token(new_token())
    assert token is not None
    assert read_digest(str(digest_of(token))) == digest_of(token)


def test_a_token_may_stand_in_a_header_and_as_a_subprotocol() -> None:
    assert new_token().replace("-", "").replace("_", "").isalnum()
    assert len({new_token() for _ in range(100)}) == 100


@pytest.mark.parametrize("text", ["", "ces_", "ces_" + "a" * 58, "ces_" + "a" * 60, "ces_" + "é" * 59])
def test_what_is_no_token(text: str) -> None:
    assert read_token(text) is None


@pytest.mark.parametrize("text", ["", "blake2b::", "blake2b:" + "a" * 16 + ":" + "g" * 64, "ces_" + "a" * 59])
def test_what_is_no_digest(text: str) -> None:
    assert read_digest(text) is None


@given(st.text())
def test_no_text_is_an_error(text: str) -> None:
    read_token(text)
    read_digest(text)
