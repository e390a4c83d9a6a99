"""What is wrong with a policy file: where, and in words an operator can act on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from modelsplit_policy.config.model import (
    BASE_URL,
    HEADER_VALUE,
    KEEP_ALIVE,
    LABEL,
    NAME,
    PROVIDER_MODEL,
    VARIABLE,
    WINDOW,
)

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing to mend, and where: ``$.roles.EXECUTOR.max_que``."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class PolicyError(Exception):
    """The policy cannot be used; `problems` is everything found, not only the first."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


Step = str | int
Loc = tuple[Step, ...]

_WORD: Final = re.compile(r"[$A-Za-z_][A-Za-z0-9_$]*")


def json_path(loc: Iterable[Step]) -> str:
    """Write a place as JSON path: ``$.models["gpt-oss:20b"].price``."""
    return "$" + "".join(map(_step_text, loc))


def _step_text(step: Step) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    if _WORD.fullmatch(step):
        return f".{step}"
    return f"[{_quoted(step)}]"


def _quoted(text: str) -> str:
    """Quote as JSON would, on one line: an operator's key may hold a line break or worse."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"')
    safe = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in plain)
    return f'"{"".join(safe)}"'


def problem_at(loc: Iterable[Step], message: str) -> Problem:
    return Problem(json_path(loc), message)


# A key of the file, not of the policy: the file's reader resolves it before `parse`.
EXTENDS: Final = "extends"
MISSING: Final = 'missing; add it, or put "extends": "default" in the file'

_MESSAGES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "missing": MISSING,
        "int_type": "must be a whole number, not {got}",
        "float_type": "must be a number, not {got}",
        "finite_number": "must be a finite number",
        "string_unicode": "must be text, not half of a surrogate pair",
        "string_type": "must be a string, not {got}",
        "bool_type": "must be true or false, not {got}",
        "tuple_type": "must be a list, not {got}",
        "dict_type": "must be an object, not {got}",
        "mapping_type": "must be an object, not {got}",
        "model_type": "must be an object, not {got}",
        "greater_than": "must be more than {gt}, not {got}",
        "greater_than_equal": "must be at least {ge}, not {got}",
        "less_than_equal": "must be at most {le}, not {got}",
        "enum": "must be {expected}, not {got}",
        "literal_error": "must be {expected}, not {got}",
        "too_short": "must not be empty",
        "string_too_short": "must not be empty",
        "scalar_type": "must be a string, a number, true or false, not {got}",
    }
)
_PATTERNS: Final[Mapping[str, str]] = MappingProxyType(
    {
        NAME: "must be 1 to 256 letters, digits or . _ : / -, not {got}",
        LABEL: "must be 1 to 64 letters, digits or . _ -, not {got}",
        WINDOW: 'must be a whole number with s, m, h or d, such as "30m" or "1h", not {got}',
        BASE_URL: "must be an https address, or an http one of this machine, not {got}",
        PROVIDER_MODEL: "must be 1 to 256 ASCII characters without spaces, or null, not {got}",
        HEADER_VALUE: "must be 1 to 128 ASCII characters without spaces, not {got}",
        VARIABLE: "must be the name of a variable, such as ANTHROPIC_API_KEY, not {got}",
        KEEP_ALIVE: 'must be a whole number with s, m or h, such as "5m" or "1h", not {got}',
    }
)


def shown(value: object) -> str:
    """Show a value as the file has it, short enough for one line."""
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case str():
            return _quoted(value if len(value) <= 40 else f"{value[:40]}…")
        case int() if abs(value) > 10**15:
            return f"a number of {int(value.bit_length() * 0.30103) + 1} digits"
        case int() | float():
            return str(value)
        case Mapping():
            return "an object"
        case _:
            return "a list"


def message_of(error: ErrorDetails) -> str:
    ctx = error.get("ctx", {})
    text = _PATTERNS.get(str(ctx.get("pattern"))) or _MESSAGES.get(error["type"], error["msg"])
    expected = str(ctx.get("expected", "")).replace("'", '"')
    return text.format(**{**ctx, "expected": expected, "got": shown(error["input"])})
