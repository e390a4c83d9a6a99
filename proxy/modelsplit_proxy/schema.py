"""Does an answer have the form that its request asked for? Bytes and values in, a sentence out.

The schema comes from a client and the text from a model, and neither is trusted: a schema
can fetch nothing, its patterns run in linear time, and one whose work cannot be bounded is
not used. What is not checked says why; it is never the client's error. No sentence about an
answer repeats any of it: it names keywords, types, and properties that the schema itself
spells out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import jsonschema_rs
import orjson
from jsonschema_rs import ValidationErrorKind as Kind

from modelsplit_proxy.schemacost import Costs, RefusedError, costs_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jsonschema_rs import ValidationError, Validator

_MAX_SCHEMA_BYTES: Final = 64 * 1024
_MAX_TEXT_CHARS: Final = 1024 * 1024
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

_IS_JSON: Final = "json"


@dataclass(frozen=True, slots=True)
class _Compiled:
    raw: bytes
    validator: Validator
    costs: Costs


@dataclass(frozen=True, slots=True)
class Wanted:
    """The form of the answer: any JSON where ``schema`` is None.

    ``unchecked``: why no answer will be held against it, in a few words for the record.
    """

    schema: dict[str, Any] | None = None
    unchecked: str | None = None
    compiled: _Compiled | None = field(default=None, repr=False, compare=False)


def wanted(label: str, fields: Mapping[str, Any]) -> Wanted | None:
    """What a request's decoded body asks of the answer on the route ``label``; None: nothing."""
    match label:
        case "/api/generate" | "/api/chat":
            return _of_format(fields.get("format"))
        case "/v1/chat/completions":
            asked = _dict(fields.get("response_format"))
            return _of_type(asked, _dict(asked.get("json_schema")).get("schema"))
        case "/v1/responses":
            asked = _dict(_dict(fields.get("text")).get("format"))
            return _of_type(asked, asked.get("schema"))
        case "/v1/messages":
            newer = _dict(fields.get("output_config")).get("format")
            asked = _dict(newer) or _dict(fields.get("output_format"))
            return _of_type(asked, asked.get("schema"))
        case _:
            return None


def _of_format(asked: Any) -> Wanted | None:
    """Ollama's own ``format``: "json" or a schema; "" and null are nothing."""
    if asked is None or asked == "":
        return None
    return Wanted() if asked == _IS_JSON else _of_schema(asked)


def _of_type(asked: dict[str, Any], schema: Any) -> Wanted | None:
    match asked.get("type"):
        case None | "text":
            return None
        case "json_object":
            return Wanted()
        case "json_schema":
            return _of_schema(schema)
        case _:
            return Wanted(unchecked="the format is of an unknown type")


def _of_schema(schema: Any) -> Wanted:
    if not isinstance(schema, dict):
        return Wanted(unchecked="the format holds no schema")
    try:
        return Wanted(schema, compiled=_compile(schema))
    except RefusedError as error:
        return Wanted(schema, unchecked=str(error))


def _compile(schema: dict[str, Any]) -> _Compiled:
    """Raises RefusedError."""
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
    return _Compiled(raw, validator, costs)


def _why_invalid(error: ValueError) -> str:
    kind = getattr(error, "kind", None)
    if isinstance(kind, Kind.Format) and kind.format == "regex":
        return "the schema has a pattern that is wrong, too large or not linear"
    return "the schema is not a valid JSON schema"


@dataclass(frozen=True, slots=True)
class Finding:
    """``problem``: what does not fit. ``unchecked``: why this answer was not looked at.

    Each one short sentence for records and logs; both None for an answer that fits.
    """

    problem: str | None = None
    unchecked: str | None = None


def problem(wanted: Wanted, text: str) -> str | None:
    """What about ``text`` is not as wanted; None where it fits, or is not checked."""
    return judge(wanted, text).problem


def judge(wanted: Wanted, text: str) -> Finding:
    """Hold one answer's text against what was wanted.

    Call it on the event loop: the validator keeps the interpreter to itself, so a thread
    would win nothing, and its work is bounded instead.
    """
    if wanted.unchecked is not None:
        return Finding(unchecked=wanted.unchecked)
    if len(text) > _MAX_TEXT_CHARS:
        return Finding(unchecked="the answer is larger than a million characters")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return _no_json(text, error)
    if wanted.compiled is None:
        return Finding()
    return _fit(wanted.compiled, text, value)


def _no_json(text: str, error: orjson.JSONDecodeError) -> Finding:
    if "surrogate" in error.msg or "depth limit" in error.msg:
        return Finding(unchecked="the answer is JSON that cannot be read here")
    start = text.lstrip()
    where = f"character {error.pos} of {len(text)}"
    if not start:
        said = "the text is empty"
    elif start.startswith("```"):
        said = "the text is fenced with ```; it must be JSON and nothing else"
    elif start.startswith("<think"):
        said = "the text begins with a thinking tag; it must be JSON and nothing else"
    elif "end of data" in error.msg:
        said = f"the text ends in the middle of its JSON, after {len(text)} characters"
    elif "after document" in error.msg:
        said = f"more text follows the JSON, from {where}"
    else:
        said = f"the text is not JSON, from {where}"
    return Finding(said)


def _fit(compiled: _Compiled, text: str, value: Any) -> Finding:
    if _too_much(compiled.costs, text, value):
        return Finding(unchecked="the schema would take too long with an answer of this size")
    if compiled.validator.is_valid(value):
        return Finding()
    alternatives = b'"anyOf":' in compiled.raw or b'"oneOf":' in compiled.raw
    if alternatives and _steps(compiled.costs, text, value) > _MAX_STEPS_EXPLAINED:
        return Finding("the JSON does not fit the schema")
    try:
        compiled.validator.validate(value)
    except jsonschema_rs.ValidationError as error:
        return Finding(_sentence(compiled.raw, error))
    return Finding()


def _too_much(costs: Costs, text: str, value: Any) -> bool:
    # A value takes two characters at least, so most answers need not be counted.
    return len(text) * costs.at_most > _MAX_STEPS and _steps(costs, text, value) > _MAX_STEPS


def _steps(costs: Costs, text: str, value: Any) -> int:
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
            said = f'"{name}" is a required property'
        case Kind.Type(types=types):
            said = f"{_word(error.instance)}, not {' or '.join(types)}"
        case Kind.AdditionalProperties():
            said = "a property that is not allowed"
        case Kind.FalseSchema():
            said = "not allowed here"
        case Kind.Enum() | Kind.Constant():
            said = "not one of the allowed values"
        case Kind.AnyOf() | Kind.OneOfNotValid():
            said = "fits none of the alternatives"
        case Kind.OneOfMultipleValid():
            said = "fits more than one of the alternatives"
        case kind:
            said = f"does not fit {kind.name} {getattr(kind, 'limit', '')}".rstrip()
    return said


_WORDS: Final = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer"}


def _word(value: object) -> str:
    return "null" if value is None else _WORDS.get(type(value), "number")


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
