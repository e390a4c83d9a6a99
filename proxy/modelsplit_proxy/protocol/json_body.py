"""What a request body says about itself, and the one value we may change in it.

Ollama's JSON decoder takes keys in any case and lets the last duplicate win; Python's
takes them exactly. A body that the two would read differently could borrow one model's
budget and run another, so a top-level ``model`` that appears twice, or in another case, is
refused. The value is replaced in place: every other byte goes out as it came in.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_proxy.http.body import BodyError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Ollama's decoder takes broken surrogate pairs, which JavaScript clients do send; orjson
# does not. The slower decoder gets a second look at bodies up to this size.
_SECOND_LOOK_BYTES: Final = 1024 * 1024

# Strings are matched possessively: one may be an image of many megabytes, and every step
# that could be taken back is remembered.
_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_KEY_AND_VALUE: Final = re.compile(rb'"model"\s*:\s*(%b)' % _STRING)
# An escape that spells one of the letters of "model", in either case.
_DISGUISE: Final = re.compile(rb"\\u00(?:[46][dDfFcC]|[46][45])")
_TOKEN: Final = re.compile(rb"%b|[{}\[\]:,]" % _STRING)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class Body(NamedTuple):
    """An inference request's body: its bytes, what they decode to, where the model is.

    ``model`` is empty when the body names none. ``span`` is the byte range of the model's
    JSON string, quotes included; None when there is nothing that could be replaced. Not
    ``quoted``: the body is a form, where the name stands as it is (``form``).
    """

    raw: bytes
    fields: dict[str, Any]
    model: str
    span: tuple[int, int] | None
    quoted: bool = True

    def with_model(self, model: str) -> bytes:
        """The same bytes naming ``model``; unchanged where they already do."""
        if model == self.model or self.span is None:
            return self.raw
        start, end = self.span
        written = orjson.dumps(model) if self.quoted else model.encode()
        return self.raw[:start] + written + self.raw[end:]


def encode(fields: dict[str, Any]) -> bytes:
    """Body fields as bytes, also those that only the second look could read."""
    try:
        return orjson.dumps(fields)
    except TypeError:  # half a surrogate pair, or an integer beyond 64 bits
        return json.dumps(fields).encode("ascii")


def read_body(raw: bytes) -> Body:
    """Decode ``raw``; raise BodyError if it is not one JSON object with one model at most."""
    fields = _decode(raw)
    if not isinstance(fields, dict):
        raise _bad_json(f"the body is a JSON {_kind(fields)}, not an object")
    others = [key for key in fields if key != "model" and key.lower() == "model"]
    if others:
        raise _ambiguous(f'the key "{others[0]}" reads as "model" to Ollama; spell it "model"')
    if "model" not in fields:
        return Body(raw, fields, "", None)
    # Looked for even where the value is no string: after a name, Go's decoder ignores a
    # second "model" that is null, and would run the first.
    span = _model_span(raw)
    model = fields["model"]
    if not isinstance(model, str):
        return Body(raw, fields, "", None)
    # Half a surrogate pair is no character; Go's decoder puts the same mark in its place.
    return Body(raw, fields, _SURROGATE.sub("\ufffd", model), span)


def _decode(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        first = str(error)
    if not raw.strip():
        raise _bad_json("the body is empty; send a JSON object")
    if len(raw) <= _SECOND_LOOK_BYTES:
        try:
            return json.loads(raw.decode("utf-8", "replace"))
        # RecursionError: nesting; ValueError: syntax, or an integer too long to convert.
        except (ValueError, RecursionError):
            pass
    raise _bad_json(f"the body is not valid JSON: {first[:90]}")


def _model_span(raw: bytes) -> tuple[int, int] | None:
    """Where the one top-level model string stands; BodyError if the key comes twice."""
    plain = b"\\u00" not in raw or _DISGUISE.search(raw) is None
    if plain and raw.count(b'"model"') == 1:
        # The decoded object has a top-level "model", no other key that reads like it, and the
        # text spells the word once: that is the one.
        match = _KEY_AND_VALUE.search(raw)
        return None if match is None else match.span(1)
    spans = list(_model_values(raw))
    if len(spans) != 1:
        raise _ambiguous('the body names "model" more than once; send it once')
    return spans[0]


def _model_values(raw: bytes) -> Iterator[tuple[int, int] | None]:
    """The careful way: every token, counting depth.

    One item for each top-level key that reads as "model": the span of its value, or None
    if that is no string.
    """
    depth = 0
    key = b""
    previous = b""
    for match in _TOKEN.finditer(raw):
        token = match.group(0)
        kind = token[:1]
        if depth == 1 and previous in (b"{", b",") and kind == b'"':
            key = token
        elif depth == 1 and previous == b":" and _reads_as_model(key):
            # The token after the colon is a string value, or whatever follows another.
            yield match.span(0) if kind == b'"' else None
        depth += (kind in (b"{", b"[")) - (kind in (b"}", b"]"))
        previous = kind


def _reads_as_model(quoted: bytes) -> bool:
    if b"\\" not in quoted:
        return quoted.lower() == b'"model"'
    try:
        return str(orjson.loads(quoted)).lower() == "model"
    except orjson.JSONDecodeError:  # a broken surrogate; it does not spell model
        return False


def _kind(value: object) -> str:
    kinds = {list: "array", str: "string", bool: "boolean", type(None): "null"}
    return kinds.get(type(value), "number")


def _bad_json(what: str) -> BodyError:
    return BodyError(Failure(ErrorCode.BAD_REQUEST, Reason.BAD_JSON, what, "Bad JSON"))


def _ambiguous(what: str) -> BodyError:
    failure = Failure(ErrorCode.BAD_REQUEST, Reason.AMBIGUOUS_MODEL, what, "Ambiguous Model")
    return BodyError(failure)
