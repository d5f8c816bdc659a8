"""Finds the principal of somebody who comes.

What is shown counts in this order, and what is shown must be good: who shows a wrong token is not let in as
somebody from a known network. ::

    a bearer token     of the access file, or a JWT
    a certificate      by a name that it has
    the address        the smallest network that it is in
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple

from ces.access.principal import ANYONE, GUEST, Login, Principal, Unknown
from ces.access.signed import Key, verify
from ces.access.token import NO_DIGEST, PREFIX, Digest, matches, read_token
from ces.config.endpoint import is_loopback

BEARER_LENGTH = 4096
"""Longest bearer token that is looked at, in characters."""

Network = IPv4Network | IPv6Network


@dataclass(frozen=True)
class Shown:
    """What somebody who comes shows.

    bearer: the token; None for none.
    certificate: the names of its certificate, which was verified; None for none.
    host: its IP address; "" when it has none, which is so for a socket in the file system.
    passed_on: whether a proxy says that it comes from somebody else.
    """

    bearer: str | None = field(default=None, repr=False)
    certificate: tuple[str, ...] | None = None
    host: str = ""
    passed_on: bool = False


@dataclass(frozen=True)
class Ways:
    """How one principal is found.

    keys: the names of the keys whose tokens may name it.
    """

    tokens: tuple[Digest, ...] = field(default=(), repr=False)
    certificates: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()


class Signed(NamedTuple):
    """A proof: a JWT that named a principal, and the key that it was signed with."""

    subject: str
    key: Key


class Certified(NamedTuple):
    """A proof: the names of a certificate."""

    names: tuple[str, ...]


class From(NamedTuple):
    """A proof: an address."""

    host: str


class Access:
    """Who may do what. Immutable: another file is another `Access`.

    :param principals: each with how it is found. No token, certificate name or network is of two of them.
    :param keys: the keys that sign tokens, by their name.
    """

    def __init__(
        self, principals: Iterable[tuple[Principal, Ways]] = (), keys: Mapping[str, Key] | None = None
    ) -> None:
        self._keys = dict(keys or {})
        self._principals: dict[str, Principal] = {}
        self._tokens: dict[str, tuple[Digest, Principal]] = {}
        self._certificates: dict[str, Principal] = {}
        self._vouched: dict[str, frozenset[str]] = {}
        """The keys whose tokens may name a principal."""
        self._networks: dict[Network, Principal] = {}
        for principal, ways in principals:
            self._principals[principal.name] = principal
            self._vouched[principal.name] = frozenset(ways.keys)
            for digest in ways.tokens:
                self._tokens[digest.id] = digest, principal
            self._certificates.update((name.lower(), principal) for name in ways.certificates)
            self._networks.update(dict.fromkeys(ways.networks, principal))
        lengths = {(network.version, network.prefixlen) for network in self._networks}
        self._lengths = sorted(lengths, reverse=True)
        """Versions and lengths of the networks, the longest first: there are few, however many networks."""

    def __len__(self) -> int:
        """How many principals there are."""
        return len(self._principals)

    @property
    def closed(self) -> bool:
        """Whether there is an access file."""
        return True

    def get(self, name: str) -> Principal | None:
        """The principal with this name, if there is one."""
        return self._principals.get(name)

    def login(self, shown: Shown, now: float) -> Login:
        """Who this is.

        :param now: in seconds since the epoch.
        :raises Unknown: when it is nobody.
        """
        if shown.bearer is not None:
            return self._by_bearer(shown.bearer, now)
        if shown.certificate is not None:
            return self._proved(Certified(shown.certificate))
        return self._proved(From(shown.host))

    def renew(self, login: Login) -> Login:
        """A login of an earlier file, by what this one says of its proof.

        :raises Unknown: when it is nobody's any more.
        """
        return self._proved(login.proof, login.until)

    def _proved(self, proof: Hashable | None, until: float | None = None) -> Login:
        """Who is found by a proof. Whether a token or a signature is good was looked at when it was shown."""
        match proof:
            case Digest(id=id):
                digest, principal = self._tokens.get(id, (NO_DIGEST, None))
                if principal is None or digest != proof:
                    raise Unknown("the token is not known")
            case Signed(subject=subject, key=key):
                principal = self._principals.get(subject)
                if principal is None or key.name not in self._vouched[subject] or self._keys[key.name] != key:
                    raise Unknown(f"the key {key.name!r} may not sign for the principal that the JWT names")
            case Certified(names=names):
                principal = self._by_certificate(names)
            case From(host=host):
                principal = self._by_address(host)
            case _:
                raise Unknown("it shows nothing")
        return Login(principal, until, proof)

    def _by_bearer(self, bearer: str, now: float) -> Login:
        if len(bearer) > BEARER_LENGTH:
            raise Unknown(f"the token has more than {BEARER_LENGTH} characters")
        token = read_token(bearer)
        if token is not None:
            digest, principal = self._tokens.get(token.id, (NO_DIGEST, None))
            if not matches(token, digest) or principal is None:
                raise Unknown("the token is not known")
            return Login(principal, proof=digest)
        if bearer.startswith(PREFIX) or bearer.count(".") != 2:
            raise Unknown("the token is neither one of CES nor a JWT")
        claims = verify(bearer, self._keys, now)
        return self._proved(Signed(claims.subject, self._keys[claims.key]), claims.until)

    def _by_certificate(self, names: tuple[str, ...]) -> Principal:
        found = {self._certificates[name.lower()] for name in names if name.lower() in self._certificates}
        if len(found) != 1:
            few = "no principal" if not found else "more than one principal"
            raise Unknown(f"the names of the certificate are those of {few}")
        return found.pop()

    def _by_address(self, host: str) -> Principal:
        address = _address(host)
        if address is not None:
            for version, length in self._lengths:
                if version == address.version:
                    network = _network(address, length)
                    if network in self._networks:
                        return self._networks[network]
        raise Unknown("it shows no token")


class Open(Access):
    """No access file: anyone may do everything, but for administration, which is for this machine."""

    @property
    def closed(self) -> bool:
        """Whether there is an access file."""
        return False

    def get(self, name: str) -> Principal | None:
        """Anyone."""
        return ANYONE.principal

    def login(self, shown: Shown, now: float) -> Login:
        """Anyone, or a guest from another machine."""
        here = not shown.passed_on and (not shown.host or is_loopback(shown.host))
        return ANYONE if here else GUEST

    def renew(self, login: Login) -> Login:
        """The same."""
        return login


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """An IP address; an IPv4 address in IPv6 form (``::ffff:10.0.0.1``) as the IPv4 address that it is."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def _network(address: IPv4Address | IPv6Address, length: int) -> Network:
    if isinstance(address, IPv4Address):
        return IPv4Network((int(address), length), strict=False)
    return IPv6Network((int(address), length), strict=False)
