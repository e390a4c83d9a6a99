"""Figures out of rows: medians over rounds, ratios formed within a round, and noise marks."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from speed.cells import NOISY_CORES

if TYPE_CHECKING:
    from collections.abc import Callable

# Half the span between the lowest and the highest round, of the median.
WIDE = 0.15
UNSURE = "~"
DISTURBED = "!"
NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Figure:
    """One value a round. ``disturbed``: rounds in which others were at work on the two cores."""

    rounds: tuple[float, ...]
    disturbed: int = 0

    @property
    def value(self) -> float:
        return median(self.rounds)

    @property
    def half_spread(self) -> float:
        """0.1: the rounds lie within ten percent of the middle, about."""
        if len(self.rounds) < 2 or not self.value:
            return 0.0
        return (max(self.rounds) - min(self.rounds)) / 2 / abs(self.value)

    @property
    def marks(self) -> str:
        disturbed = DISTURBED if self.disturbed * 2 > len(self.rounds) else ""
        return (UNSURE if self.half_spread > WIDE else "") + disturbed

    def times(self, factor: float) -> Figure:
        return Figure(tuple(value * factor for value in self.rounds), self.disturbed)

    def __str__(self) -> str:
        return number(self.value) + self.marks


def number(value: float) -> str:
    """Three digits that mean something."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def _divided(key: str) -> Callable[[dict[str, Any], dict[str, Any]], float]:
    return lambda one, two: one[key] / two[key] if two[key] else float("inf")


def show(figure: Figure | None) -> str:
    return NOTHING if figure is None else str(figure)


class Figures:
    """All rows of a run, asked by cell, target and key."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._told = {(row["cell"], row["target"], row["round"]): row["told"] for row in rows}
        self._rounds = sorted({row["round"] for row in rows})

    def told(self, cell: str, target: str) -> list[dict[str, Any]]:
        found = (self._told.get((cell, target, turn)) for turn in self._rounds)
        return [told for told in found if told is not None]

    def plain(self, cell: str, target: str, key: str) -> Figure | None:
        return self._each(cell, target, target, lambda told, _: float(told[key]), key)

    def ratio(self, cell: str, target: str, key: str, base: str) -> Figure | None:
        """``target`` ÷ ``base``, each round by itself."""
        return self._each(cell, target, base, _divided(key), key)

    def added(self, cell: str, target: str, key: str, base: str) -> Figure | None:
        """``target`` less ``base``, each round by itself."""
        return self._each(cell, target, base, lambda one, two: one[key] - two[key], key)

    def beside(self, cell: str, target: str, key: str, own: str) -> Figure | None:
        """The difference of two keys of the same row."""
        return self._each(cell, target, target, lambda told, _: told[key] - told[own], key, own)

    def _each(
        self,
        cell: str,
        target: str,
        base: str,
        form: Callable[[dict[str, Any], dict[str, Any]], float],
        *keys: str,
    ) -> Figure | None:
        values, disturbed = [], 0
        for turn in self._rounds:
            one = self._told.get((cell, target, turn))
            two = self._told.get((cell, base, turn))
            if one is None or two is None or any(k not in one or k not in two for k in keys):
                continue
            values.append(form(one, two))
            noise = max(told.get("foreign_cores", 0.0) for told in (one, two))
            disturbed += noise > NOISY_CORES
        return Figure(tuple(values), disturbed) if values else None
