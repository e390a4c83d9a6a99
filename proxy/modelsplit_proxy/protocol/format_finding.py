"""What a look at an answer's form found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FormatFinding:
    """``problem``: what does not fit. ``unchecked``: why this answer was not looked at.

    Each one short sentence for records and logs; both None for an answer that fits.
    """

    problem: str | None = None
    unchecked: str | None = None
