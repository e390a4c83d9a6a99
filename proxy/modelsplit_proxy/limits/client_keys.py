"""Whose key a request carries, and what that key is good for.

Off unless a file of keys is given (``key_file``). Then nobody is served without a key, but
for a look whether anybody is there. (A browser's preflight cannot carry one: it is answered
before keys are looked at.)
Compared are SHA-256 digests, all of them every time: how long it takes says nothing about
how close a guess was. A key is never logged, and Ollama never sees it.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.failures import ErrorCode, Failure, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from multidict import CIMultiDictProxy

    from modelsplit_policy.config.model import ClientsPolicy
    from modelsplit_policy.vocabulary import Role

# Characters. What is longer is no key, and is not worth hashing.
KEY_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Key:
    """One client. ``digest``: SHA-256 of the key itself, 32 bytes.

    ``limits``: those of ``ClientsPolicy`` that differ for this client.
    """

    name: str
    digest: bytes = field(repr=False)
    roles: frozenset[Role]
    manage_models: bool = False
    limits: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request; without a key, anybody.

    ``consumed``: the request headers that carried the key, in lower case; they stop here.
    """

    key: Key | None = None
    consumed: frozenset[bytes] = frozenset()

    def denied_role(self, role: Role) -> Failure | None:
        """What to answer where the key is not for this role."""
        key = self.key
        if key is None or role in key.roles:
            return None
        allowed = ", ".join(sorted(key.roles))
        return Failure(
            ErrorCode.FORBIDDEN,
            Reason.ROLE_DENIED,
            f'key "{key.name}" is not for role {role}, only for {allowed}; ask for another key',
            "Role Denied",
        )

    def denied_management(self, *, manages: bool) -> Failure | None:
        """What to answer where a request changes models and the key does not allow it."""
        key = self.key
        if key is None or key.manage_models or not manages:
            return None
        return Failure(
            ErrorCode.FORBIDDEN,
            Reason.MANAGEMENT_DENIED,
            f'key "{key.name}" may use models, but not pull, push, create, copy or delete them; '
            "ask for another key",
            "Management Denied",
        )


ANYBODY: Final = Caller()


class Keyring:
    """All keys, as read once at start. ``source``: the file they came from."""

    def __init__(self, keys: Sequence[Key], source: str = "") -> None:
        self.keys = tuple(keys)
        self.source = source

    def limits(self, common: ClientsPolicy) -> dict[str, ClientsPolicy]:
        """The limits of each client by its name; what a key leaves open is as for all."""
        return {key.name: common.model_copy(update=dict(key.limits)) for key in self.keys}

    def caller(self, sent: CIMultiDictProxy[str]) -> Caller | Failure:
        """Who sent these request headers, or what to answer where that is nobody we know."""
        first: Key | None = None
        consumed = set()
        presented = list(_presented(sent))
        for header, secret in presented:
            key = self._find(secret)
            if key is not None:
                first = first or key
                consumed.add(header)
        if first is not None:
            return Caller(first, frozenset(consumed))
        return _wrong_key() if presented else _no_key()

    def _find(self, secret: str) -> Key | None:
        if len(secret) > KEY_MAX:
            return None
        digest = digest_of(secret)
        match = None
        for key in self.keys:
            if hmac.compare_digest(key.digest, digest):
                match = key
        return match


def digest_of(secret: str) -> bytes:
    """What is kept of a key; any text a header can carry has one."""
    return sha256(secret.encode("utf-8", "surrogateescape")).digest()


def open_to_all(method: str, target: str) -> bool:
    """Whether a request needs no key: "is anybody there?"."""
    return method in {"GET", "HEAD"} and target.partition("?")[0] == "/"


def _presented(sent: CIMultiDictProxy[str]) -> Iterator[tuple[bytes, str]]:
    """What may be a key, and the header it stands in."""
    for value in sent.getall("Authorization", ()):
        scheme, _, secret = value.partition(" ")
        if scheme.lower() == "bearer" and secret.strip():
            yield b"authorization", secret.strip()
    for value in sent.getall("x-api-key", ()):
        if value.strip():
            yield b"x-api-key", value.strip()


def _no_key() -> Failure:
    return Failure(
        ErrorCode.UNAUTHORIZED,
        Reason.NO_KEY,
        "a key is needed here and none was sent; send it as Authorization: Bearer KEY, or as "
        "x-api-key: KEY",
        "Key Needed",
    )


def _wrong_key() -> Failure:
    return Failure(
        ErrorCode.UNAUTHORIZED,
        Reason.WRONG_KEY,
        "the key that was sent is not known here; ask whoever runs this modelsplit for one",
        "Wrong Key",
    )
