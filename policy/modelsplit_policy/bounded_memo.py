"""What was worked out for a name, kept for the next call of that name.

Names of models come from clients, who may make up as many as they like, each as long as a
body. So only so many are kept, and none that is longer than names are.
"""

from __future__ import annotations

from typing import Final, TypeVar

MOST: Final = 256
NAME_MAX: Final = 256

K = TypeVar("K")
V = TypeVar("V")


class BoundedMemo(dict[K, V]):
    """A dict that is filled with ``keep`` alone and begins anew when it is full."""

    def keep(self, name: str, key: K, value: V) -> V:
        """``value``, kept under ``key`` unless ``name`` is too long."""
        if len(name) <= NAME_MAX:
            if len(self) >= MOST:
                self.clear()
            self[key] = value
        return value
