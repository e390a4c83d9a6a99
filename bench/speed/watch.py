"""What is asked of modelsplit while it is measured: its loop's lag, and its page's figures."""

from __future__ import annotations

import contextlib
import http.client
import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from speed.host import fetch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from speed.cells import Target

_BUCKET = re.compile(
    r'^modelsplit_event_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)$', re.MULTILINE
)
_EVERY_S = 1.0
_TWO_TICKS_S = 0.2


@dataclass(frozen=True, slots=True)
class Lag:
    """Ticks of the event loop by how late they were: bound in seconds -> ticks up to there."""

    counts: dict[str, float]

    @staticmethod
    def read(admin_port: int) -> Lag:
        found = _BUCKET.findall(fetch(admin_port, "/metrics"))
        return Lag({bound: float(count) for bound, count in found})

    def since(self, before: Lag) -> Lag:
        """The ticks that are in this and not in the other, which is earlier or a part of it."""
        return Lag(
            {bound: max(0, n - before.counts.get(bound, 0)) for bound, n in self.counts.items()}
        )

    @staticmethod
    def before(admin_port: int) -> tuple[Lag, Lag]:
        """What was counted so far, and the ticks that reading it makes late.

        Writing out all metrics holds up the loop it tells of: that is known afterwards only.
        """
        first = Lag.read(admin_port)
        time.sleep(_TWO_TICKS_S)
        second = Lag.read(admin_port)
        return second, second.since(first)

    def bound_ms(self, share: float) -> float:
        """The bucket's bound within which ``share`` of the ticks came; nan for no ticks."""
        ticks = self.counts.get("+Inf", 0.0)
        within = [
            float(bound) for bound, count in self.counts.items() if ticks and count >= share * ticks
        ]
        return min(within, default=float("nan")) * 1000


@contextlib.contextmanager
def watching(targets: list[Target]) -> Iterator[None]:
    """Ask for the statistics once a second, as an open page does."""
    over = threading.Event()
    ports = [target.admin_port for target in targets if target.admin_port is not None]

    def watch() -> None:
        while not over.wait(_EVERY_S):
            for port in ports:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    fetch(port, "/stats")

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
