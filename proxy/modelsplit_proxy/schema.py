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
    from collections.abc import Iterable, Iterator, Mapping

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
_UNLOADS: Final = frozenset({"load", "unload"})
_FINAL_EVENTS: Final = frozenset({"response.completed", "response.incomplete"})


# -- what the request asked for -------------------------------------------------------------------


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


# -- what the answer says -------------------------------------------------------------------------


class _NoTextError(Exception):
    """A tool call, a refusal, an error: an answer that the format does not speak of."""


def text_of_whole(label: str, body: bytes) -> str | None:
    """The assistant's text in an answer that is not a stream, or None.

    None for a tool call, a refusal, an error, the load of a model, and where there is no text
    at all. An empty text is a text: it is no JSON.
    """
    return _joined(label, [body])


def text_of_stream(label: str, pieces: bytes) -> str | None:
    """The same from all the bytes of an NDJSON or SSE stream."""
    lines = pieces.splitlines()
    if not label.startswith("/api/"):
        lines = [line[5:].strip() for line in lines if line.startswith(b"data:")]
    return _joined(label, [line for line in lines if line.startswith(b"{")])


def _joined(label: str, objects: Iterable[bytes]) -> str | None:
    parts: list[str] = []
    try:
        for line in objects:
            parts += _texts(label, _object(line))
    except _NoTextError:
        return None
    return "".join(parts) if parts else None


def _texts(label: str, said: dict[str, Any]) -> list[str]:
    """The pieces of text in one answer or one event. Raises _NoTextError."""
    if said.get("error") or said.get("done_reason") in _UNLOADS:
        raise _NoTextError
    match label:
        case "/api/generate":
            found = [said.get("response")]
        case "/api/chat":
            found = [_of_message(_dict(said.get("message")))]
        case "/v1/chat/completions" | "/v1/completions":
            found = [_of_choice(choice) for choice in _dicts(said.get("choices"))[:1]]
        case "/v1/responses":
            found = list(_of_response(said))
        case "/v1/messages":
            found = list(_of_anthropic(said))
        case _:
            found = []
    return [text for text in found if isinstance(text, str)]


def _of_message(message: dict[str, Any]) -> Any:
    if message.get("tool_calls") or message.get("function_call") or message.get("refusal"):
        raise _NoTextError
    return message.get("content")


def _of_choice(choice: dict[str, Any]) -> Any:
    if "text" in choice:
        return choice["text"]
    return _of_message(_dict(choice.get("delta") or choice.get("message")))


def _of_response(said: dict[str, Any]) -> Iterator[Any]:
    """A response object, or the event at the end of a stream, which holds all of it again."""
    if said.get("type") in _FINAL_EVENTS:
        said = _dict(said.get("response"))
    if said.get("object") != "response":
        return
    for item in _dicts(said.get("output")):
        if str(item.get("type")).endswith("_call"):
            raise _NoTextError
        for part in _dicts(item.get("content")):
            if part.get("type") == "refusal":
                raise _NoTextError
            if part.get("type") == "output_text":
                yield part.get("text")


def _of_anthropic(said: dict[str, Any]) -> Iterator[Any]:
    """A message with its blocks, or an event with one block or a part of it."""
    if _REFUSAL in (said.get("stop_reason"), _dict(said.get("delta")).get("stop_reason")):
        raise _NoTextError
    block = _dict(said.get("content_block") or said.get("delta"))
    for one in [*_dicts(said.get("content")), block]:
        if str(one.get("type")).endswith("tool_use"):
            raise _NoTextError
        if one.get("type") in {"text", "text_delta"}:
            yield one.get("text")


_REFUSAL: Final = "refusal"


# -- does it fit ----------------------------------------------------------------------------------


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
    start = text.lstrip()
    if "surrogate" in error.msg or "depth limit" in error.msg:
        return Finding(unchecked="the answer is JSON that cannot be read here")
    if not start:
        return Finding("the text is empty")
    if start.startswith("```"):
        return Finding("the text is fenced with ```; it must be JSON and nothing else")
    if start.startswith("<think"):
        return Finding("the text begins with a thinking tag; it must be JSON and nothing else")
    where = f"character {error.pos} of {len(text)}"
    if "end of data" in error.msg:
        return Finding(f"the text ends in the middle of its JSON, after {len(text)} characters")
    if "after document" in error.msg:
        return Finding(f"more text follows the JSON, from {where}")
    return Finding(f"the text is not JSON, from {where}")


def _fit(compiled: _Compiled, text: str, value: Any) -> Finding:
    steps = _steps(compiled.costs, text, value)
    if steps > _MAX_STEPS:
        return Finding(unchecked="the schema would take too long with an answer of this size")
    if compiled.validator.is_valid(value):
        return Finding()
    alternatives = b'"anyOf":' in compiled.raw or b'"oneOf":' in compiled.raw
    if alternatives and steps > _MAX_STEPS_EXPLAINED:
        return Finding("the JSON does not fit the schema")
    try:
        compiled.validator.validate(value)
    except jsonschema_rs.ValidationError as error:
        return Finding(_sentence(compiled.raw, error))
    return Finding()


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
            return f'"{name}" is a required property'
        case Kind.Type(types=types):
            return f"{_word(error.instance)}, not {' or '.join(types)}"
        case Kind.AdditionalProperties(unexpected=names):
            return f"properties that are not allowed: {len(names)}"
        case Kind.Enum() | Kind.Constant():
            return "not one of the allowed values"
        case Kind.AnyOf() | Kind.OneOfNotValid():
            return "fits none of the alternatives"
        case Kind.OneOfMultipleValid():
            return "fits more than one of the alternatives"
        case kind:
            limit = getattr(kind, "limit", "")
            return f"does not fit {kind.name} {limit}".rstrip()


_WORDS: Final = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer"}


def _word(value: object) -> str:
    return "null" if value is None else _WORDS.get(type(value), "number")


# -- shapes ---------------------------------------------------------------------------------------


def _object(line: bytes) -> dict[str, Any]:
    try:
        return _dict(orjson.loads(line))
    except orjson.JSONDecodeError:
        return {}


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
