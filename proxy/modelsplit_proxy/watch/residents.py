"""What Ollama says of the models it has loaded, for people; nothing is decided by it."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import orjson

from modelsplit_proxy.records.record import NAME_MAX

_MOST: Final = 64
_MOMENT_MAX: Final = 40


class Resident(NamedTuple):
    """A loaded model. Bytes; ``expires_at`` as the host writes it. None: it does not say.

    ``host``: where, of several hosts; None: there is one.
    """

    name: str
    size: int | None
    size_vram: int | None
    context_length: int | None
    expires_at: str | None
    host: str | None = None


def residents(answer: bytes) -> list[Resident]:
    """The models in an answer of ``/api/ps``; none where it is something else."""
    try:
        return [_resident(row) for row in orjson.loads(answer)["models"][:_MOST]]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return []


def _resident(row: dict[str, Any]) -> Resident:
    expires_at = row.get("expires_at")
    return Resident(
        str(row["name"])[:NAME_MAX],
        _whole(row.get("size")),
        _whole(row.get("size_vram")),
        _whole(row.get("context_length")),
        expires_at[:_MOMENT_MAX] if isinstance(expires_at, str) else None,
        host[:NAME_MAX] if isinstance(host := row.get("host"), str) else None,
    )


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and 0 <= value < 2**63 else None
