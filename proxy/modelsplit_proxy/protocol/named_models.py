"""Which models a request outside inference names, read as Ollama reads it.

Go's decoder ignores the case of keys and lets the last one win that is not null. ``name``
is the old word for ``model``, and counts where ``model`` is empty.
"""

from __future__ import annotations

import json
from typing import Any, Final

import orjson

from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_proxy.http.body import BodyError
from modelsplit_proxy.protocol.json_body import encode

# Go takes an integer of any length where nothing asks for its value.
_LENIENT: Final = json.JSONDecoder(parse_int=float)


def fields_of(body: bytes) -> dict[str, Any]:
    """The JSON object that ``body`` begins with; empty if it begins with anything else.

    Ollama reads no further than that, and takes bytes that are no UTF-8 and half a surrogate
    pair. BodyError for what is nested too deeply to be read here.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        value = _first_value(body)
    return value if isinstance(value, dict) else {}


def _first_value(body: bytes) -> Any:
    try:
        return _LENIENT.raw_decode(body.decode("utf-8", "replace").lstrip(" \t\r\n"))[0]
    except ValueError:
        return None
    except RecursionError:
        what = "the body is nested too deeply to be read here"
        failure = Failure(ErrorCode.BAD_REQUEST, Reason.BAD_JSON, what, "Bad JSON")
        raise BodyError(failure) from None


def text(fields: dict[str, Any], key: str) -> str:
    """The text under ``key``, in whatever spelling; empty if there is none."""
    found = [v for k, v in fields.items() if k.casefold() == key and v is not None]
    return found[-1] if found and isinstance(found[-1], str) else ""


def model(fields: dict[str, Any]) -> str:
    """The model a body is about."""
    return text(fields, "model") or text(fields, "name")


def with_model(fields: dict[str, Any], name: str) -> bytes:
    """The same body about another model."""
    others = {k: v for k, v in fields.items() if k.casefold() not in {"model", "name"}}
    return encode({"model": name} | others)
