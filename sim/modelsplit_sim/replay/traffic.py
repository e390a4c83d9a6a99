"""Where demands come from, and what of them was recorded, drawn or assumed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .demand import Retries
    from .run import Traffic
    from .workload import Workload

_HOUR_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Coverage:
    """Where the parts of the demands come from: by part, how many calls by source.

    ``calls``: replayed; ``left_out``: recorded and not replayed, by why. ``seconds``: from the
    first arrival to the last. ``unanswered``: calls left out of roles none of whose calls was
    answered, by role.
    """

    calls: int
    seconds: float
    parts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    unanswered: Mapping[str, int] = field(default_factory=dict)

    def fields(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "calls": self.calls,
            "seconds": self.seconds,
            "parts": {part: dict(sources) for part, sources in self.parts.items()},
            "left_out": dict(self.left_out),
            "unanswered": dict(self.unanswered),
        }


class Source(Protocol):
    """What is replayed, drawn for one seed after another; ``load``: so many times as often."""

    def drawn(self, seed: int, load: float = 1.0) -> tuple[Traffic, Coverage]: ...

    def halves(self, calls: int) -> tuple[Source, Source]:
        """Two that share no call, so that what is learned from one can be judged by the other.

        Each is drawn in pieces of about so many calls, one piece for a seed.
        """
        ...


class DrawnWorkload:
    """A workload as a source. ``load``: how many times as often its calls come.

    ``among``: which of the seeds are its own, as a step and a first one.
    """

    def __init__(
        self,
        workload: Workload,
        load: float = 1.0,
        retries: Retries | None = None,
        among: tuple[int, int] = (1, 0),
    ) -> None:
        self._workload = workload
        self._load = load
        self._retries = workload.retries if retries is None else retries
        self._among = among

    def __repr__(self) -> str:
        return f"<DrawnWorkload {self._workload.name}>"

    def drawn(self, seed: int, load: float = 1.0) -> tuple[Traffic, Coverage]:
        workload = self._workload
        if load < 1:
            # As many calls as ever: one of a few that fails is no one in a hundred.
            workload = workload.stretched(1 / load)
        step, first = self._among
        traffic = workload.drawn(step * seed + first, self._load * load)
        traffic = replace(traffic, retries=self._retries)
        calls = len(traffic.demands)
        coverage = Coverage(calls, workload.seconds, {"everything": {"drawn": calls}})
        return traffic, coverage

    def halves(self, calls: int) -> tuple[Source, Source]:
        """Those of even seeds and those of odd ones, each no longer than it needs to be."""
        traffic, _ = self.drawn(1)
        begin = sum(demand.at <= _HOUR_S for demand in traffic.demands)
        seconds = self._workload.seconds
        if seconds > _HOUR_S:
            seconds = min(seconds, _HOUR_S * max(1.0, calls / max(1, begin)))
        own = replace(self._workload, seconds=seconds)
        step, first = self._among
        even, odd = (
            DrawnWorkload(own, self._load, self._retries, (2 * step, first + part * step))
            for part in (0, 1)
        )
        return even, odd


class Pieces:
    """Several sources in turn, one for a seed."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources

    def __repr__(self) -> str:
        return f"<Pieces {len(self._sources)}>"

    def drawn(self, seed: int, load: float = 1.0) -> tuple[Traffic, Coverage]:
        return self._sources[seed % len(self._sources)].drawn(seed, load)

    def halves(self, calls: int) -> tuple[Source, Source]:
        del calls
        return Pieces(self._sources[::2]), Pieces(self._sources[1::2] or self._sources)


def in_turn(
    moments: Sequence[float], calls: int, piece: Callable[[float, float], Source]
) -> tuple[Source, Source]:
    """Recorded calls in pieces of time, every other one for each half.

    ``moments``: when each call came, in order. ``piece``: the calls that came from the first
    moment until before the second one.
    """
    count = 2 * max(1, round(len(moments) / (2 * calls)))
    edges = [moments[round(part * len(moments) / count)] for part in range(count)]
    ends = [*edges[1:], math.inf]
    both = [piece(begins, end) for begins, end in zip(edges, ends, strict=True) if begins < end]
    return Pieces(both[::2]), Pieces(both[1::2])
