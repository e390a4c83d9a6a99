"""Wall-clock time as Ollama prints it. Durations come from the loop's clock instead."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email.utils import formatdate

NS = 1_000_000_000
# observed: keep_alive -1 shows expires_at in the year 2319, Go's longest duration from now.
FOREVER_S = (2**63 - 1) / NS


def wall_ns() -> int:
    """Nanoseconds since the epoch."""
    return time.time_ns()


def rfc3339(ns: int) -> str:
    """Go's RFC3339Nano in UTC: nine decimals at most, trailing zeros dropped."""
    seconds, rest = divmod(ns, NS)
    base = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{base}{fraction}Z"


def http_date() -> str:
    return formatdate(wall_ns() / NS, usegmt=True)
