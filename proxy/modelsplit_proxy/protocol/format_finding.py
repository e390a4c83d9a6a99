"""What a look at an answer's form found, or why nothing is held against a schema."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FormatFinding:
    """``problem``: what does not fit. ``unchecked``: why this answer was not looked at.

    Each one short sentence for records and logs; both None for an answer that fits.
    """

    problem: str | None = None
    unchecked: str | None = None


class RefusedError(Exception):
    """The schema's cost cannot be bounded; the text says why, in words for a record."""
