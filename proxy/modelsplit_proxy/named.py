"""Which models a request outside inference names, read as Ollama reads it.

Go's decoder ignores the case of keys and lets the last one win that is not null. ``name``
is the old word for ``model``, and counts where ``model`` is empty.
"""

from __future__ import annotations

from typing import Any

import orjson


def fields_of(body: bytes) -> dict[str, Any]:
    """The JSON object in ``body``; empty if it is anything else."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


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
    return orjson.dumps({"model": name} | others)
