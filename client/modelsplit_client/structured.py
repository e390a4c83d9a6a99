"""Structured output: a text held to the schema that its call asked for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_client.calls import SchemaModel


class UnfitError(ValueError):
    """The text does not fit; the message says why, in one sentence."""


def parse(schema: type[SchemaModel] | Mapping[str, Any] | None, text: str) -> Any:
    """An instance of a class; the JSON value for a JSON schema; None without a schema.

    A JSON schema is not checked here: modelsplit did, where the role validates. Raises UnfitError.
    """
    if schema is None:
        return None
    try:
        return schema.model_validate_json(text) if isinstance(schema, type) else json.loads(text)
    except (ValueError, RecursionError) as error:
        name = schema.__name__ if isinstance(schema, type) else "JSON"
        raise UnfitError(f"the answer is no {name}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
