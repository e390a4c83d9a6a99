"""Where demands come from, and what of them was recorded, drawn or assumed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .demand import Retries
    from .run import Traffic
    from .workload import Workload


@dataclass(frozen=True, slots=True)
class Coverage:
    """Where the parts of the demands come from: by part, how many calls by source.

    ``calls``: replayed; ``left_out``: recorded and not replayed, by why. ``seconds``: from the
    first arrival to the last.
    """

    calls: int
    seconds: float
    parts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)

    def fields(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "calls": self.calls,
            "seconds": self.seconds,
            "parts": {part: dict(sources) for part, sources in self.parts.items()},
            "left_out": dict(self.left_out),
        }


class Source(Protocol):
    """What is replayed, drawn for one seed after another; ``load``: so many times as often."""

    def drawn(self, seed: int, load: float = 1.0) -> tuple[Traffic, Coverage]: ...


class DrawnWorkload:
    """A workload as a source. ``load``: how many times as often its calls come."""

    def __init__(
        self, workload: Workload, load: float = 1.0, retries: Retries | None = None
    ) -> None:
        self._workload = workload
        self._load = load
        self._retries = workload.retries if retries is None else retries

    def __repr__(self) -> str:
        return f"<DrawnWorkload {self._workload.name}>"

    def drawn(self, seed: int, load: float = 1.0) -> tuple[Traffic, Coverage]:
        workload = self._workload
        if load < 1:
            # As many calls as ever: one of a few that fails is no one in a hundred.
            workload = workload.stretched(1 / load)
        traffic = workload.drawn(seed, self._load * load)
        traffic = replace(traffic, retries=self._retries)
        calls = len(traffic.demands)
        coverage = Coverage(calls, workload.seconds, {"everything": {"drawn": calls}})
        return traffic, coverage
