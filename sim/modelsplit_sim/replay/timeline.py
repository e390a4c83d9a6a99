"""What is due when, in virtual time. Of two events at the same moment the earlier made is first."""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Timeline:
    """``now``: the moment the run has come to, in seconds since it began."""

    __slots__ = ("_events", "_order", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._order = itertools.count()

    def at(self, when: float, event: Callable[[Any], None], subject: Any = None) -> None:
        """Have ``event`` called with ``subject`` at that moment; never, where that is inf."""
        if when != float("inf"):
            heapq.heappush(self._events, (when, next(self._order), event, subject))

    @property
    def next_at(self) -> float:
        """When the next event is due; inf: none is."""
        return self._events[0][0] if self._events else float("inf")

    def happen(self) -> None:
        """Let the next event happen."""
        _, _, event, subject = heapq.heappop(self._events)
        event(subject)
