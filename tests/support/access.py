"""Principals for tests, each with a token that is found by its name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ces.access.principal import Login, Principal
from ces.access.token import digest_of, new_token, read_token
from ces.model.patterns import Rooms


def login(name: str, publish: Iterable[str] = (), subscribe: Iterable[str] = (), *kinds: str) -> Login:
    """A principal that has come in."""
    return Login(Principal(name, frozenset(kinds), Rooms(publish), Rooms(subscribe)))


class AccessFile:
    """An access file, and the tokens of the principals in it.

    tokens: by the name of the principal.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tokens: dict[str, str] = {}
        self.text = ""

    def add(
        self,
        name: str,
        kinds: Iterable[str],
        publish: Iterable[str] = (),
        subscribe: Iterable[str] = (),
        networks: Iterable[str] = (),
        token: str | None = None,
    ) -> AccessFile:
        """Add a principal.

        :param token: by default a new one.
        """
        token = token or new_token()
        read = read_token(token)
        assert read is not None
        self.tokens[name] = token
        self.text += f"[principals.{name}]\n"
        for key, values in {
            "kinds": kinds,
            "publish": publish,
            "subscribe": subscribe,
            "networks": networks,
            "tokens": [str(digest_of(read))],
        }.items():
            self.text += f"{key} = {list(values)}\n"
        self.path.write_text(self.text)
        return self
