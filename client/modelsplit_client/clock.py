"""The only reader of time in the client."""

from __future__ import annotations

import time


def now() -> float:
    """Seconds on a clock that is never set."""
    return time.monotonic()
