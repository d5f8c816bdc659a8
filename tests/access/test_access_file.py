"""The access file: what it may hold, and the one sentence that a bad one gets."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ces.access.file import AccessError, load, parse
from ces.access.table import Shown
from ces.access.token import digest_of, new_token, read_token
from ces.model.patterns import Rooms
from tests.access.test_signed import PEM

TOKEN = new_token()
_read = read_token(TOKEN)
assert _read is not None
DIGEST = str(digest_of(_read))
SECRET = base64.b64encode(os.urandom(32)).decode()

FILE = f'''
[principals.itb-panels]
kinds = ["messenger", "status"]
publish = ["ITB-*"]
subscribe = ["ITB-*", "BNSN-W002"]
tokens = ["{DIGEST}"]
certificates = ["panels.itb.example.edu"]
jwt = ["login"]
networks = ["10.5.0.0/16", "10.6.1.7", "::1"]

[keys.login]
algorithm = "EdDSA"
public = """
{PEM}"""
audience = "ces"

[keys.other]
algorithm = "HS256"
secret = "{SECRET}"
'''

A = '[principals.a]\nkinds = ["hub"]\n'
"""A principal that nobody can be."""

OK = A + 'networks = ["::1"]\n'


def fault(text: str) -> str:
    with pytest.raises(AccessError) as caught:
        parse(text, "access.toml")
    return str(caught.value)


def test_a_file_with_all_there_is(tmp_path: Path) -> None:
    (tmp_path / "access.toml").write_text(FILE)
    access = load(str(tmp_path / "access.toml"))
    for shown in (Shown(TOKEN), Shown(certificate=("panels.itb.example.edu",)), Shown(host="10.6.1.7")):
        principal = access.login(shown, 0.0).principal
        assert principal.name == "itb-panels"
        assert principal.kinds == {"messenger", "status"}
        assert principal.publish == Rooms(["ITB-*"])
        assert principal.subscribe == Rooms(["BNSN-W002", "ITB-*"])
    assert access.get("itb-panels") == principal
    assert access.get("other") is None


def test_what_is_not_said_is_not_allowed() -> None:
    principal = parse(OK, "f").get("a")
    assert principal is not None
    assert (bool(principal.publish), bool(principal.subscribe), principal.kinds) == (False, False, {"hub"})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "access.toml: expected a table [principals.NAME] at least, or nobody could get in"),
        ("# only a comment\n", "access.toml: expected a table [principals.NAME] at least"),
        ("[principals]\n", "access.toml: expected a table [principals.NAME] at least"),
        ("principals = 3", "access.toml, line 1: principals: expected tables [principals.NAME], got 3"),
        ("[principal.a]", "access.toml, line 1: principal: there is no such table; did you mean principals?"),
        (OK + "[other]", "access.toml, line 4: other: there is no such table; expected principals, keys"),
        ('[principals]\na = "x"', "line 2: principals.a: expected a table [principals.NAME], got a string"),
        ('[principals."a b"]', "line 1: principals.'a b': a name is 1 to 64 of the characters"),
        ('[principals.""]', "line 1: principals.'': a name is 1 to 64"),
        (OK + OK, "access.toml, line 4: cannot declare ('principals', 'a') twice"),
        (
            "[principals.a]\nnetworks = ['::1']",
            "line 1: principals.a: it has no kinds; expected some of mess",
        ),
        (A, "line 1: principals.a: nobody could be it; expected one of tokens, certificates, jwt, networks"),
        (OK + "kind = []", "line 4: principals.a.kind: there is no such key; did you mean kinds?"),
        (OK + "deny = []", "line 4: principals.a.deny: there is no such key; expected kinds, publish"),
        (OK + "publish = '*'", "line 4: principals.a.publish: expected a list of strings, got a string"),
        (OK + "publish = [1]", "line 4: principals.a.publish: expected a list of strings, with 1 in it"),
        (OK + "publish = [true]", "with true in it"),
        (
            OK + "publish = [\n'ok',\n'A*B']",
            "line 6: principals.a.publish: expected a room, a prefix such as",
        ),
        (OK + "subscribe = ['{']", "line 4: principals.a.subscribe: expected a room, a prefix such as ITB-*"),
        (OK + r'subscribe = ["a\nb"]', "line 4: principals.a.subscribe: "),
        ("[principals.a]\nkinds = ['root']", "line 2: principals.a.kinds: expected some of messenger, "),
        (A + "networks = ['10.5.0.1/16']", "line 3: principals.a.networks: expected a network such as 10.5"),
        (A + "networks = ['everywhere']", "got 'everywhere'"),
        (A + "networks = ['::ffff:10.0.0.0/104']", "expected an IPv4 network in its own form"),
        (A + "certificates = ['*.x.edu']", "line 3: principals.a.certificates: expected a name as it stands"),
        (A + "jwt = ['login']", "line 3: principals.a.jwt: expected the name of a table [keys.NAME], got"),
        (A + "tokens = ['x']", "line 3: principals.a.tokens: expected what `ces token new` prints"),
        (
            OK + "[principals.b]\nkinds=['hub']\nnetworks=['::1']",
            "line 6: principals.b.networks: one of these is of 'a' already",
        ),
        (OK + "[keys.k]\n", "line 4: keys.k: expected an algorithm that is HS256 or EdDSA"),
        (OK + "[keys.k]\nalgorithm = 'none'", "line 5: keys.k: expected an algorithm that is HS256 or EdDSA"),
        (OK + "[keys.k]\nalgorithm = ['HS256']", "line 5: keys.k: expected an algorithm"),
        (OK + "[keys.k]\nalgorithm = 'HS256'", "line 4: keys.k: a key of HS256 needs 'secret'"),
        (OK + "[keys.k]\nalgorithm = 'EdDSA'", "line 4: keys.k: a key of EdDSA needs 'public'"),
        (OK + "[keys.k]\nalgorithm = 'HS256'\nurl = 'http://x'", "line 6: keys.k.url: there is no such key"),
        (OK + "[keys.k]\nalgorithm = 'HS256'\nsecret = 5", "line 6: keys.k.secret: expected a string, got 5"),
        (OK + "[keys.k]\nalgorithm = 'HS256'\nsecret = 'c2hvcnQ='", "at least 32 random bytes, got 5"),
        (OK + "[keys.k]\nalgorithm = 'HS256'\nsecret = '***'", "line 6: keys.k.secret: expected base64"),
        (OK + "[keys.k]\nalgorithm = 'HS256'\nsecret = 'é'", "line 6: keys.k.secret: "),
        (OK + "[keys.k]\nalgorithm = 'EdDSA'\npublic = 'x'", "line 6: keys.k.public: expected an Ed25519"),
        (OK + "[keys.k]\nalgorithm = 'HS256'\naudience = ''", "keys.k.audience: expected a string"),
        (OK + "a =", "access.toml, line 4: invalid value at the end of the file"),
    ],
)
def test_a_bad_file_gets_one_sentence_with_file_line_and_key(text: str, sentence: str) -> None:
    said = fault(text)
    assert said.startswith("access.toml")
    assert sentence in said
    assert "\n" not in said


def test_one_token_is_of_one_principal() -> None:
    b = f'[principals.b]\nkinds = ["hub"]\ntokens = ["{DIGEST}"]\n'
    assert "principals.b.tokens: one of these is of 'a' already" in fault(A + f'tokens = ["{DIGEST}"]\n' + b)
    names = A + 'certificates = ["Hub"]\n[principals.b]\nkinds = ["hub"]\ncertificates = ["hub"]\n'
    assert "principals.b.certificates: one of these is of 'a' already" in fault(names)


@pytest.mark.parametrize(
    "text",
    [
        A + f'tokens = ["{TOKEN}"]',
        A + f'tokens = "{TOKEN}"',
        OK + f'[keys.k]\nalgorithm = "HS256"\nsecret = "{TOKEN}"',
        OK + f'[keys.k]\nalgorithm = "HS256"\nsecret = ["{TOKEN}"]',
        OK + f'[keys.k]\nalgorithm = "EdDSA"\npublic = "{TOKEN}"',
    ],
)
def test_an_error_does_not_repeat_a_secret(text: str) -> None:
    assert TOKEN[20:] not in fault(text)


def test_a_file_that_is_not_there_or_not_text_gets_one_sentence(tmp_path: Path) -> None:
    """CVE-2018-12550, CVE-2018-12551, CVE-2017-7652: such a file never means that anyone may do anything."""
    with pytest.raises(AccessError, match=r"none\.toml: cannot be read: No such file or directory"):
        load(str(tmp_path / "none.toml"))
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(AccessError, match=r"bad\.toml: cannot be read: it is not UTF-8"):
        load(str(tmp_path / "bad.toml"))
    (tmp_path / "bad.toml").write_bytes(b"")
    with pytest.raises(AccessError, match="nobody could get in"):
        load(str(tmp_path / "bad.toml"))


values = st.recursive(
    st.booleans()
    | st.integers()
    | st.text(alphabet="ab*-1:/é", max_size=6)
    | st.sampled_from([DIGEST, "hub", "HS256"]),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
keys = st.sampled_from(
    ["kinds", "publish", "tokens", "networks", "jwt", "algorithm", "secret", "public", "x"]
)


def _toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case list():
            return "[" + ", ".join(map(_toml, value)) + "]"
        case str():
            return f'"{value}"'
        case _:
            return str(value)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["principals.a", "principals.b", "keys.k", "x", "principals"]),
            st.lists(st.tuples(keys, values), max_size=4),
        ),
        max_size=3,
    )
)
def test_no_file_gives_anything_but_rights_or_a_sentence(
    tables: list[tuple[str, list[tuple[str, object]]]],
) -> None:
    lines = [
        line
        for table, entries in tables
        for line in (f"[{table}]", *(f"{key} = {_toml(value)}" for key, value in entries))
    ]
    try:
        parse("\n".join(lines), "access.toml")
    except AccessError as error:
        assert str(error).startswith("access.toml")
        assert "\n" not in str(error)


@given(st.text() | st.text(alphabet="[]principals.a\"=*,\n x:/'#"))
def test_no_text_gives_anything_but_rights_or_a_sentence(text: str) -> None:
    try:
        parse(text, "access.toml")
    except AccessError as error:
        assert str(error).startswith("access.toml")
