"""Made-up answers: babble, or JSON that fits a simple schema, cut into tokens."""

from __future__ import annotations

import itertools
import re
import zlib
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROSE = (
    "the model reads a prompt and answers with words that mean little but arrive on time "
    "one two three four small tokens follow each other while nobody asks them why"
)
_WORDS = tuple(_PROSE.split())
_TOKEN = re.compile(r"\n|[ ]*[^\W\d_]+|[0-9]|[ ]+|[^\w\s]+|.", re.DOTALL)
_TYPES = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})


class SchemaError(ValueError):
    """A schema no answer can be made for."""


def split(text: str) -> list[str]:
    """Cut a text into tokens whose concatenation is the text."""
    return _TOKEN.findall(text)


def count_tokens(text: str) -> int:
    """A rough token count of a prompt: about four characters each, template included."""
    return 9 + (len(text) + 3) // 4


def babble(seed: str) -> Iterator[str]:
    """Endless words, the same for the same seed; never the same word twice in a row."""
    start = zlib.crc32(seed.encode("utf-8", "surrogatepass")) % len(_WORDS)
    words = itertools.islice(itertools.cycle(_WORDS), start, None)
    yield next(words).capitalize()
    for word in words:
        yield f" {word}"


def json_text(form: Any) -> str:
    """The answer to `format`: "json", or a JSON schema. Raises SchemaError."""
    value = {"answer": "yes"} if form == "json" else fit(form, form, "value")
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    return text.replace("\n  ", "\n    ")


def fit(schema: Any, root: Any, name: str) -> Any:
    """The plainest value that a schema allows; `name` flavours its strings."""
    if schema is True or schema == {}:
        return f"some {name}"
    if not isinstance(schema, dict):
        raise SchemaError(schema)
    if "$ref" in schema:
        return fit(_resolve(schema["$ref"], root), root, name)
    for fixed in ("const", "default"):
        if fixed in schema:
            return schema[fixed]
    if schema.get("enum"):
        return schema["enum"][0]
    for choice in ("anyOf", "oneOf", "allOf"):
        if schema.get(choice):
            return fit(schema[choice][0], root, name)
    return _fit_type(schema, root, name)


def _resolve(ref: str, root: Any) -> Any:
    node = root
    for part in ref.removeprefix("#/").split("/"):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def _fit_type(schema: dict[str, Any], root: Any, name: str) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0] if kind else None
    if kind not in _TYPES:
        raise SchemaError(schema)
    if kind == "object":
        properties = schema.get("properties", {})
        return {key: fit(part, root, key) for key, part in properties.items()}
    if kind == "array":
        count = max(1, schema.get("minItems", 1))
        return [fit(schema.get("items", True), root, name) for _ in range(count)]
    return _fit_plain(kind, schema, name)


def _fit_plain(kind: str, schema: dict[str, Any], name: str) -> Any:
    if kind == "string":
        text = f"some {name}".ljust(schema.get("minLength", 0), ".")
        return text[: schema.get("maxLength", len(text))]
    if kind in ("integer", "number"):
        low = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
        value = min(max(low, 1), schema.get("maximum", max(low, 1)))
        return int(value) if kind == "integer" else float(value)
    return True if kind == "boolean" else None


def compact(value: Any) -> str:
    """JSON on one line without spaces."""
    return orjson.dumps(value).decode()


def quoted(value: str) -> str:
    """A string as JSON writes it."""
    return compact(value)
