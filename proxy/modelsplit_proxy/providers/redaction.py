"""What is taken out of a request before it leaves: by patterns that the policy names."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from modelsplit_policy.config.model import RedactionPolicy

# Values under these keys are no text of a person's: what holds a request together, and pictures.
_STRUCTURE: Final = frozenset(
    {"model", "role", "type", "id", "tool_use_id", "name", "media_type", "data", "signature"}
)


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
        cleared = {key: self._clear(value, key, found) for key, value in body.items()}
        return cleared, dict(found)

    def _clear(self, value: Any, key: str, found: Counter[str]) -> Any:
        match value:
            case str():
                return value if key in _STRUCTURE else self._text(value, found)
            case dict():
                return {inner: self._clear(v, inner, found) for inner, v in value.items()}
            case list():
                return [self._clear(item, key, found) for item in value]
            case _:
                return value

    def _text(self, text: str, found: Counter[str]) -> str:
        for name, pattern, replacement in self._rules:
            text, times = pattern.subn(replacement, text)
            if times:
                found[name] += times
        return text
