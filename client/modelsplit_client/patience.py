"""Whether a call that was turned away is made again; the only retry there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelsplit_client.errors import CallError


class Patience:
    """Of one call. ``wait_if_busy``: seconds after the first refusal in which a try may begin."""

    def __init__(self, wait_if_busy: float) -> None:
        self._wait_if_busy = wait_if_busy
        self._first: float | None = None

    def pause(self, error: CallError, now: float) -> float | None:
        """Seconds to wait before the next try. None: none; ``error`` is the end.

        Only what comes with a ``Retry-After``, and is not said to fail again, is tried again.
        """
        if error.retry_after is None or error.should_retry is False:
            return None
        if self._first is None:
            self._first = now
        waited = now - self._first
        return error.retry_after if waited + error.retry_after <= self._wait_if_busy else None
