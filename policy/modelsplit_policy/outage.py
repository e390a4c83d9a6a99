"""Whether the provider is away, and whether calls wait for it.

A restart takes a second or three, and a call that waits it out is served; after ``wait_s`` the
provider is not restarting but away, and a call is told so at once. Only connections count:
somebody listens, or nobody does. One that nobody has seen yet is not waited for.

Moments are seconds of one monotonic clock of the caller's.
"""

from __future__ import annotations

from typing import Final

WAIT_S: Final = 10.0


class Outage:
    """What connections have shown. ``since``: when the provider was first not there; or None."""

    __slots__ = ("_seen", "_wait_s", "since")

    def __init__(self, wait_s: float = WAIT_S) -> None:
        self._wait_s = wait_s
        self._seen = False
        self.since: float | None = None

    def __repr__(self) -> str:
        state = "unseen" if not self._seen else "there"
        return f"<Outage {state if self.since is None else f'away since {self.since:g}'}>"

    def lost(self, now: float) -> bool:
        """Nobody listens; whether that is news."""
        if self.since is not None:
            return False
        self.since = now
        return True

    def back(self) -> bool:
        """Somebody listens; whether it had been away."""
        returned = self.since is not None and self._seen
        self._seen = True
        self.since = None
        return returned

    def waits(self, now: float) -> bool:
        """Whether calls wait for it to be back."""
        return self.left_s(now) > 0

    def left_s(self, now: float) -> float:
        """How much longer they do; 0 where they do not."""
        if self.since is None or not self._seen:
            return 0.0
        return max(0.0, self.since + self._wait_s - now)
