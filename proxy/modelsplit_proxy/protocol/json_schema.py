"""Does JSON fit a schema? The one module that knows the validator, loaded with the first schema.

A schema can fetch nothing, its patterns run in linear time, and one whose work cannot be
bounded is not used. A sentence about an answer names keywords, types, and properties that the
schema itself spells out, never a word of the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import jsonschema_rs
import orjson
from jsonschema_rs import ValidationErrorKind as Kind

from modelsplit_proxy.protocol.format_finding import FormatFinding, RefusedError
from modelsplit_proxy.protocol.schema_cost import SchemaCosts, costs_of

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError, Validator

_MAX_SCHEMA_BYTES: Final = 64 * 1024
_MAX_SENTENCE: Final = 120
_MAX_PATH: Final = 60
# A compiled pattern beyond this is refused; ``^.{1,200}$`` needs almost all of it.
_PATTERN_BYTES: Final = 256 * 1024
# A step takes 10 to 60 ns, so this many hold the event loop for a tenth of a second at worst.
_MAX_STEPS: Final = 2_000_000
# With alternatives, saying what is wrong makes an error of each step: 20 to 50 µs.
_MAX_STEPS_EXPLAINED: Final = 2_000
# Searching so many characters for a pattern counts as one more value.
_CHARS_PER_VALUE: Final = 16


@dataclass(frozen=True, slots=True)
class Compiled:
    """A schema that answers can be held against; ``raw``: its JSON."""

    raw: bytes
    validator: Validator
    costs: SchemaCosts

    def judge(self, text: str, value: Any) -> FormatFinding:
        """Hold an answer against it: its text, and the value that the text says."""
        if _too_much(self.costs, text, value):
            return FormatFinding(
                unchecked="the schema would take too long with an answer of this size"
            )
        if self.validator.is_valid(value):
            return FormatFinding()
        alternatives = b'"anyOf":' in self.raw or b'"oneOf":' in self.raw
        if alternatives and _steps(self.costs, text, value) > _MAX_STEPS_EXPLAINED:
            return FormatFinding("the JSON does not fit the schema")
        try:
            self.validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            return FormatFinding(_sentence(self.raw, error))
        return FormatFinding()


def compiled(schema: dict[str, Any]) -> Compiled:
    """Compile a schema; raises RefusedError for one that is wrong, or too dear to use."""
    try:
        raw = orjson.dumps(schema)
    except orjson.JSONEncodeError:  # nested too deep, half a surrogate pair, a huge number
        raise RefusedError("the schema cannot be written as JSON again") from None
    if len(raw) > _MAX_SCHEMA_BYTES:
        raise RefusedError(f"the schema is larger than {_MAX_SCHEMA_BYTES // 1024} KiB")
    costs = costs_of(schema, raw)
    try:
        validator = jsonschema_rs.validator_for(
            schema,
            offline=True,
            # Since draft 2019-09 a format describes and does not constrain.
            validate_formats=False,
            pattern_options=jsonschema_rs.RegexOptions(
                size_limit=_PATTERN_BYTES, dfa_size_limit=_PATTERN_BYTES
            ),
        )
    except ValueError as error:
        raise RefusedError(_why_invalid(error)) from None
    return Compiled(raw, validator, costs)


def _why_invalid(error: ValueError) -> str:
    kind = getattr(error, "kind", None)
    if isinstance(kind, Kind.Format) and kind.format == "regex":
        return "the schema has a pattern that is wrong, too large or not linear"
    return "the schema is not a valid JSON schema"


def _too_much(costs: SchemaCosts, text: str, value: Any) -> bool:
    # A value takes two characters at least, so most answers need not be counted.
    return len(text) * costs.at_most > _MAX_STEPS and _steps(costs, text, value) > _MAX_STEPS


def _steps(costs: SchemaCosts, text: str, value: Any) -> int:
    """How many steps the check may take, at most."""
    values, depth = _size(value)
    return (values + len(text) // _CHARS_PER_VALUE) * costs.of(depth)


def _size(value: Any) -> tuple[int, int]:
    """How many values there are, and how many levels of containers."""
    count, depth, level = 1, 0, [value]
    while level := [holder for holder in level if isinstance(holder, dict | list)]:
        below: list[Any] = []
        for holder in level:
            below += holder.values() if isinstance(holder, dict) else holder
        count, depth, level = count + len(below), depth + 1, below
    return count, depth


def _sentence(raw: bytes, error: ValidationError) -> str:
    text = f"at {_path(raw, error.instance_path)}: {_complaint(error)}"
    return "".join(char if char.isprintable() else "?" for char in text)[:_MAX_SENTENCE]


def _path(raw: bytes, parts: list[str | int]) -> str:
    """``/steps/0``; a name that the schema does not spell is the model's, and becomes ``*``."""
    shown = [
        str(part) if isinstance(part, int) or orjson.dumps(part) + b":" in raw else "*"
        for part in parts
    ]
    path = "/" + "/".join(shown)
    return path if len(path) <= _MAX_PATH else path[: _MAX_PATH - 1] + "…"


def _complaint(error: ValidationError) -> str:
    match error.kind:
        case Kind.Required(property=name):
            complaint = f'"{name}" is a required property'
        case Kind.Type(types=types):
            complaint = f"{_word(error.instance)}, not {' or '.join(types)}"
        case Kind.AdditionalProperties():
            complaint = "a property that is not allowed"
        case Kind.FalseSchema():
            complaint = "not allowed here"
        case Kind.Enum() | Kind.Constant():
            complaint = "not one of the allowed values"
        case Kind.AnyOf() | Kind.OneOfNotValid():
            complaint = "fits none of the alternatives"
        case Kind.OneOfMultipleValid():
            complaint = "fits more than one of the alternatives"
        case kind:
            complaint = f"does not fit {kind.name} {getattr(kind, 'limit', '')}".rstrip()
    return complaint


_WORDS: Final = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer"}


def _word(value: object) -> str:
    return "null" if value is None else _WORDS.get(type(value), "number")
