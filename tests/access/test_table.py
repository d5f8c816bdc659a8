"""Who somebody is, by what is shown."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ces.access.principal import ANYONE, Principal, Unknown
from ces.access.signed import HS256, Key
from ces.access.table import BEARER_LENGTH, Access, Open, Shown, Ways
from ces.access.token import Digest, digest_of, new_token, read_token

NOW = 1_800_000_000.0
SECRET = b"s" * 32
KEYS = {"login": Key("login", HS256, None, SECRET), "other": Key("other", HS256, None, b"o" * 32)}


def principal(name: str) -> Principal:
    return Principal(name, frozenset({"messenger"}))


TOKEN, OLD = new_token(), new_token()
DIGESTS = tuple(digest_of(read) for read in map(read_token, (TOKEN, OLD)) if read is not None)
ACCESS = Access(
    [
        (principal("service"), Ways(tokens=DIGESTS)),
        (principal("hub"), Ways(certificates=("Hub-B.example.edu", "hub-b"))),
        (principal("panel"), Ways(certificates=("panel",), keys=("login",))),
        (principal("lab"), Ways(networks=(ip_network("10.5.0.0/16"), ip_network("2001:db8::/32")))),
        (principal("cp1"), Ways(networks=(ip_network("10.5.6.7"),))),
    ],
    KEYS,
)


def name(shown: Shown) -> str:
    return ACCESS.login(shown, NOW).principal.name


def refused(shown: Shown) -> str:
    with pytest.raises(Unknown) as caught:
        ACCESS.login(shown, NOW)
    assert not shown.bearer or shown.bearer not in str(caught.value)
    return str(caught.value)


def signed(sub: str, kid: str = "login", exp: float = NOW + 60) -> str:
    return jwt.encode({"sub": sub, "exp": exp}, SECRET if kid == "login" else b"o" * 32, headers={"kid": kid})


def test_a_token_of_the_file_finds_its_principal_any_of_several() -> None:
    assert [name(Shown(token)) for token in (TOKEN, OLD)] == ["service", "service"]


def test_a_token_with_one_character_changed_is_nobodys() -> None:
    for place in (5, 25, len(TOKEN) - 1):
        changed = TOKEN[:place] + ("A" if TOKEN[place] != "A" else "B") + TOKEN[place + 1 :]
        assert refused(Shown(changed)) == "the token is not known"


def test_a_wrong_token_is_not_let_in_as_somebody_from_a_known_network() -> None:
    refused(Shown(new_token(), host="10.5.0.1"))
    refused(Shown("", host="10.5.0.1"))
    refused(Shown(certificate=("stranger",), host="10.5.0.1"))
    refused(Shown(certificate=(), host="10.5.0.1"))
    assert name(Shown(host="10.5.0.1")) == "lab"


def test_the_digest_of_a_token_is_no_token() -> None:
    refused(Shown(str(DIGESTS[0])))


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("10.5.0.1", "lab"),
        ("10.5.255.255", "lab"),
        ("10.5.6.7", "cp1"),
        ("::ffff:10.5.6.7", "cp1"),
        ("2001:db8::1", "lab"),
        ("2001:db8::1%eth0", "lab"),
    ],
)
def test_an_address_is_somebody_of_the_smallest_network_that_it_is_in(host: str, found: str) -> None:
    assert name(Shown(host=host)) == found


@pytest.mark.parametrize(
    "host", ["", "10.6.0.1", "::1", "::10.5.6.7", "hub", "010.005.006.007", "10.5.6.7/8"]
)
def test_any_other_address_is_nobodys(host: str) -> None:
    assert refused(Shown(host=host)) == "it shows no token"


def test_a_name_of_a_certificate_is_compared_whole_in_any_case() -> None:
    """CVE-2026-33248: no part of a name, and no pattern, is somebody's."""
    assert name(Shown(certificate=("other", "hub-B.EXAMPLE.edu"))) == "hub"
    assert name(Shown(certificate=("hub-b", "hub-b.example.edu"))) == "hub"
    for wrong in ("b.example.edu", "hub-b.example.edu.evil", "hub-b.example.edu\0", "*", "*.example.edu", ""):
        refused(Shown(certificate=(wrong,)))


def test_a_certificate_with_the_names_of_two_is_nobodys() -> None:
    assert "more than one" in refused(Shown(certificate=("panel", "hub-b")))


def test_a_jwt_is_whom_its_key_may_sign_for() -> None:
    login = ACCESS.login(Shown(signed("panel")), NOW)
    assert (login.principal.name, login.until) == ("panel", NOW + 60)
    refused(Shown(signed("panel", "other")))
    refused(Shown(signed("hub")))
    refused(Shown(signed("nobody")))
    refused(Shown(signed("panel", exp=NOW)))


def test_a_token_of_any_length_is_not_looked_at() -> None:
    assert f"more than {BEARER_LENGTH}" in refused(Shown("x" * (BEARER_LENGTH + 1)))


def test_what_is_shown_is_not_shown_again() -> None:
    assert TOKEN not in repr(Shown(TOKEN))
    assert DIGESTS[0].id not in repr(Ways(tokens=DIGESTS))


def test_without_a_file_everybody_is_anyone_and_may_all() -> None:
    assert Open().login(Shown("x", ("y",), "127.0.0.1"), NOW) is ANYONE
    assert (Open().closed, ACCESS.closed) == (False, True)
    assert ANYONE.principal.publish.everything and ANYONE.principal.subscribe.everything


networks = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)).map(
    lambda pair: ip_network((pair[0] >> (32 - pair[1]) << (32 - pair[1]), pair[1]))
)


@given(st.lists(networks, unique=True, max_size=6), st.integers(0, 2**32 - 1))
def test_the_network_is_the_one_that_asking_each_finds(found: list[object], number: int) -> None:
    access = Access((principal(str(network)), Ways(networks=(network,))) for network in found)  # type: ignore[arg-type]
    address = ip_address(number)
    inside = [network for network in found if address in network]  # type: ignore[operator]
    try:
        got = access.login(Shown(host=str(address)), NOW).principal.name
    except Unknown:
        got = None
    assert got == (str(max(inside, key=lambda network: network.prefixlen)) if inside else None)  # type: ignore[attr-defined]


@given(st.text() | st.none(), st.none() | st.lists(st.text()).map(tuple), st.text())
def test_nothing_that_is_shown_is_an_error(
    bearer: str | None, names: tuple[str, ...] | None, host: str
) -> None:
    try:
        ACCESS.login(Shown(bearer, names, host), NOW)
    except Unknown as unknown:
        assert str(unknown)


# -- another file --------------------------------------------------------------------------------------------


def test_a_login_is_renewed_by_what_it_showed() -> None:
    """CVE-2018-12546, CVE-2021-34434: a right that is gone is not kept by who came before."""
    ann, ann_less = Principal("ann", frozenset({"messenger"})), Principal("ann", frozenset({"status"}))
    token, other = new_token(), new_token()

    def digest(text: str) -> Digest:
        read = read_token(text)
        assert read is not None
        return digest_of(read)

    key, forged = Key("k", HS256, None, b"x" * 32), Key("k", HS256, None, b"y" * 32)
    network = ip_network("10.0.0.0/8")
    access = Access([(ann, Ways((digest(token),), ("ann",), ("k",), (network,)))], {"k": key})
    encoded = jwt.encode({"sub": "ann", "exp": NOW + 60}, b"x" * 32, "HS256")
    shown = (Shown(token), Shown(certificate=("ann",)), Shown(host="10.1.2.3"), Shown(encoded))
    logins = [access.login(one, NOW) for one in shown]
    for login in logins:
        assert access.renew(login) == login
        assert Open().renew(login) is login
    less = Access([(ann_less, Ways((digest(token),), ("ann",), ("k",), (network,)))], {"k": key})
    assert [less.renew(login).principal for login in logins] == [ann_less] * 4
    assert less.renew(logins[3]).until == NOW + 60
    gone = Access(
        [(ann, Ways((digest(other),), ("bob",), ("k",), (ip_network("11.0.0.0/8"),)))], {"k": forged}
    )
    unvouched = Access([(ann, Ways((digest(other),)))], {})
    nobody = Access([(Principal("bob", frozenset()), Ways((digest(other),)))], {})
    for renewing in (gone, unvouched, nobody):
        for login in logins:
            with pytest.raises(Unknown):
                renewing.renew(login)
