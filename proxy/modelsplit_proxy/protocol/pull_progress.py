"""What several hosts say of one pull, as one of them would say it.

A line of progress is of a layer: what all hosts have of it, of what it is on all of them. Any other
word is told once, whoever says it first. The end is told when all have ended: success, or what
failed and where.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

_ERROR_MAX: Final = 300


class PullProgress:
    """Made for one pull. Lines are JSON objects, each with its line end."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        # By layer, then by host: how much there is, and how much of it has come.
        self._layers: dict[str, dict[str, tuple[int, int]]] = {}
        self._errors: dict[str, str] = {}
        self._done: list[str] = []

    def line(self, host: str, raw: bytes) -> bytes:
        """What to tell the client of a line from ``host``; empty: nothing."""
        fields = _object(raw)
        status, digest = fields.get("status"), fields.get("digest")
        if "error" in fields:
            self.failed(host, str(fields["error"]))
        if status == "success":
            self._done.append(host)
            return b""
        if isinstance(digest, str) and isinstance(fields.get("total"), int):
            return self._layer(host, digest, fields)
        if not isinstance(status, str) or status in self._told:
            return b""
        self._told.add(status)
        return raw.strip() + b"\n"

    def _layer(self, host: str, digest: str, fields: dict[str, Any]) -> bytes:
        completed = fields.get("completed")
        hosts = self._layers.setdefault(digest, {})
        hosts[host] = (fields["total"], completed if isinstance(completed, int) else 0)
        totals, come = zip(*hosts.values(), strict=True)
        return orjson.dumps(fields | {"total": sum(totals), "completed": sum(come)}) + b"\n"

    def failed(self, host: str, error: str) -> None:
        """The pull has failed there."""
        self._errors[host] = error[:_ERROR_MAX]

    def ended(self, host: str) -> None:
        """Nothing more comes from ``host``, whether or not it has said how it ended."""
        if host not in self._errors and host not in self._done:
            self._errors[host] = "it broke off"

    @property
    def is_done(self) -> bool:
        """Whether it went well anywhere."""
        return bool(self._done)

    @property
    def error(self) -> str:
        """What failed, and where; empty: nothing did."""
        told = "; ".join(f"{host}: {error}" for host, error in self._errors.items())
        return told and f"{told}{f'; done on {chr(44).join(self._done)}' if self._done else ''}"

    def last(self) -> bytes:
        """The last line, when all have ended."""
        error = self.error
        return orjson.dumps({"error": error} if error else {"status": "success"}) + b"\n"


def _object(raw: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {}
    return fields if isinstance(fields, dict) else {}
