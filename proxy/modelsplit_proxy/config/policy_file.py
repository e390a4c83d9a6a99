"""From a file's bytes to a checked policy, or to every reason why not.

The only reader of policy files. A file either is the whole policy, or says
``"extends": "default"`` and is merged over the shipped one. JSON is read more strictly than
`json.loads` does by itself: a key written twice and a bare NaN are errors, because the file
would otherwise mean something else than it shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from modelsplit_policy.config.parser import parse
from modelsplit_policy.config.problems import EXTENDS, PolicyError, Problem, json_path
from modelsplit_proxy.config import shipped_files, usual_place
from modelsplit_proxy.runtime.disk_trouble import explained

if TYPE_CHECKING:
    from modelsplit_policy.config.model import Policy

FILE_NAME: Final = "model-policy.json"
ETC: Final = Path("/etc/modelsplit") / FILE_NAME
SHIPPED: Final = "shipped default"

_ROOT: Final = "$"
_DEFAULT: Final = "default"
_SCHEMA: Final = "$schema"

# Bounds on what is read at all, far beyond any policy (5 levels, 8 digits), so that a wrong
# file is refused with a sentence instead of exhausting the stack of a later step.
_DEPTH_MAX: Final = 32
_DIGITS_MAX: Final = 30
_TOO_DEEP: Final = "is nested too deeply to be a policy"


class PolicyFileError(PolicyError):
    """What is wrong with one file; each line names the file, as compilers do."""

    def __init__(self, source: str, problems: Iterable[Problem]) -> None:
        super().__init__(problems)
        self.source = source

    def __str__(self) -> str:
        return "\n".join(f"{self.source}: {problem}" for problem in self.problems)


@dataclass(frozen=True, slots=True)
class LoadedPolicy:
    """A policy in force, where it came from, and which one it is."""

    policy: Policy
    source: str
    """The file's path, or `SHIPPED`."""
    digest: str
    """SHA-256 of the merged document, 64 hex digits; equal policies have equal digests."""

    @property
    def short_digest(self) -> str:
        """The first 12 digits, as logs and status show it."""
        return self.digest[:12]


def find_policy(flag: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Choose the policy file, first match wins; None means the shipped default.

    1. ``--policy``, 2. ``$MODELSPLIT_POLICY``: named by the operator, so it has to exist.
    3. ``$CONFIGURATION_DIRECTORY`` (systemd's), 4. ``/etc/modelsplit``: only if it is there.
    """
    named = environ.get("MODELSPLIT_POLICY")
    if flag is not None:
        # Who has read all settings has what the variable says as well.
        return existing(flag, "--policy or $MODELSPLIT_POLICY")
    if named:
        return existing(Path(named), "$MODELSPLIT_POLICY")
    return usual_place.find(environ, FILE_NAME, ETC)


def existing(path: Path, named_by: str) -> Path:
    """A path that somebody named, or `PolicyFileError` where nothing lies there."""
    if not usual_place.is_there(path):
        problem = Problem(
            _ROOT, f"no such file, but {named_by} names it; create it or name another"
        )
        raise PolicyFileError(str(path), [problem])
    return path


def load(path: Path | None) -> LoadedPolicy:
    """Read, merge and check one policy file (None: the shipped default) or raise `PolicyError`."""
    source = SHIPPED if path is None else str(path)
    try:
        whole, problems = _resolved(_bytes(path))
        return LoadedPolicy(_parsed(whole, problems), source, digest(whole))
    except OSError as error:
        reason = error.strerror if path is None else explained(error, path)
        raise PolicyFileError(source, [Problem(_ROOT, f"cannot be read: {reason}")]) from error
    except PolicyError as error:
        raise PolicyFileError(source, error.problems) from error


def document(path: Path | None) -> dict[str, Any]:
    """One policy file (None: the shipped one) with what it extends, not yet checked.

    OSError or PolicyError: it cannot be read.
    """
    return resolve(_bytes(path))


def _bytes(path: Path | None) -> bytes:
    return shipped_files.read(FILE_NAME).encode() if path is None else path.read_bytes()


def _parsed(whole: Mapping[str, Any], problems: list[Problem]) -> Policy:
    """The policy; PolicyError with what is wrong with it, and ``problems`` besides."""
    try:
        policy = parse(whole)
    except PolicyError as error:
        raise PolicyError(sorted({*error.problems, *problems})) from error
    if problems:
        raise PolicyError(problems)
    return policy


def shipped() -> dict[str, Any]:
    """The shipped policy as a JSON document, a fresh copy each time."""
    return read_document(shipped_files.read(FILE_NAME).encode())


def resolve(data: bytes) -> dict[str, Any]:
    """Read a file's bytes and apply its ``extends``; PolicyError."""
    whole, problems = _resolved(data)
    if problems:
        raise PolicyError(problems)
    return whole


def _resolved(data: bytes) -> tuple[dict[str, Any], list[Problem]]:
    """The same, and what is wrong with ``extends``: the file is read as if it were right.

    So whatever else is wrong is found in the same run. A misspelt key of it stays where it is.
    """
    document = read_document(data)
    key = EXTENDS if EXTENDS in document else _misspelt_extends(document)
    if key is None:
        return document, []
    if key != EXTENDS:
        return merge(shipped(), document), []
    base = document.pop(EXTENDS)
    whole = merge(shipped(), document)
    if base == _DEFAULT:
        return whole, []
    message = f'must be "default", the only policy a file can extend, not {json.dumps(base)}'
    return whole, [Problem("$.extends", message)]


def _misspelt_extends(document: Mapping[str, Any]) -> str | None:
    """The unknown key by which the file says that it extends the shipped policy; None: none."""
    keys = (key for key, value in document.items() if value == _DEFAULT)
    return next((key for key in keys if key != _SCHEMA), None)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one document over another: objects key by key, anything else replaces."""
    merged = dict(base)
    for key, value in over.items():
        below = base.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(below, value)
        else:
            merged[key] = value
    return merged


def digest(document: Mapping[str, Any]) -> str:
    """Name a merged document: SHA-256 of its canonical JSON, without the editors' ``$schema``."""
    meant = {key: value for key, value in document.items() if key != _SCHEMA}
    return sha256(json.dumps(meant, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


# --- JSON, read strictly -------------------------------------------------------------------


class _Object(dict[str, Any]):
    """A JSON object that remembers which of its keys were written more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.twice = [] if len(self) == len(pairs) else _repeated(key for key, _ in pairs)


def _repeated(keys: Iterable[str]) -> list[str]:
    counts: dict[str, int] = {}
    for key in keys:
        counts[key] = counts.get(key, 0) + 1
    return [key for key, count in counts.items() if count > 1]


def read_document(data: bytes) -> dict[str, Any]:
    """Read strict JSON whose top is an object, or raise `PolicyError` with every duplicate key."""
    document = _json(_text(data))
    if not isinstance(document, dict):
        raise PolicyError([Problem(_ROOT, f"must be a JSON object, not {_kind(document)}")])
    if twice := list(_duplicates(document, ())):
        raise PolicyError(twice)
    return document


def _text(data: bytes) -> str:
    try:
        # Editors on Windows write a byte order mark; RFC 8259 §8.1 lets a parser ignore it.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"is not UTF-8 (byte {error.start}, line {line}); save it as UTF-8"
        raise PolicyError([Problem(_ROOT, message)]) from error


def _json(text: str) -> Any:
    try:
        return json.loads(
            text, object_pairs_hook=_Object, parse_constant=_no_constant, parse_int=_integer
        )
    except json.JSONDecodeError as error:
        message = f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
    except RecursionError:
        message = _TOO_DEEP
    except ValueError as error:  # from the two hooks
        message = f"is not JSON: {error}"
    raise PolicyError([Problem(_ROOT, message)])


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number JSON knows")


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > _DIGITS_MAX:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _duplicates(node: Any, at: tuple[str | int, ...]) -> Iterator[Problem]:
    children: Iterable[tuple[str | int, Any]] = ()
    if len(at) > _DEPTH_MAX:
        yield Problem(json_path(at[:2]), _TOO_DEEP)
    elif isinstance(node, _Object):
        for key in node.twice:
            yield Problem(json_path((*at, key)), "is written more than once; keep one of them")
        children = node.items()
    elif isinstance(node, list):
        children = enumerate(node)
    for step, child in children:
        yield from _duplicates(child, (*at, step))


def _kind(value: Any) -> str:
    match value:
        case list():
            return "a list"
        case str():
            return "a string"
        case None | bool():
            return json.dumps(value)
        case _:
            return "a number"
