"""How much of requests may be held in memory while they are still arriving.

One budget for all connections of the process. What a connection holds is charged to it
before more is read, so that no number of strangers can make the process grow.
"""

from __future__ import annotations


class ReadBudget:
    """``limit`` and ``used`` are bytes."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0


class HeldBytes:
    """What one holder has of a budget; 0 at first. ``size`` is bytes."""

    __slots__ = ("_budget", "size")

    def __init__(self, budget: ReadBudget) -> None:
        self._budget = budget
        self.size = 0

    def set(self, size: int) -> bool:
        """HeldBytes ``size`` bytes from now on. False, and nothing changes, if there is no room.

        Less than before always fits.
        """
        more = size - self.size
        if more > 0 and self._budget.used + more > self._budget.limit:
            return False
        self._budget.used += more
        self.size = size
        return True
