"""From a file's bytes to the keys of clients, or to every reason why not.

Read once at start, as strictly as the policy. The file holds each key itself or, better,
its SHA-256, with which nobody can call; one that holds a key must be its owner's alone.
What a key might be is never shown in a message.
"""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, model_validator
from pydantic_core import PydanticCustomError

from modelsplit_policy.config import parser
from modelsplit_policy.config.model import ClientsPolicy, Flag, Label, Version
from modelsplit_policy.config.problems import PolicyError, Problem, json_path
from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.config.policy_file import PolicyFileError, read_document
from modelsplit_proxy.limits.client_keys import KEY_MAX, Key, Keyring, digest_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

KEY_MIN: Final = 16

_ROOT: Final = "$"
_KEY: Final = re.compile(rf"[!-~]{{{KEY_MIN},{KEY_MAX}}}")
_DIGEST: Final = re.compile(r"[0-9A-Fa-f]{64}")
_OTHERS_MAY_READ: Final = stat.S_IRGRP | stat.S_IROTH
_EXPOSED: Final = (
    "holds keys, and others may read it; chmod 600 it, or give each key's sha256 in place of it"
)


def _key(value: object) -> str:
    if isinstance(value, str) and _KEY.fullmatch(value):
        return value
    raise PydanticCustomError(
        "key", f"must be {KEY_MIN} to {KEY_MAX} ASCII characters without spaces"
    )


def _digest(value: object) -> bytes:
    if isinstance(value, str) and _DIGEST.fullmatch(value):
        return bytes.fromhex(value)
    raise PydanticCustomError("digest", "must be 64 hex digits: the SHA-256 of the key")


def _list(value: object) -> object:
    if isinstance(value, list):
        return value
    raise PydanticCustomError("keys", "must be a list of objects")


class KeyEntry(ClientsPolicy):
    """One client. The limits are those of the policy's `clients`, for this one alone."""

    name: Label
    key: Annotated[str, PlainValidator(_key)] | None = Field(default=None, repr=False)
    sha256: Annotated[bytes, PlainValidator(_digest)] | None = Field(default=None, repr=False)
    roles: tuple[Role, ...] = tuple(Role)
    manage_models: Flag = False

    @model_validator(mode="before")
    @classmethod
    def _an_object(cls, value: object) -> object:
        if isinstance(value, dict):
            return value
        raise PydanticCustomError("entry", 'must be an object with "name" and "sha256"')

    @property
    def digest(self) -> bytes | None:
        """SHA-256 of the key, however the file says it."""
        return self.sha256 if self.key is None else digest_of(self.key)

    def as_key(self) -> Key:
        own = self.model_fields_set & ClientsPolicy.model_fields.keys()
        assert self.digest is not None
        return Key(
            name=self.name,
            digest=self.digest,
            roles=frozenset(self.roles),
            manage_models=self.manage_models,
            limits={name: getattr(self, name) for name in own},
        )


class KeyFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Version
    keys: Annotated[tuple[KeyEntry, ...], BeforeValidator(_list)]


def load(path: Path, environ: Mapping[str, str]) -> Keyring:
    """Read and check one file of keys, or raise `PolicyError` with everything wrong with it."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            document = read_document(file.read())
        # systemd guards its credentials by an access list, whose mask looks like a group's right.
        guarded = str(path.parent) == environ.get("CREDENTIALS_DIRECTORY")
        parsed = _parse(document, 0 if guarded else mode & _OTHERS_MAY_READ)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise PolicyFileError(str(path), [Problem(_ROOT, f"cannot be read: {reason}")]) from error
    except PolicyError as error:
        raise PolicyFileError(str(path), error.problems) from error
    return Keyring([entry.as_key() for entry in parsed.keys], str(path))


def _parse(document: dict[str, Any], exposed: int) -> KeyFile:
    """``exposed``: the rights of others to read the file."""
    parsed, problems = parser.check(KeyFile, document)
    entries = document.get("keys")
    problems |= set(_contradictions(entries))
    if (
        exposed
        and isinstance(entries, list)
        and any(isinstance(entry, dict) and "key" in entry for entry in entries)
    ):
        problems.add(Problem(_ROOT, _EXPOSED))
    if parsed is None or problems:
        raise PolicyError(sorted(problems))
    return parsed


def _contradictions(entries: object) -> Iterator[Problem]:
    """The rules over several fields, for the entries that are sound by themselves."""
    if entries == []:
        yield Problem("$.keys", "must not be empty: nobody could call")
    names: dict[str, str] = {}
    digests: dict[bytes, str] = {}
    for number, entry in _sound(entries):
        at = json_path(("keys", number))
        first = names.setdefault(entry.name, at)
        if first != at:
            yield Problem(f"{at}.name", f"is also the name at {first}; rename one")
        if not entry.roles:
            yield Problem(f"{at}.roles", "must not be empty; leave it out for all roles")
        if (entry.key is None) == (entry.sha256 is None):
            yield Problem(at, 'must have either "sha256" or "key"')
        elif entry.digest is not None:
            first = digests.setdefault(entry.digest, at)
            if first != at:
                yield Problem(at, f"is the same key as {first}; every client has its own")


def _sound(entries: object) -> Iterator[tuple[int, KeyEntry]]:
    for number, entry in enumerate(entries if isinstance(entries, list) else ()):
        if isinstance(entry, dict):
            parsed, _ = parser.check(KeyEntry, entry)
            if parsed is not None:
                yield number, parsed
