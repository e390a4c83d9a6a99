"""``keys new`` and ``keys check``: a key for a client, and what a file of keys says."""

from __future__ import annotations

import secrets
import sys
from typing import TYPE_CHECKING, Any, Final

import orjson

from modelsplit_policy.config import parser
from modelsplit_policy.config.problems import PolicyError
from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.cli.check import report_errors
from modelsplit_proxy.config import key_file
from modelsplit_proxy.config.settings import SettingError
from modelsplit_proxy.limits.client_keys import digest_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from modelsplit_proxy.limits.client_keys import Key, Keyring

# 256 bits: not to be guessed, and not to be found from its SHA-256.
_RANDOM_BYTES: Final = 32
_PREFIX: Final = "ms-"


def new(name: str, roles: str | None, *, manage_models: bool, as_json: bool) -> int:
    """Make a key; print it, which nobody can do again, and the entry for the file.

    ``roles``: names separated by commas, in any case; None: all.
    """
    key = _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    entry: dict[str, Any] = {"name": name, "sha256": digest_of(key).hex()}
    if roles is not None:
        entry["roles"] = [role.strip().upper() for role in roles.split(",")]
    if manage_models:
        entry["manage_models"] = True
    _, problems = parser.check(key_file.KeyEntry, entry)
    if problems:
        raise SettingError("; ".join(str(problem) for problem in sorted(problems)))
    if as_json:
        _print_json({"key": key, "entry": entry})
    else:
        _print(f"key    {key}\nentry  {orjson.dumps(entry).decode()}")
        sys.stderr.write(
            "modelsplit: the key is shown this once: give it to the client; the entry goes into "
            'the list "keys" of the file that --keys names\n'
        )
    return 0


def check(named: Path | None, environ: Mapping[str, str], *, as_json: bool) -> int:
    """Read one file of keys (None: the one ``serve`` would use) and say what it allows.

    Raises PolicyError with everything wrong with it, but tells that as JSON if asked to.
    """
    try:
        keyring = _load(named, environ)
    except PolicyError as error:
        if not as_json:
            raise
        report_errors(error, as_json=True)
        return 1
    if as_json:
        keys = [_fields(key) for key in keyring.keys]
        _print_json({"ok": True, "source": keyring.source, "keys": keys})
    else:
        _print("\n".join(_lines(keyring)))
    return 0


def _load(named: Path | None, environ: Mapping[str, str]) -> Keyring:
    path = key_file.find(named, environ)
    if path is None:
        raise SettingError("no file of keys is given; name one, or set MODELSPLIT_KEYS")
    return key_file.load(path, environ)


def _lines(keyring: Keyring) -> Iterator[str]:
    yield f"{keyring.source}: ok ({len(keyring.keys)})"
    for key in keyring.keys:
        roles = "all roles" if key.roles == frozenset(Role) else ", ".join(sorted(key.roles))
        parts = [f"  {key.name:16} {roles}"]
        parts += [f"{name} {'none' if v is None else v}" for name, v in sorted(key.limits.items())]
        yield "; ".join([*parts, *(["manages models"] if key.manage_models else [])])


def _fields(key: Key) -> dict[str, Any]:
    return {
        "name": key.name,
        "roles": sorted(key.roles),
        "manage_models": key.manage_models,
        **key.limits,
    }


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


def _print_json(value: dict[str, Any]) -> None:
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n")
