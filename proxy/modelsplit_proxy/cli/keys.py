"""``keys new`` and ``keys check``: a key for a client, and what a file of keys says."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from modelsplit_policy.config import parser
from modelsplit_policy.config.problems import PolicyError
from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.cli.check import show_errors
from modelsplit_proxy.cli.command import JSON, Argument, Command
from modelsplit_proxy.cli.output import ExitCode, show, talk
from modelsplit_proxy.config import key_file, key_path
from modelsplit_proxy.config.settings import SettingError, read_settings
from modelsplit_proxy.limits.client_keys import digest_of
from modelsplit_proxy.runtime.disk_trouble import explained

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping

    from modelsplit_proxy.limits.client_keys import Key, Keyring

# 256 bits: not to be guessed, and not to be found from its SHA-256.
_RANDOM_BYTES: Final = 32
_PREFIX: Final = "ms-"
# Nobody else may read a file of keys, nor which clients there are.
_OWNERS: Final = 0o600


def new(
    name: str,
    roles: str | None,
    *,
    manage_models: bool,
    as_json: bool,
    into: Path | None = None,
) -> int:
    """Make a key; print it, which nobody can do again, and the entry for the file.

    ``roles``: names separated by commas, in any case; None: all. ``into``: the file that the
    entry is added to, made if it is not there. Raises PolicyError if that file is no good.
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
    if into is not None:
        _add(into, entry)
    lines = [f"key    {key}", f"entry  {orjson.dumps(entry).decode()}"]
    show({"key": key, "entry": entry}, lines, as_json=as_json)
    if not as_json:
        where = 'the entry goes into the list "keys" of the file that --keys names'
        if into is not None:
            where = f"the entry is in {into}, which is read at the start: serve --keys {into}"
        talk(f"the key is shown this once: give it to the client; {where}")
    return ExitCode.OK


def _add(path: Path, entry: dict[str, Any]) -> None:
    """One more entry in the file, which is replaced as a whole and is its owner's alone."""
    document: dict[str, Any] = {"version": 1, "keys": []}
    try:
        if path.exists():
            key_file.load(path, {})
            document = orjson.loads(path.read_bytes())
        if any(row["name"] == entry["name"] for row in document["keys"]):
            raise SettingError(f'{path} has a key named "{entry["name"]}" already')
        document["keys"].append(entry)
        text = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fresh.touch(_OWNERS, exist_ok=False)
        fresh.write_bytes(text)
        fresh.replace(path)
    except OSError as error:
        raise SettingError(f"--into {path} cannot be written: {explained(error, path)}") from error


def check(named: Path | None, environ: Mapping[str, str], *, as_json: bool) -> int:
    """Read one file of keys (None: the one ``serve`` would use) and say what it allows.

    Raises PolicyError with everything wrong with it, but tells that as JSON if asked to.
    """
    try:
        keyring = _load(named, environ)
    except PolicyError as error:
        if not as_json:
            raise
        show_errors(error)
        return ExitCode.FAILED
    fields = [_fields(key) for key in keyring.keys]
    value = {"ok": True, "source": keyring.source, "keys": fields}
    show(value, _lines(keyring), as_json=as_json)
    return ExitCode.OK


def _load(named: Path | None, environ: Mapping[str, str]) -> Keyring:
    path = key_path.find(named, environ)
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


def _new(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    del environ
    more = {"manage_models": args.manage_models, "as_json": args.json, "into": args.into}
    return new(args.name, args.roles, **more)


def _check(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    return check(args.file or read_settings({}, environ).keys, environ, as_json=args.json)


_NEW: Final = Command(
    "new",
    "make a key: print it, and its entry for the file",
    "Print a fresh key, and its entry for the file of keys; with --into, add the entry to that "
    "file. Of the key itself nothing is stored. Exit 0: done; 2: wrong usage.",
    _new,
    (
        Argument("--name", required=True, help="the client's name in logs and limits"),
        Argument("--roles", help="which roles it may call (default all)"),
        Argument("--into", type=Path, metavar="FILE", help="add the entry there, or begin it"),
        Argument("--manage-models", action="store_true", help="it may pull, create, delete …"),
        JSON,
    ),
    example="example: modelsplit keys new --name laptop --roles PLANNER,CHAT --into keys.json",
)
_CHECK: Final = Command(
    "check",
    "check a file of keys; every error at once",
    "Check a file of keys: every error at once, or what each key may do. "
    "Exit 0: good; 1: not; 2: wrong usage.",
    _check,
    (Argument("file", nargs="?", type=Path, help="default: the file serve would use"), JSON),
    example="example: modelsplit keys check keys.json",
)
COMMAND: Final = Command(
    "keys",
    "make a key for a client; check a file of keys",
    "Keys for clients. They are off until serve is given a file of them (--keys).",
    verbs=(_NEW, _CHECK),
    example="example: modelsplit keys new --name laptop --roles PLANNER,CHAT --into keys.json",
)
