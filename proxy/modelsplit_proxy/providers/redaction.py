"""What is taken out of a request before it leaves: by patterns that the policy names.

Every text is looked through but what holds a request together: roles, types, names of models and
tools, ids, pictures. What a tool was called with, and what it gave, is data under any key; the
keys themselves stay.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import orjson

from modelsplit_proxy.protocol import tellable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from modelsplit_policy.config.model import RedactionPolicy

_STRUCTURE: Final = frozenset(
    {
        *("model", "role", "type", "id", "name", "media_type", "signature", "keep_alive"),
        *("tool_use_id", "tool_call_id", "tool_name", "images"),
    }
)
# Under these, keys are a caller's own.
_DATA: Final = frozenset({"input", "arguments"})
# ``data`` of these is no text: a picture, or thoughts that only the provider can read.
_ENCODED: Final = frozenset({"base64", "redacted_thinking"})


class Redactor:
    """The patterns of one policy."""

    def __init__(self, rules: Iterable[RedactionPolicy]) -> None:
        # A replacement is a text, not a template.
        self._rules = [
            (row.name, re.compile(row.pattern), row.replacement.replace("\\", r"\\"))
            for row in rules
        ]

    def redacted(self, body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, int]]:
        """The request without what the patterns find, and how often each found something."""
        if not self._rules:
            return body, {}
        found: Counter[str] = Counter()
        return self._object(body, found), dict(found)

    def redacted_bytes(self, raw: bytes) -> tuple[bytes, dict[str, int]] | None:
        """The same of a body as it is sent; None: it is no JSON object, or nested hundreds deep.

        Written anew even where nothing was found: of a key that comes twice only the last was
        looked through.
        """
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError:
            return None
        if not isinstance(body, dict):
            return None
        try:
            cleared, found = self.redacted(body)
            return tellable.dumps(cleared), found
        except RecursionError:
            return None

    def _object(self, value: dict[str, Any], found: Counter[str]) -> dict[str, Any]:
        kept = _STRUCTURE
        if value.get("type") in _ENCODED:
            kept = kept | {"data"}
        if value.get("role", "tool") != "tool":  # who speaks, by name
            kept = kept - {"name"}
        return {
            key: inner if key in kept and not _holds_more(inner) else self._clear(inner, key, found)
            for key, inner in value.items()
        }

    def _clear(self, value: Any, key: str, found: Counter[str]) -> Any:
        match value:
            case str():
                return self._text(value, found)
            case dict() if key in _DATA:
                return self._data(value, found)
            case dict():
                return self._object(value, found)
            case list():
                return [self._clear(item, "", found) for item in value]
            case _:
                return value

    def _data(self, value: Any, found: Counter[str]) -> Any:
        match value:
            case str():
                return self._text(value, found)
            case dict():
                return {key: self._data(inner, found) for key, inner in value.items()}
            case list():
                return [self._data(item, found) for item in value]
            case _:
                return value

    def _text(self, text: str, found: Counter[str]) -> str:
        for name, pattern, replacement in self._rules:
            text, times = pattern.subn(replacement, text)
            if times:
                found[name] += times
        return text


def _holds_more(value: Any) -> bool:
    """Whether it is more than a word or a list of pictures."""
    match value:
        case dict():
            return True
        case list():
            return any(isinstance(item, dict | list) for item in value)
        case _:
            return False
