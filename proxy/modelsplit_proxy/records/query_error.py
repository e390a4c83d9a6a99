"""What those need of queries who never make one."""

from __future__ import annotations

from typing import Final

RUNNING: Final = "running"
"""The outcome of a call that has none yet."""


class QueryError(Exception):
    """What was asked for cannot be read. The text says what was said and what would do."""
