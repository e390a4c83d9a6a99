"""Does an answer have the form that its request asked for? Bytes and values in, a sentence out.

The schema comes from a client and the text from a model, and neither is trusted. What is not
checked says why; it is never the client's error. No sentence about an answer repeats any of it.

Which form a request asks for, and whether an answer is JSON at all, is said here; whether JSON
fits a schema, in `json_schema`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from modelsplit_policy.go_json import LARGE, field
from modelsplit_proxy.protocol.format_finding import FormatFinding, RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from modelsplit_policy.go_json import Fields
    from modelsplit_proxy.protocol.json_schema import Compiled

_MAX_TEXT_CHARS: Final = 1024 * 1024
_IS_JSON: Final = "json"
# Fields whose own ``format`` is what asks.
_HOLD_A_FORMAT: Final = frozenset({"text", "output_config"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """The form of the answer: any JSON where ``schema`` is None.

    ``unchecked``: why no answer will be held against it, in a few words for the record.
    """

    schema: dict[str, Any] | None = None
    unchecked: str | None = None
    compiled: Compiled | None = dataclasses.field(default=None, repr=False, compare=False)


# What a request's fields ask of the answer, wherever a route has it; None: nothing.


def of_format(fields: Fields) -> Wanted | None:
    """Ollama's own ``format``: "json" or a schema; "" and null are nothing."""
    asked = fields.get("format")
    if asked is None or asked == "":
        return None
    return Wanted() if asked == _IS_JSON else _of_schema(asked)


def of_response_format(fields: Fields) -> Wanted | None:
    asked = _dict(fields.get("response_format"))
    return _of_type(asked, field(_dict(field(asked, "json_schema")), "schema"))


def of_text_format(fields: Fields) -> Wanted | None:
    asked = _dict(field(_dict(fields.get("text")), "format"))
    return _of_type(asked, field(asked, "schema"))


def of_output_format(fields: Fields) -> Wanted | None:
    newer = field(_dict(fields.get("output_config")), "format")
    asked = _dict(newer) or _dict(fields.get("output_format"))
    return _of_type(asked, field(asked, "schema"))


def asks(fields: Fields, names: Iterable[str]) -> bool:
    """Whether one of these fields of a request asks for JSON or for a schema.

    The schema itself is not looked at.
    """
    return any(_asks(fields.get(name), name) for name in names)


def _asks(value: Any, name: str) -> bool:
    if value is LARGE:
        return True
    if name in _HOLD_A_FORMAT:
        value = field(_dict(value), "format")
    if name != "format":
        return field(_dict(value), "type") not in {None, "text"}
    return value is not None and value != ""


def _of_type(asked: dict[str, Any], schema: Any) -> Wanted | None:
    match field(asked, "type"):
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
        # The validator would be three megabytes to every process, and many clients never send
        # a schema.
        from modelsplit_proxy.protocol.json_schema import compiled  # noqa: PLC0415

        return Wanted(schema, compiled=compiled(schema))
    except RefusedError as error:
        return Wanted(schema, unchecked=str(error))
    except ImportError:  # the package is being replaced by another version while we run
        return Wanted(schema, unchecked="the validator cannot be loaded")


def judge(wanted: Wanted, text: str) -> FormatFinding:
    """Hold one answer's text against what was wanted.

    Call it on the event loop: the validator keeps the interpreter to itself, so a thread
    would win nothing, and its work is bounded instead.
    """
    if wanted.unchecked is not None:
        return FormatFinding(unchecked=wanted.unchecked)
    if len(text) > _MAX_TEXT_CHARS:
        return FormatFinding(unchecked="the answer is larger than a million characters")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return _no_json(text, error)
    if wanted.compiled is None:
        return FormatFinding()
    return wanted.compiled.judge(text, value)


def _no_json(text: str, error: orjson.JSONDecodeError) -> FormatFinding:
    if "surrogate" in error.msg or "depth limit" in error.msg:
        return FormatFinding(unchecked="the answer is JSON that cannot be read here")
    start = text.lstrip()
    where = f"character {error.pos} of {len(text)}"
    if not start:
        problem = "the text is empty"
    elif start.startswith("```"):
        problem = "the text is fenced with ```; it must be JSON and nothing else"
    elif start.startswith("<think"):
        problem = "the text begins with a thinking tag; it must be JSON and nothing else"
    elif "end of data" in error.msg:
        problem = f"the text ends in the middle of its JSON, after {len(text)} characters"
    elif "after document" in error.msg:
        problem = f"more text follows the JSON, from {where}"
    else:
        problem = f"the text is not JSON, from {where}"
    return FormatFinding(problem)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
