"""Parses the access file.

Grammar (TOML 1.0)::

    [principals.itb-panels]                      # one table for each principal
    kinds = ["messenger", "status"]              # what it may be: see KINDS
    publish = ["ITB-*"]                          # rooms that it may send events for
    subscribe = ["ITB-*", "BNSN-W002"]           # rooms whose events it may get
    tokens = ["blake2b:..."]                     # how it is found, one of these at least:
    certificates = ["panels.itb.example.edu"]    #   tokens, names of client certificates,
    jwt = ["login"]                              #   JWTs that one of these keys has signed for it,
    networks = ["10.5.0.0/16", "10.6.1.7"]       #   addresses that it comes from

    [keys.login]                                 # one table for each key that signs JWTs
    algorithm = "EdDSA"                          # or HS256
    public = "-----BEGIN PUBLIC KEY-----..."     # of EdDSA; HS256 has: secret = "base64 of 32 bytes or more"
    audience = "ces"                             # optional: the aud that its tokens must have

All is strict: what is not understood is an error, since it may have been meant to limit something. An error
never repeats a value that may be secret.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any, TypeVar

import ces
from ces.access.principal import KINDS, Principal
from ces.access.signed import ALGORITHMS, EDDSA, HS256, Key, public_key, secret_key
from ces.access.table import Access, Network, Open, Ways
from ces.access.token import Digest, read_digest
from ces.config.toml import Document, TomlError, describe, read_document
from ces.config.values import did_you_mean
from ces.model.patterns import Rooms, pattern_fault

PRINCIPALS, KEYS = TABLES = ("principals", "keys")

_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,64}", re.ASCII)
_WAYS = ("tokens", "certificates", "jwt", "networks")
_PRINCIPAL = ("kinds", "publish", "subscribe", *_WAYS)
_KEY = {HS256: ("algorithm", "secret", "audience"), EDDSA: ("algorithm", "public", "audience")}

T = TypeVar("T")


class AccessError(ces.Error, ValueError):
    """The access file cannot be used. One sentence that names the file, the line and the key."""


def access_of(path: str) -> Access:
    """The rights in the access file; without one ("") anyone may do everything.

    :raises AccessError: as `load` does.
    """
    return load(path) if path else Open()


def load(path: str) -> Access:
    """Read the access file.

    :raises AccessError: when it cannot be read, or contains an error. The caller must then use none of it.
    """
    try:
        return _Reader(read_document(path)).read()
    except TomlError as error:
        raise AccessError(str(error)) from None


def parse(text: str, name: str) -> Access:
    """Parse an access file.

    :param text: its content.
    :param name: what error texts call it.
    :raises AccessError: as `load` does.
    """
    try:
        return _Reader(Document(text, name)).read()
    except TomlError as error:
        raise AccessError(str(error)) from None


class _Reader:
    """Reads one document, and remembers what may be there only once."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._seen: dict[object, str] = {}
        """Tokens, certificate names and networks, each with the principal that it is of."""

    def read(self) -> Access:
        values = self._document.values
        for name in values:
            if name not in TABLES:
                raise self._fault((name,), f"there is no such table{_hint(name, TABLES)}")
        keys = {name: self._key(name, table) for name, table in self._tables(KEYS)}
        principals = [self._principal(name, table, keys) for name, table in self._tables(PRINCIPALS)]
        if not principals:
            expected = f"expected a table [{PRINCIPALS}.NAME] at least, or nobody could get in"
            raise AccessError(f"{self._document.name}: {expected}")
        return Access(principals, keys)

    def _tables(self, kind: str) -> list[tuple[str, dict[str, Any]]]:
        """The tables ``[kind.NAME]``."""
        tables = self._document.values.get(kind, {})
        if not isinstance(tables, dict):
            raise self._fault((kind,), f"expected tables [{kind}.NAME], got {describe(tables)}")
        for name, table in tables.items():
            if not _NAME.fullmatch(name):
                raise self._fault((kind, name), "a name is 1 to 64 of the characters A-Z a-z 0-9 and _ . @ -")
            if not isinstance(table, dict):
                raise self._fault((kind, name), f"expected a table [{kind}.NAME], got {describe(table)}")
        return list(tables.items())

    # -- principals ------------------------------------------------------------------------------------------

    def _principal(self, name: str, table: dict[str, Any], keys: dict[str, Key]) -> tuple[Principal, Ways]:
        where = (PRINCIPALS, name)
        self._only(where, table, _PRINCIPAL)

        def texts(key: str, read: Callable[[str], T], secret: bool = False) -> tuple[T, ...]:
            return self._texts((*where, key), table.get(key, []), read, secret)

        def once(key: str, what: tuple[T, ...], identity: Callable[[T], object]) -> tuple[T, ...]:
            for one in what:
                other = self._seen.setdefault((key, identity(one)), name)
                if other != name:
                    raise self._fault((*where, key), f"one of these is of {other!r} already")
            return what

        kinds = texts("kinds", _kind)
        if not kinds:
            raise self._fault(where, f"it has no kinds; expected some of {', '.join(KINDS)}")
        ways = Ways(
            once("tokens", texts("tokens", _digest, secret=True), lambda digest: digest.id),
            once("certificates", texts("certificates", _certificate), str.lower),
            texts("jwt", lambda text: _key_name(text, keys)),
            once("networks", texts("networks", _network), lambda network: network),
        )
        if ways == Ways():
            raise self._fault(where, f"nobody could be it; expected one of {', '.join(_WAYS)}")
        publish, subscribe = texts("publish", _pattern), texts("subscribe", _pattern)
        return Principal(name, frozenset(kinds), Rooms(publish), Rooms(subscribe)), ways

    # -- keys ------------------------------------------------------------------------------------------------

    def _key(self, name: str, table: dict[str, Any]) -> Key:
        where = (KEYS, name)
        algorithm = table.get("algorithm")
        if algorithm not in ALGORITHMS:
            raise self._fault(where, f"expected an algorithm that is {' or '.join(ALGORITHMS)}", "algorithm")
        self._only(where, table, _KEY[algorithm])
        what = "secret" if algorithm == HS256 else "public"
        for key in (what, "audience"):
            if not isinstance(table.get(key, ""), str) or (key in table and not table[key]):
                raise self._fault((*where, key), f"expected a string, got {describe(table[key])}")
        if what not in table:
            raise self._fault(where, f"a key of {algorithm} needs {what!r}")
        try:
            material = _secret(table[what]) if algorithm == HS256 else public_key(table[what])
        except ValueError as error:
            raise self._fault((*where, what), str(error)) from None
        return Key(name, algorithm, table.get("audience"), material)

    # --------------------------------------------------------------------------------------------------------

    def _only(self, where: tuple[str, ...], table: dict[str, Any], known: tuple[str, ...]) -> None:
        for key in table:
            if key not in known:
                raise self._fault((*where, key), f"there is no such key{_hint(key, known)}")

    def _texts(
        self, where: tuple[str, ...], value: Any, read: Callable[[str], T], secret: bool
    ) -> tuple[T, ...]:
        """The values of a list of strings, each different one once.

        :param read: reads one; raises ValueError, which says what is expected.
        :param secret: whether an error must not repeat a value.
        """
        if not isinstance(value, list):
            raise self._fault(where, f"expected a list of strings, got {describe(value)}")
        found: dict[T, None] = {}
        for text in value:
            if not isinstance(text, str):
                raise self._fault(where, f"expected a list of strings, with {describe(text)} in it")
            try:
                found[read(text)] = None
            except ValueError as error:
                got = "" if secret else f", got {text[:80]!r}"
                raise self._fault(where, f"{error}{got}", text[:80]) from None
        return tuple(found)

    def _fault(self, where: tuple[str, ...], what: str, value: str = "") -> AccessError:
        name = ".".join(part if _NAME.fullmatch(part) else repr(part[:80]) for part in where)
        return AccessError(f"{self._document.place(where, value)}: {name}: {what}")


def _hint(name: str, known: tuple[str, ...]) -> str:
    return did_you_mean(name, known) or f"; expected {', '.join(known)}"


def _kind(text: str) -> str:
    if text not in KINDS:
        raise ValueError(f"expected some of {', '.join(KINDS)}")
    return text


def _pattern(text: str) -> str:
    fault = pattern_fault(text)
    if fault is not None:
        raise ValueError(f"expected a room, a prefix such as ITB-*, or *: {fault}")
    return text


def _digest(text: str) -> Digest:
    digest = read_digest(text)
    if digest is None:
        raise ValueError("expected what `ces token new` prints for this file, blake2b:ID:HASH")
    return digest


def _certificate(text: str) -> str:
    if not re.fullmatch(r"[!-~]{1,255}", text) or "*" in text:
        raise ValueError("expected a name as it stands in a certificate, without *")
    return text


def _key_name(text: str, keys: dict[str, Key]) -> str:
    if text not in keys:
        raise ValueError(f"expected the name of a table [{KEYS}.NAME]")
    return text


def _network(text: str) -> Network:
    try:
        network = ip_network(text)
    except ValueError:
        raise ValueError("expected a network such as 10.5.0.0/16, without bits behind its prefix") from None
    if network.version == 6 and network.network_address.ipv4_mapped is not None:
        raise ValueError("expected an IPv4 network in its own form, such as 10.5.0.0/16")
    return network


def _secret(text: str) -> bytes:
    try:
        return secret_key(base64.b64decode(text, validate=True))
    except binascii.Error:
        raise ValueError("expected base64") from None
