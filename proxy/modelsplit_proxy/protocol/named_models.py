"""Which models a request outside inference names, read as Ollama reads it.

``name`` is the old word for ``model``, and counts where ``model`` is empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelsplit_policy.go_json import BeyondError, Fields, GoJsonError, mended
from modelsplit_proxy.protocol.json_body import bad_json, scanned

if TYPE_CHECKING:
    from modelsplit_proxy.runtime.tasks import Steps


def fields_of(body: bytes) -> Steps[Fields]:
    """The fields of the JSON object that ``body`` begins with; none if it begins with no other.

    BodyError for what is not read here, though Ollama might.
    """
    try:
        return Fields(body, {}, (yield from scanned(body)))
    except BeyondError as error:
        raise bad_json(f"the body cannot be read here: {error}") from None
    except GoJsonError:
        return no_fields()


def no_fields() -> Fields:
    return Fields(b"", {})


def text(fields: Fields, key: str) -> str:
    """The text under ``key``; empty if there is none. A null does not take a text back."""
    given = [value for value in fields.all(key) if value is not None]
    return mended(given[-1]) if given and isinstance(given[-1], str) else ""


def model(fields: Fields) -> str:
    """The model a body is about."""
    return text(fields, "model") or text(fields, "name")


def with_model(fields: Fields, name: str) -> bytes:
    """The same body about another model."""
    old = {"name": name} if fields.all("name") else {}
    return fields.rewritten({"model": name} | old)
