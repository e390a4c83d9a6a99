"""The key of one provider."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ProviderKey:
    """``text`` empty: there is none. ``source``: where it is read from, in words."""

    text: str = field(repr=False)
    source: str
