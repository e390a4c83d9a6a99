"""An answer that is held until it is whole."""

from __future__ import annotations

from typing import Any, Final

from modelsplit_proxy.protocol.stream_end import json_object

# Larger JSON answers are embeddings; their counts are not worth the loop's time.
_LARGE_BYTES: Final = 256 * 1024


class HeldAnswer:
    """A held answer: its bytes, and what they decode to, at most once and only if asked.

    ``is_large``: too large to be worth decoding for what its ends say as well.
    """

    __slots__ = ("_fields", "body", "is_large")

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.is_large = len(body) > _LARGE_BYTES
        self._fields: dict[str, Any] | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """The JSON object it is; empty if it is none."""
        if self._fields is None:
            self._fields = json_object(self.body)
        return self._fields
